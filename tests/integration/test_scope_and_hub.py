"""Tasks and wake-ups: order, failures, endings, and what counts as idle."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from reconciler.core.model import Now
from reconciler.shell.hub import Hub, Unit
from reconciler.shell.ports import Clock, Timer
from reconciler.shell.scope import Scope


class SteppedClock:
    """ports.Clock that goes where it is told, calling back on its way in the order of the moments."""

    def __init__(self) -> None:
        self.monotonic = 0.0
        self._timers: dict[int, tuple[float, Callable[[], None]]] = {}
        self._ids = itertools.count()

    def now(self) -> Now:
        return Now(1_700_000_000 + self.monotonic, self.monotonic, 1)

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        timer = _Timer(self, next(self._ids))
        self._timers[timer.id] = (monotonic_s, callback)
        self.advance(0.0)
        return timer

    def advance(self, seconds: float) -> None:
        end = self.monotonic + seconds
        while due := sorted((at, key) for key, (at, _) in self._timers.items() if at <= end):
            at, key = due[0]
            self.monotonic = max(self.monotonic, at)
            self._timers.pop(key)[1]()
        self.monotonic = end

    @property
    def pending(self) -> int:
        return len(self._timers)


class _Timer:
    def __init__(self, clock: SteppedClock, key: int) -> None:
        self._clock, self.id = clock, key

    def cancel(self) -> None:
        self._clock._timers.pop(self.id, None)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


# ---- Scope -------------------------------------------------------------------------------------------------------


def test_tasks_start_in_order_and_end_newest_first_one_after_the_other() -> None:
    seen: list[str] = []

    async def child(name: str) -> None:
        seen.append(f"{name} starts")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up takes a while: nobody else is cancelled meanwhile
            seen.append(f"{name} ends")

    async def main() -> None:
        failures: list[str] = []
        scope = Scope("test", lambda name, _: failures.append(name))
        for name in "abc":
            scope.start(name, child(name))
        await asyncio.sleep(0)
        assert scope.names == ("a", "b", "c")
        assert await scope.close(5) == ()
        assert not scope.names
        assert failures == []

    run(main)
    assert seen == ["a starts", "b starts", "c starts", "c ends", "b ends", "a ends"]


def test_a_failure_is_reported_once_and_the_others_go_on() -> None:
    async def fails() -> None:
        raise LookupError("broken")

    async def main() -> None:
        failures: list[tuple[str, str]] = []
        scope = Scope("test", lambda name, error: failures.append((name, repr(error))))
        scope.start("good", asyncio.sleep(3600))
        scope.start("bad", fails())
        for _ in range(3):
            await asyncio.sleep(0)
        assert failures == [("bad", "LookupError('broken')")]
        assert scope.names == ("good",)
        await scope.close(5)

    run(main)


def test_a_failure_while_closing_is_not_lost() -> None:
    async def fails_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("broken")

    async def main() -> None:
        failures: list[str] = []
        scope = Scope("test", lambda name, _: failures.append(name))
        scope.start("bad", fails_at_the_end())
        await asyncio.sleep(0)
        await scope.close(5)
        assert failures == ["bad"]

    run(main)


def test_what_does_not_end_is_named() -> None:
    async def stubborn(released: asyncio.Event) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        released = asyncio.Event()
        scope = Scope("test", lambda *_: None)
        scope.start("stubborn", stubborn(released))
        scope.start("good", asyncio.sleep(3600))
        await asyncio.sleep(0)
        assert await scope.close(0.05) == ("stubborn",)
        released.set()
        await scope.stop("stubborn")

    run(main)


def test_nothing_starts_twice_or_after_the_end() -> None:
    async def main() -> None:
        scope = Scope("test", lambda *_: None)
        scope.start("a", asyncio.sleep(3600))
        with pytest.raises(RuntimeError, match="has a task 'a' already"):
            scope.start("a", asyncio.sleep(0))
        await scope.stop("a")
        await scope.stop("a")
        scope.start("a", asyncio.sleep(3600))
        await scope.close(5)
        await scope.close(5)
        with pytest.raises(RuntimeError, match="is closing"):
            scope.start("b", asyncio.sleep(0))

    run(main)


def test_a_task_that_starts_another_while_the_scope_closes_ends_with_it() -> None:
    """The newest is ended first; an older one that runs meanwhile, and wants to start something, has not failed."""

    async def main() -> None:
        failures: list[tuple[str, BaseException]] = []
        started: list[str] = []
        scope = Scope("test", lambda name, error: failures.append((name, error)))
        closing = asyncio.Event()

        async def older() -> None:
            await closing.wait()
            scope.start("late", asyncio.sleep(3600))
            started.append("late")

        async def newest() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                closing.set()
                await asyncio.sleep(0)  # the older one has its turn while this one ends
                await asyncio.sleep(0)

        scope.start("older", older())
        scope.start("newest", newest())
        await asyncio.sleep(0)
        assert await scope.close(5) == ()
        assert (scope.names, started, failures) == ((), [], [])

    run(main)


def test_a_child_cannot_close_its_own_scope() -> None:
    async def main() -> None:
        failures: list[BaseException] = []
        scope = Scope("test", lambda _, error: failures.append(error))

        async def child() -> None:
            await scope.close(1)

        scope.start("child", child())
        for _ in range(3):
            await asyncio.sleep(0)
        assert isinstance(failures[0], RuntimeError)

    run(main)


# ---- Hub ---------------------------------------------------------------------------------------------------------


def test_wake_ups_gather_until_they_are_taken() -> None:
    async def main() -> None:
        hub = Hub()
        with hub.unit("u") as unit:
            assert hub.wake("u", "b", "a")
            assert hub.wake("u", "b")
            assert hub.wake("u")
            assert await unit.wait() == ("a", "b")
            hub.wake("u")
            assert await unit.wait() == ()
        assert not hub.wake("u")
        assert not hub.wake("nobody", "x")

    run(main)


def test_idle_means_that_everybody_waits_with_nothing_to_do() -> None:
    async def worker(unit: Unit, rounds: list[tuple[str, ...]]) -> None:
        while True:
            rounds.append(await unit.wait())
            await asyncio.sleep(0)  # at work

    async def main() -> None:
        hub, scope = Hub(), Scope("test", lambda *_: None)
        assert hub.idle
        rounds: dict[str, list[tuple[str, ...]]] = {"a": [], "b": []}
        units = {name: hub.unit(name) for name in rounds}
        assert hub.busy == ("a", "b")  # made, and not yet waiting
        for name, unit in units.items():
            scope.start(name, worker(unit, rounds[name]))
        await hub.drained()
        assert hub.idle
        hub.wake("a", "x")
        assert not hub.idle  # from the wake-up on, before its task has run
        hub.wake("a", "y")
        assert hub.busy == ("a",)
        await hub.drained()
        assert rounds == {"a": [("x", "y")], "b": []}
        with hub.hold("event"), hub.hold("event"):
            assert hub.busy == ("event",)
        assert hub.idle
        assert hub.wake_all("") == 2
        await hub.drained()
        assert rounds == {"a": [("x", "y"), ()], "b": [()]}
        await scope.close(5)
        assert hub.busy == ("a", "b")  # cancelled, not closed: they end
        for unit in units.values():
            unit.close()
            unit.close()
        assert hub.idle
        assert hub.names == ()

    run(main)


def test_a_wake_up_and_a_cancellation_in_one_moment_leave_the_count_right() -> None:
    async def main() -> None:
        for woken_first in (True, False):
            hub = Hub()
            unit = hub.unit("u")
            task = asyncio.get_running_loop().create_task(unit.wait())
            await asyncio.sleep(0)
            assert hub.idle
            for step in (unit.wake, task.cancel) if woken_first else (task.cancel, unit.wake):
                step()
            await asyncio.wait({task})
            assert hub.busy == ("u",)
            unit.close()
            assert hub.idle

    run(main)


def test_the_earliest_timer_counts() -> None:
    async def main() -> None:
        clock: Clock = SteppedClock()
        assert isinstance(clock, SteppedClock)
        hub = Hub()
        unit = hub.unit("u")
        unit.wake_at(clock, 20.0)
        unit.wake_at(clock, 30.0)
        unit.wake_at(clock, None)
        unit.wake_at(clock, 10.0)
        assert clock.pending == 1
        task = asyncio.get_running_loop().create_task(unit.wait())
        await asyncio.sleep(0)
        clock.advance(9.0)
        assert hub.idle
        clock.advance(1.0)
        assert not hub.idle
        assert await task == ()
        unit.wake_at(clock, 5.0)  # passed already: at once
        assert await unit.wait() == ()
        unit.wake_at(clock, 50.0)
        unit.close()
        assert clock.pending == 0

    run(main)


def test_many_wake_ups_in_any_order_lose_nothing() -> None:
    random = Random(20260101)

    async def main() -> None:
        hub, scope = Hub(), Scope("test", lambda *_: None)
        seen: set[int] = set()

        async def worker(unit: Unit) -> None:
            while True:
                seen.update(await unit.wait())
                for _ in range(random.randrange(3)):
                    await asyncio.sleep(0)

        scope.start("u", worker(hub.unit("u")))
        for item in range(1000):
            hub.wake("u", item)
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
        await hub.drained()
        assert seen == set(range(1000))
        await scope.close(5)

    run(main)


def test_one_name_one_unit_one_waiter() -> None:
    async def main() -> None:
        hub = Hub()
        unit = hub.unit("u")
        with pytest.raises(ValueError, match="already"):
            hub.unit("u")
        task = asyncio.get_running_loop().create_task(unit.wait())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="waited on"):
            await unit.wait()
        with pytest.raises(RuntimeError, match="while a task waits"):
            unit.close()
        unit.wake()
        await task

    run(main)
