"""The way to a real control plane: what a wire still owes, a line that can be cut, a cache that is not misled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reconciler.demo.line import Line
from reconciler.demo.wire import Wire
from reconciler.shell.transport import Request, Response, Stream, Transport
from reconciler.sim.machine import Ref
from reconciler.sim.remote_access import ObjectCache, Outbox, RefusedWriteError, RemoteAccess
from tests.integration.test_demo_parts import on_a_loop

COLLECTION = "/api/v1/configmaps"
OBJECT = "/api/v1/namespaces/n/configmaps/a"
OURS = {"reconciler.dev/owner": "x"}


def value(version: int, *, uid: str = "u", labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A ConfigMap as a server shows it."""
    metadata = {"name": "a", "namespace": "n", "uid": uid, "resourceVersion": str(version), "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata | more}


class Scripted:
    """A Transport that answers what it is told to: no server says when its watch is to be late."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Response] = asyncio.Queue()
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.asked: list[Request] = []

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        """What the next request is answered."""
        self.answers.put_nowait(Response(status, {}, json.dumps(body).encode()))

    def tell(self, kind: str, told: dict[str, Any]) -> None:
        """The next line of the watch."""
        self.lines.put_nowait(json.dumps({"type": kind, "object": told}).encode())

    async def request(self, request: Request) -> Response:
        self.asked.append(request)
        return await self.answers.get()

    @asynccontextmanager
    async def stream(self, _request: Request) -> AsyncIterator[Stream]:
        yield Stream(200, {}, b"", self._lines())

    async def _lines(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.lines.get()

    async def close(self) -> None:
        """Nothing to close."""


def watch_from(version: int, selector: str = "") -> Request:
    query = (("watch", "1"), ("resourceVersion", str(version)), ("labelSelector", selector))
    return Request("GET", COLLECTION, query)


async def a_moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def watching(transport: Transport, request: Request) -> AsyncIterator[None]:
    """A reader who takes lines in as they come."""

    async def read() -> None:
        async with transport.stream(request) as stream:
            async for _ in stream.lines:
                pass

    task = asyncio.get_running_loop().create_task(read())
    await a_moment()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@on_a_loop
async def test_a_write_is_on_its_way_until_the_watch_has_told_of_it() -> None:
    server, wire = Scripted(), Wire(lambda: 7.0)
    transport = wire.daemon(server)
    async with watching(transport, watch_from(10, "reconciler.dev/owner")):
        asked = asyncio.get_running_loop().create_task(transport.request(Request("PATCH", OBJECT)))
        await a_moment()
        assert not wire.still, "a request is not answered"
        server.answer(value(11, labels=OURS))
        await asked
        assert not wire.still, "the watch has not told yet"
        server.tell("MODIFIED", value(11, labels=OURS))
        await a_moment()
        assert wire.still
        server.answer(value(12, uid="v"))
        await transport.request(Request("POST", "/api/v1/namespaces/n/configmaps"))
        assert wire.still, "the watch is not about this one"
        server.answer(value(13, labels=OURS))
        await transport.request(Request("PATCH", OBJECT, (("dryRun", "All"),)))
        assert wire.still, "nothing was written"
        server.answer(value(11, labels=OURS))
        await transport.request(Request("PATCH", OBJECT))
        assert wire.still, "nothing was changed"
        server.answer({"kind": "Status", "code": 409}, 409)
        await transport.request(Request("PATCH", OBJECT))
        assert wire.still, "nothing was written"
        server.answer(value(14))
        await transport.request(Request("PATCH", OBJECT))
        assert not wire.still, "it has lost its label: the watch tells that it is gone"
    assert wire.still, "nobody watches"
    assert [(change.wall, change.labels) for change in wire.changes] == [(7.0, OURS), (7.0, {}), (7.0, {})]


@on_a_loop
async def test_a_watch_owes_what_was_written_after_the_version_it_begins_at() -> None:
    server, wire = Scripted(), Wire(lambda: 0.0)
    server.answer(value(11, labels=OURS))
    await wire.other(server).request(Request("PATCH", OBJECT))
    assert wire.changes == [], "not the daemon's"
    async with watching(wire.daemon(server), watch_from(11)):
        assert wire.still
    async with watching(wire.daemon(server), watch_from(10)):
        assert not wire.still
        server.tell("BOOKMARK", {"metadata": {"resourceVersion": "11"}})
        await a_moment()
        assert wire.still


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "Status", "status": "Success", "details": {"uid": "u"}},
        value(11, labels=OURS, deletionTimestamp="2026-01-05T08:00:00Z"),  # the last finalizer was taken away
    ],
)
@pytest.mark.parametrize("told_first", [True, False])
@on_a_loop
async def test_an_end_is_waited_for_by_name(answer: dict[str, Any], told_first: bool) -> None:
    """The answer to a deletion tells no version; watch and answer come in either order."""
    server, wire = Scripted(), Wire(lambda: 0.0)
    transport = wire.other(server)
    async with watching(transport, watch_from(10)):
        server.answer(value(11, labels=OURS))
        await transport.request(Request("PATCH", OBJECT))
        server.tell("ADDED", value(11, labels=OURS))
        await a_moment()
        if told_first:
            server.tell("DELETED", value(12, labels=OURS))
            await a_moment()
        server.answer(answer)
        await transport.request(Request("DELETE" if answer["kind"] == "Status" else "PATCH", OBJECT))
        assert wire.still is told_first
        if not told_first:
            server.tell("DELETED", value(12, labels=OURS))
            await a_moment()
        assert wire.still


# ---- a line --------------------------------------------------------------------------------------------------------


@on_a_loop
async def test_a_line_carries_until_it_is_cut() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(100):
            writer.write(part)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    line = Line("127.0.0.1", server.sockets[0].getsockname()[1])
    await line.mend()
    port = line.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    big = b"x" * 3_000_000
    writer.write(big)
    assert await reader.readexactly(len(big)) == big
    await line.cut()
    assert await ended(reader)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await line.cut()  # once more does no harm
    await line.mend()
    assert line.port == port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()
    await line.cut()
    server.close()
    await server.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bool:
    """True if the other side has broken the connection off, politely or not."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@on_a_loop
async def test_a_line_to_nobody_breaks_at_once() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    line = Line("127.0.0.1", port)
    await line.mend()
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    assert await ended(reader)
    writer.close()
    await line.cut()


# ---- the models' cache ---------------------------------------------------------------------------------------------

REF = Ref("FlinkDeployment", "n", "a")


@on_a_loop
async def test_what_is_written_is_seen_at_once_and_then_as_the_server_shows_it() -> None:
    server = Scripted()
    changes: list[tuple[bool, bool]] = []
    cache = ObjectCache(lambda _, before, after: changes.append((before is not None, after is not None)))
    outbox = Outbox(server, cache)
    access = RemoteAccess(cache, outbox, "operator", clock=None, lifecycle_states={"FlinkDeployment": frozenset({"A"})})  # type: ignore[arg-type]
    cache.offer(REF, value(1))
    access.patch_status(REF, {"state": "one"})
    access.patch_status(REF, {"more": 2})
    seen = access.get(REF)
    assert seen is not None
    assert seen["status"] == {"state": "one", "more": 2}
    assert not outbox.empty
    task = asyncio.get_running_loop().create_task(outbox.run())
    server.answer(value(2) | {"status": {"state": "ONE"}})
    await a_moment()
    seen = access.get(REF)
    assert seen is not None
    assert seen["status"] == {"state": "ONE", "more": 2}, "the second is still to be answered"
    server.answer({"kind": "Status", "code": 404}, 404)
    await a_moment()
    assert outbox.empty
    assert changes == [(False, True), (True, True)]
    assert (access.allows("FlinkDeployment", "lifecycleState", "A"), access.allows("X", "lifecycleState", "B")) == (
        True,
        True,
    )
    assert not access.allows("FlinkDeployment", "lifecycleState", "B")
    access.patch_status(REF, {"state": 3})
    server.answer({"message": "state is no string"}, 422)
    with pytest.raises(RefusedWriteError, match=r"was answered 422: .*state is no string"):
        await task


def test_an_answer_that_comes_after_the_end_brings_nobody_back() -> None:
    cache = ObjectCache(lambda *_: None)
    cache.offer(REF, value(5))
    cache.gone(REF, "6")
    cache.offer(REF, value(5, deletionTimestamp="2026-01-05T08:00:00Z"))
    assert cache.get(REF) is None
    cache.offer(REF, value(7, uid="v"))
    cache.gone(REF, "6")  # a late word about the one before
    assert cache.get(REF) is not None
