"""Small rollouts and observations to decide upon: a fleet is a handful of clusters, all of them well unless said
otherwise, and `now` is what the test says.

    fleet = Fleet({"canary": ["c0"], "rest": ["c1", "c2"]})
    fleet.decide()                     # a Decision, applied to the fleet's rows
    fleet.well("c0", at=20)            # c0 is seen healthy at its assigned release
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.core.actions import Action, Apply, Decision
from reconciler.core.decide import decide
from reconciler.core.model import (
    Assignment,
    ClusterView,
    FrozenPlan,
    Health,
    Now,
    ObjectKey,
    ObjectVerdict,
    Reason,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Sync,
    Target,
    TargetState,
    TargetVerdict,
    Wave,
)
from reconciler.core.observation import IntentSummary, Observation

APPLICATION = "sample/orders"
OLD, NEW, NEWER = "old", "new", "newer"
INTERVAL_S = 10.0
WALL_S = 1_700_000_000.0
JOB = ObjectKey("flink.apache.org", "FlinkDeployment", "orders", "orders")
CONFIG = ObjectKey("", "ConfigMap", "orders", "settings")
FINE = Reason("Running", "running")


def target_of(cluster: str) -> Target:
    return Target(APPLICATION, cluster)


def time_at(monotonic: float, boot: int = 1) -> Now:
    return Now(WALL_S + monotonic, monotonic, boot)


def part(
    key: ObjectKey = JOB, health: Health = Health.HEALTHY, sync: Sync = Sync.IN_SYNC, code: str = "Running", **more: Any
) -> ObjectVerdict:
    return ObjectVerdict(key, sync, health, Reason(code, code.lower()), uid="u", generation=1, **more)


def verdict(cluster: str, digest: str, at: float, health: Health = Health.HEALTHY, **more: Any) -> TargetVerdict:
    sync = more.pop("sync", Sync.IN_SYNC)
    parts = more.pop("objects", (part(health=health, sync=sync),))
    values: dict[str, Any] = {"applied": True, "job_ids": ("j1",), "objects": parts, **more}
    return TargetVerdict(target_of(cluster), digest, at, sync, health, Reason(str(health), str(health)), **values)


def wave(name: str, clusters: list[str], **numbers: Any) -> Wave:
    values: dict[str, Any] = {
        "bake_s": 20.0,
        "max_concurrent": 1,
        "max_failures": 0,
        "max_unreachable": 0,
        **numbers,
    }
    return Wave(name, tuple(map(target_of, clusters)), **values)


def plan_of(waves: list[Wave], **more: Any) -> FrozenPlan:
    values: dict[str, Any] = {
        "progress_deadline_s": 300.0,
        "on_failure": "rollback",
        "mandatory": True,
        "policy": "standard",
        "hash": "plan-1",
        "check_interval_s": INTERVAL_S,
        **more,
    }
    return FrozenPlan(tuple(waves), **values)


def rollout_of(plan: FrozenPlan, **more: Any) -> Rollout:
    values: dict[str, Any] = {"state": RolloutState.ACTIVE, "reason": None, "created_wall": WALL_S, **more}
    return Rollout("r1", "fleet", APPLICATION, RolloutKind.CHANGE, "abc123", plan, **values)


def rows_of(plan: FrozenPlan, **more: Any) -> list[RolloutTarget]:
    values: dict[str, Any] = {"to_digest": NEW, "from_digest": OLD, "baked_digest": OLD, **more}
    return [
        RolloutTarget(target, number, **values) for number, each in enumerate(plan.waves) for target in each.targets
    ]


@dataclass
class Fleet:
    """One rollout, its rows, and what is known of its clusters. `decide` applies each decision to them, as the shell
    records it: rows, assignments, and an intent per apply, which `written` finishes."""

    waves: list[Wave]
    plan_fields: dict[str, Any] = field(default_factory=dict)
    row_fields: dict[str, Any] = field(default_factory=dict)
    now_s: float = 100.0
    boot: int = 1

    def __post_init__(self) -> None:
        plan = plan_of(self.waves, **self.plan_fields)
        self.rollout = rollout_of(plan)
        self.rows = rows_of(plan, **self.row_fields)
        self.verdicts: dict[Target, TargetVerdict] = {}
        self.intents: dict[Target, IntentSummary] = {}
        self.held: dict[Target, str] = {}
        self.silent: set[str] = set()
        self.cluster_fields: dict[str, dict[str, Any]] = {}
        self.assignments = {
            row.target: Assignment(row.target, row.from_digest or "", "fleet", baked=row.baked_digest)
            for row in self.rows
        }

    # ---- what is known -----------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        return time_at(self.now_s, self.boot)

    def seen(self) -> Observation:
        clusters = {}
        for row in self.rows:
            name = row.target.cluster
            heard_at = self.now_s - (1000.0 if name in self.silent else 0.0)
            clusters[name] = ClusterView(name, heard_at, 0.0, **self.cluster_fields.get(name, {}))
        return Observation(self.verdicts, clusters, self.assignments, self.intents, self.held)

    def row(self, cluster: str) -> RolloutTarget:
        return next(row for row in self.rows if row.target.cluster == cluster)

    def put(self, cluster: str, **fields: Any) -> None:
        """Have the row of `cluster` as the test says."""
        self.rows = [replace(row, **fields) if row.target.cluster == cluster else row for row in self.rows]

    def stands(self) -> RolloutState:
        """The rollout's state now."""
        return self.rollout.state

    def states(self) -> str:
        """The states of all rows in plan order, as one line."""
        return " ".join(row.state for row in self.rows)

    def assign(self, cluster: str, digest: str, **fields: Any) -> None:
        """Have `digest` assigned to the cluster's target."""
        target = target_of(cluster)
        self.assignments[target] = replace(self.assignments[target], digest=digest, **fields)

    def tried_again(self) -> Rollout:
        """The rollout as a person's retry stores it."""
        return replace(self.rollout, state=RolloutState.ACTIVE, reason=None, version=self.rollout.version + 1)

    # ---- what happens ------------------------------------------------------------------------------------------

    def decide(self) -> Decision:
        decision = decide(self.rollout, self.rows, self.seen(), self.now)
        assert decision == decide(self.rollout, self.rows, self.seen(), self.now), "the same question, another answer"
        self.take(decision)
        return decision

    def take(self, decision: Decision) -> None:
        """What the shell records of `decision`."""
        assert decision.rollout is not None
        self.rollout = decision.rollout
        after = {step.target: step.after for step in decision.steps if step.after is not None}
        self.rows = [after.get(row.target, row) for row in self.rows]
        for action in actions_of(decision):
            if isinstance(action, Apply):
                assigned = self.assignments[action.target]
                if action.purpose == "heal":
                    healed: dict[str, Any] = {
                        "heal_streak": action.streak,
                        "heal_at_s": self.now_s,
                        "heal_boot": self.boot,
                    }
                    assigned = replace(assigned, heal_count=assigned.heal_count + 1, **healed)
                self.assignments[action.target] = replace(assigned, digest=action.digest)
                self.intents[action.target] = IntentSummary(pending=1)

    def written(self, *clusters: str, failed: Reason | None = None) -> None:
        """The lanes have done what was intended."""
        for name in clusters:
            self.intents[target_of(name)] = IntentSummary(0, failed)

    def look(self, cluster: str, health: Health = Health.HEALTHY, **more: Any) -> None:
        """The cluster shows its assigned release in this health, now."""
        target = target_of(cluster)
        digest = more.pop("digest", self.assignments[target].digest)
        at = more.pop("at", self.now_s)
        self.verdicts[target] = verdict(cluster, digest, at, health, **more)

    def well(self, *clusters: str) -> None:
        """What was intended is done, and the clusters are healthy at their assigned releases now."""
        for name in clusters:
            self.written(name)
            self.look(name)

    def bake(self, *clusters: str) -> list[Decision]:
        """Time passes in check intervals, and the clusters stay well, until they have baked."""
        decisions = []
        for _ in range(8):
            self.now_s += INTERVAL_S
            self.well(*clusters)
            decisions.append(self.decide())
        return decisions


def actions_of(decision: Decision) -> list[Action]:
    """All actions: those of the steps in order, then the rollout's own."""
    return [*(action for step in decision.steps for action in step.actions), *decision.actions]


def applies(decision: Decision) -> list[str]:
    """What is written, as "purpose cluster digest"."""
    return [
        f"{each.purpose} {each.target.cluster} {each.digest}"
        for each in actions_of(decision)
        if isinstance(each, Apply)
    ]


def waits(decision: Decision) -> dict[str, str]:
    """Reason codes by subject; a target is named by its cluster."""
    return {wait.subject.rpartition("@")[2]: wait.reason.code for wait in decision.waits}


def flown(fleet: Fleet, *clusters: str, state: TargetState = TargetState.PROGRESSING, **fields: Any) -> None:
    """Have `clusters` changed by this rollout and in `state`."""
    for name in clusters:
        fleet.put(name, state=state, changed=True, attempt=1, **fields)
        target = target_of(name)
        fleet.assignments[target] = replace(fleet.assignments[target], digest=fleet.row(name).to_digest)
