"""Watches: changes of one kind as lines, from a resourceVersion on.

An open watch has a queue. A write puts its line into the queues of the watches it concerns; the reader takes lines when
it likes. A label selector turns label changes into ADDED and DELETED. Bookmarks and the end after `timeoutSeconds` go
by a clock: a waiting reader arms a timer of the loop it runs on, and `tick` serves drivers whose clock jumps.

    watch = Watch(view, Pace(loop.time), bookmark, on_close)
    async for line in watch: ...
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from reconciler.sim.problems import Status
from reconciler.sim.selectors import Match
from reconciler.sim.store import Event, Stored


@dataclass(frozen=True, slots=True)
class View:
    """What a watch is about: objects of one namespace ("" for all) that the selectors match, shown by `render`."""

    namespace: str
    labels: Match
    fields: Callable[[str, str], bool] | None
    render: Callable[[Stored], bytes]

    def has(self, namespace: str, name: str, stored: Stored | None) -> bool:
        """Whether this version of an object is in view."""
        if stored is None or (self.namespace and namespace != self.namespace):
            return False
        return self.labels(stored.labels) and (self.fields is None or self.fields(namespace, name))

    def line(self, event: Event) -> bytes | None:
        """The event as this view sees it: what leaves the view is DELETED, what enters it ADDED."""
        before = self.has(event.namespace, event.name, event.before)
        after = event.type != "DELETED" and self.has(event.namespace, event.name, event.after)
        if not before and not after:
            return None
        if after:
            return watch_line("MODIFIED" if before else "ADDED", self.render(event.after))
        if event.type == "DELETED":
            return watch_line("DELETED", self.render(event.after))
        return watch_line("DELETED", self.render(_as_of(event)))


def _as_of(event: Event) -> Stored:
    """The last version in view, with the revision at which it left."""
    assert event.before is not None
    metadata = {**event.before.value["metadata"], "resourceVersion": str(event.revision)}
    return Stored({**event.before.value, "metadata": metadata}, event.revision, event.before.entries)


def watch_line(kind: str, rendered: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"' + kind.encode() + b'","object":' + rendered + b"}"


def error_line(status: Status) -> bytes:
    """The line that ends a watch which cannot go on."""
    return watch_line("ERROR", orjson.dumps(status))


@dataclass(slots=True)
class Pace:
    """When a watch says something by itself: times are the clock's; None for never."""

    clock: Callable[[], float]
    ends_at: float | None = None
    bookmark_every_s: float | None = None
    bookmark_at: float | None = None

    def next_at(self) -> float | None:
        """The next time something is due."""
        times = [at for at in (self.ends_at, self.bookmark_at) if at is not None]
        return min(times) if times else None


class Watch:
    """An open watch, an asynchronous iterator of lines. With `acknowledge`, a line counts as pending until the next one
    is asked for, so that a reader who passes lines on (to a socket) is done with them by then."""

    def __init__(
        self, view: View, pace: Pace, bookmark: Callable[[], bytes], on_close: Callable[[Watch], None]
    ) -> None:
        self.view = view
        self.acknowledge = False
        self._pace = pace
        self._bookmark = bookmark
        self._on_close = on_close
        self._lines: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._handed_over = False
        self._ended = False

    @property
    def pending(self) -> int:
        """Lines queued but not yet read; bookmarks count, too."""
        return len(self._lines) + (self._handed_over and self.acknowledge)

    def offer(self, event: Event) -> None:
        """Queue a change, if it is in view."""
        line = self.view.line(event)
        if line is not None:
            self.push(line)

    def push(self, line: bytes) -> None:
        """Queue a line."""
        if not self._ended:
            self._lines.append(line)
            self._wake()

    def end(self) -> None:
        """No more lines; what is queued is still read."""
        if not self._ended:
            self._ended = True
            self._wake()

    def tick(self) -> None:
        """Do what is due by the clock."""
        pace, now = self._pace, self._pace.clock()
        if pace.bookmark_at is not None and pace.bookmark_every_s is not None and now >= pace.bookmark_at:
            pace.bookmark_at = now + pace.bookmark_every_s
            self.push(self._bookmark())
        if pace.ends_at is not None and now >= pace.ends_at:
            self.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> bytes:
        self._handed_over = False
        while not self._lines:
            self.tick()
            if self._lines:
                break
            if self._ended:
                self._on_close(self)
                raise StopAsyncIteration
            await self._wait()
        self._handed_over = True
        return self._lines.popleft()

    async def _wait(self) -> None:
        """Until something is queued, the watch ends, or something is due."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        due = self._pace.next_at()
        timer = None if due is None else loop.call_later(max(0.001, due - self._pace.clock()), self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def aclose(self) -> None:
        """The reader went away."""
        self._lines.clear()
        self._handed_over = False
        self.end()
        # A watch that had ended with lines still to be read was kept until now.
        self._on_close(self)
