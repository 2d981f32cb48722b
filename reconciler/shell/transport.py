"""Transport: one HTTP exchange with one API server, as values.

The Kubernetes adapter (`kube_cluster.py`) speaks HTTP through this small protocol, so that the shipped requests,
retries and watches run unchanged over aiohttp in production (`kube_http.py`) and over a direct call into the
simulator's engine (`sim/apiserver.py`). Contract tests are requests, too, and run on the real server, HTTP and the
direct call alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `path` without query ("/api/v1/namespaces"), query pairs in order, `timeout_s` for the whole
    exchange (for a stream: until its status line and headers)."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body arrives in lines (a watch). `lines` yields each line without its newline and ends when the
    server ends it; a status other than 200 carries its whole text in `body` and no lines."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    lines: AsyncIterator[bytes]


class TransportError(Exception):
    """No answer. `sent` says whether the request may have reached the server: if so, its outcome is ambiguous and must
    be read again before anything is repeated. `message` is for people; `asked` names the request ("GET /version"), for
    whoever reads the traceback; `code` is a reason code where there is one more telling than that nobody answered."""

    def __init__(self, message: str, *, sent: bool, asked: str = "", code: str = "") -> None:
        super().__init__(f"{asked}: {message}" if asked else message)
        self.message = message
        self.sent = sent
        self.code = code


class Transport(Protocol):
    """A connection to one API server. Raises TransportError, never a library's own exception."""

    async def request(self, request: Request) -> Response:
        """Send and wait for the whole answer."""
        ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """Send and read the answer line by line; leaving the context closes the connection."""
        ...

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        ...
