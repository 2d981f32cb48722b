"""Schedule: periodic jobs (poll, re-sync, retention), each of which only sets a wake-up.

What is due at a decided moment (`recheck_at`) goes by the policy clock, not by this. Two implementations: APScheduler
in production, timers of a Clock in the simulator and the demo. Jobs are spread by a Random that is handed in, so that a
thousand repositories are not polled in one second, and so that the same seed polls at the same moments.

    job = schedule.every("poll:fleet", 30.0, lambda: hub.wake("source:fleet"), jitter=0.1)
    job.cancel()
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.shell.logs import event
from reconciler.shell.ports import Clock, Timer

if TYPE_CHECKING:
    from random import Random  # noqa: TID251  # the type only: the object is handed in

_LOG = logging.getLogger(__name__)
#: How often the production schedule looks whether the wall clock was set back, and by how much that matters.
_GUARD_S = 15.0
_SET_BACK_S = 5.0

OnFailure = Callable[[str, BaseException], None]


class Job(Protocol):
    """A periodic job. `cancel` may be called at any time, and twice."""

    def cancel(self) -> None: ...


class Schedule(Protocol):
    """Periodic jobs, each at most once at a time; a late one runs once, not once for every time it missed."""

    def every(self, name: str, interval_s: float, callback: Callable[[], None], jitter: float = 0.1) -> Job:
        """Call `callback` every `interval_s`, each time up to `jitter` (a share of the interval) sooner or later; first
        after one interval. A name is used by one job at a time."""
        ...

    def close(self) -> None:
        """Cancel all jobs. May be called twice."""
        ...


def spread(interval_s: float, jitter: float, random: Random) -> float:
    """`interval_s`, up to the share `jitter` sooner or later."""
    return interval_s * (1.0 + jitter * (2.0 * random.random() - 1.0))


def backoff_s(failures: int, interval_s: float, *, factor: float = 2.0, cap_s: float = 600.0) -> float:
    """Seconds until the next attempt of what failed `failures` times in a row: the interval, doubled for every failure
    after the first, at most `cap_s` but never sooner than the interval."""
    ceiling = max(cap_s, interval_s)
    if failures <= 1 or interval_s >= ceiling:
        return interval_s
    if failures > 64:  # the power would leave the range of a float long after the cap was reached
        return ceiling
    return min(interval_s * factor ** (failures - 1), ceiling)


def _check(name: str, interval_s: float, jitter: float, taken: bool) -> None:
    if interval_s <= 0 or not 0 <= jitter < 1:
        raise ValueError(f"job {name!r}: an interval is positive and jitter is a share below 1")
    if taken:
        raise ValueError(f"there is a job {name!r} already")


# ---- timers of a clock -------------------------------------------------------------------------------------------


class ClockSchedule:
    """Schedule over timers of a Clock. An exception of a callback goes to whoever drives the clock."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._jobs: dict[str, _ClockJob] = {}

    def every(self, name: str, interval_s: float, callback: Callable[[], None], jitter: float = 0.1) -> Job:
        """See Schedule."""
        _check(name, interval_s, jitter, name in self._jobs)
        job = _ClockJob(self, name, interval_s, callback, jitter)
        self._jobs[name] = job
        job.plan()
        return job

    def close(self) -> None:
        """See Schedule."""
        for job in list(self._jobs.values()):
            job.cancel()


class _ClockJob:
    def __init__(
        self, schedule: ClockSchedule, name: str, interval_s: float, callback: Callable[[], None], jitter: float
    ) -> None:
        self._schedule = schedule
        self._name, self._interval_s, self._callback, self._jitter = name, interval_s, callback, jitter
        self._timer: Timer | None = None

    def plan(self) -> None:
        delay_s = spread(self._interval_s, self._jitter, self._schedule._random)
        clock = self._schedule._clock
        self._timer = clock.call_at(clock.now().monotonic + delay_s, self._run)

    def _run(self) -> None:
        # Planned before it runs: a callback that fails once does not end the job.
        self.plan()
        self._callback()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._schedule._jobs.pop(self._name, None)


# ---- APScheduler -------------------------------------------------------------------------------------------------


class WallSchedule:
    """Schedule over APScheduler's asyncio scheduler, in memory. Made while the loop runs.

    APScheduler goes by the wall clock: set back by an hour, it would be silent for an hour. So the wall clock is
    watched against the loop's, and after such a jump every job is planned anew. `on_failure` gets a callback's
    exception."""

    def __init__(self, random: Random, wall: Callable[[], float], on_failure: OnFailure) -> None:
        # Imported late: commands that need no daemon do not pay for it.
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        self._random = random
        self._wall = wall
        self._on_failure = on_failure
        self._jobs: dict[str, _WallJob] = {}
        self._scheduler: Any = AsyncIOScheduler(
            timezone=dt.UTC,
            event_loop=self._loop,
            # Two, for the library hears of a run's end one turn of the loop late: where the process was held up for an
            # interval in between, it would refuse the next run, and with it all that follow.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 2},
        )
        self._scheduler.start()
        self._offset_s = self._wall() - self._loop.time()
        self._guard: asyncio.TimerHandle | None = self._loop.call_later(_GUARD_S, self._watch_the_clock)

    def every(self, name: str, interval_s: float, callback: Callable[[], None], jitter: float = 0.1) -> Job:
        """See Schedule."""
        _check(name, interval_s, jitter, name in self._jobs)
        job = _WallJob(self, name, interval_s, callback, jitter)
        self._jobs[name] = job
        job.plan()
        return job

    def close(self) -> None:
        """See Schedule."""
        if self._guard is None:
            return
        self._guard.cancel()
        self._guard = None
        self._jobs.clear()
        self._scheduler.shutdown(wait=False)

    def _watch_the_clock(self) -> None:
        offset_s = self._wall() - self._loop.time()
        if offset_s < self._offset_s - _SET_BACK_S:
            event(_LOG, logging.WARNING, "schedule.clock.set_back", by_s=round(self._offset_s - offset_s, 1))
            for job in self._jobs.values():
                job.plan()
        self._offset_s = offset_s
        self._guard = self._loop.call_later(_GUARD_S, self._watch_the_clock)


class _WallJob:
    """One job; APScheduler runs it once at a planned date, and it plans the next one itself: its own interval trigger
    draws jitter from the process-wide random source."""

    def __init__(
        self, schedule: WallSchedule, name: str, interval_s: float, callback: Callable[[], None], jitter: float
    ) -> None:
        self._schedule = schedule
        self._name, self._interval_s, self._callback, self._jitter = name, interval_s, callback, jitter

    def plan(self) -> None:
        delay_s = spread(self._interval_s, self._jitter, self._schedule._random)
        moment = dt.datetime.fromtimestamp(self._schedule._wall() + delay_s, dt.UTC)
        self._schedule._scheduler.add_job(
            self._run, "date", run_date=moment, id=self._name, name=self._name, replace_existing=True
        )

    async def _run(self) -> None:
        # A coroutine, for APScheduler runs plain functions on a thread.
        if self._schedule._jobs.get(self._name) is not self:
            return
        self.plan()
        try:
            self._callback()
        except Exception as error:  # noqa: BLE001  # handed on: the daemon ends
            self._schedule._on_failure(self._name, error)

    def cancel(self) -> None:
        if self._schedule._jobs.get(self._name) is self:
            del self._schedule._jobs[self._name]
            # Gone already if it is just running: then it finds itself cancelled.
            if self._schedule._scheduler.get_job(self._name) is not None:
                self._schedule._scheduler.remove_job(self._name)
