"""Faulty ports: wrappers that let calls go wrong the way networks, servers and processes do.

Each wraps a real port, asks a `FaultPlan` (plan.py) for the fate of every call, and belongs to one `Generation`: when
that has died, every call raises. A `Link` says whether a cluster can be reached at all, and is shared by every
transport (and HTTP face) of that cluster.

    link = Link()
    transport = FaultTransport(cluster.transport(), "eu-1", plan, generation, link)
    link.set(LinkState.REFUSED)    # connections are refused and open watches cut, from now on
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from reconciler.core.model import Now
from reconciler.shell.ports import Clock, Commit, Notifier, Source, SourceError, Store, Timer, TreeEntry, Tx
from reconciler.shell.transport import Request, Response, Stream, Transport, TransportError
from reconciler.sim.link import Dropped, Link, LinkState, exchange, gone_event
from reconciler.sim.plan import CRASHES, Fault, FaultKind, FaultPlan, Generation, NoFaults

T = TypeVar("T")

#: Answers remembered for stale reads, per transport.
STALE_MAX = 256


class FaultTransport:
    """A Transport over `inner` on which `plan` and `link` act. Points are "<prefix> METHOD path"; a watch's lines are
    points of their own, "<prefix> WATCH path"."""

    def __init__(
        self,
        inner: Transport,
        point_prefix: str,
        plan: FaultPlan | None = None,
        generation: Generation | None = None,
        link: Link | None = None,
    ) -> None:
        self._inner = inner
        self._prefix = point_prefix
        self._plan = plan or NoFaults()
        self._generation = generation or Generation()
        self._link = link or Link()
        self._before: dict[tuple[object, ...], Response] = {}

    async def request(self, request: Request) -> Response:
        """As Transport.request; faults become what a real one raises."""
        point = f"{self._prefix} {request.method} {request.path}"
        try:
            return await exchange(point, self._plan, self._link, self._generation, lambda: self._effect(request))
        except Dropped as drop:
            if drop.silent:
                await self._wait(request.timeout_s)
                raise TransportError(f"no answer within {request.timeout_s:g} s", sent=drop.sent) from drop
            raise TransportError(str(drop), sent=drop.sent) from drop

    async def _effect(self, request: Request) -> Response:
        """The request itself. A list at resourceVersion 0 may be answered from any cache, so it may be old."""
        if request.method != "GET" or ("resourceVersion", "0") not in request.query:
            return await self._inner.request(request)
        key = (request.path, request.query, request.headers)
        stale = self._before.get(key)
        fault = await self._plan.io(f"{self._prefix} CACHE {request.path}")
        self._generation.check()
        if stale is not None and fault.kind is FaultKind.STALE:
            return stale
        response = await self._inner.request(request)
        if len(self._before) < STALE_MAX or key in self._before:
            self._before[key] = response
        return response

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._generation.check()

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Stream]:
        """As Transport.stream."""
        point = f"{self._prefix} STREAM {request.path}"
        refused = await self._open(point, request)
        if refused is not None:
            yield Stream(refused.status, refused.headers, refused.body, _no_lines())
            return
        async with self._inner.stream(request) as stream:
            self._generation.check()
            lines = self._lines(stream.lines, f"{self._prefix} WATCH {request.path}")
            async with contextlib.aclosing(lines):
                yield Stream(stream.status, stream.headers, stream.body, lines)

    async def _open(self, point: str, request: Request) -> Response | None:
        """The faults of opening a stream: an answer that is none of the server's, or None to go on."""
        answer: Response | None = None

        async def nothing() -> Response:
            return Response(200)

        try:
            response = await exchange(point, self._plan, self._link, self._generation, nothing)
            answer = response if response.status != 200 else None
        except Dropped as drop:
            if drop.silent:
                await self._wait(request.timeout_s)
                raise TransportError(f"no answer within {request.timeout_s:g} s", sent=drop.sent) from drop
            raise TransportError(str(drop), sent=drop.sent) from drop
        return answer

    async def _lines(self, lines: AsyncIterator[bytes], point: str) -> AsyncGenerator[bytes, None]:
        while (line := await self._next(lines)) is not None:
            fault = await self._plan.io(point)
            self._generation.check()
            if fault.kind in CRASHES:
                self._generation.crash(fault, point)
            if fault.kind is FaultKind.WATCH_GONE:
                yield gone_event()
                return
            if fault.kind is FaultKind.WATCH_CUT:
                if fault.applied:
                    return  # the server ended it in good order
                raise TransportError("the watch was cut: connection reset by peer", sent=True)
            if fault.kind is FaultKind.WATCH_DELAYED:
                await self._wait(fault.wait_s)
            if not self._link.up:
                await self._lose()
            yield line
            if fault.kind is FaultKind.WATCH_DOUBLED:
                yield line

    async def _next(self, lines: AsyncIterator[bytes]) -> bytes | None:
        """The next line, or None at the end; a link that goes down meanwhile cuts the stream."""
        loop = asyncio.get_running_loop()
        coming = loop.create_task(_line(lines), name=f"{self._prefix} next line")
        down = loop.create_task(self._link.changed(), name=f"{self._prefix} link")
        try:
            await asyncio.wait([coming, down], return_when=asyncio.FIRST_COMPLETED)
            self._generation.check()
            if not self._link.up:
                await self._lose()
            return await coming
        finally:
            # An asynchronous generator must have come to rest before it can be closed.
            for task in (coming, down):
                task.cancel()
            await asyncio.wait([coming, down])
            if coming.done() and not coming.cancelled():
                coming.exception()  # looked at, so that a line lost with the link is not reported as forgotten

    async def _lose(self) -> None:
        """The link went down under an open stream."""
        if self._link.state is LinkState.SILENT:
            await self._link.until_up()  # a half-open connection says nothing; once packets pass again it is reset
            self._generation.check()
        raise TransportError("connection reset by peer", sent=True)

    async def close(self) -> None:
        await self._inner.close()


async def _line(lines: AsyncIterator[bytes]) -> bytes | None:
    return await anext(lines, None)


async def _no_lines() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for line in nothing:
        yield line


async def around(point: str, plan: FaultPlan, generation: Generation, effect: Callable[[], Awaitable[T]]) -> T:
    """A call that can only crash or be slow: before its effect, after it, or never returning."""
    generation.check()
    fault = await plan.io(point)
    generation.check()
    if fault.kind is FaultKind.CRASH_BEFORE:
        generation.crash(fault, point)
    result = await effect()
    await _settle(fault, point, generation)
    return result


async def _settle(fault: Fault, point: str, generation: Generation) -> None:
    generation.check()
    if fault.kind is FaultKind.CRASH_AFTER:
        generation.crash(fault, point)
    if fault.kind is FaultKind.CRASH_HANGING:
        await generation.hang(fault, point)
    if fault.after_s > 0:
        await asyncio.sleep(fault.after_s)
        generation.check()


class FaultStore:
    """A Store whose process may die before or after each commit. Points are "store <point>"."""

    def __init__(self, inner: Store, plan: FaultPlan, generation: Generation) -> None:
        self._inner = inner
        self._plan = plan
        self._generation = generation

    @property
    def epoch(self) -> int:
        return self._inner.epoch

    def given_up(self, cluster: str) -> int:
        """As Store.given_up: it is memory, and fails with its process."""
        return self._inner.given_up(cluster)

    async def transact(self, point: str, work: Callable[[Tx], T]) -> T:
        return await around(f"store {point}", self._plan, self._generation, lambda: self._inner.transact(point, work))

    async def read(self, point: str, work: Callable[[Tx], T]) -> T:
        """Reading is no point of its own: a crash around it is one around the call before or after."""
        self._generation.check()
        return await self._inner.read(point, work)

    async def prune_history(self, before_wall: float, keep: int) -> object:
        """As Store.prune_history: not a point, for what it drops nobody asks for again."""
        self._generation.check()
        return await self._inner.prune_history(before_wall, keep)

    async def close(self) -> None:
        """A dead process closes nothing: the driver closes the inner store."""
        self._generation.check()
        await self._inner.close()


class FaultSource:
    """A Source that may be unreachable, slow, or die. Points are "<prefix> head", "... listing", "... read"."""

    def __init__(
        self,
        inner: Source,
        point_prefix: str,
        plan: FaultPlan,
        generation: Generation,
    ) -> None:
        self._inner = inner
        self._prefix = point_prefix
        self._plan = plan
        self._generation = generation

    async def head(self) -> str:
        return await self._call("head", self._inner.head)

    async def listing(self, sha: str) -> tuple[Commit, Mapping[str, TreeEntry]]:
        return await self._call("listing", lambda: self._inner.listing(sha))

    async def read(self, blobs: Sequence[str]) -> Mapping[str, bytes]:
        return await self._call("read", lambda: self._inner.read(blobs))

    async def close(self) -> None:
        self._generation.check()
        await self._inner.close()

    async def _call(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        point = f"{self._prefix} {name}"
        self._generation.check()
        fault = await self._plan.io(point)
        self._generation.check()
        if fault.kind is FaultKind.CRASH_BEFORE:
            self._generation.crash(fault, point)
        if fault.kind in (FaultKind.BLACK_HOLE, FaultKind.THROTTLED):
            await asyncio.sleep(fault.wait_s)
            self._generation.check()
        if fault.kind is not FaultKind.NONE and fault.kind not in CRASHES:
            raise SourceError("RepositoryUnreachable", f"the repository does not answer ({fault.kind})")
        result = await effect()
        await _settle(fault, point, self._generation)
        return result


class FaultNotifier:
    """A Notifier that may fail before or after delivery, or die. Points are "notify <kind>"."""

    def __init__(self, inner: Notifier, plan: FaultPlan, generation: Generation) -> None:
        self._inner = inner
        self._plan = plan
        self._generation = generation

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None:
        point = f"notify {kind}"
        self._generation.check()
        fault = await self._plan.io(point)
        self._generation.check()
        if fault.kind is FaultKind.CRASH_BEFORE:
            self._generation.crash(fault, point)
        if fault.kind in (FaultKind.LOST_BEFORE, FaultKind.SERVER_ERROR, FaultKind.THROTTLED):
            raise ConnectionError(f"the message was not delivered ({fault.kind})")
        await self._inner.send(key, kind, body)
        await _settle(fault, point, self._generation)
        if fault.kind in (FaultKind.LOST_AFTER, FaultKind.BLACK_HOLE):
            raise ConnectionError(f"the message was delivered, but nobody knows ({fault.kind})")


class GenerationClock:
    """A Clock whose timers die with their generation."""

    def __init__(self, inner: Clock, generation: Generation) -> None:
        self._inner = inner
        self._generation = generation

    def now(self) -> Now:
        self._generation.check()
        return self._inner.now()

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        self._generation.check()

        def fire() -> None:
            if self._generation.alive:
                callback()

        return self._inner.call_at(monotonic_s, fire)
