"""Faulty ports: each fault does what its name says, draws repeat, and the dead do nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from reconciler.shell.ports import SourceError
from reconciler.shell.transport import Request, Response, Stream, TransportError
from reconciler.sim.faults import FaultNotifier, FaultSource, FaultStore, FaultTransport, GenerationClock
from reconciler.sim.git import SimRepository, SimSource
from reconciler.sim.link import Link, LinkState
from reconciler.sim.loop import SimClock, run
from reconciler.sim.plan import Crash, CrashAt, Dead, Fault, FaultKind, FaultRates, Generation, SeededPlan

PUT = Request("PUT", "/x", timeout_s=30.0)
LIST = Request("GET", "/x", query=(("resourceVersion", "0"),))
WATCH = Request("GET", "/x", query=(("watch", "1"),))


class Server:
    """The simplest thing with effects: it counts what reached it, and its watch sends a line a second."""

    def __init__(self) -> None:
        self.requests = 0

    async def request(self, request: Request) -> Response:
        del request
        self.requests += 1
        return Response(200, {}, str(self.requests).encode())

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        del request
        return self._stream()

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[Stream]:
        async def lines() -> AsyncIterator[bytes]:
            for number in range(5):
                await asyncio.sleep(1)
                yield str(number).encode()

        yield Stream(200, {}, b"", lines())

    async def close(self) -> None:
        """There is nothing to close."""


class Fate:
    """A plan that knows one fault, for points that begin so."""

    def __init__(self, fault: Fault, prefix: str = "c PUT") -> None:
        self.fault = fault
        self.prefix = prefix

    async def io(self, point: str) -> Fault:
        return self.fault if point.startswith(self.prefix) else Fault()


async def _outcome(fault: Fault) -> tuple[str, int, float]:
    """(answer or error, requests that reached the server, time it took)."""
    server = Server()
    transport = FaultTransport(server, "c", Fate(fault))
    started_s = asyncio.get_running_loop().time()
    try:
        response = await transport.request(PUT)
        answer = str(response.status) + (response.headers.get("retry-after") or "")
    except TransportError as error:
        answer = "sent" if error.sent else "not sent"
    return answer, server.requests, asyncio.get_running_loop().time() - started_s


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(), ("200", 1, 0)),
        (Fault(after_s=3), ("200", 1, 3)),
        (Fault(FaultKind.LOST_BEFORE), ("not sent", 0, 0)),
        (Fault(FaultKind.LOST_AFTER, after_s=2), ("sent", 1, 2)),
        (Fault(FaultKind.BLACK_HOLE), ("sent", 0, 30)),
        (Fault(FaultKind.BLACK_HOLE, applied=True), ("sent", 1, 30)),
        (Fault(FaultKind.SERVER_ERROR), ("503", 0, 0)),
        (Fault(FaultKind.SERVER_ERROR, applied=True), ("504", 1, 0)),
        (Fault(FaultKind.THROTTLED, wait_s=7), ("4297", 0, 0)),
        (Fault(FaultKind.WATCH_DOUBLED), ("200", 1, 0)),
    ],
)
def test_request_faults(fault: Fault, expected: tuple[str, int, float]) -> None:
    assert run(_outcome(fault)) == expected


def test_a_stale_list_is_an_older_answer_and_only_where_one_was_allowed() -> None:
    async def main() -> list[bytes]:
        transport = FaultTransport(Server(), "c", Fate(Fault(FaultKind.STALE), "c CACHE"))
        bodies = [(await transport.request(LIST)).body for _ in range(2)]
        return [*bodies, (await transport.request(Request("GET", "/x"))).body]

    assert run(main()) == [b"1", b"1", b"2"]


async def _read_watch(transport: FaultTransport, seen: list[bytes]) -> str:
    """Read a watch into `seen`; returns how it ended."""
    try:
        async with transport.stream(WATCH) as stream:
            async for line in stream.lines:
                seen.append(line)  # noqa: PERF401 - what came before an error counts, too
    except TransportError as error:
        return str(error)
    return "ended"


async def _watched(fault: Fault) -> tuple[list[str], str, float]:
    seen: list[bytes] = []
    end = await _read_watch(FaultTransport(Server(), "c", Fate(fault, "c WATCH")), seen)
    lines = [line.decode() if len(line) < 3 else str(json.loads(line)["object"]["code"]) for line in seen]
    return lines, end, asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("fault", "seen", "end", "took_s"),
    [
        (Fault(), ["0", "1", "2", "3", "4"], "ended", 5),
        (Fault(FaultKind.WATCH_DOUBLED), ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"], "ended", 5),
        (Fault(FaultKind.WATCH_DELAYED, wait_s=9), ["0", "1", "2", "3", "4"], "ended", 50),
        (Fault(FaultKind.WATCH_GONE), ["410"], "ended", 1),
        (Fault(FaultKind.WATCH_CUT, applied=True), [], "ended", 1),
        (Fault(FaultKind.WATCH_CUT), [], "the watch was cut: connection reset by peer", 1),
    ],
)
def test_watch_faults(fault: Fault, seen: list[str], end: str, took_s: float) -> None:
    assert run(_watched(fault)) == (seen, end, took_s)


@pytest.mark.parametrize(("state", "took_s"), [(LinkState.REFUSED, 0.0), (LinkState.SILENT, 30.0)])
def test_an_unreachable_cluster_fails_requests_and_comes_back(state: LinkState, took_s: float) -> None:
    async def main() -> None:
        server, link = Server(), Link()
        transport = FaultTransport(server, "c", link=link)
        link.set(state)
        started_s = asyncio.get_running_loop().time()
        with pytest.raises(TransportError):
            await transport.request(PUT)
        assert asyncio.get_running_loop().time() - started_s == took_s
        with pytest.raises(TransportError):
            async with transport.stream(WATCH):
                pytest.fail("the stream opened")
        assert server.requests == 0
        link.set(LinkState.UP)
        assert (await transport.request(PUT)).status == 200

    run(main())


def test_a_link_that_goes_down_cuts_an_open_watch() -> None:
    async def main(state: LinkState) -> tuple[list[bytes], float]:
        link = Link()
        transport = FaultTransport(Server(), "c", link=link)
        loop = asyncio.get_running_loop()
        loop.call_later(2.5, link.set, state)
        loop.call_later(60, link.set, LinkState.UP)
        seen: list[bytes] = []
        assert await _read_watch(transport, seen) == "connection reset by peer"
        return seen, loop.time()

    assert run(main(LinkState.REFUSED)) == ([b"0", b"1"], 2.5)
    assert run(main(LinkState.SILENT)) == ([b"0", b"1"], 60.0)


def test_an_answer_is_lost_when_the_link_goes_down_meanwhile() -> None:
    async def main() -> tuple[bool, int]:
        server, link = Server(), Link()
        transport = FaultTransport(server, "c", Fate(Fault(after_s=5)), link=link)
        asyncio.get_running_loop().call_later(2, link.set, LinkState.REFUSED)
        with pytest.raises(TransportError) as caught:
            await transport.request(PUT)
        return caught.value.sent, server.requests

    assert run(main()) == (True, 1)


# ---- crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "effects", "exception"),
    [(FaultKind.CRASH_BEFORE, 0, Crash), (FaultKind.CRASH_AFTER, 1, Crash), (FaultKind.CRASH_HANGING, 1, Dead)],
)
def test_a_crash_kills_the_generation_and_everything_after_it(
    kind: FaultKind, effects: int, exception: type[BaseException]
) -> None:
    async def main() -> None:
        server, generation = Server(), Generation(3)
        clock = GenerationClock(SimClock(asyncio.get_running_loop()), generation)
        fired: list[str] = []
        clock.call_at(100, lambda: fired.append("timer of the dead"))
        transport = FaultTransport(server, "c", Fate(Fault(kind, wait_s=20)), generation)

        async def shell() -> None:
            try:
                await transport.request(PUT)
            finally:
                with pytest.raises(Dead):
                    await transport.request(Request("GET", "/anything"))

        with pytest.raises(exception):
            await shell()
        assert await generation.wait() == f"{kind} at c PUT /x"
        assert server.requests == effects
        with pytest.raises(Dead):
            clock.now()
        await asyncio.sleep(200)
        assert fired == []

    run(main())


def test_a_call_under_way_when_another_one_crashes_has_no_effect_any_more() -> None:
    async def main() -> int:
        server, generation = Server(), Generation()

        class Slow:
            async def io(self, point: str) -> Fault:
                del point
                await asyncio.sleep(5)
                return Fault()

        transport = FaultTransport(server, "c", Slow(), generation)
        task = asyncio.get_running_loop().create_task(transport.request(PUT))
        await asyncio.sleep(1)
        generation.kill("elsewhere")
        with pytest.raises(Dead):
            await task
        return server.requests

    assert run(main()) == 0


class _Commits:
    """The part of a Store that matters here: what was committed."""

    epoch = 7

    def __init__(self) -> None:
        self.committed: list[str] = []

    def given_up(self, cluster: str) -> int:
        raise AssertionError(f"nobody asked what was given up on {cluster}")

    async def transact(self, point: str, work: Callable[[Any], Any]) -> Any:
        self.committed.append(point)
        return work(None)

    async def read(self, point: str, work: Callable[[Any], Any]) -> Any:
        del point
        return work(None)

    async def prune_history(self, before_wall: float, keep: int) -> object:
        raise AssertionError(f"nobody asked to drop history before {before_wall}, {keep}")

    async def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize(("kind", "committed"), [(FaultKind.CRASH_BEFORE, []), (FaultKind.CRASH_AFTER, ["decide"])])
def test_a_crash_around_a_commit(kind: FaultKind, committed: list[str]) -> None:
    async def main() -> list[str]:
        inner = _Commits()
        store = FaultStore(inner, CrashAt(0, kind), Generation())
        assert store.epoch == 7
        with pytest.raises(Crash):
            await store.transact("decide", lambda _tx: None)
        with pytest.raises(Dead):
            await store.read("after", lambda _tx: None)
        with pytest.raises(Dead):
            await store.close()
        return inner.committed

    assert run(main()) == committed


def test_crash_points_are_numbered_and_the_world_can_be_copied_at_each() -> None:
    async def main() -> tuple[list[str], list[int]]:
        copies: list[int] = []
        server = Server()
        plan = CrashAt(None, watcher=lambda _number, _point: copies.append(server.requests))
        transport = FaultTransport(server, "c", plan)
        for path in ("/a", "/b", "/a"):
            await transport.request(Request("PUT", path))
        return plan.points, copies

    assert run(main()) == (["c PUT /a", "c PUT /b", "c PUT /a"], [0, 1, 2])


def test_source_faults() -> None:
    repository = SimRepository()
    sha = repository.commit({"a": b"1"})

    async def main() -> None:
        for kind in (FaultKind.LOST_BEFORE, FaultKind.BLACK_HOLE, FaultKind.SERVER_ERROR):
            source = FaultSource(SimSource(repository), "git", Fate(Fault(kind, wait_s=1), "git head"), Generation())
            with pytest.raises(SourceError) as caught:
                await source.head()
            assert caught.value.reason.code == "RepositoryUnreachable"
            assert (await source.listing(sha))[0].sha == sha
        crashing = FaultSource(
            SimSource(repository), "git", Fate(Fault(FaultKind.CRASH_AFTER), "git read"), Generation()
        )
        with pytest.raises(Crash):
            await crashing.read([])
        with pytest.raises(Dead):
            await crashing.head()

    run(main())


class _Inbox:
    def __init__(self) -> None:
        self.keys: list[str] = []

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None:
        del kind, body
        self.keys.append(key)


@pytest.mark.parametrize(("kind", "delivered"), [(FaultKind.LOST_BEFORE, []), (FaultKind.LOST_AFTER, ["k"])])
def test_a_message_may_fail_before_or_after_its_delivery(kind: FaultKind, delivered: list[str]) -> None:
    async def main() -> list[str]:
        inbox = _Inbox()
        with pytest.raises(ConnectionError):
            await FaultNotifier(inbox, Fate(Fault(kind), "notify"), Generation()).send("k", "alert", {})
        return inbox.keys

    assert run(main()) == delivered


# ---- drawing -----------------------------------------------------------------------------------------------------

RATES = {
    "": FaultRates(lost_before=0.1, lost_after=0.1, server_error=0.1, latency_s=(0.01, 0.2)),
    "store": FaultRates(crash_before=0.3, crash_after=0.3),
}


def test_what_a_point_draws_depends_on_nothing_else() -> None:
    alone, among_others = SeededPlan(7, RATES), SeededPlan(7, RATES)
    expected = [alone.draw("c PUT /x") for _ in range(50)]
    drawn = []
    for number in range(50):
        among_others.draw(f"c GET /{number}")
        drawn.append(among_others.draw("c PUT /x"))
    assert drawn == expected
    assert len({fault.kind for fault in drawn}) == 4
    assert [SeededPlan(8, RATES).draw("c PUT /x") for _ in range(1)] != expected[:1]


def test_rates_are_met_bounded_and_end() -> None:
    plan = SeededPlan(1, RATES, crashes_max=3)
    kinds = [plan.draw("c PUT /x").kind for _ in range(4000)]
    assert 300 < kinds.count(FaultKind.LOST_BEFORE) < 500
    assert kinds.count(FaultKind.CRASH_BEFORE) == 0
    crashes = [plan.draw("store decide").kind for _ in range(100)]
    assert sum(kind is not FaultKind.NONE for kind in crashes) == 3
    plan.stop()
    assert {plan.draw("c PUT /x").kind for _ in range(100)} == {FaultKind.NONE}
    with pytest.raises(ValueError, match="add up"):
        FaultRates(lost_before=0.6, lost_after=0.6)


SCRIPT = """
from reconciler.sim.plan import SeededPlan
from tests.sim.test_faults import RATES
plan = SeededPlan(7, RATES)
print([plan.draw(point) for point in ("store decide", "c PUT /x", "git head") * 20])
"""


def test_draws_are_the_same_under_another_hash_seed() -> None:
    def drawn(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert drawn("1") == drawn("2")
