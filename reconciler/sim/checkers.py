"""The invariants, checked on the cluster's own write log and on the store, never on the shell's objects.

Three moments: a write arrives at a cluster (before it has any effect), a transaction has committed, a story has come to
rest. Numbers are those of docs/guides/invariants.md. Every check is written against what it is told then and there, so
that a rule the shell breaks is found at the step that broke it.

    checkers = Checkers(world)       # from now on every commit and every write is checked
    ...
    checkers.at_rest()               # nothing left to do: is reality what was assigned, and is it quiet?
"""

from __future__ import annotations

import copy
import json
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from reconciler.core.apply_rules import ObjectRule, rules_by_object, rules_from_text
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import compare
from reconciler.core.model import (
    FAILURE_STATES,
    SLOT_STATES,
    Intent,
    IntentState,
    InventoryPhase,
    ObjectKey,
    Release,
    Rollout,
    RolloutState,
    RolloutTarget,
    Sync,
    Target,
    TargetState,
    Verb,
)
from reconciler.core.ownership import OWNER_LABEL, owner_hash, stamp
from reconciler.core.rollout import SLOT_HOLDING
from reconciler.shell.kube_cluster import NO_VERSION
from reconciler.shell.ports import Tx
from reconciler.shell.transport import Request
from reconciler.sim.job_history import JobHistories
from reconciler.sim.store import Key
from reconciler.sim.world import Violation, World

MANAGER = "reconciler"
#: A write may reach its cluster this much later than it was decided: the write's timeout and the longest latency.
IN_FLIGHT_S = 65.0
#: Where a changed target of a rollout that went back may end.
BACK = frozenset({TargetState.ROLLED_BACK, TargetState.SUPERSEDED, TargetState.SKIPPED})
HEALABLE = frozenset({TargetState.WAITING, TargetState.PROGRESSING, TargetState.BAKING, TargetState.SUCCEEDED})


@dataclass(slots=True)
class Checkers:
    """All checkers of one world. `slack_s` is how much health a daemon may take for granted between two looks."""

    world: World
    slack_s: float = 0.0
    steps: int = 0
    _rows: dict[str, dict[Target, RolloutTarget]] = field(default_factory=dict)
    _states: dict[str, RolloutState] = field(default_factory=dict)
    _plans: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _rolled_back: dict[str, int] = field(default_factory=dict)
    _baking_since: dict[tuple[str, Target], tuple[float, float]] = field(default_factory=dict)
    _jobs: JobHistories = field(default_factory=JobHistories)
    _abandoned_at: dict[str, float] = field(default_factory=dict)
    _writes: dict[str, deque[float]] = field(default_factory=dict)
    _deleted_uids: set[str] = field(default_factory=set)
    _pending: set[str] = field(default_factory=set)
    _condemned: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.join(self.world)

    def join(self, world: World) -> None:
        """Check `world` from now on, knowing what was seen so far."""
        self.world = world
        world.after_commit.append(self._committed)
        world.before_write = self.before_write
        for name in sorted(world.clusters):
            self.watch_cluster(name)

    def copied(self) -> Checkers:
        """What is known so far, for a copy of the world: `join` it."""
        again = object.__new__(Checkers)
        again.world, again.slack_s, again.steps = self.world, self.slack_s, 0
        for item in fields(self):
            if item.name.startswith("_"):
                setattr(again, item.name, copy.deepcopy(getattr(self, item.name)))
        return again

    def watch_cluster(self, name: str) -> None:
        """Follow what really happens on cluster `name`."""
        self.world.clusters[name].server.observe(
            lambda key, event: self._jobs.note(name, key, event, self.world.time())
        )

    # ---- a write arrives at a cluster --------------------------------------------------------------------------

    def before_write(self, cluster: str, request: Request) -> None:
        """`request` is about to take effect on `cluster`. Dry runs are none of our business."""
        if request.method not in ("PATCH", "DELETE", "POST", "PUT") or ("dryRun", "All") in request.query:
            return
        now_s = self.world.time()
        body: dict[str, Any] = json.loads(request.body) if request.body else {}
        deletes = request.method == "DELETE"
        key = self._key_of_path(cluster, request.path) if deletes else ObjectKey.of(body)
        verb = Verb.DELETE if deletes else Verb.APPLY
        pending = self._ask(lambda tx: tx.intents(cluster=cluster, pending=True))
        live = [intent for intent in pending if intent.key == key and intent.verb is verb]
        late = [
            intent
            for intent in self._abandoned_lately(now_s)
            if intent.target.cluster == cluster and intent.key == key and intent.verb is verb
        ]
        if not live and not late:
            raise Violation(24, f"{request.method} of {key} on {cluster} without a committed intent")
        self._rate(cluster, now_s)
        if deletes:
            self._check_delete(cluster, key, body)
            return
        self._check_apply(cluster, key, body, live, late)
        for intent in live:
            if intent.owner.startswith("rollout:") and intent.purpose != "heal":
                self._check_slots(intent.owner.removeprefix("rollout:"), intent.target)

    def _abandoned_lately(self, now_s: float) -> list[Intent]:
        """Intents that were given up so short a time ago that their write may still be on its way."""
        self._abandoned_at = {id_: at for id_, at in self._abandoned_at.items() if now_s - at <= IN_FLIGHT_S}
        found: list[Intent] = self._ask(lambda tx: [tx.intent(intent_id) for intent_id in self._abandoned_at])
        return found

    def _check_apply(
        self, cluster: str, key: ObjectKey, body: dict[str, Any], live: list[Any], late: list[Any]
    ) -> None:
        guards = ("uid", "resourceVersion")
        sent = {**body, "metadata": {name: value for name, value in body["metadata"].items() if name not in guards}}
        found = self.world.clusters[cluster].server.read(Key(key.group, key.kind, key.namespace, key.name))
        version = body["metadata"].get("resourceVersion")
        there = NO_VERSION if found is None else found["metadata"]["resourceVersion"]
        if version and there != version:
            return  # made of a version that is no more, or for nothing to be there: the server refuses it
        for intent in [*live, *late]:
            release = self._ask(lambda tx, digest=intent.digest: tx.release(digest))
            wanted = self._stamped(release, intent.target).get(key)
            if wanted is None or sent != as_sent(wanted, found, self._rules(release).get(key)):
                continue
            assignment = self._ask(lambda tx, target=intent.target: tx.assignment(target))
            if intent in live and (assignment is None or assignment.digest != intent.digest):
                raise Violation(8, f"{key} on {cluster}: {intent.digest[:12]} is written and not what is assigned")
            return
        raise Violation(24, f"{key} on {cluster}: what is written is not what any intent says")

    def _rules(self, release: Release) -> dict[ObjectKey, ObjectRule]:
        text: str = self._ask(lambda tx: tx.apply_rules(release.application))
        return rules_by_object(rules_from_text(text), release.objects)

    def _stamped(self, release: Release, target: Target) -> dict[ObjectKey, Any]:
        assignment = self._ask(lambda tx: tx.assignment(target))
        if assignment is None:  # renamed while the write was on its way: that of its neighbours, which is the same here
            assignment = self._ask(lambda tx: tx.assignments(cluster=target.cluster))[0]
        owner = owner_hash(self._ask(lambda tx: tx.installation()), assignment.source, release.application)
        return {ObjectKey.of(item): stamp(item, owner, release.application) for item in release.objects}

    def _check_delete(self, cluster: str, key: ObjectKey, body: dict[str, Any]) -> None:
        uid = (body.get("preconditions") or {}).get("uid")
        if not uid:
            raise Violation(11, f"{key} on {cluster} is deleted without its uid")
        items = [item for item in self._ask(lambda tx: tx.inventory_of_cluster(cluster)) if item.key == key]
        if not any(item.uid == uid and item.phase is InventoryPhase.DELETING for item in items):
            raise Violation(11, f"{key} on {cluster} is deleted and the inventory does not say so")
        found = self.world.clusters[cluster].server.read(Key(key.group, key.kind, key.namespace, key.name))
        if found is not None and found["metadata"]["uid"] == uid:
            if OWNER_LABEL not in (found["metadata"].get("labels") or {}):
                raise Violation(11, f"{key} on {cluster} is deleted without our mark")
            if uid in self._deleted_uids and "deletionTimestamp" not in found["metadata"]:
                raise Violation(6, f"{key} on {cluster} is deleted twice")
            self._deleted_uids.add(uid)

    def _check_slots(self, rollout_id: str, target: Target) -> None:
        rollout = self._ask(lambda tx: tx.rollout(rollout_id))
        rows = self._ask(lambda tx: tx.rollout_targets(rollout_id))
        row = next(row for row in rows if row.target == target)
        held = sum(each.state in SLOT_HOLDING for each in rows)
        limit = max(rollout.plan.waves[each.wave].max_concurrent for each in rows if each.wave <= row.wave)
        if held > limit:
            raise Violation(1, f"{rollout_id} holds {held} slots, {limit} allowed")

    def _rate(self, cluster: str, now_s: float) -> None:
        settings = self.world.settings
        for name, per_second in (
            (cluster, settings.writes_per_second_and_cluster),
            ("", settings.writes_per_second),
        ):
            writes = self._writes.setdefault(name, deque())
            writes.append(now_s)
            while now_s - writes[0] > 10.0:
                writes.popleft()
            # Ten seconds' worth and one saved-up burst; latency may push together what was sent apart.
            if len(writes) > per_second * 12 + 2:
                raise Violation(25, f"{len(writes)} writes in 10 s to {name or 'all clusters'}")

    def _key_of_path(self, cluster: str, path: str) -> ObjectKey:
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resources = self.world.clusters[cluster].server.catalog.resources
        kind = next(each.kind for each in resources if each.group == group and each.plural == rest[0])
        return ObjectKey(group, kind, namespace, rest[1])

    # ---- a transaction has committed ---------------------------------------------------------------------------

    def _ask(self, work: Any) -> Any:
        return self.world.ask(work)

    def _committed(self, _world: World, point: str) -> None:
        if point.startswith("steer:"):
            # A person may end a quarantine; nobody else does.
            kept = {(row.application, row.digest) for row in self._ask(lambda tx: tx.quarantined())}
            self._condemned = {release: by for release, by in self._condemned.items() if release in kept}
        if point.startswith(("decide:", "source:", "steer:", "result:")):
            self._ask(self._look)

    def _look(self, tx: Tx) -> None:
        now_s = self.world.time()
        flying: dict[Target, str] = {}
        for rollout in tx.rollouts(limit=50):
            before = self._rows.get(rollout.id, {})
            if self._states.get(rollout.id) is rollout.state and rollout.ended_wall is not None:
                continue
            rows = tx.rollout_targets(rollout.id)
            self.steps += len(rows)
            self._check_plan(rollout, rows)
            self._check_states(rollout, rows)
            for row in rows:
                earlier = before.get(row.target)
                if earlier is None or earlier.state is not row.state:
                    self._check_transition(rollout, rows, earlier, row, now_s)
                if row.state in SLOT_HOLDING and rollout.ended_wall is None:
                    other = flying.setdefault(row.target, rollout.id)
                    if other != rollout.id:
                        raise Violation(16, f"{row.target} is in flight in {other} and in {rollout.id}")
            self._rows[rollout.id] = {row.target: row for row in rows}
            self._states[rollout.id] = rollout.state
        self._check_intents(tx, now_s)

    def _check_plan(self, rollout: Rollout, rows: list[RolloutTarget]) -> None:
        fixed = (
            rollout.plan,
            *((row.target, row.wave, row.to_digest) for row in rows),
        )
        if self._plans.setdefault(rollout.id, fixed) != fixed:
            raise Violation(7, f"the plan of {rollout.id} changed")

    def _check_states(self, rollout: Rollout, rows: list[RolloutTarget]) -> None:
        before = self._states.get(rollout.id)
        allowed = {RolloutState.HALTED, RolloutState.SUPERSEDED, RolloutState.ABORTED}
        if before is RolloutState.HALTED and rollout.state not in allowed:
            raise Violation(14, f"{rollout.id} was halted and is {rollout.state}")
        if rollout.state is RolloutState.ROLLING_BACK and before is not RolloutState.ROLLING_BACK:
            if before is not RolloutState.PAUSED:
                self._rolled_back[rollout.id] = self._rolled_back.get(rollout.id, 0) + 1
            if self._rolled_back.get(rollout.id, 0) > 1:
                raise Violation(15, f"{rollout.id} rolls back a second time")
        if rollout.state in (RolloutState.HALTED, RolloutState.ROLLING_BACK) and before is not rollout.state:
            for row in rows:
                self._condemned.setdefault((row.target.application, row.to_digest), rollout.id)
        if rollout.state is RolloutState.ROLLED_BACK and before is not RolloutState.ROLLED_BACK:
            left = [row.target for row in rows if row.changed and not row.superseding and row.state not in BACK]
            if left:
                raise Violation(15, f"{rollout.id} is RolledBack, and {left[0]} is not")

    def _check_transition(
        self,
        rollout: Rollout,
        rows: list[RolloutTarget],
        earlier: RolloutTarget | None,
        row: RolloutTarget,
        now_s: float,
    ) -> None:
        if earlier is None:
            return  # Nothing is known of how it came there: a world that was copied.
        mark = (rollout.id, row.target)
        if row.state in FAILURE_STATES:
            self._check_budget(rollout, rows, row)
        elif row.state is TargetState.PROGRESSING and earlier.state not in HEALABLE | {TargetState.APPLYING}:
            raise Violation(17, f"{row.target} was {earlier.state} and is on its way again: it was healed")
        if row.state is TargetState.APPLYING:
            self._check_start(rollout, rows, row)
        elif row.state is TargetState.BAKING:
            self._baking_since[mark] = (now_s, row.bake_s)
            self._check_runs(row)
        elif row.state is TargetState.SUCCEEDED:
            self._check_success(rollout, row, now_s)
        elif row.state is TargetState.ROLLING_BACK:
            assignment = self._ask(lambda tx: tx.assignment(row.target))
            if row.baked_digest is None or assignment.digest != row.baked_digest:
                raise Violation(15, f"{row.target} goes back to {assignment.digest[:12]}, which had not baked")

    def _check_start(self, rollout: Rollout, rows: list[RolloutTarget], row: RolloutTarget) -> None:
        if rollout.state is RolloutState.HALTED:
            raise Violation(14, f"{row.target} started while {rollout.id} was halted")
        condemned = self._condemned.get((row.target.application, row.to_digest))
        if condemned not in (None, rollout.id):
            raise Violation(15, f"{rollout.id} starts {row.to_digest[:12]}, which {condemned} stopped for failing")
        if rollout.state is RolloutState.PAUSED:
            raise Violation(23, f"{row.target} started while {rollout.id} was paused")
        held = sum(each.state in SLOT_STATES for each in rows)
        if held > rollout.plan.waves[row.wave].max_concurrent:
            raise Violation(1, f"{rollout.id} holds {held} slots of wave {rollout.plan.waves[row.wave].name}")
        for number in range(row.wave):
            wave = rollout.plan.waves[number]
            theirs = [each for each in rows if each.wave == number]
            skipped = [each for each in theirs if each.state is TargetState.SKIPPED]
            gone = [*skipped, *(each for each in theirs if each.state is TargetState.SUPERSEDED)]
            baked = [each for each in theirs if each.state is TargetState.SUCCEEDED]
            failed = [each for each in theirs if each.state in FAILURE_STATES]
            lost = [each for each in theirs if each.state is TargetState.UNREACHABLE]
            settled = len(gone) + len(baked) + len(failed) + len(lost)
            if settled < len(theirs) or len(failed) > wave.max_failures or len(lost) > wave.max_unreachable:
                raise Violation(2, f"{row.target} started before wave {wave.name} was done")
            if not baked and len(skipped) < len(theirs) and rollout.plan.mandatory:
                raise Violation(2, f"{row.target} started though wave {wave.name} baked nothing")

    def _check_budget(self, rollout: Rollout, rows: list[RolloutTarget], row: RolloutTarget) -> None:
        """`row` just failed: a rollout that goes on all the same must be within its budget."""
        failed = [
            each
            for each in rows
            if each.wave == row.wave and each.changed and not each.superseding and each.state in FAILURE_STATES
        ]
        wave = rollout.plan.waves[row.wave]
        if rollout.state is RolloutState.ACTIVE and len(failed) > wave.max_failures:
            raise Violation(2, f"{rollout.id} goes on with {len(failed)} failures in wave {wave.name}")

    def _check_success(self, rollout: Rollout, row: RolloutTarget, now_s: float) -> None:
        """The target really ran the release, healthy, for as long as its bake."""
        wave = rollout.plan.waves[row.wave]
        cluster = self.world.clusters[row.target.cluster]
        if not self.world.reachable_lately(row.target.cluster):
            raise Violation(4, f"{row.target} succeeded while its cluster was unreachable")
        since = self._baking_since.get((rollout.id, row.target))
        release = self._ask(lambda tx: tx.release(row.to_digest))
        self._check_runs(row)
        for key in self._stamped(release, row.target):
            if key.kind != "FlinkDeployment" or row.reason is not None:
                continue
            history = self._jobs.of(cluster.name, key)
            healthy_s = history.healthy_by(now_s) if history is not None else 0.0
            if healthy_s + self.slack_s + 0.01 < wave.bake_s:
                raise Violation(3, f"{row.target} baked {healthy_s:.1f} s of {wave.bake_s:.0f} s in reality")
            if since is None or row.bake_s < wave.bake_s:
                raise Violation(21, f"{row.target} succeeded after {row.bake_s:.1f} s of {wave.bake_s:.0f} s")
            if now_s - since[0] + 0.01 < row.bake_s - since[1]:
                raise Violation(21, f"{row.target} baked in less time than its bake")

    def _check_runs(self, row: RolloutTarget) -> None:
        """What is believed healthy is the release, and not what ran before it."""
        release = self._ask(lambda tx: tx.release(row.to_digest))
        for key, manifest in self._stamped(release, row.target).items():
            history = self._jobs.of(row.target.cluster, key)
            if history is not None and history.image != manifest["spec"].get("image"):
                raise Violation(3, f"{row.target} counts as healthy while {key} runs {history.image}")

    def _check_intents(self, tx: Tx, now_s: float) -> None:
        pending = {intent.id: intent for intent in tx.intents(pending=True)}
        for intent_id in sorted(self._pending - set(pending)):
            found = tx.intent(intent_id)
            if found is not None and found.state is IntentState.ABANDONED:
                self._abandoned_at[intent_id] = now_s
        for intent_id in sorted(set(pending) - self._pending):
            intent = pending[intent_id]
            if intent.purpose == "heal":
                self._check_heal(tx, intent.target, intent.digest)
        self._pending = set(pending)

    def _check_heal(self, tx: Tx, target: Target, digest: str) -> None:
        assignment = tx.assignment(target)
        if assignment is None or assignment.digest != digest:
            raise Violation(17, f"{target} is healed to {digest[:12]}, which is not what is assigned")
        for rollout_id, row in tx.active_rows(target.application).get(target, []):
            if row.state not in HEALABLE and row.state is not TargetState.SUPERSEDED:
                raise Violation(17, f"{target} is healed while it is {row.state} in {rollout_id}")

    # ---- at rest -----------------------------------------------------------------------------------------------

    def at_rest(self, *, but: frozenset[Target] = frozenset()) -> None:
        """Every assigned target is really what is assigned, but for those of halted rollouts (`but`) and those that
        somebody fights for, of which people were told."""
        for assignment in self._ask(lambda tx: tx.assignments()):
            if not assignment.digest or assignment.contested or assignment.target in but:
                continue
            cluster = self.world.clusters[assignment.target.cluster]
            release = self._ask(lambda tx, digest=assignment.digest: tx.release(digest))
            rules = self._rules(release)
            for key, manifest in self._stamped(release, assignment.target).items():
                live = cluster.server.read(Key(key.group, key.kind, key.namespace, key.name))
                if compare(as_sent(manifest, live, rules.get(key)), live).sync not in (Sync.IN_SYNC, Sync.ASK):
                    raise Violation(22, f"{key} on {cluster.name} did not converge to what is assigned")

    def quiet(self, before: dict[str, int]) -> None:
        """Since `writes()` gave `before`, nothing was written by us: a reconcile with nothing to do sends nothing."""
        now = self.writes()
        for name, count in sorted(now.items()):
            if count != before.get(name, 0):
                raise Violation(18, f"{count - before.get(name, 0)} writes to {name} with nothing to do")

    def writes(self) -> dict[str, int]:
        """How many writes of ours each cluster has seen, dry runs included."""
        return {
            name: sum(entry.manager == MANAGER for entry in cluster.server.log)
            for name, cluster in sorted(self.world.clusters.items())
        }
