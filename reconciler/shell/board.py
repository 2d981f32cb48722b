"""The board: what is known now and nowhere stored. Rebuilt at every start.

Lanes publish verdicts and cluster views; sources and rollouts read them and leave their waits, which the API and
`explain` show. It holds values only, and the level is the truth: whoever missed a wake-up reads the same board later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from reconciler.core.actions import Wait
from reconciler.core.model import ClusterView, Now, Reason, Target, TargetVerdict

#: When all that a target's verdict was judged from was last proven current: Now.monotonic, None if it was not.
Freshness = Callable[[Target], float | None]


@dataclass(slots=True)
class ClusterEntry:
    """One cluster as its lane reports it. `view` and `freshness` are asked at every reading, so that a quiet cluster
    costs nothing to keep fresh."""

    view: Callable[[], ClusterView]
    freshness: Freshness
    region: str = ""


@dataclass(slots=True)
class Board:
    """Verdicts by target, clusters by name, waits by unit. `listening_since` is Now.monotonic of this boot's start
    while a source may still declare clusters, and None once each had its chance: until then a cluster without a lane is
    one that has said nothing yet. `writing` are the targets that a lane is writing: a batch of each is under way."""

    clusters: dict[str, ClusterEntry] = field(default_factory=dict)
    verdicts: dict[Target, TargetVerdict] = field(default_factory=dict)
    waits: dict[str, tuple[Wait, ...]] = field(default_factory=dict)
    listening_since: float | None = None
    writing: set[Target] = field(default_factory=set)
    _watching: dict[str, frozenset[Target]] = field(default_factory=dict)
    _watchers: dict[Target, list[str]] = field(default_factory=dict)
    _by_cluster: dict[str, dict[str, list[Target]]] = field(default_factory=dict)
    _version: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def under_way(self, target: Target) -> Iterator[None]:
        """While `target` is being written, its results' record included."""
        self.writing.add(target)
        try:
            yield
        finally:
            self.writing.discard(target)

    def watch(self, unit: str, targets: Iterable[Target]) -> None:
        """Have `unit` woken when the verdict on one of `targets`, or what is known of its cluster, changes."""
        self._watching[unit] = frozenset(targets)
        for target in sorted(self._watching[unit]):
            self._watchers.setdefault(target, []).append(unit)
            self._by_cluster.setdefault(target.cluster, {}).setdefault(unit, []).append(target)
            self._version[target.cluster] += 1

    def unwatch(self, unit: str) -> None:
        """Forget `unit`. May be called twice."""
        for target in sorted(self._watching.pop(unit, frozenset())):
            self._by_cluster.get(target.cluster, {}).pop(unit, None)
            self._version[target.cluster] += 1
            left = [name for name in self._watchers.get(target, ()) if name != unit]
            if left:
                self._watchers[target] = left
            else:
                self._watchers.pop(target, None)

    def watchers(self, target: Target) -> tuple[str, ...]:
        """The units that watch `target`, the oldest first."""
        return tuple(self._watchers.get(target, ()))

    def watchers_of_cluster(self, cluster: str) -> tuple[str, ...]:
        """All units that watch a target on `cluster`, the oldest first."""
        return tuple(self._by_cluster.get(cluster, ()))

    def watched_version(self, cluster: str) -> int:
        """A number that is another one whenever `watched_on` may say something else."""
        return self._version[cluster]

    def watched_on(self, cluster: str) -> list[Target]:
        """The targets on `cluster` that a unit watches, sorted."""
        return sorted({target for targets in self._by_cluster.get(cluster, {}).values() for target in targets})

    def view(self, name: str, now: Now) -> ClusterView | None:
        """The cluster as it is known now. One without a lane is not declared, or not yet in this boot."""
        entry = self.clusters.get(name)
        if entry is not None:
            return entry.view()
        if self.listening_since is not None:
            reason = Reason("ClusterUnknown", "is not declared yet: not every repository was read since the start")
            return ClusterView(name, None, self.listening_since, reason=reason)
        reason = Reason("ClusterUnknown", "is not declared, or the daemon's settings have no credentials for it")
        return ClusterView(name, None, now.monotonic - 1e9, reason=reason)

    def views(self, names: Iterable[str], now: Now) -> dict[str, ClusterView]:
        """Views of `names`, sorted."""
        found = {}
        for name in sorted(set(names)):
            view = self.view(name, now)
            if view is not None:
                found[name] = view
        return found

    def verdict(self, target: Target) -> TargetVerdict | None:
        """The verdict with the time at which it was last proven current."""
        verdict = self.verdicts.get(target)
        entry = self.clusters.get(target.cluster)
        if verdict is None or entry is None:
            return None
        fresh_at = entry.freshness(target)
        return verdict if fresh_at is None else replace(verdict, observed_at=max(verdict.observed_at, fresh_at))

    def observe(self, targets: Iterable[Target]) -> dict[Target, TargetVerdict]:
        """Verdicts on `targets`, as one consistent copy."""
        found = {}
        for target in targets:
            verdict = self.verdict(target)
            if verdict is not None:
                found[target] = verdict
        return found

    def regions(self) -> Mapping[str, str]:
        """The region of each cluster, "" where its labels name none."""
        return {name: entry.region for name, entry in self.clusters.items()}
