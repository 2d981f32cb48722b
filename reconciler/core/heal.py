"""Heal: bring a target back to its *assigned* release when live has drifted from it.

Never to Git's tip: what a halted, paused or not yet reached target is to have is what was assigned to it. Used by a
rollout for its targets and by a source for those in no active rollout, so that the rule stands in one place.

    drift seen -> (backoff over?) -> Step(Apply(purpose="heal")) | Wait("HealBackoff", until)
"""

from __future__ import annotations

from reconciler.core.actions import Apply, Cost, Step, Wait
from reconciler.core.model import Assignment, ClusterView, Now, Reason, RolloutTarget, Sync, TargetVerdict

HEAL_FIRST_DELAY_S = 2.0
HEAL_FACTOR = 3.0
HEAL_DELAY_MAX_S = 300.0
#: A target that stayed in sync this long after its last heal starts over with the first delay.
HEAL_FORGET_S = 600.0

#: Kinds whose repair restarts something that runs.
RESTARTING_KINDS = frozenset({"FlinkDeployment", "FlinkSessionJob", "Deployment", "StatefulSet", "DaemonSet"})


def heal_delay_s(streak: int) -> float:
    """Seconds to wait after heal number `streak` in a row: 0 before the first, then 2, 6, 18 ... at most 300."""
    if streak <= 0:
        return 0.0
    # Bounded before it is raised to a power: a field that two controllers fight over is repaired for days.
    return float(min(HEAL_FIRST_DELAY_S * HEAL_FACTOR ** min(streak - 1, 10), HEAL_DELAY_MAX_S))


def heal_not_before_s(assignment: Assignment, now: Now) -> float:
    """Now.monotonic before which the target is not healed again. The time down does not count: after a restart the
    whole delay runs anew."""
    since = assignment.heal_at_s if assignment.heal_boot == now.boot else 0.0
    return since + heal_delay_s(assignment.heal_streak)


def decide_heal(
    assignment: Assignment,
    verdict: TargetVerdict | None,
    cluster: ClusterView | None,
    pending: int,
    now: Now,
    *,
    row: RolloutTarget | None = None,
) -> Step | Wait | None:
    """Heal this target now, later, or not at all. `pending` counts its intents not yet done; `row` is what its rollout
    row becomes if it is healed (a bake starts again), None outside a rollout."""
    target = assignment.target
    if verdict is None or not assignment.digest or verdict.digest != assignment.digest:
        return None
    if verdict.sync not in (Sync.DIFFERS, Sync.MISSING) or pending:
        return None
    if cluster is None or cluster.suspended or cluster.unreachable(now):
        return None
    if verdict.disabled:
        return Wait(str(target), Reason("ReconcileDisabled", "a live object says reconciler.dev/reconcile: disabled"))
    since = assignment.heal_at_s if assignment.heal_boot == now.boot else 0.0
    forgotten = now.monotonic - since > HEAL_FORGET_S
    streak = 0 if forgotten else assignment.heal_streak
    not_before = 0.0 if forgotten else heal_not_before_s(assignment, now)
    if now.monotonic < not_before:
        reason = Reason("HealBackoff", f"drifted again after {streak} repairs in a row; the next one waits")
        return Wait(str(target), reason, not_before)
    broken = [part for part in verdict.objects if part.sync in (Sync.DIFFERS, Sync.MISSING)]
    restarts = 1 if any(part.key.kind in RESTARTING_KINDS for part in broken) else 0
    heal = Apply(target, assignment.digest, "heal", assignment.heal_count + 1, assignment.revision, streak + 1)
    return Step(target, row, (heal,), Cost(restarts=restarts))
