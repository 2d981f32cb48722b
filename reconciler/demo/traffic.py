"""What is on its way between the daemon and the simulated clusters.

The demo's clock may go on only when nothing moves. A request is on its way until it is answered. A line of a watch is
on its way from when the cluster writes it to its socket until the daemon has dealt with it, that is, asks for the next
one; both ends of a watch count under one id, and as long as the counts differ something is on its way.

    traffic = Traffic(face.watch_lines)
    KubeCluster(name, TrackedTransport(transport, traffic))
    traffic.still
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace

from reconciler.shell.transport import Request, Response, Stream, Transport
from reconciler.sim.http import WATCH_ID


class Traffic:
    """Requests on their way, and lines taken in by watch. `written` is the clusters' side: lines written by watch."""

    def __init__(self, written: Mapping[str, int]) -> None:
        self._written = written
        self._read: dict[str, int] = {}
        self._requests = 0
        self._opened = 0

    @property
    def still(self) -> bool:
        """True if every request is answered and every line of every open watch was dealt with."""
        return not self._requests and self._read == self._written

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count a request while it is on its way."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[str]:
        """An id for a watch, counted from now to its end."""
        self._opened += 1
        name = str(self._opened)
        try:
            yield name
        finally:
            self._read.pop(name, None)

    def opened(self, name: str) -> None:
        """The cluster has answered: from now on both ends count."""
        self._read[name] = 0

    def taken_in(self, name: str) -> None:
        """The daemon has dealt with one more line."""
        self._read[name] += 1


class TrackedTransport:
    """A Transport whose traffic is counted."""

    def __init__(self, inner: Transport, traffic: Traffic) -> None:
        self._inner = inner
        self._traffic = traffic

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        async with self._traffic.request():
            return await self._inner.request(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Stream]:
        async with self._traffic.watch() as name:
            marked = replace(request, headers=(*request.headers, (WATCH_ID, name)))
            async with self._inner.stream(marked) as stream:
                if stream.status == 200:
                    self._traffic.opened(name)
                async with aclosing(self._lines(stream, name)) as lines:
                    yield replace(stream, lines=lines)

    async def _lines(self, stream: Stream, name: str) -> AsyncGenerator[bytes, None]:
        async for line in stream.lines:
            yield line
            self._traffic.taken_in(name)

    async def close(self) -> None:
        """As Transport.close."""
        await self._inner.close()
