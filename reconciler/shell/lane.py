"""The lane of one cluster: it observes and performs, in sequence, and decides nothing.

It owns the cluster's watches, write limits, breaker and intents. What it sees it judges against the assigned releases
and publishes as verdicts; what was committed for it to do it does, one request after another, asking before each
whether it still may. A lane that hangs holds nobody else up.

    wake-up -> what is assigned and intended now? -> perform -> judge what changed -> publish
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reconciler.core.documents import Cluster
from reconciler.core.heal import drifted_fields
from reconciler.core.health_rules import NO_POLICIES, policies_from_text
from reconciler.core.model import (
    Assignment,
    ClusterView,
    Facts,
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    ObjectKey,
    Reason,
    Sync,
    Target,
    Verb,
)
from reconciler.shell.cluster_schemas import ClusterSchemas
from reconciler.shell.context import INTENTS, Context
from reconciler.shell.drift_log import DriftLog
from reconciler.shell.hub import Unit
from reconciler.shell.judging import Judging
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.leaving import Leaving
from reconciler.shell.limiter import WriteLimits
from reconciler.shell.live import GroupKind, NotSeen
from reconciler.shell.logs import event
from reconciler.shell.observe import Kind, Observer
from reconciler.shell.perform import Later, Wanted, perform
from reconciler.shell.ports import AuditRow, Tx
from reconciler.shell.record import record_results
from reconciler.shell.releases import Releases, SentRelease
from reconciler.shell.retries import RETRY_MAX_S, WHOLE_LANE, Retries, Retry

IDLE_CHECK_MAX_S = 90.0
#: How much of its limit a cluster may be silent before it is asked whether it is there.
IDLE_CHECK_SHARE = 0.75
#: Followed while nothing is assigned to the cluster, so that it is heard from: every cluster serves it.
HEARTBEAT = Kind("v1", "Namespace")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store says of this cluster. `rules` are those of applications that have some, `health`
    the health policies of each source, both as text."""

    assignments: list[Assignment]
    intents: list[Intent]
    inventory: list[InventoryItem]
    rules: dict[str, str]
    health: dict[str, str]


def lane_name(cluster: str) -> str:
    """The name of the cluster's unit."""
    return f"lane:{cluster}"


@dataclass(slots=True)
class Lane:
    """One cluster. `observer` is made with `objects_changed` and `heard` of this lane as its callbacks."""

    context: Context
    document: Cluster
    kube: KubeCluster
    schemas: ClusterSchemas
    limits: WriteLimits
    releases: Releases
    judging: Judging
    log: logging.Logger
    resync_interval_s: float
    observer: Observer = field(init=False)
    _unit: Unit | None = field(init=False, default=None)
    _retries: Retries = field(init=False, default_factory=Retries)
    _leaving: Leaving = field(init=False)
    _assigned: dict[Target, Assignment] = field(init=False, default_factory=dict)
    _rules: dict[str, str] = field(init=False, default_factory=dict)
    _kinds: dict[Target, tuple[GroupKind, ...]] = field(init=False, default_factory=dict)
    _drift: DriftLog = field(init=False)
    _was_heard: bool = field(init=False, default=False)
    _heard_s: float = field(init=False, default=0.0)
    _busy: bool = field(init=False, default=False)
    _paced_for: tuple[str, ...] = field(init=False, default=())
    _started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_at = self.context.clock.now().monotonic
        self._drift = DriftLog(self.context, self.document.name)
        self._leaving = Leaving(self.document.name)

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
        times = [self.observer.observed_at(kind) for kind in self._kinds.get(target, ())]
        return None if None in times else min((at for at in times if at is not None), default=None)

    def blind(self, target: Target) -> Reason | None:
        """Why nothing is known of `target` any more although its cluster may answer: one of its kinds could not be
        observed for longer than the cluster's limit. None while all of them can."""
        limit = self.context.clock.now().monotonic - self.document.stale_after_s
        for kind in self._kinds.get(target, ()):
            since, reason = self.observer.failing_since(kind), self.observer.problem(kind)
            if since is not None and reason is not None and since < limit:
                return Reason(reason.code, f"{kind.kind} cannot be observed: {reason.message}")
        return None

    def retry_of(self, target: Target) -> Retry | None:
        """Why the writes of `target` wait, and until when; None if they do not."""
        return self._retries.of(target)

    # ---- what the observer tells -------------------------------------------------------------------------------

    def objects_changed(self, keys: Sequence[ObjectKey]) -> None:
        """Some live objects changed: judge them."""
        self.judging.mark(keys)
        if self._unit is not None:
            self._unit.wake(*([INTENTS] if self._leaving.concerns(keys) else []))

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
            self._retries.clear()
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
                    recheck_at = await self.step(reload=INTENTS in dirty)
                    unit.wake_at(self.context.clock, recheck_at)
                    dirty = await unit.wait()
            finally:
                self._unit = None
                self.observer.stop()

    async def step(self, *, reload: bool) -> float | None:
        """Perform what is due and judge what changed. Returns when to look again without being woken."""
        now = self.context.clock.now()
        rechecks: list[float] = []
        if reload or self._retries.due(now):
            loaded = await self.context.store.read(f"load:{self.name}", self._read)
            await self._take_in(loaded)
            await self._perform(loaded)
            for item in await self._leaving.confirm(self.observer, self.kube, self.context.store):
                self._wake_owners(item.target)
        elif self.context.board.watchers_of_cluster(self.name) != self._paced_for:
            self._set_pace()  # nobody tells when a rollout is over
        rechecks.extend(await self._judge())
        self._notice_silence()
        rechecks.extend(self._retries.times())
        if self._was_heard:
            heard_at = self.observer.heard_at or 0.0
            rechecks.append(heard_at + self.document.stale_after_s + 0.001)
        return min(rechecks) if rechecks else None

    def _notice_silence(self) -> None:
        """When the cluster has not been heard for longer than its limit, its targets' units look again."""
        if self._was_heard and self.view().unreachable(self.context.clock.now()):
            self._was_heard = False
            self._wake_watchers()

    def _read(self, tx: Tx) -> Loaded:
        assignments = tx.assignments(cluster=self.name)
        sources = [tx.source(name) for name in sorted({assignment.source for assignment in assignments})]
        return Loaded(
            assignments,
            tx.intents(cluster=self.name, pending=True),
            tx.inventory_of_cluster(self.name),
            tx.apply_rules_of_cluster(self.name),
            {source.name: source.health_policies for source in sources if source is not None},
        )

    async def _take_in(self, loaded: Loaded) -> None:
        """Follow what is assigned now: which objects are judged against which release, and which kinds are watched."""
        self._assigned = {row.target: row for row in loaded.assignments if row.digest}
        self._rules = loaded.rules
        self._retries.keep((intent.target for intent in loaded.intents), self._assigned)
        self._leaving.take_in(loaded.inventory, loaded.intents)
        kinds: set[Kind] = set()
        of_target: dict[Target, set[GroupKind]] = {}
        for target, assignment in sorted(self._assigned.items()):
            sent = await self.releases.sent(assignment.digest, assignment.source, self._rules_of(target))
            self.judging.assign(target, sent)
            for key, manifest in sent.objects.items():
                kinds.add(Kind(str(manifest["apiVersion"]), key.kind))
                of_target.setdefault(target, set()).add(GroupKind.of(key))
        declared = {kind.group_kind for kind in kinds}
        kinds |= {
            Kind(item.api_version, item.key.kind) for item in loaded.inventory if GroupKind.of(item.key) not in declared
        }
        policies = {source: policies_from_text(text) for source, text in loaded.health.items()}
        of_source = {target: policies.get(row.source, NO_POLICIES) for target, row in self._assigned.items()}
        self.judging.follow(of_source)
        self.judging.keep(set(self._assigned), loaded.inventory)
        self._kinds = {target: tuple(sorted(found)) for target, found in of_target.items()}
        self.observer.set_kinds(kinds or {HEARTBEAT})
        self._busy = bool(loaded.intents)
        self._set_pace()

    def _set_pace(self) -> None:
        """While a rollout waits for this cluster, prove every check interval that quiet watches live and that what the
        watched targets consist of is as it was seen. Else look only as often as it takes to notice that the cluster is
        gone: a fleet in which nothing happens is asked for nothing."""
        board, check_s = self.context.board, self.context.check_interval_s
        self._paced_for = board.watchers_of_cluster(self.name)
        waited_for = {kind for target in board.watched_on(self.name) for kind in self._kinds.get(target, ())}
        if not self._busy and not self._paced_for:
            # Longer than API servers take from one bookmark to the next: a watch that is well is asked for nothing.
            check_s = max(check_s, min(self.document.stale_after_s * IDLE_CHECK_SHARE, IDLE_CHECK_MAX_S))
        self.observer.set_intervals(check_s=check_s, resync_s=self.resync_interval_s, waited_for=waited_for)

    # ---- performing --------------------------------------------------------------------------------------------

    async def _perform(self, loaded: Loaded) -> None:
        """Carry out pending intents, target by target in the order they were committed. A target that must wait does
        not hold up the others; a cluster that does not answer holds up all of them."""
        inventory = {(item.target, item.key): item for item in loaded.inventory}
        batches: dict[Target, list[Intent]] = {}
        for intent in loaded.intents:
            batches.setdefault(intent.target, []).append(intent)
        self.judging.unwritten = set(batches)
        for target, intents in batches.items():
            if not self._retries.ready(target, self.context.clock.now()):
                continue
            # What was tried before may have happened: then nothing is known before it is read again.
            trusted = not self._retries.in_doubt(target)
            later = await self._perform_batch(target, intents, inventory, trust_cache=trusted)
            if later is None:
                self._retries.done(target)
                self.judging.unwritten.discard(target)
            else:
                self._retries.put_off(target, later, self.context.clock.now())
                if later.unreachable or later.reason.code in WHOLE_LANE:
                    self._retries.put_off_all(batches, later)
                    break
            await self._judge()  # a long batch keeps nobody from knowing what the cluster says

    async def _perform_batch(
        self,
        target: Target,
        intents: list[Intent],
        inventory: dict[tuple[Target, ObjectKey], InventoryItem],
        *,
        trust_cache: bool,
    ) -> Later | None:
        """One target's intents, in order. A permanent failure gives up the rest of the batch, and what this cluster's
        schemas cannot take all of it; results are committed together (T2), whatever ends the batch."""
        results = await self.schemas.refused(intents, self._sent, self.observer.live)
        later: Later | None = None
        try:
            for intent in intents if not results else ():
                item = inventory.get((target, intent.key))
                outcome = await self._perform_one(
                    intent, item, trust_cache=trust_cache and intent.epoch == self._epoch()
                )
                if isinstance(outcome, Later):
                    later = outcome
                    break
                results.append(outcome)
                if outcome.state is IntentState.FAILED and intent.verb is Verb.APPLY:
                    results.extend(_given_up(intents, intent, outcome))
                    break
        finally:
            if results:
                await self._commit(target, results, intents)
        return later

    def _epoch(self) -> int:
        return self.context.clock.now().boot

    async def _perform_one(
        self, intent: Intent, item: InventoryItem | None, *, trust_cache: bool
    ) -> IntentResult | Later:
        sent = await self._sent(intent)
        manifest = sent.objects.get(intent.key) if intent.verb is Verb.APPLY else None
        cached = self.observer.live(intent.key) if trust_cache and manifest is not None else None
        known = None if isinstance(cached, NotSeen) else cached
        rule = sent.by_object.get(intent.key)
        wanted = Wanted(manifest, item, sent.owner, sent.rules, rule, known, sent.former_owner)
        now_wall = self.context.clock.now().wall
        cluster = self.kube.acting_for(sent.source)
        outcome = await perform(intent, wanted, cluster, self.observer, lambda: self._permit(intent), now_wall)
        result = "later" if isinstance(outcome, Later) else str(outcome.state)
        self.context.metrics.add("intents", verb=str(intent.verb), outcome=result)
        if isinstance(outcome, Later) or outcome.reason is not None:
            event(
                self.log,
                logging.INFO if isinstance(outcome, Later) else logging.WARNING,
                "lane.intent." + result,
                cluster=self.name,
                application=intent.target.application,
                object=str(intent.key),
                reason=str(outcome.reason),
            )
        return outcome

    def _rules_of(self, target: Target) -> str:
        return self._rules.get(target.application, "")

    async def _sent(self, intent: Intent) -> SentRelease:
        """The release that `intent` belongs to."""
        assignment = self._assigned.get(intent.target)
        assert assignment is not None, f"intent {intent.id} of {intent.target} which has no assignment"
        return await self.releases.sent(intent.digest, assignment.source, self._rules_of(intent.target))

    async def _permit(self, intent: Intent) -> Later | None:
        """Asked right before each request that writes: is it still wanted, is this still our epoch, is there budget?"""
        if self.document.suspend:
            return Later(Reason("ClusterSuspended", f"cluster {self.name} is suspended"), after_s=RETRY_MAX_S)
        if not await self.context.store.read("permit", lambda tx: _is_pending(tx, intent.id)):
            return Later(Reason("Abandoned", "it is not wanted any more"), after_s=0.0)
        at_s = self.limits.take(self.context.clock.now().monotonic)
        if at_s is not None:
            wait_s = at_s - self.context.clock.now().monotonic
            return Later(Reason("WriteLimit", "the write limit is spent for now"), after_s=max(wait_s, 0.0))
        return None

    async def _commit(self, target: Target, results: list[IntentResult], intents: list[Intent]) -> None:
        # What was seen before these writes must not be decided upon after they are recorded: live would seem to differ
        # with nothing pending. Transactions are done in the order they are asked for, so it is enough to take it back.
        verdict = self.context.board.verdicts.pop(target, None)
        done = {result.intent for result in results if result.state is IntentState.DONE}
        keys = {intent.key for intent in intents if intent.purpose == "heal" and intent.id in done}
        healed = [(target, name) for name in drifted_fields(verdict, keys)] if verdict is not None and keys else []
        now = self.context.clock.now()
        # Where another daemon has the store by now, this raises FencedError and ends the lane: it writes nothing more.
        await self.context.store.transact(f"result:{self.name}", lambda tx: record_results(tx, results, healed, now))
        self.judging.mark_target(target)
        if self._unit is not None:
            self._unit.wake(INTENTS)
        self._wake_owners(target)

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
        found = await self.judging.judge(self.observer, self.kube, self.limits, now)
        if found.facts:
            await self.context.store.transact(f"facts:{self.name}", lambda tx: _put_facts(tx, found.facts))
        board, drift = self.context.board, list[AuditRow]()
        for verdict in found.verdicts:
            known = board.verdicts.get(verdict.target)
            board.verdicts[verdict.target] = verdict
            if known is not None and replace(verdict, observed_at=known.observed_at) == known:
                continue
            target, assignment = verdict.target, self._assigned[verdict.target]
            sent = await self.releases.sent(assignment.digest, assignment.source, self._rules_of(target))
            drift += self._drift.notice(verdict, assignment, sent, self.judging, self.observer)
            self._wake_owners(target, verdict.sync)
        for target in found.dropped:
            board.verdicts.pop(target, None)
            self._drift.forget(target)
        if drift:
            await self.context.store.transact(f"drift:{self.name}", lambda tx: _put_audit(tx, drift))
        return found.rechecks


def _is_pending(tx: Tx, intent_id: str) -> bool:
    intent = tx.intent(intent_id)
    return intent is not None and intent.state is IntentState.PENDING


def _given_up(intents: list[Intent], failed: Intent, outcome: IntentResult) -> list[IntentResult]:
    """What follows a refused write of the same target is not sent."""
    rest = intents[intents.index(failed) + 1 :]
    why = outcome.reason.message if outcome.reason is not None else ""
    reason = Reason("EarlierWriteFailed", f"an earlier write of the target was refused: {why}")
    return [IntentResult(intent.id, IntentState.ABANDONED, reason) for intent in rest]


def _put_audit(tx: Tx, rows: list[AuditRow]) -> None:
    for row in rows:
        tx.audit(row)


def _put_facts(tx: Tx, facts: list[tuple[Target, ObjectKey, Facts]]) -> None:
    for target, key, value in facts:
        tx.put_facts(target, key, value)
