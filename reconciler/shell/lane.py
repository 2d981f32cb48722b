"""The lane of one cluster: it observes and performs, and decides nothing.

It owns the cluster's watches, write limits, breaker and intents. What it sees it judges against the assigned releases
and publishes as verdicts; what was committed for it to do it has done (performing.py), asking before each request
whether it still may. A lane that hangs holds nobody else up, and no write that hangs holds up the judging.

    wake-up, for one application or all -> what is assigned and intended there now? -> begin writing
                                        -> judge what changed and is not being written -> publish
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from reconciler.core.documents import Cluster
from reconciler.core.health_rules import NO_POLICIES, HealthPolicies, policies_from_text
from reconciler.core.model import (
    Assignment,
    ClusterView,
    Facts,
    Intent,
    InventoryItem,
    ObjectKey,
    Reason,
    Sync,
    Target,
)
from reconciler.shell.context import INTENTS, Context, intents_of
from reconciler.shell.drift_log import DriftLog, Line, tell
from reconciler.shell.followed import Followed
from reconciler.shell.hub import Unit
from reconciler.shell.judging import Judging
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.leaving import Leaving
from reconciler.shell.observe import Kind, Observer
from reconciler.shell.performing import Batch, Performing
from reconciler.shell.ports import Tx
from reconciler.shell.releases import Releases, SentRelease
from reconciler.shell.retries import Retry

IDLE_CHECK_MAX_S = 90.0
#: How much of its limit a cluster may be silent before it is asked whether it is there.
IDLE_CHECK_SHARE = 0.75
#: Followed while nothing is assigned to the cluster, so that it is heard from: every cluster serves it.
HEARTBEAT = Kind("v1", "Namespace")


#: How often a lane looks at most which kinds are waited for: with a thousand rollouts one of them ends all the time.
PACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """What the store says of one target: `assignment` is None where it is assigned nothing, `rules` say how its objects
    are written, as text ("" is the default); `intents` are pending."""

    assignment: Assignment | None
    rules: str
    items: tuple[InventoryItem, ...]
    intents: tuple[Intent, ...]


NOTHING = Rows(None, "", (), ())


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store says of targets of this cluster, and the health policies of their sources, as text."""

    rows: dict[Target, Rows]
    health: dict[str, str]


def lane_name(cluster: str) -> str:
    """The name of the cluster's unit."""
    return f"lane:{cluster}"


@dataclass(slots=True)
class Lane:
    """One cluster. `observer` is made with `objects_changed` and `heard` of this lane as its callbacks, `performing`
    with this lane as its own, and `leaving` with its `gone`."""

    context: Context
    document: Cluster
    kube: KubeCluster
    releases: Releases
    judging: Judging
    log: logging.Logger
    resync_interval_s: float
    observer: Observer = field(init=False)
    performing: Performing = field(init=False)
    leaving: Leaving = field(init=False)
    _unit: Unit | None = field(init=False, default=None)
    _rows: dict[Target, Rows] = field(init=False, default_factory=dict)
    _assigned: dict[Target, Assignment] = field(init=False, default_factory=dict)
    _health: dict[str, HealthPolicies] = field(init=False, default_factory=dict)
    _followed: Followed = field(init=False, default_factory=Followed)
    _watched_kinds: set[Kind] = field(init=False, default_factory=set)
    _drift: DriftLog = field(init=False)
    _was_heard: bool = field(init=False, default=False)
    _heard_s: float = field(init=False, default=0.0)
    _paced: tuple[bool, int, int] = field(init=False, default=(False, -1, -1))
    _paced_s: float = field(init=False, default=float("-inf"))
    _started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_at = self.context.clock.now().monotonic
        self._drift = DriftLog(self.context, self.document.name)

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.document.name

    # ---- what others ask ---------------------------------------------------------------------------------------

    def view(self) -> ClusterView:
        """The cluster as it is known now."""
        return ClusterView(
            self.name,
            self.observer.heard_at,
            self._started_at,
            self.document.stale_after_s,
            self.document.suspend,
            self.observer.reason,
        )

    def freshness(self, target: Target) -> float | None:
        """When the verdict on `target` was last proven current: the oldest proof among all kinds it has objects of,
        whether they have a watch or not. None while a change is not judged yet, or a kind was never seen whole."""
        if self.judging.is_due(target):
            return None
        times = [self.observer.observed_at(kind) for kind in self._followed.declared(target)]
        return None if None in times else min((at for at in times if at is not None), default=None)

    def blind(self, target: Target) -> Reason | None:
        """Why nothing is known of `target` any more although its cluster may answer: one of its kinds could not be
        observed for longer than the cluster's limit. None while all of them can."""
        limit = self.context.clock.now().monotonic - self.document.stale_after_s
        for kind in self._followed.declared(target):
            since, reason = self.observer.failing_since(kind), self.observer.problem(kind)
            if since is not None and reason is not None and since < limit:
                return Reason(reason.code, f"{kind.kind} cannot be observed: {reason.message}")
        return None

    def retry_of(self, target: Target) -> Retry | None:
        """Why the writes of `target` wait, and until when; None if they do not."""
        return self.performing.retries.of(target)

    # ---- what performing asks and tells ------------------------------------------------------------------------

    @property
    def suspended(self) -> bool:
        """Nothing is to be written on the cluster at all."""
        return self.document.suspend

    async def sent(self, intent: Intent, batch: Batch) -> SentRelease:
        """The release that `intent` belongs to."""
        return await self.releases.sent(intent.digest, batch.source, batch.rules)

    def ended(self, target: Target) -> None:
        """A batch of `target` has ended: its rows are read again, it is judged, and who waits for it looks."""
        self.judging.mark_target(target)
        if self._unit is not None:
            self._unit.wake(intents_of(target.application))
        self._wake_owners(target)

    def gone(self, targets: Collection[Target]) -> None:
        """It was looked whether objects that no release has any more have gone, and those of `targets` have: what the
        store says of them is read again, and who decides about them looks."""
        for target in targets:
            self._wake_owners(target)
        if self._unit is not None:
            self._unit.wake(*(intents_of(target.application) for target in targets))

    # ---- what the observer tells -------------------------------------------------------------------------------

    def objects_changed(self, keys: Sequence[ObjectKey]) -> None:
        """Some live objects changed: judge them."""
        self.judging.mark(keys)
        self.leaving.changed(keys)
        if self._unit is not None:
            self._unit.wake()

    def heard(self) -> None:
        """The cluster answered. When it had not for long, everybody concerned looks again; when it was only quiet, as
        one is that nobody waited for, the rollouts that must not start on it unheard do."""
        now_s = self.context.clock.now().monotonic
        quiet = now_s - self._heard_s > 2 * self.context.check_interval_s
        self._heard_s = now_s
        if quiet and self._was_heard:
            for unit in self.context.board.watchers_of_cluster(self.name):
                self.context.hub.wake(unit)
        if not self._was_heard and self._unit is not None:
            self._was_heard = True
            self.performing.retries.clear()
            self._unit.wake(INTENTS)
            self._wake_watchers()

    def _wake_watchers(self) -> None:
        hub = self.context.hub
        for unit in self.context.board.watchers_of_cluster(self.name):
            hub.wake(unit)
        for source in sorted({assignment.source for assignment in self._assigned.values()}):
            targets = [target for target, found in self._assigned.items() if found.source == source]
            hub.wake(f"source:{source}", *sorted({target.application for target in targets}))

    # ---- the unit ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Observe and perform until cancelled."""
        with self.context.hub.unit(lane_name(self.name)) as unit:
            self._unit = unit
            try:
                self.judging.load(await self.context.store.read("facts", lambda tx: tx.facts(self.name)))
                dirty: tuple[tuple[str, ...], ...] = (INTENTS,)
                while True:
                    unit.wake_at(self.context.clock, await self.step(dirty))
                    dirty = await unit.wait()
            finally:
                self._unit = None
                self.observer.stop()
                await self.leaving.close()
                await self.performing.close()

    async def step(self, dirty: Iterable[tuple[str, ...]]) -> float | None:
        """Take in what the store says of what is `dirty`, begin writing what is due, judge what changed. Returns when
        to look again without being woken."""
        marks = set(dirty)
        if marks:
            self.performing.about_to_read()
            names = None if INTENTS in marks else sorted(name for _, name in marks)
            known, given_up = frozenset(self._health), self.context.store.given_up(self.name)
            loaded = await self.context.store.read(f"load:{self.name}", lambda tx: _read(tx, self.name, names, known))
            await self._take_in(loaded, names, given_up)
        self.performing.start_due()
        self.leaving.start_due()
        rechecks = [*self._set_pace(), *await self._judge(), *self.performing.times(), *self.leaving.times()]
        self._notice_silence()
        if self._was_heard:
            heard_at = self.observer.heard_at or 0.0
            rechecks.append(heard_at + self.document.stale_after_s + 0.001)
        return min(rechecks, default=None)

    def _notice_silence(self) -> None:
        """When the cluster has not been heard for longer than its limit, its targets' units look again."""
        if self._was_heard and self.view().unreachable(self.context.clock.now()):
            self._was_heard = False
            self._wake_watchers()

    async def _take_in(self, loaded: Loaded, names: list[str] | None, given_up: int) -> None:
        """Follow what is assigned now to the applications called `names` (None: to all): which objects are judged
        against which release, what is to be written, and which kinds are watched."""
        known = self._rows if names is None else [Target(name, self.name) for name in names]
        gone = [target for target in known if target not in loaded.rows]
        health = {} if names is None else self._health
        self._health = {**health, **{source: policies_from_text(text) for source, text in loaded.health.items()}}
        for target, rows in [*loaded.rows.items(), *((target, NOTHING) for target in gone)]:
            sent = None
            if rows.assignment is not None and rows.assignment.digest:
                sent = await self.releases.sent(rows.assignment.digest, rows.assignment.source, rows.rules)
            if not self.performing.is_unread(target):  # what was written since is not in these rows
                self._take(target, rows, sent, given_up)
        self.performing.keep(self._assigned)
        kinds = self._followed.kinds() or {HEARTBEAT}
        if kinds != self._watched_kinds:
            self._watched_kinds = kinds
            self.observer.set_kinds(kinds)

    def _take(self, target: Target, rows: Rows, sent: SentRelease | None, given_up: int) -> None:
        items = {item.key: item for item in rows.items}
        owned = {Kind(item.api_version, item.key.kind) for item in rows.items}
        declared: frozenset[Kind] = frozenset()
        if sent is None or rows.assignment is None:
            self._assigned.pop(target, None)
            self.judging.drop(target)
        else:
            self._assigned[target] = rows.assignment
            self.judging.assign(target, sent, items, self._health.get(rows.assignment.source, NO_POLICIES))
            declared = sent.kinds
        self._followed.put(target, declared, owned)
        self.leaving.take(target, rows.items, sent.objects.keys() if sent is not None else None, rows.intents)
        if rows.intents and rows.assignment is not None:
            batch = Batch(rows.intents, items, rows.assignment.source, rows.rules, given_up)
            self.performing.take(target, batch)
        else:
            self.performing.drop(target)
        if rows == NOTHING:
            self._rows.pop(target, None)
        else:
            self._rows[target] = rows

    def _set_pace(self) -> list[float]:
        """While a rollout waits for this cluster, prove every check interval that quiet watches live and that what the
        watched targets consist of is as it was seen. Else look only as often as it takes to notice that the cluster is
        gone: a fleet in which nothing happens is asked for nothing. Returns when to look again."""
        board, check_s, now_s = self.context.board, self.context.check_interval_s, self.context.clock.now().monotonic
        paced = (self.performing.busy, board.watched_version(self.name), self._followed.version)
        if paced == self._paced:
            return []
        if paced[0] == self._paced[0] and now_s < self._paced_s + PACE_S:
            return [self._paced_s + PACE_S]
        self._paced, self._paced_s = paced, now_s
        watched = board.watched_on(self.name)
        waited_for = {kind for target in watched for kind in self._followed.declared(target)}
        if not self.performing.busy and not watched:
            # Longer than API servers take from one bookmark to the next: a watch that is well is asked for nothing.
            check_s = max(check_s, min(self.document.stale_after_s * IDLE_CHECK_SHARE, IDLE_CHECK_MAX_S))
        self.observer.set_intervals(check_s=check_s, resync_s=self.resync_interval_s, waited_for=waited_for)
        return []

    def _wake_owners(self, target: Target, sync: Sync = Sync.IN_SYNC) -> None:
        """Tell whom this target concerns. Its source decides what is in no rollout, and heals what has left one."""
        units = self.context.board.watchers(target)
        for unit in units:
            self.context.hub.wake(unit)
        assignment = self._assigned.get(target)
        if assignment is not None and (not units or sync is not Sync.IN_SYNC):
            self.context.hub.wake(f"source:{assignment.source}", target.application)

    # ---- judging -----------------------------------------------------------------------------------------------

    async def _judge(self) -> list[float]:
        """Judge what changed, publish what is news, store facts that changed. Returns when to judge again by time."""
        now = self.context.clock.now()
        performing = self.performing
        found = await self.judging.judge(self.observer, self.kube, performing, now)
        if found.facts:
            await self.context.store.transact(f"facts:{self.name}", lambda tx: _put_facts(tx, found.facts))
        board, drift = self.context.board, list[Line]()
        for verdict in found.verdicts:
            if performing.is_unsettled(verdict.target):
                continue  # it was written while it was judged, and is judged again
            known = board.verdicts.get(verdict.target)
            board.verdicts[verdict.target] = verdict
            if known is not None and replace(verdict, observed_at=known.observed_at) == known:
                continue
            target, assignment = verdict.target, self._assigned[verdict.target]
            sent = await self.releases.sent(assignment.digest, assignment.source, self._rows[target].rules)
            drift += self._drift.notice(verdict, assignment, sent, self.judging, self.observer)
            self._wake_owners(target, verdict.sync)
        for target in found.dropped:
            board.verdicts.pop(target, None)
            self._drift.forget(target)
        if drift:
            await self.context.store.transact(f"drift:{self.name}", lambda tx: tell(tx, drift))
        return found.rechecks


def _read(tx: Tx, cluster: str, names: list[str] | None, known: frozenset[str]) -> Loaded:
    """What is stored of the applications called `names` on `cluster` (None: of all), and the health policies of their
    sources but those that are `known`."""
    if names is None:
        known = frozenset()
        assignments, intents = tx.assignments(cluster=cluster), tx.intents(cluster=cluster, pending=True)
        items, rules = tx.inventory_of_cluster(cluster), tx.apply_rules_of_cluster(cluster)
    else:
        targets = [Target(name, cluster) for name in names]
        assignments = [row for target in targets if (row := tx.assignment(target)) is not None]
        intents = [row for name in names for row in tx.intents(cluster=cluster, application=name, pending=True)]
        items = [item for target in targets for item in tx.inventory(target)]
        rules = {row.target.application: tx.apply_rules(row.target.application) for row in assignments}
    assigned = {row.target: row for row in assignments}
    intended: dict[Target, list[Intent]] = {}
    for intent in intents:
        intended.setdefault(intent.target, []).append(intent)
    owned: dict[Target, list[InventoryItem]] = {}
    for item in items:
        owned.setdefault(item.target, []).append(item)
    rows = {
        target: Rows(
            assigned.get(target),
            rules.get(target.application, ""),
            tuple(owned.get(target, ())),
            tuple(intended.get(target, ())),
        )
        for target in {**intended, **assigned, **owned}  # what is to be written comes in the order of its commits
    }
    sources = [tx.source(name) for name in sorted({row.source for row in assignments} - known)]
    return Loaded(rows, {source.name: source.health_policies for source in sources if source is not None})


def _put_facts(tx: Tx, facts: list[tuple[Target, ObjectKey, Facts]]) -> None:
    for target, key, value in facts:
        tx.put_facts(target, key, value)
