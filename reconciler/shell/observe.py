"""Keeping an eye on one cluster: at most three watches, lists for the rest, one cache of live objects.

The level is the truth. A watch only makes it known sooner: whatever it loses, doubles or delays is found by the next
comparison of versions, and an object is taken for deleted only after it was asked for by name (on a label-selected
watch DELETED may just mean that the label was removed). A list that failed, was cut or went back in time proves nothing.

    observer = Observer(cluster, clock=clock, scope=scope, selector="reconciler.dev/owner", jitter=random.random,
                        on_change=lane.objects_changed, on_heard=lane.heard)
    observer.set_kinds([Kind("flink.apache.org/v1beta1", "FlinkDeployment"), Kind("v1", "ConfigMap")])
    observer.live(key)             # the object, None (absent) or NOT_SEEN
    await observer.read("v1", key) # ask the cluster now

A watched kind: list, watch from there, resume where the watch ended; a version that is too old means list again. While
its watch is quiet for longer than the check interval, one list of metadata proves that the cluster lives and nothing
was missed. Other kinds get the same list every re-sync interval. Waits go by the policy clock, request timeouts and the
idle deadline of a watch by the loop's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.shell.kube_cluster import KubeCluster, WatchEvent
from reconciler.shell.kube_errors import GoneError, KubeError, Outcome, UnauthorizedError
from reconciler.shell.live import Absent, GroupKind, Live, LiveCache, NotSeen, is_older
from reconciler.shell.ports import Clock
from reconciler.shell.scope import Scope

WATCHES_MAX = 3
#: Who gets a watch first; kinds that are not here follow in alphabetical order. Flink's come first because a gate waits
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
#: API servers send a bookmark about once a minute; a watch that is silent for two is taken for dead.
WATCH_IDLE_S = 130.0
CHECK_INTERVAL_S = 10.0
RESYNC_INTERVAL_S = 300.0
BACKOFF_START_S = 1.0
BACKOFF_MAX_S = 30.0
#: Above this many changed objects one list of the kind is cheaper than a read of each.
READS_PER_CHECK_MAX = 50
#: So often in a row a list may be older than what is known already; then the server's data was put back (a restored
#: etcd), and what we know is the past.
STALE_LISTS_MAX = 5
READS_AGAIN_MAX = 3


class Kind(NamedTuple):
    """A kind at the version at which its objects are read."""

    api_version: str
    kind: str

    @property
    def group_kind(self) -> GroupKind:
        """The kind whatever its version."""
        return GroupKind(self.api_version.rpartition("/")[0], self.kind)


@dataclass(slots=True)
class _Followed:
    """What is known of following one kind. Times are Now.monotonic."""

    kind: Kind
    watched: bool = False
    task: asyncio.Task[None] | None = None
    observed_at: float | None = None  # the last proof that the cache holds what is there
    checked_at: float | None = None  # the last list, of whatever kind
    retry_at: float = 0.0
    version: str = ""  # the newest version a list or bookmark has reached
    failures: int = 0
    stale_lists: int = 0
    reason: Reason | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Observer:
    """One cluster's live objects, kept current. Used from one loop; its tasks belong to `scope`.

    `on_change(keys)` says that what is known of these objects changed; `on_heard()` that the cluster was heard from,
    `heard_at` or a kind's `observed_at` moved. Both are called at once, from whatever task noticed: set a wake-up there
    and return."""

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
    ) -> None:
        """`jitter` returns numbers from 0 to 1 (a Random's `random`)."""
        self.cache = LiveCache()
        self.heard_at: float | None = None
        self.reason: Reason | None = None
        self._cluster = cluster
        self._clock = clock
        self._scope = scope
        self._selector = selector
        self._jitter = jitter
        self._on_change = on_change
        self._on_heard = on_heard
        self._check_interval_s = check_interval_s
        self._resync_interval_s = resync_interval_s
        self._watch_idle_s = watch_idle_s
        self._followed: dict[GroupKind, _Followed] = {}
        self._checker: asyncio.Task[None] | None = None
        self._check_wake = asyncio.Event()
        self._working = 0

    # ---- what the lane asks and tells --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A list, a read, the opening of a watch or the handling of an event is under way."""
        return self._working > 0

    def live(self, key: ObjectKey) -> Manifest | None | NotSeen:
        """The object; None if known to be absent; NOT_SEEN if nobody has looked. After a complete list None means that
        no object with our label has this key: a create still reads first."""
        return self.cache.live(key)

    def observed_at(self, kind: GroupKind) -> float | None:
        """Now.monotonic of the last proof that the cache is current for `kind`; None if there was none."""
        followed = self._followed.get(kind)
        return followed.observed_at if followed else None

    def problem(self, kind: GroupKind) -> Reason | None:
        """Why `kind` cannot be observed just now; None if it can, or nobody has tried yet."""
        followed = self._followed.get(kind)
        return followed.reason if followed else None

    def watched(self) -> list[Kind]:
        """The kinds that have a watch, in the order of WATCH_ORDER."""
        return [followed.kind for followed in self._followed.values() if followed.watched]

    def observed(self, manifest: Manifest) -> None:
        """Take in what the cluster answered to a write or read of the lane's own."""
        if self.cache.offer(manifest, self._now_s()):
            self._on_change((ObjectKey.of(manifest),))

    def gone(self, key: ObjectKey) -> None:
        """Take in that `key` is confirmed to be absent after our own delete."""
        if self.cache.absent(key, self._now_s()):
            self._on_change((key,))

    def set_intervals(self, *, check_s: float, resync_s: float) -> None:
        """How long a watch may be quiet before it is checked, and how often unwatched kinds are listed."""
        if (check_s, resync_s) != (self._check_interval_s, self._resync_interval_s):
            self._check_interval_s, self._resync_interval_s = check_s, resync_s
            self._check_wake.set()

    def set_kinds(self, kinds: Iterable[Kind]) -> None:
        """Follow `kinds` from now on; of a kind at two versions the last one in order. What is no longer followed is
        forgotten."""
        by_kind = {kind.group_kind: kind for kind in sorted(kinds)}
        ordered = sorted(by_kind, key=_watch_rank)
        for kind in sorted(set(self._followed) - set(by_kind)):
            self._stop_watch(self._followed.pop(kind))
            self.cache.forget(kind)
        followed: dict[GroupKind, _Followed] = {}
        for place, kind in enumerate(ordered):
            entry = self._followed.get(kind)
            if entry is None or entry.kind != by_kind[kind]:
                if entry is not None:
                    self._stop_watch(entry)
                    self.cache.forget(kind)
                entry = _Followed(by_kind[kind])
            followed[kind] = entry
            if place >= WATCHES_MAX:
                self._stop_watch(entry)
        self._followed = followed
        # Only now, when those that lost their place have ended: never a fourth watch.
        for kind in ordered[:WATCHES_MAX]:
            self._start_watch(followed[kind])
        if self._checker is None:
            self._checker = self._scope.start(f"check:{self._cluster.name}", self._check_for_ever())
        self._check_wake.set()

    def stop(self) -> None:
        """End all tasks; what is known stays."""
        for followed in self._followed.values():
            self._stop_watch(followed)
        if self._checker is not None:
            self._checker.cancel()
            self._checker = None

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """Ask the cluster for `key` now, take it in, and return the newest that is known. Raises KubeError."""
        with self._at_work():
            for _ in range(READS_AGAIN_MAX):
                before = self.cache.entry(key)
                try:
                    found = await self._cluster.get(api_version, key)
                except KubeError as error:
                    self._note_error(error)
                    raise
                self._heard()
                if found is not None:
                    self.observed(found)
                    break
                # Somebody wrote while the answer was on its way: it may be older than what we know by now.
                if self.cache.entry(key) is before:
                    self.gone(key)
                    break
        live = self.cache.live(key)
        return None if isinstance(live, NotSeen) else live

    async def refresh(self, keys: Iterable[ObjectKey]) -> None:
        """Read `keys` now, at the versions their kinds are followed at; others are left out. Raises KubeError."""
        for key in keys:
            followed = self._followed.get(GroupKind.of(key))
            if followed is not None:
                await self.read(followed.kind.api_version, key)

    async def resync(self) -> None:
        """List every followed kind now and read what changed. Raises the first KubeError, after having tried all."""
        failed: KubeError | None = None
        for followed in list(self._followed.values()):
            try:
                await self._check(followed)
            except KubeError as error:
                self._note_failure(followed, error)
                failed = failed or error
        if failed is not None:
            raise failed

    # ---- watches -----------------------------------------------------------------------------------------------

    def _start_watch(self, followed: _Followed) -> None:
        followed.watched = True
        if followed.task is None:
            name = f"watch:{self._cluster.name}/{followed.kind.kind}"
            followed.task = self._scope.start(name, self._watch_for_ever(followed))

    def _stop_watch(self, followed: _Followed) -> None:
        followed.watched = False
        if followed.task is not None:
            followed.task.cancel()
            followed.task = None

    async def _watch_for_ever(self, followed: _Followed) -> None:
        """List, watch from there, and go on from where a watch ended, until cancelled."""
        version = ""
        while True:
            try:
                version = version or await self._list(followed)
                async for version in self._watch_from(followed, version):
                    followed.failures, followed.reason = 0, None
                # A server that ends every watch at once is not to be asked in a tight loop.
                followed.failures += 1
                pause_s = self._backoff_s(followed.failures) if followed.failures > 1 else 0.0
            except KubeError as error:
                if isinstance(error, GoneError):
                    version = ""
                self._note_failure(followed, error)
                pause_s = max(0.0, followed.retry_at - self._now_s())
            await self._pause(self._now_s() + pause_s, asyncio.Event())
