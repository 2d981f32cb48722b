"""An agenda: what is to be looked at, and when. The work queue of the simulated controllers.

A key has one due time, the earliest anybody asked for; looking at a key clears it. The agenda keeps one timer on the
cluster's clock, handles keys in the order they fall due (then in key order), and can be copied: what is due is data.

    agenda = Agenda(clock, handle=lambda key: ...)
    agenda.add("flinkdeployments/orders", now + 1.0)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from reconciler.shell.ports import Clock, Timer
from reconciler.sim.loop import Livelock

#: Due times this close count as reached: a clock adds and subtracts on the way.
EPSILON_S = 1e-6
#: Keys handled at one instant that are still taken for work.
HANDLED_AT_ONE_INSTANT_MAX = 1_000_000


#: A key can be compared with its like: a string, or a tuple of strings.
K = TypeVar("K", bound=str | tuple[str, ...])


class Agenda(Generic[K]):
    """Keys with due times (monotonic seconds of `clock`) and the function that handles one when it is due."""

    def __init__(self, clock: Clock, handle: Callable[[K], None]) -> None:
        self._clock = clock
        self._handle = handle
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []
        self._timer: Timer | None = None
        self._timer_s = 0.0
        self._running = False

    def add(self, key: K, due_s: float) -> None:
        """Look at `key` at `due_s`, or earlier if that was asked for already."""
        known = self._due.get(key)
        if known is not None and known <= due_s:
            return
        self._due[key] = due_s
        heapq.heappush(self._heap, (due_s, key))
        self._arm()

    def remove(self, key: K) -> None:
        """Forget `key`."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """When the next key is due, or None."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # done meanwhile, or asked for earlier
        return self._heap[0][0] if self._heap else None

    def idle(self) -> bool:
        """True if nothing is due at the present moment."""
        due_s = self.next_due()
        return due_s is None or due_s > self._clock.now().monotonic + EPSILON_S

    def run_due(self) -> None:
        """Handle everything that is due now, and what that makes due."""
        if self._running:
            return  # a handler wrote something that called us: the loop below comes to it
        self._running = True
        handled = 0
        try:
            now_s = self._clock.now().monotonic
            while (due_s := self.next_due()) is not None and due_s <= now_s + EPSILON_S:
                _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._handle(key)
                handled += 1
                if handled > HANDLED_AT_ONE_INSTANT_MAX:
                    raise Livelock(f"{handled} keys handled at {now_s:.3f} s, the last of them {key}")
        finally:
            self._running = False
        self._arm()

    def _arm(self) -> None:
        """Keep one timer, for the earliest key."""
        due_s = self.next_due()
        if self._running or due_s is None or (self._timer is not None and self._timer_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._clock.call_at(due_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.run_due()

    def stop(self) -> None:
        """Cancel the timer and forget all keys."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()
        self._heap.clear()

    def snapshot(self) -> dict[K, float]:
        """What is due and when."""
        return dict(self._due)

    def restore(self, saved: dict[K, float]) -> None:
        """Take over what was due; times are of the same clock."""
        self.stop()
        for key, due_s in sorted(saved.items(), key=lambda item: (item[1], item[0])):
            self.add(key, due_s)
