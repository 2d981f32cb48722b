"""Keeping an eye on one cluster: at most three watches, lists for the rest, one cache of live objects.

The level is the truth and a watch only makes it known sooner. A watched kind that is quiet for longer than the check
interval is compared by one list of metadata, which proves that the cluster lives and that nothing was missed. Other
kinds get the same list every re-sync interval, and every check interval while somebody waits for them. Waits go by the
policy clock, request timeouts and the idle deadline of a watch by the loop's time.

    observer = Observer(cluster, clock=clock, scope=scope, selector="reconciler.dev/owner", jitter=generator.random,
                        on_change=lane.objects_changed, on_heard=lane.heard)
    observer.set_kinds([Kind("flink.apache.org/v1beta1", "FlinkDeployment"), Kind("v1", "ConfigMap")])
    observer.live(key)                # the object, None (absent) or NOT_SEEN
    await observer.read("v1", key)    # ask the cluster now
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.shell.follow import Follower, Kind, pause_until
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.live import GroupKind, LiveCache, NotSeen
from reconciler.shell.metrics import Metrics
from reconciler.shell.mirror import Mirror
from reconciler.shell.ports import Clock
from reconciler.shell.scope import Scope

__all__ = ["Kind", "Observer"]

WATCHES_MAX = 3
#: Who gets a watch first; kinds that are not here follow in alphabetical order. Flink's come first because gates wait
#: for them, then what has a health of its own, then what people edit by hand.
WATCH_ORDER = (
    GroupKind("flink.apache.org", "FlinkDeployment"),
    GroupKind("flink.apache.org", "FlinkSessionJob"),
    GroupKind("apps", "Deployment"),
    GroupKind("apps", "StatefulSet"),
    GroupKind("batch", "Job"),
    GroupKind("", "Pod"),
    GroupKind("", "ConfigMap"),
    GroupKind("", "Service"),
    GroupKind("", "Secret"),
)
#: API servers send a bookmark about once a minute, the first one of a watch in two where their etcd seldom says how far
#: it is; a watch that is silent for longer is taken for dead.
WATCH_IDLE_S = 130.0
CHECK_INTERVAL_S = 10.0
RESYNC_INTERVAL_S = 300.0


class Observer:
    """One cluster's live objects, kept current. Used from one loop; its tasks belong to `scope`.

    `on_change(keys)` says that what is known of these objects changed; `on_heard()` that the cluster was heard from:
    `heard_at` or a kind's `observed_at` moved. Both are called at once, from whatever task noticed, the caller's own
    included: set a wake-up there and return."""

    def __init__(
        self,
        cluster: KubeCluster,
        *,
        clock: Clock,
        scope: Scope,
        selector: str,
        jitter: Callable[[], float],
        on_change: Callable[[Sequence[ObjectKey]], None],
        on_heard: Callable[[], None],
        check_interval_s: float = CHECK_INTERVAL_S,
        resync_interval_s: float = RESYNC_INTERVAL_S,
        watch_idle_s: float = WATCH_IDLE_S,
        metrics: Metrics | None = None,
    ) -> None:
        """`jitter` returns numbers from 0 to 1 (a Random's `random`)."""
        self._mirror = Mirror(cluster, clock, on_change, on_heard, metrics)
        self._clock = clock
        self._scope = scope
        self._selector = selector
        self._jitter = jitter
        self._check_interval_s = check_interval_s
        self._resync_interval_s = resync_interval_s
        self._watch_idle_s = watch_idle_s
        self._waited_for: frozenset[GroupKind] = frozenset()
        self._followers: dict[GroupKind, Follower] = {}  # in watch order
        self._watches: dict[GroupKind, asyncio.Task[None]] = {}
        self._checker: asyncio.Task[None] | None = None
        self._started = 0
        self._check_wake = asyncio.Event()

    # ---- what is known -----------------------------------------------------------------------------------------

    @property
    def cache(self) -> LiveCache:
        """The live objects."""
        return self._mirror.cache

    @property
    def busy(self) -> bool:
        """A list, a read, the opening of a watch or the handling of an event is under way."""
        return self._mirror.busy

    @property
    def heard_at(self) -> float | None:
        """Now.monotonic of the cluster's last answer or event of any kind; None if there was none."""
        return self._mirror.heard_at

    @property
    def reason(self) -> Reason | None:
        """Why the cluster did not answer the last time; None if it did."""
        return self._mirror.reason

    def live(self, key: ObjectKey) -> Manifest | NotSeen | None:
        """The object; None if known to be absent; NOT_SEEN if nobody has looked. After a complete list None means that
        no object with our label has this key: before a create it is read by name."""
        return self._mirror.cache.live(key)

    def observed_at(self, kind: GroupKind) -> float | None:
        """Now.monotonic of the last proof that the cache is current for `kind`; None if there was none."""
        follower = self._followers.get(kind)
        return follower.observed_at if follower else None

    def watched(self) -> list[Kind]:
        """The kinds that have a watch, in watch order."""
        return [follower.kind for kind, follower in self._followers.items() if kind in self._watches]

    def problem(self, kind: GroupKind) -> Reason | None:
        """Why `kind` cannot be observed just now (not served, forbidden, unreachable, ...); None if it can."""
        follower = self._followers.get(kind)
        return follower.reason if follower else None

    def failing_since(self, kind: GroupKind) -> float | None:
        """Now.monotonic of when `kind` could first not be observed after it could; None while it can."""
        follower = self._followers.get(kind)
        return follower.failing_since if follower else None

    # ---- what the lane tells -----------------------------------------------------------------------------------

    def observed(self, manifest: Manifest) -> None:
        """Take in what the cluster answered to the lane's own write."""
        self._mirror.heard()
        self._mirror.take([manifest])

    def gone(self, key: ObjectKey) -> None:
        """Take in that `key` is confirmed to be absent after the lane's own delete."""
        self._mirror.heard()
        self._mirror.gone(key)

    def failed(self, error: KubeError) -> None:
        """Take in that a request of the lane's own failed: it says whether the cluster is there."""
        self._mirror.failed(error)

    def set_intervals(self, *, check_s: float, resync_s: float, waited_for: Iterable[GroupKind] = ()) -> None:
        """How long a watch may be quiet before it is checked, and how often unwatched kinds are listed: those that are
        `waited_for` as often as a quiet watch is checked."""
        pace = (check_s, resync_s, frozenset(waited_for))
        if pace != (self._check_interval_s, self._resync_interval_s, self._waited_for):
            self._check_interval_s, self._resync_interval_s, self._waited_for = pace
            self._check_wake.set()

    def set_kinds(self, kinds: Iterable[Kind]) -> None:
        """Follow `kinds` from now on; of a kind at two versions the last one in order. What is no longer followed is
        forgotten."""
        wanted = {kind.group_kind: kind for kind in sorted(kinds)}
        ordered = sorted(wanted, key=_watch_rank)
        for kind in sorted(self._followers):
            if self._followers[kind].kind != wanted.get(kind):
                self._stop_watch(kind)
                self._mirror.cache.forget(kind)
                del self._followers[kind]
        self._followers = {kind: self._followers.get(kind) or self._follower(wanted[kind]) for kind in ordered}
        for kind in ordered[WATCHES_MAX:]:
            self._stop_watch(kind)
        for kind in ordered[:WATCHES_MAX]:
            if kind not in self._watches:
                watch = self._followers[kind].watch_for_ever(self._watch_idle_s)
                self._watches[kind] = self._start(f"watch:{self._mirror.cluster.name}/{kind.kind}", watch)
        if self._checker is None:
            self._checker = self._start(f"check:{self._mirror.cluster.name}", self._check_for_ever())
        self._check_wake.set()

    def stop(self) -> None:
        """End all tasks. What is known stays."""
        for kind in list(self._watches):
            self._stop_watch(kind)
        if self._checker is not None:
            self._checker.cancel()
            self._checker = None

    # ---- what the lane asks ------------------------------------------------------------------------------------

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """Ask the cluster for `key` now, take it in, and return the newest that is known. Raises KubeError."""
        return await self._mirror.read(api_version, key)

    async def refresh(self, keys: Iterable[ObjectKey]) -> None:
        """Read `keys` now, at the versions their kinds are followed at; others are left out. Raises KubeError."""
        for key in keys:
            follower = self._followers.get(GroupKind.of(key))
            if follower is not None:
                await self._mirror.read(follower.kind.api_version, key)

    async def resync(self, kinds: Iterable[GroupKind] | None = None) -> None:
        """Compare `kinds` (all that are followed) with the cluster now. Raises the first KubeError, after all were
        tried."""
        failed: KubeError | None = None
        for kind in sorted(self._followers if kinds is None else kinds):
            follower = self._followers.get(kind)
            if follower is not None:
                try:
                    await follower.check()
                except KubeError as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    # ---- tasks -------------------------------------------------------------------------------------------------

    def _follower(self, kind: Kind) -> Follower:
        name = f"confirm:{self._mirror.cluster.name}/{kind.kind}"
        return Follower(
            kind,
            self._mirror,
            clock=self._clock,
            selector=self._selector,
            jitter=self._jitter,
            start=partial(self._start, name),
        )

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task. It is numbered, for one of the same name may still be ending."""
        self._started += 1
        return self._scope.start(f"{name}#{self._started}", work)

    def _stop_watch(self, kind: GroupKind) -> None:
        task = self._watches.pop(kind, None)
        if task is not None:
            task.cancel()

    async def _check_for_ever(self) -> None:
        """Check each kind when it is due, one after the other, until cancelled."""
        while True:
            due = [(self._check_due_at(follower), kind) for kind, follower in self._followers.items()]
            at_s, kind = min(due, default=(float("inf"), GroupKind("", "")))
            if at_s > self._clock.now().monotonic:
                await self._wait_for_check(at_s)
                continue
            try:
                await self._followers[kind].check()
            except KubeError:
                # It is noted in the follower (reason, check_again_at) and tried again then.
                continue

    async def _wait_for_check(self, at_s: float) -> None:
        if at_s < float("inf"):
            await pause_until(self._clock, at_s, self._check_wake)
        else:
            await self._check_wake.wait()
            self._check_wake.clear()

    def _check_due_at(self, follower: Follower) -> float:
        """When `follower` is to be checked next. The first list of a watched kind is its watch's business."""
        if follower.kind.group_kind in self._watches:
            if follower.observed_at is None:
                return self._clock.now().monotonic + self._check_interval_s
            base = follower.observed_at + self._check_interval_s
        else:
            waited_for = follower.kind.group_kind in self._waited_for
            interval_s = self._check_interval_s if waited_for else self._resync_interval_s
            base = 0.0 if follower.checked_at is None else follower.checked_at + interval_s
        return max(base, follower.check_again_at)


def _watch_rank(kind: GroupKind) -> tuple[int, GroupKind]:
    """Place in WATCH_ORDER, then by name."""
    return (WATCH_ORDER.index(kind) if kind in WATCH_ORDER else len(WATCH_ORDER), kind)
