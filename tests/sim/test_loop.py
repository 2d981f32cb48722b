"""The simulated loop and the clocks over it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Coroutine
from typing import Any

import pytest

from reconciler.core.model import Now
from reconciler.sim import loop as sim_loop
from reconciler.sim.loop import WALL_START_S, Deadlock, Livelock, SimClock, SimLoop, SteppedClock, run


def test_sleeps_end_in_order_and_take_no_time() -> None:
    async def main() -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []

        async def nap(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            seen.append((asyncio.get_running_loop().time(), name))

        await asyncio.gather(nap(1800, "c"), nap(0.1, "a"), nap(60, "b"), nap(86_400 * 3, "d"))
        return seen

    assert run(main()) == [(0.1, "a"), (60.0, "b"), (1800.0, "c"), (259_200.0, "d")]


def test_many_rounding_sleeps_do_not_spin() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0.1)
        return asyncio.get_running_loop().time()

    assert run(main(), start_s=1e8) == pytest.approx(1e8 + 100.0)


def test_timers_fire_at_their_very_moment_whatever_the_rounding() -> None:
    moments = [0.1 * number + 1 / (3 + number) for number in range(200)]

    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, float]] = []

        def note(due: float) -> None:
            seen.append((due, loop.time()))

        for moment in moments:
            loop.call_at(moment, note, moment)
        await asyncio.sleep(60)
        return seen

    seen = run(main())
    assert len(seen) == len(moments)
    assert all(due == at for due, at in seen)


def test_a_clocks_timer_is_never_early_for_that_clock() -> None:
    async def main() -> list[tuple[float, float]]:
        loop = asyncio.get_running_loop()
        clock = SimClock(loop)
        seen: list[tuple[float, float]] = []

        def note(due: float) -> None:
            seen.append((due, clock.now().monotonic))

        for number in range(2000):
            due = 0.1 * number + 1 / (3 + number)
            clock.call_at(due, functools.partial(note, due))
        await asyncio.sleep(300)
        return seen

    seen = run(main(), start_s=1e6 + 1 / 3)
    assert len(seen) == 2000
    assert all(due <= at < due + 1e-6 for due, at in seen)


def test_whoever_sleeps_until_a_moment_comes_to_it() -> None:
    async def main() -> int:
        clock = SimClock(asyncio.get_running_loop())
        rounds = 0
        for number in range(500):
            due = 0.1 * number + 1 / (3 + number)
            while clock.now().monotonic < due:
                await asyncio.sleep(due - clock.now().monotonic)
                rounds += 1
        return rounds

    assert run(main(), start_s=1e6 + 1 / 3) < 1500


def test_a_sleep_beyond_what_a_loop_waits_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(10 * 86_400)
        return asyncio.get_running_loop().time()

    assert run(main()) == 864_000.0


def test_rounds_are_counted_per_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_loop, "ROUNDS_AT_ONE_INSTANT_MAX", 50)

    async def main() -> float:
        for _ in range(200):
            await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    assert run(main()) == 200


def test_a_timeout_fires_at_its_moment() -> None:
    async def main() -> float:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.sleep(31)
        return asyncio.get_running_loop().time()

    assert run(main()) == 30.0


def test_waiting_for_nothing_is_a_deadlock_that_names_who_waits() -> None:
    async def stuck_here() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="stuck_here"):
        run(stuck_here())


def test_a_deadlock_still_runs_the_finally_blocks() -> None:
    left: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append("main")

    with pytest.raises(Deadlock):
        run(main())
    assert left == ["main"]


def test_turning_for_ever_at_one_instant_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_loop, "ROUNDS_AT_ONE_INSTANT_MAX", 100)

    async def main() -> None:
        round_and_round = asyncio.get_running_loop()

        def turn() -> None:
            round_and_round.call_soon(turn)

        turn()
        await asyncio.sleep(1)

    with pytest.raises(Livelock):
        run(main())


def test_executors_run_inline() -> None:
    async def main() -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(None, lambda: 6 * 7)
        assert answer.done()
        failed = loop.run_in_executor(None, int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            await failed
        return await answer, await asyncio.to_thread(str.upper, "inline")

    assert run(main()) == (42, "INLINE")


def test_cancellation_reaches_a_sleeper_at_once() -> None:
    async def main() -> list[object]:
        seen: list[object] = []

        async def sleeper() -> None:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                seen.append(asyncio.get_running_loop().time())
                raise

        task = asyncio.get_running_loop().create_task(sleeper())
        await asyncio.sleep(5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return [*seen, task.cancelled()]

    assert run(main()) == [5.0, True]


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def _serve() -> None:
    await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)


async def _spawn() -> None:
    await asyncio.create_subprocess_exec("true")


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(15, lambda: None)


async def _read_pipe() -> None:
    asyncio.get_running_loop().add_reader(0, lambda: None)


@pytest.mark.parametrize("outside", [_connect, _serve, _spawn, _resolve, _signal, _read_pipe])
def test_what_reaches_outside_is_refused(outside: Any) -> None:
    coroutine: Coroutine[Any, Any, None] = outside()
    with pytest.raises(RuntimeError, match="reaches outside the simulation"):
        run(coroutine)


def test_a_callback_that_raises_ends_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 / 0)
        await asyncio.sleep(10)

    with pytest.raises(ZeroDivisionError):
        run(main())


def test_clock_counts_from_its_boot_and_wall_jumps_leave_it_alone() -> None:
    async def main() -> list[Now]:
        clock = SimClock(asyncio.get_running_loop(), boot=3)
        seen = [clock.now()]
        await asyncio.sleep(10)
        clock.jump_wall(-3600)
        seen.append(clock.now())
        seen.append(clock.rebooted(4).now())
        return seen

    assert run(main(), start_s=100.0) == [
        Now(WALL_START_S + 100, 0.0, 3),
        Now(WALL_START_S + 110 - 3600, 10.0, 3),
        Now(WALL_START_S + 110 - 3600, 0.0, 4),
    ]


def test_clock_timers() -> None:
    async def main() -> list[str]:
        clock = SimClock(asyncio.get_running_loop())
        seen: list[str] = []
        clock.call_at(20, lambda: seen.append(f"late {clock.now().monotonic}"))
        clock.call_at(-5, lambda: seen.append(f"overdue {clock.now().monotonic}"))
        clock.call_at(10, lambda: seen.append("cancelled")).cancel()
        await asyncio.sleep(30)
        return seen

    assert run(main()) == ["overdue 0.0", "late 20.0"]


def test_stepped_clock_stops_at_every_timer_in_order() -> None:
    clock = SteppedClock(boot=2)
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, clock.now().monotonic))

    clock.call_at(30, lambda: note("c"))

    def set_another() -> None:
        note("a")
        clock.call_at(15, lambda: note("b"))

    clock.call_at(10, set_another)
    dropped = clock.call_at(5, lambda: note("dropped"))
    assert clock.next_timer() == 5
    dropped.cancel()
    assert clock.next_timer() == 10
    assert clock.advance_to(29.5) == 2
    assert clock.now() == Now(WALL_START_S + 29.5, 29.5, 2)
    assert clock.advance_to(30) == 1
    assert seen == [("a", 10), ("b", 15), ("c", 30)]
    assert clock.next_timer() is None
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance_to(29)


def test_stepped_clock_fires_what_is_due_already_without_a_step() -> None:
    async def main() -> list[str]:
        clock = SteppedClock()
        seen: list[str] = []
        clock.call_at(0, lambda: seen.append("due"))
        assert seen == []
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(main()) == ["due"]


def test_the_loop_is_closed_after_a_run() -> None:
    async def main() -> SimLoop:
        running = asyncio.get_running_loop()
        assert isinstance(running, SimLoop)
        return running

    assert run(main()).is_closed()
