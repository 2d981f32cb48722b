"""Periodic jobs, by a clock's timers and by APScheduler, and the backoff of what fails."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.shell import schedule as schedule_module
from reconciler.shell.schedule import ClockSchedule, Schedule, WallSchedule, backoff_s, spread
from tests.integration.test_scope_and_hub import SteppedClock

SEED = 42


@pytest.mark.parametrize(
    ("failures", "interval_s", "expected"),
    [
        (0, 30, 30),
        (1, 30, 30),
        (2, 30, 60),
        (3, 30, 120),
        (6, 30, 600),
        (10_000, 30, 600),
        (5, 600, 600),
        (5, 3600, 3600),
        (4, 1, 8),
    ],
)
def test_backoff(failures: int, interval_s: float, expected: float) -> None:
    assert backoff_s(failures, interval_s) == expected


@given(st.integers(0, 1000), st.floats(0.1, 1e5), st.floats(1, 1e5))
def test_backoff_only_grows_and_stays_in_its_bounds(failures: int, interval_s: float, cap_s: float) -> None:
    now, later = (backoff_s(count, interval_s, cap_s=cap_s) for count in (failures, failures + 1))
    assert interval_s <= now <= later <= max(cap_s, interval_s)


@given(st.floats(0.1, 1e5), st.floats(0, 0.99), st.integers())
def test_spread_stays_in_its_share(interval_s: float, jitter: float, seed: int) -> None:
    drawn = spread(interval_s, jitter, Random(seed))
    assert interval_s * (1 - jitter) * 0.999 <= drawn <= interval_s * (1 + jitter) * 1.001
    assert drawn == spread(interval_s, jitter, Random(seed))


def _moments(seed: int) -> list[tuple[str, float]]:
    clock = SteppedClock()
    schedule: Schedule = ClockSchedule(clock, Random(seed))
    seen: list[tuple[str, float]] = []
    for name, interval_s in (("poll:a", 30.0), ("poll:b", 30.0), ("resync", 300.0)):
        schedule.every(name, interval_s, lambda name=name: seen.append((name, clock.monotonic)))  # type: ignore[misc] # bound now
    clock.advance(700.0)
    schedule.close()
    schedule.close()
    assert clock.pending == 0
    return seen


def test_the_same_seed_polls_at_the_same_moments() -> None:
    assert _moments(SEED) == _moments(SEED)
    assert _moments(SEED) != _moments(SEED + 1)
    seen = _moments(SEED)
    polls = [at for name, at in seen if name == "poll:a"]
    assert 20 <= len(polls) <= 26
    assert all(27 <= later - earlier <= 33 for earlier, later in zip([0.0, *polls], polls, strict=False))
    assert polls != [at for name, at in seen if name == "poll:b"]
    assert len([at for name, at in seen if name == "resync"]) == 2


def test_a_job_ends_when_it_is_cancelled_and_survives_a_failing_callback() -> None:
    clock = SteppedClock()
    schedule = ClockSchedule(clock, Random(SEED))
    calls: list[float] = []

    def fail_once() -> None:
        calls.append(clock.monotonic)
        if len(calls) == 1:
            raise LookupError("broken")

    job = schedule.every("a", 10.0, fail_once, jitter=0)
    with pytest.raises(LookupError):
        clock.advance(10.0)
    clock.advance(20.0)
    assert calls == [10.0, 20.0, 30.0]
    job.cancel()
    job.cancel()
    clock.advance(100.0)
    assert len(calls) == 3


@pytest.mark.parametrize(("interval_s", "jitter"), [(0, 0.1), (-1, 0.1), (1, 1.0), (1, -0.1)])
def test_what_no_job_can_be(interval_s: float, jitter: float) -> None:
    with pytest.raises(ValueError, match="an interval is positive"):
        ClockSchedule(SteppedClock(), Random(SEED)).every("a", interval_s, lambda: None, jitter)


def test_a_name_is_used_once() -> None:
    schedule = ClockSchedule(SteppedClock(), Random(SEED))
    job = schedule.every("a", 1, lambda: None)
    with pytest.raises(ValueError, match="already"):
        schedule.every("a", 1, lambda: None)
    job.cancel()
    schedule.every("a", 1, lambda: None)


def test_apscheduler_calls_on_the_loop_until_it_is_cancelled() -> None:
    async def main() -> None:
        failures: list[str] = []
        schedule = WallSchedule(Random(SEED), time.time, lambda name, _: failures.append(name))
        thrice, calls = asyncio.Event(), []

        def call() -> None:
            asyncio.get_running_loop()  # raises on any other thread
            calls.append(1)
            if len(calls) == 3:
                job.cancel()
                thrice.set()

        def fail() -> None:
            raise LookupError("broken")

        job = schedule.every("a", 0.02, call)
        schedule.every("bad", 0.02, fail)
        await asyncio.wait_for(thrice.wait(), 30)
        await asyncio.sleep(0.1)
        assert len(calls) == 3
        assert failures[:1] == ["bad"]
        schedule.close()
        schedule.close()
        before = len(failures)
        await asyncio.sleep(0.1)
        assert len(failures) == before

    asyncio.run(main())


def test_a_wall_clock_set_back_does_not_silence_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock runs an hour ahead while the job is planned, and is then set right: APScheduler alone would call
    in an hour."""
    monkeypatch.setattr(schedule_module, "_GUARD_S", 0.05)

    async def main() -> None:
        ahead_s = 3600.0
        called = asyncio.Event()
        schedule = WallSchedule(Random(SEED), lambda: time.time() + ahead_s, lambda *_: None)
        schedule.every("a", 0.02, called.set)
        await asyncio.sleep(0.1)
        assert not called.is_set()
        ahead_s = 0.0
        await asyncio.wait_for(called.wait(), 30)
        schedule.close()

    asyncio.run(main())


def test_a_process_that_was_held_up_goes_on_polling() -> None:
    """Longer than an interval, at the very moment at which the library waits to hear that a run has ended."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        failures: list[tuple[str, BaseException]] = []
        again = asyncio.Event()
        calls: list[float] = []

        def callback() -> None:
            calls.append(loop.time())
            if len(calls) <= 2:
                time.sleep(0.1)
            else:
                again.set()

        schedule = WallSchedule(Random(SEED), time.time, lambda name, error: failures.append((name, error)))
        schedule.every("poll", 0.05, callback)
        await asyncio.wait_for(again.wait(), 60)
        schedule.close()
        await asyncio.sleep(0)
        assert failures == []

    asyncio.run(scenario())
