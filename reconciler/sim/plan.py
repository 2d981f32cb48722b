"""Fault plans: what happens at each point where the shell meets the world, and generations, which crashes end.

Every call through a faulty port first asks its plan: `fault = await plan.io(point)`. A point is the name of a call
("eu-1 PATCH /api/v1/...", "store decide", "git head"). What the plan answers depends on the seed, the point and how
often that point was asked before, so nothing that happens elsewhere changes it.

A crash is what kill -9 is: the *generation* (one life of the daemon) is dead from then on, and every further call of
its ports, from a `finally` block too, raises `Dead`. Both exceptions derive from BaseException, so that no `except
Exception` of the shell survives them. The driver waits for `generation.wait()`, discards the tasks and boots the next.

    plan = SeededPlan(7, {"": FaultRates(lost_after=0.02), "store": FaultRates(crash_after=0.001)})
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from reconciler.sim.chance import between, fraction


class FaultKind(enum.StrEnum):
    """What may happen to a call. Where one makes no sense (a doubled line of a commit) the call just goes well."""

    NONE = "none"
    CRASH_BEFORE = "crash before effect"
    CRASH_AFTER = "crash after effect"
    CRASH_HANGING = "effect, then never returns until the crash"
    LOST_BEFORE = "lost before effect"
    LOST_AFTER = "lost after effect"
    BLACK_HOLE = "no answer until the timeout"
    SERVER_ERROR = "5xx"
    THROTTLED = "429"
    STALE = "an older answer"
    WATCH_GONE = "410 on watch"
    WATCH_CUT = "watch cut"
    WATCH_DOUBLED = "event twice"
    WATCH_DELAYED = "event late"


CRASHES = frozenset({FaultKind.CRASH_BEFORE, FaultKind.CRASH_AFTER, FaultKind.CRASH_HANGING})


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one call. `before_s` and `after_s` are latency on the way there and back; `applied` says, where
    the kind leaves it open, whether the effect takes place; `wait_s` is the kind's own time: Retry-After, how late an
    event is, how long a hanging process still lives."""

    kind: FaultKind = FaultKind.NONE
    before_s: float = 0.0
    after_s: float = 0.0
    applied: bool = False
    wait_s: float = 0.0


class FaultPlan(Protocol):
    """Decides what happens at each point."""

    async def io(self, point: str) -> Fault:
        """The fate of the next call at `point`. Called once per call, before its effect."""
        ...


class NoFaults:
    """Everything goes well, at once."""

    async def io(self, point: str) -> Fault:
        del point
        return Fault()


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probabilities per call (their sum is at most 1) and ranges of times."""

    crash_before: float = 0.0
    crash_after: float = 0.0
    crash_hanging: float = 0.0
    lost_before: float = 0.0
    lost_after: float = 0.0
    black_hole: float = 0.0
    server_error: float = 0.0
    throttled: float = 0.0
    stale: float = 0.0
    watch_gone: float = 0.0
    watch_cut: float = 0.0
    watch_doubled: float = 0.0
    watch_delayed: float = 0.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    wait_s: tuple[float, float] = (1.0, 20.0)

    def __post_init__(self) -> None:
        total = sum(rate for rate, _ in self.table())
        if total > 1.0 or any(rate < 0.0 for rate, _ in self.table()):
            raise ValueError(f"rates must be positive and add up to at most 1, not {total}")

    def table(self) -> list[tuple[float, FaultKind]]:
        """The rates with their kinds, in the order they are drawn."""
        return [
            (self.crash_before, FaultKind.CRASH_BEFORE),
            (self.crash_after, FaultKind.CRASH_AFTER),
            (self.crash_hanging, FaultKind.CRASH_HANGING),
            (self.lost_before, FaultKind.LOST_BEFORE),
            (self.lost_after, FaultKind.LOST_AFTER),
            (self.black_hole, FaultKind.BLACK_HOLE),
            (self.server_error, FaultKind.SERVER_ERROR),
            (self.throttled, FaultKind.THROTTLED),
            (self.stale, FaultKind.STALE),
            (self.watch_gone, FaultKind.WATCH_GONE),
            (self.watch_cut, FaultKind.WATCH_CUT),
            (self.watch_doubled, FaultKind.WATCH_DOUBLED),
            (self.watch_delayed, FaultKind.WATCH_DELAYED),
        ]


@dataclass(slots=True)
class SeededPlan:
    """Faults drawn from (seed, point, how often the point was asked). `rates` by prefix of the point, the longest
    prefix wins; "" is every other point. `stop` ends all faults; latency stays. `crashes_max` bounds the crashes."""

    seed: int
    rates: Mapping[str, FaultRates]
    crashes_max: int = 1_000_000
    crashes: int = 0
    stopped: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    watcher: Callable[[str, Fault], None] | None = None  # sees every point and its fate: a trace

    async def io(self, point: str) -> Fault:
        fault = self.draw(point)
        if self.watcher is not None:
            self.watcher(point, fault)
        if fault.before_s > 0:
            await asyncio.sleep(fault.before_s)
        return fault

    def draw(self, point: str) -> Fault:
        """The fate of the next call at `point`, without waiting for its latency."""
        count = self.counts.get(point, 0)
        self.counts[point] = count + 1
        rates = self._rates(point)
        where = (self.seed, point, count)
        kind = FaultKind.NONE if self.stopped else _pick(rates, fraction(*where, "kind"))
        if kind in CRASHES:
            if self.crashes >= self.crashes_max:
                kind = FaultKind.NONE
            else:
                self.crashes += 1
        low, high = rates.latency_s
        return Fault(
            kind,
            before_s=between(low, high, *where, "before") / 2 if high > 0 else 0.0,
            after_s=between(low, high, *where, "after") / 2 if high > 0 else 0.0,
            applied=fraction(*where, "applied") < 0.5,
            wait_s=between(*rates.wait_s, *where, "wait"),
        )

    def stop(self) -> None:
        """No more faults from here on: what the system makes of it now must converge."""
        self.stopped = True

    def _rates(self, point: str) -> FaultRates:
        matching = [prefix for prefix in self.rates if point.startswith(prefix)]
        return self.rates[max(matching, key=len)] if matching else FaultRates()


def _pick(rates: FaultRates, drawn: float) -> FaultKind:
    for rate, kind in rates.table():
        if drawn < rate:
            return kind
        drawn -= rate
    return FaultKind.NONE


@dataclass(slots=True)
class CrashAt:
    """Crashes at the call of number `ordinal` (counted from 0 over all points) in the way `kind`; else `inner` decides.
    With ordinal None it only records `points`: the base run of an enumeration. `watcher` is called before each point,
    when nothing of it has happened yet: the moment to copy the world."""

    ordinal: int | None
    kind: FaultKind = FaultKind.CRASH_AFTER
    inner: FaultPlan = field(default_factory=NoFaults)
    points: list[str] = field(default_factory=list)
    wait_s: float = 20.0
    watcher: Callable[[int, str], None] | None = None

    async def io(self, point: str) -> Fault:
        number = len(self.points)
        self.points.append(point)
        if self.watcher is not None:
            self.watcher(number, point)
        if number == self.ordinal:
            return Fault(self.kind, wait_s=self.wait_s)
        return await self.inner.io(point)


# ---- crashes -----------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


class Dead(BaseException):
    """The process died before; nothing it does has an effect any more."""


class Generation:
    """One life of the daemon. `number` is for messages; `death` says where it died."""

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.death: str | None = None
        self._died = asyncio.Event()

    @property
    def alive(self) -> bool:
        return self.death is None

    def check(self) -> None:
        """Raise Dead once the generation is."""
        if self.death is not None:
            raise Dead(f"generation {self.number} died: {self.death}")

    def kill(self, why: str) -> None:
        """End it. May be called again; the first reason stays."""
        if self.death is None:
            self.death = why
            self._died.set()

    def crash(self, fault: Fault, point: str) -> NoReturn:
        """Die at `point`."""
        self.kill(f"{fault.kind} at {point}")
        raise Crash(self.death)

    async def hang(self, fault: Fault, point: str) -> NoReturn:
        """Never return; the process dies `fault.wait_s` later, whatever becomes of this call."""
        asyncio.get_running_loop().call_later(fault.wait_s, self.kill, f"{fault.kind} at {point}")
        await self._died.wait()
        raise Dead(f"generation {self.number} died: {self.death}")

    async def wait(self) -> str:
        """Wait for the death; returns where it died."""
        await self._died.wait()
        return self.death or ""
