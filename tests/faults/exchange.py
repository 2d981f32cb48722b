"""One request on its way through the proxy, and what can be done with it.

An exchange reads nothing ahead and decides nothing: a fault says what becomes of it. `forward` sends the request on and
returns the whole answer, `write` gives bytes to the client as they stand (right or wrong ones), `reset` breaks the
connection the hard way. So a fault that loses the answer of a write is two lines: forward, then reset.

    await exchange.forward()     # the API server has carried it out
    exchange.reset()             # and the client will never know
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
from yarl import URL

HEADERS_MAX_BYTES = 64 * 1024
BODY_MAX_BYTES = 64 * 1024 * 1024
#: Of this hop only, or decided anew by `Answer.head`.
NOT_PASSED_ON = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


class ClientGoneError(Exception):
    """The client closed the connection, or sent what is no request."""


class UpstreamGoneError(Exception):
    """The API server cannot be reached, or broke the connection."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came. `number` counts from 1, `path` is without query and unquoted."""

    number: int
    method: str
    path: str
    target: str
    query: Mapping[str, str]
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    @property
    def watches(self) -> bool:
        """True for a watch."""
        return self.method == "GET" and self.query.get("watch") in ("1", "true")

    @property
    def writes(self) -> bool:
        """True if it may change something: a dry-run may not."""
        return self.method != "GET" and "dryRun" not in self.query

    @property
    def lists(self) -> bool:
        """True for a list (of objects or of their metadata): what the adapter asks for in pages."""
        return self.method == "GET" and "limit" in self.query


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, the API server's or one that a fault made up."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def head(self, *, length: int | None = None, chunked: bool = False) -> bytes:
        """Status line and headers; `length` replaces the body's own in what the client is told."""
        phrase = HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in NOT_PASSED_ON]
        size = len(self.body) if length is None else length
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(slots=True)
class Entry:
    """One line of the log: a request (or an event of a watch), its fault ("" for none), whether the request was sent
    on, and the status with which the API server answered (0: it did not)."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    fault: str = ""
    sent: bool = False
    status: int = 0

    @property
    def writes(self) -> bool:
        """True if the API server got it and may have changed something."""
        return self.sent and self.method in ("PATCH", "POST", "PUT", "DELETE") and "dryRun" not in self.query


@dataclass(slots=True)
class Exchange:
    """A request, its line in the log, its client and its API server. `broken` says that the connection is done for."""

    asked: Asked
    entry: Entry
    upstream: aiohttp.ClientSession
    url: str
    writer: asyncio.StreamWriter
    broken: bool = False

    async def forward(self) -> Answer:
        """Send the request on and take the whole answer in."""
        async with self.opened() as answer:
            try:
                body = await answer.read()
            except (aiohttp.ClientError, OSError) as error:
                raise UpstreamGoneError(str(error)) from error
            return Answer(answer.status, tuple(answer.headers.items()), body)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request on; the answer's head has come, its body has not."""
        headers = [(name, value) for name, value in self.asked.headers if name.lower() not in NOT_PASSED_ON]
        url = URL(self.url + self.asked.target, encoded=True)
        self.entry.sent = True
        try:
            answer = await self.upstream.request(
                self.asked.method, url, headers=headers, data=self.asked.body or None, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamGoneError(str(error)) from error
        try:
            self.entry.status = answer.status
            yield answer
        finally:
            # Aborted, for a watch that the client left is written into and does not say goodbye.
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()
            answer.close()

    async def write(self, *parts: bytes) -> None:
        """Give bytes to the client."""
        for part in parts:
            self.writer.write(part)
        await self.writer.drain()

    async def answer(self, answer: Answer) -> None:
        """Give the client a whole answer, and let the connection live."""
        await self.write(answer.head(), answer.body)

    def reset(self) -> None:
        """Break the connection: the client gets a reset, not an end."""
        self.broken = True
        reset(self.writer)

    async def end(self) -> None:
        """Close the connection properly: the client sees the end of what was sent."""
        self.broken = True
        self.writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection at once and hard (RST)."""
    link = writer.get_extra_info("socket")
    if link is not None and link.fileno() != -1:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader, number: Callable[[], int]) -> Asked:
    """The next request of a connection; `number` is asked once it is here. Raises ClientGoneError at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in rest))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        if length > BODY_MAX_BYTES:
            raise ClientGoneError(f"a body of {length} bytes")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError) as error:
        raise ClientGoneError(str(error)) from error
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Asked(number(), method, unquote(parts.path), target, query, headers, body)
