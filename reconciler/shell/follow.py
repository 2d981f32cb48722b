"""Following one kind on one cluster: list it, watch it, compare versions, and know how current that is.

A watch only makes things known sooner. What it loses, doubles or delays is found by the next comparison: one list of
metadata, and a read of each object whose version is not the cached one. An object counts as deleted only when it was
asked for by name and was not there: on a label-selected watch or list, its label may just have been removed, and the
API server says both in the same words. Of many deletions at once several are asked about at a time, and what comes
after them is taken in meanwhile. A list that failed, was cut or is older than what is known proves nothing.

    follower = Follower(Kind("v1", "ConfigMap"), mirror, clock=clock, selector="reconciler.dev/owner", jitter=jitter,
                        start=start)
    await follower.check()                  # once; or, as a task that ends when cancelled:
    await follower.watch_for_ever(idle_s=130)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import ExitStack, aclosing
from functools import partial
from typing import NamedTuple

from reconciler.core.model import ObjectKey, Reason
from reconciler.shell.beside import Beside, Start, beside
from reconciler.shell.in_order import InOrder, Step
from reconciler.shell.kube_answers import ObjectVersion, WatchEvent
from reconciler.shell.kube_errors import GoneError, KubeError, Outcome
from reconciler.shell.live import GroupKind, Live, is_older
from reconciler.shell.mirror import Mirror
from reconciler.shell.ports import Clock

BACKOFF_START_S = 1.0
BACKOFF_MAX_S = 30.0
#: Above this many changed objects one list of the kind is cheaper than a read of each.
READS_PER_CHECK_MAX = 50
#: So many lists in a row may be older than what is known. Then it is the server that went back (a restored etcd), and
#: what we know is of a past that no longer exists.
STALE_LISTS_MAX = 5
#: Objects we know that carry no label of ours are read again this often: no list shows them.
UNLISTED_INTERVAL_S = 300.0
#: Of one watch. A cluster is asked eight things at a time (`kube_exchange.py`), first come first served: the lane's own
#: requests are never behind more than the reads of its three watches.
DELETIONS_AT_ONCE = 8


class Kind(NamedTuple):
    """A kind at the version at which its objects are read."""

    api_version: str
    kind: str

    @property
    def group_kind(self) -> GroupKind:
        """The kind whatever its version."""
        return GroupKind(self.api_version.rpartition("/")[0], self.kind)


class Backoff:
    """How long to wait after failures in a row: doubling, with jitter, never less than the server asked for."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._failures = 0

    def failed(self, retry_after_s: float | None = None) -> float:
        """One more failure; the seconds to wait."""
        wait_s = min(BACKOFF_MAX_S, BACKOFF_START_S * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(wait_s * (0.5 + 0.5 * self._jitter()), retry_after_s or 0.0)

    def succeeded(self) -> None:
        """Start from the beginning."""
        self._failures = 0


async def pause_until(clock: Clock, monotonic_s: float, wake: asyncio.Event | None = None) -> None:
    """Wait on the policy clock, or until `wake` is set (which is cleared then)."""
    wake = wake or asyncio.Event()
    timer = clock.call_at(monotonic_s, wake.set)
    try:
        await wake.wait()
    finally:
        timer.cancel()
    wake.clear()


class Follower:
    """One kind. `observed_at` is Now.monotonic of the last proof that the cache holds what is there, None if there was
    none; `reason` says why it cannot be observed just now, and `failing_since` since when."""

    def __init__(
        self,
        kind: Kind,
        mirror: Mirror,
        *,
        clock: Clock,
        selector: str,
        jitter: Callable[[], float],
        start: Start,
    ) -> None:
        """`start` starts a task of the same owner as that of `watch_for_ever`."""
        self.kind = kind
        self._start = start
        self.observed_at: float | None = None
        self.checked_at: float | None = None
        self.check_again_at = 0.0
        self.reason: Reason | None = None
        self.failing_since: float | None = None
        self._mirror = mirror
        self._clock = clock
        self._selector = selector
        self._watch_backoff = Backoff(jitter)
        self._check_backoff = Backoff(jitter)
        self._resume_from = ""  # where the next watch starts; "" means that a list comes first
        self._reached = ""  # the newest version a list or event has told of
        self._stale_lists = 0
        self._unlisted: dict[ObjectKey, float] = {}  # live objects without our label, and when they were last read

    def _now_s(self) -> float:
        return self._clock.now().monotonic

    # ---- watch -------------------------------------------------------------------------------------------------

    async def watch_for_ever(self, idle_s: float) -> None:
        """List, watch from there, and go on from where each watch ended, until cancelled."""
        reason = "start"
        while True:
            try:
                if not self._resume_from:
                    self._resume_from = await self._list()
                    if self._mirror.metrics is not None:
                        self._mirror.metrics.add("watch_relists", reason=reason)
                    reason = "version-too-old"
                events = await self._watch(idle_s)
                # A server that ends every watch at once must not be asked in a tight loop.
                pause_s = 0.0 if events else self._watch_backoff.failed()
            except KubeError as error:
                if isinstance(error, GoneError):
                    self._resume_from = ""
                self._failed(error)
                pause_s = self._watch_backoff.failed(error.retry_after_s)
            if pause_s:
                await pause_until(self._clock, self._now_s() + pause_s)

    async def _watch(self, idle_s: float) -> int:
        """One watch to its end; how many events it brought. A deletion that cannot be confirmed ends it: it comes again
        from the next one, for the version to resume from has not moved past it."""
        count, steps = 0, InOrder()
        with ExitStack() as opening:
            opening.enter_context(self._mirror.at_work())

            def opened() -> None:
                opening.close()
                self._mirror.heard()

            api_version, kind = self.kind
            events = self._mirror.cluster.watch(
                api_version, kind, self._selector, self._resume_from, idle_s=idle_s, on_open=opened
            )
            reads = beside(self._start, self._mirror.at_work, at_once=DELETIONS_AT_ONCE)
            async with reads as deletions, aclosing(events):
                async for event in events:
                    with self._mirror.at_work():
                        await self._handle(event, steps, deletions)
                    count += 1
                    if self._mirror.metrics is not None:
                        self._mirror.metrics.add("watch_events")
        return count

    async def _handle(self, event: WatchEvent, steps: InOrder, deletions: Beside) -> None:
        """Take one event in, or have its deletion confirmed meanwhile."""
        step = steps.begin(event.resource_version, self._now_s())
        if not is_older(event.resource_version, self._reached):
            self._reached = event.resource_version
        if event.type == "DELETED" and event.key is not None:
            await deletions.start(partial(self._confirm_deletion, event.key, steps, step))
            return
        if event.object is not None:
            self._mirror.take([{**event.object, "apiVersion": self.kind.api_version, "kind": self.kind.kind}])
        self._handled(steps, step)

    async def _confirm_deletion(self, key: ObjectKey, steps: InOrder, step: Step) -> None:
        """Ask for `key` unless the event is late: then we have seen the object, or its end, since. What arrives of the
        same object meanwhile is no matter: what is known only ever goes forward."""
        known = self._mirror.cache.entry(key)
        late = known is not None and is_older(step.version, known.resource_version)
        if not late and await self._mirror.read(self.kind.api_version, key) is None:
            self._mirror.gone(key, step.version)
        self._handled(steps, step)

    def _handled(self, steps: InOrder, step: Step) -> None:
        """`step` is done. The version to resume from, and what is proven current, move as far as all before it are:
        what failed or was cut off comes again."""
        settled = steps.end(step)
        if settled is None:
            self._mirror.heard()
            return
        self._resume_from = settled.version
        self._watch_backoff.succeeded()  # not by what only comes again, after what fails again
        self._observed(settled.at_s)

    # ---- lists -------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Find out what is there now: compare versions, or list if that was never done. Raises KubeError."""
        try:
            with self._mirror.at_work():
                if self._mirror.cache.is_complete(self.kind.group_kind):
                    await self._compare()
                else:
                    await self._list()
        except KubeError as error:
            self._failed(error)
            self.check_again_at = self._now_s() + self._check_backoff.failed(error.retry_after_s)
            raise
        self._check_backoff.succeeded()

    async def _list(self) -> str:
        """All objects of the kind; the version from which a watch misses nothing."""
        started_s, known = self._now_s(), self._reached
        present: set[ObjectKey] = set()
        version = ""
        with self._mirror.at_work():
            pages = self._mirror.cluster.list_pages(*self.kind, self._selector)
            async with aclosing(pages):
                async for page in pages:
                    self._mirror.heard()
                    self._mirror.take(page.objects)
                    present.update(ObjectKey.of(manifest) for manifest in page.objects)
                    version = page.resource_version
            self._refuse_stale(version, known)
            await self._read_missing(present)
        self._listed(version, present, started_s)
        return version

    async def _compare(self) -> None:
        """One list of metadata, and a read of every object whose version is not the cached one."""
        started_s, known = self._now_s(), self._reached
        version, rows = await self._mirror.cluster.list_versions(*self.kind, self._selector)
        self._mirror.heard()
        self._refuse_stale(version, known)
        changed = sorted(row.key for row in rows if self._is_news(row))
        if len(changed) > READS_PER_CHECK_MAX:
            await self._list()
            return
        for key in changed:
            await self._mirror.read(self.kind.api_version, key)
        present = {row.key for row in rows}
        await self._read_missing(present)
        self._listed(version, present, started_s)

    def _is_news(self, row: ObjectVersion) -> bool:
        entry = self._mirror.cache.entry(row.key)
        if isinstance(entry, Live) and (entry.uid, entry.resource_version) == (row.uid, row.resource_version):
            return False
        return entry is None or not is_older(row.resource_version, entry.resource_version)

    async def _read_missing(self, present: Collection[ObjectKey]) -> None:
        """Read what we took for live and the list did not show: it is gone, or has lost its label."""
        cache = self._mirror.cache
        for key in cache.keys(self.kind.group_kind):
            if key in present:
                self._unlisted.pop(key, None)
            elif self._now_s() >= self._unlisted.get(key, float("-inf")) + UNLISTED_INTERVAL_S:
                if await self._mirror.read(self.kind.api_version, key) is None:
                    self._unlisted.pop(key, None)
                else:
                    self._unlisted[key] = self._now_s()

    def _refuse_stale(self, version: str, known: str) -> None:
        """A list that was asked for after `known` was known cannot honestly be older."""
        if not is_older(version, known):
            self._stale_lists = 0
            return
        self._stale_lists += 1
        message = f"a list of {self.kind.kind} is of version {version}, but {known} was seen before it was asked for"
        if self._stale_lists >= STALE_LISTS_MAX:
            self._mirror.cache.forget(self.kind.group_kind)
            self._stale_lists, self._reached, self._resume_from, self.observed_at = 0, "", "", None
            message += "; the server seems to have been restored, and everything is read anew"
        raise GoneError(Reason("StaleList", message), outcome=Outcome.TEMPORARY)

    def _listed(self, version: str, present: Collection[ObjectKey], started_s: float) -> None:
        self._mirror.cache.complete(self.kind.group_kind, version, present)
        if not is_older(version, self._reached):
            self._reached = version
        self.checked_at = started_s
        self._observed(started_s)

    def _failed(self, error: KubeError) -> None:
        self._mirror.failed(error)
        self.reason = error.reason
        if self.failing_since is None:
            self.failing_since = self._now_s()

    def _observed(self, at_s: float) -> None:
        self.reason = self.failing_since = None
        self.observed_at = at_s if self.observed_at is None else max(at_s, self.observed_at)
        self._mirror.heard()
