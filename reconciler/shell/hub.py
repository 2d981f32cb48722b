"""Hub: wake-ups between units, by name.

Units (sources, rollouts, lanes) meet only in the store and here. A wake-up says "look again, perhaps at these"; many
become one, and one that is lost costs time, never correctness, for each unit also looks by itself now and then.

    unit = hub.unit("rollout:fleet/42")
    while True:
        dirty = await unit.wait()             # ("eu-west-1a", "eu-west-1b"), sorted; () means: look at everything due
        unit.wake_at(clock, decide(dirty).recheck_at)

A unit is *busy* from the moment it is made, but while it waits with nothing to do. `hub.idle` says that no unit is
busy: the demo's clock takes its next step only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reconciler.shell.ports import Clock, Timer


class Hub:
    """All units of one daemon. Used from one event loop."""

    def __init__(self) -> None:
        self._units: dict[str, Unit] = {}
        self._busy: dict[str, int] = {}
        self._drained: list[asyncio.Future[None]] = []

    def unit(self, name: str) -> Unit:
        """Make the unit `name`, busy until it waits. A name is used once at a time."""
        if name in self._units:
            raise ValueError(f"there is a unit {name!r} already")
        unit = Unit(self, name)
        self._units[name] = unit
        self._hold(name)
        return unit

    def wake(self, name: str, *dirty: Any) -> bool:
        """Wake unit `name` and tell it what may have changed. False if there is no such unit: nothing is kept for it,
        for a unit looks at everything when it starts."""
        unit = self._units.get(name)
        if unit is None:
            return False
        unit.wake(*dirty)
        return True

    def wake_all(self, prefix: str = "") -> int:
        """Wake every unit whose name starts with `prefix`, in name order; how many there were."""
        names = sorted(name for name in self._units if name.startswith(prefix))
        for name in names:
            self._units[name].wake()
        return len(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all units, sorted."""
        return tuple(sorted(self._units))

    @property
    def busy(self) -> tuple[str, ...]:
        """Names of what is busy, sorted."""
        return tuple(sorted(self._busy))

    @property
    def idle(self) -> bool:
        """True if every unit waits and none has a wake-up pending."""
        return not self._busy

    async def drained(self) -> None:
        """Wait until `idle` is True. It may be False again by the time the caller runs: look again."""
        while self._busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Count as busy what is no unit: an event that was received and is not yet judged."""
        self._hold(name)
        try:
            yield
        finally:
            self._release(name)

    def _hold(self, name: str) -> None:
        self._busy[name] = self._busy.get(name, 0) + 1

    def _release(self, name: str) -> None:
        left = self._busy[name] - 1
        if left:
            self._busy[name] = left
            return
        del self._busy[name]
        if not self._busy:
            for future in self._drained:
                if not future.done():
                    future.set_result(None)
            self._drained.clear()

    def _forget(self, name: str) -> None:
        del self._units[name]


class Unit:
    """One unit's side: made by `Hub.unit`, waited on by one task, closed by leaving its context."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.name = name
        self._hub = hub
        self._dirty: set[Any] = set()
        self._pending = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: tuple[float, Timer] | None = None
        self._closed = False

    def __enter__(self) -> Unit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wake(self, *dirty: Any) -> None:
        """Have `wait` return, now or at its next call, with `dirty` among its items."""
        if self._closed:
            return
        self._dirty.update(dirty)
        self._pending = True
        if self._waiter is not None and not self._waiter.done():
            # Busy from here on, not only once the task runs: nobody may think that all is done in between.
            self._hub._hold(self.name)
            self._waiter.set_result(None)

    async def wait(self) -> tuple[Any, ...]:
        """Wait for a wake-up and take what gathered: the dirty items, sorted."""
        if self._waiter is not None or self._closed:
            raise RuntimeError(f"unit {self.name!r} is closed, or waited on by another task")
        if not self._pending:
            self._waiter = asyncio.get_running_loop().create_future()
            self._hub._release(self.name)
            try:
                await self._waiter
            except asyncio.CancelledError:
                if not self._waiter.done() or self._waiter.cancelled():
                    self._hub._hold(self.name)  # it did not wake, it was cancelled: busy with ending
                raise
            finally:
                self._waiter = None
        dirty, self._dirty, self._pending = self._dirty, set(), False
        return tuple(sorted(dirty))

    def wake_at(self, clock: Clock, monotonic_s: float | None) -> None:
        """Wake once Now.monotonic reaches `monotonic_s`; None does nothing. Of several the earliest counts, and once it
        has come the others are asked for again by what the unit then decides."""
        if monotonic_s is None or self._closed:
            return
        if self._timer is not None:
            if self._timer[0] <= monotonic_s:
                return
            self._timer[1].cancel()
            self._timer = None
        fired = False

        def fire() -> None:
            nonlocal fired
            fired = True
            self._timer = None
            self.wake()

        timer = clock.call_at(monotonic_s, fire)
        if not fired:  # a clock may call back at once
            self._timer = (monotonic_s, timer)

    def close(self) -> None:
        """Forget the unit: no wake-up reaches it any more, and it is not busy. Closed by the task that waits on it, or
        after that has ended; may be called twice."""
        if self._closed:
            return
        if self._waiter is not None:
            raise RuntimeError(f"unit {self.name!r} is closed while a task waits on it")
        self._closed = True
        if self._timer is not None:
            self._timer[1].cancel()
            self._timer = None
        self._hub._forget(self.name)
        self._hub._release(self.name)
