"""What a source decides: which rollouts to open, what they take over, and what becomes of targets in no rollout.

One application at a time, level-triggered: the release that Git asks for is compared with the assigned one, whatever
happened in between. A release in quarantine is not started again; a target whose cluster does not answer waits for its
return, when the goal is read anew.

    decide_application(facts, now) -> ApplicationDecision(open=..., take_over=..., decision=...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.actions import Alert, Cost, Decision, Disabled, Due, Forgotten, Orphaned, Prune, Step, Wait
from reconciler.core.heal import decide_heal
from reconciler.core.inventory import Refusal, left_behind
from reconciler.core.model import (
    SETTLED_STATES,
    Health,
    InventoryItem,
    Now,
    Reason,
    RolloutKind,
    RolloutTarget,
    Sync,
    Target,
    TargetState,
)
from reconciler.core.moves import refusal
from reconciler.core.observation import Observation

#: Deleting one of these loses state or a service's identity: they count against maxDeletes.
STATEFUL_KINDS = frozenset({"FlinkDeployment", "FlinkSessionJob", "StatefulSet", "PersistentVolumeClaim"})

#: After so long people are told that a target is still left alone by hand.
DISABLED_TOLD_S = 24 * 3600.0
#: So long the inventory of a cluster that was removed is kept: declared again, it is looked after again.
ORPHANS_KEPT_S = 30 * 24 * 3600.0

#: A target in one of these has nothing on its way.
WAITS = frozenset({TargetState.WAITING, TargetState.UNREACHABLE, TargetState.BLOCKED})
#: How a rollout leaves a target that it changed and did not see through; another one does.
UNPROVEN = frozenset({TargetState.SUPERSEDED, TargetState.UNREACHABLE})
#: A rollout that left the target in one of these has nothing more to say of it.
LET_GO = frozenset({TargetState.ROLLED_BACK, TargetState.SUPERSEDED, TargetState.SKIPPED})


@dataclass(frozen=True, slots=True)
class ApplicationFacts:
    """Everything `decide_application` may know of one application of one source.

    `goals`: what Git asks for, digest by cluster; None where the application cannot be decided now (`blocked` says
    why). `rows`: for each target its rows in active rollouts, oldest first. `prunable`: objects in the inventory that
    the assigned release no longer has, by target, in deletion order; `left_behind`: those of them that stay, and why.
    `deletions_allowed` is False while anything of the source could not be read whole. `quarantined` names the rollout
    that was stopped for each digest. No new release goes to `blocked_clusters`: their documents are broken. `stopped`
    are the active rollouts that are paused, halted or on their way back: nothing is deleted on their targets.
    `catching_up` is the active catch-up rollout, "" if there is none. `unproven` are targets that have a release which
    never baked there, and no rollout that sees to it: how the last one that brought it left them (Skipped: aborted,
    Superseded, Unreachable). `declared_clusters` are those that Git has at all; `moves` names, for a pair of releases,
    the job that would change its namespace."""

    application: str
    revision: str
    goals: Mapping[str, str]
    blocked: Reason | None
    seen: Observation
    rows: Mapping[Target, list[tuple[str, RolloutTarget]]] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    prunable: Mapping[Target, tuple[InventoryItem, ...]] = field(default_factory=dict)
    left_behind: Mapping[Target, tuple[Refusal, ...]] = field(default_factory=dict)
    prune_failed: Mapping[Target, Reason] = field(default_factory=dict)
    unproven: Mapping[Target, TargetState] = field(default_factory=dict)
    blocked_clusters: Mapping[str, Reason] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    catching_up: str = ""
    deletions_allowed: bool = False
    deletes_max: int = 0
    declared_clusters: frozenset[str] = frozenset()
    moves: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """A target that is to move: from the assigned release (None: nothing yet) to `digest`."""

    target: Target
    digest: str
    from_digest: str | None
    baked_digest: str | None


@dataclass(frozen=True, slots=True)
class ApplicationDecision:
    """`open` is the new rollout's targets (empty: none) and its kind; `take_over` are rows of older rollouts with their
    next value; `decision` holds heals, prunes and waits."""

    open: tuple[Goal, ...] = ()
    kind: RolloutKind = RolloutKind.CHANGE
    take_over: tuple[tuple[str, RolloutTarget], ...] = ()
    decision: Decision = field(default_factory=lambda: Decision(None))


def decide_application(facts: ApplicationFacts, now: Now) -> ApplicationDecision:
    """Decide one application: see the module's docstring."""
    waits: list[Wait] = []
    goals: list[Goal] = []
    take_over: list[tuple[str, RolloutTarget]] = []
    due = True
    if facts.blocked is not None:
        waits.append(Wait("", facts.blocked))
    for cluster in sorted(facts.goals):
        target = Target(facts.application, cluster)
        found = _goal(facts, target, now)
        if isinstance(found, Wait):
            waits.append(found)
        elif found is not None:
            goals.append(found)
            assignment = facts.seen.assignments.get(target)
            due = due and assignment is not None and assignment.due == found.digest
        take_over.extend(_taken_over(facts, target, found))
    behind, taken = _left_without_proof(facts, goals, take_over)
    goals.extend(behind)
    take_over.extend(taken)
    take_over.extend(_left(facts))
    if goals:
        goals.extend(_aborted(facts))
    due = due and not behind
    steps = [*_forgotten_dues(facts), *_noted(facts, now)]
    moving = {goal.target for goal in goals}
    for target in sorted(facts.seen.assignments):
        if _in_rollout(facts, target) or target in moving:
            continue
        for outcome in (_heal(facts, target, now), _prune(facts, target, now)):
            if isinstance(outcome, Step):
                steps.append(outcome)
            elif outcome is not None:
                waits.append(outcome)
        if facts.left_behind.get(target):
            waits.append(Wait(str(target), left_behind(facts.left_behind[target])))
    rechecks = [wait.recheck_at for wait in waits if wait.recheck_at is not None]
    decision = Decision(None, tuple(steps), (), tuple(waits), min(rechecks) if rechecks else None)
    kind = RolloutKind.CATCH_UP if goals and due else RolloutKind.CHANGE
    return ApplicationDecision(tuple(goals), kind, tuple(take_over), decision)


def _in_rollout(facts: ApplicationFacts, target: Target) -> bool:
    """True if an active rollout decides the target: one that has it and has not settled it."""
    return any(row.state not in SETTLED_STATES for _, row in facts.rows.get(target, ()))


def _aborted(facts: ApplicationFacts) -> list[Goal]:
    """Targets that have what Git asks for, but from a rollout that was aborted before it had baked there. They come
    along when the others go on: without its canary the next wave would trust a release that proved nothing."""
    return [
        Goal(target, assignment.digest, assignment.digest, assignment.baked)
        for target, assignment in sorted(facts.seen.assignments.items())
        if facts.unproven.get(target) is TargetState.SKIPPED and facts.goals.get(target.cluster) == assignment.digest
    ]


def _left_without_proof(
    facts: ApplicationFacts, goals: list[Goal], take_over: list[tuple[str, RolloutTarget]]
) -> tuple[list[Goal], list[tuple[str, RolloutTarget]]]:
    """What waits in an older rollout behind a wave that loses the last target that could prove it. The new rollout
    takes those along, for there its own first wave goes before them; alone they would wait for ever."""
    if facts.blocked is not None:
        return [], []
    rows: dict[str, dict[Target, RolloutTarget]] = {}
    for target in sorted(facts.rows):
        for rollout_id, row in facts.rows[target]:
            rows.setdefault(rollout_id, {})[target] = row
    for rollout_id, row in take_over:
        rows[rollout_id][row.target] = row
    opened = {goal.target for goal in goals}
    behind: list[Goal] = []
    taken: list[tuple[str, RolloutTarget]] = []
    for rollout_id in sorted({rollout_id for rollout_id, _ in take_over} - facts.stopped):
        theirs = rows[rollout_id]
        lost = [row.wave for row in theirs.values() if _proves_no_more(row)]
        kept = {row.wave for row in theirs.values() if not _proves_no_more(row) and row.state not in LET_GO}
        first = min((wave for wave in lost if wave not in kept), default=None)
        for target, row in theirs.items():
            if first is None or row.wave <= first or row.state not in WAITS or row.superseding or target in opened:
                continue
            if facts.goals.get(target.cluster) != row.to_digest or row.to_digest in facts.quarantined:
                continue
            assignment = facts.seen.assignments.get(target)
            assigned, baked = (assignment.digest, assignment.baked) if assignment is not None else ("", None)
            opened.add(target)
            behind.append(Goal(target, row.to_digest, assigned or None, baked))
            taken.append((rollout_id, replace(row, superseding=True)))
    return behind, taken


def _proves_no_more(row: RolloutTarget) -> bool:
    """True if the row goes, or went, to a newer rollout before it had baked."""
    return (row.superseding and row.state is not TargetState.SUCCEEDED) or row.state is TargetState.SUPERSEDED


def _forgotten_dues(facts: ApplicationFacts) -> list[Step]:
    """A release that was due is forgotten where the target has what Git asks for: it was taken back meanwhile."""
    return [
        Step(target, None, (Due(target, None),))
        for target, assignment in sorted(facts.seen.assignments.items())
        if assignment.due is not None
        and facts.goals.get(target.cluster) == assignment.digest
        and assignment.digest not in facts.quarantined
        and target not in facts.unproven
    ]


def _noted(facts: ApplicationFacts, now: Now) -> list[Step]:
    """What is remembered of targets beside what they are to have: since when somebody keeps us from touching one, and
    since when Git no longer declares one. The first is told to people when it lasts; what is left of a cluster that was
    removed is forgotten in the end, and nothing is written there."""
    steps: list[Step] = []
    for target, assignment in sorted(facts.seen.assignments.items()):
        verdict = facts.seen.verdict(target, assignment.digest)
        if verdict is not None and verdict.disabled != (assignment.disabled_wall is not None):
            steps.append(Step(target, None, (Disabled(target, now.wall if verdict.disabled else None),)))
        elif assignment.disabled_wall is not None and now.wall - assignment.disabled_wall >= DISABLED_TOLD_S:
            message = f"{target} was told to be left alone (reconciler.dev/reconcile: disabled) a day ago and still is"
            key = f"{target}/disabled/{assignment.disabled_wall:.0f}"
            alert = Alert(key, "alert", Reason("ReconcileDisabled", message), target.application, (target,))
            steps.append(Step(target, None, (alert,)))
        if facts.blocked is not None or not facts.deletions_allowed:
            continue  # it may be missing by mistake
        orphaned = target.cluster not in facts.goals
        if orphaned != (assignment.orphaned_wall is not None):
            steps.append(Step(target, None, (Orphaned(target, now.wall if orphaned else None),)))
        elif (
            assignment.orphaned_wall is not None
            and now.wall - assignment.orphaned_wall >= ORPHANS_KEPT_S
            and target.cluster not in facts.declared_clusters
            and not _in_rollout(facts, target)
        ):
            steps.append(Step(target, None, (Forgotten(target),)))
    return steps


def _wanted(facts: ApplicationFacts, target: Target) -> str:
    """What the target is to have: what Git asks for, or, while that is in quarantine, the release that is due there
    since its wave passed."""
    asked = facts.goals[target.cluster]
    assignment = facts.seen.assignments.get(target)
    if asked not in facts.quarantined or assignment is None or assignment.digest == asked:
        return asked
    due = assignment.due
    return due if due is not None and due not in facts.quarantined else asked


def _goal(facts: ApplicationFacts, target: Target, now: Now) -> Goal | Wait | None:
    """The move this target is owed, why it is not made, or None if it has what it is to have."""
    if facts.blocked is not None:
        return None
    assignment = facts.seen.assignments.get(target)
    assigned = assignment.digest if assignment is not None else ""
    digest = _wanted(facts, target)
    wait: Wait | None = None
    asked = facts.goals[target.cluster]
    if asked in facts.quarantined and asked != assigned:
        stopped = facts.quarantined[asked]
        message = (
            f"rollout {stopped} was stopped at this release: push another, or try `reconciler rollout retry {stopped}`"
        )
        wait = Wait(str(target), Reason("Quarantined", message))
        if digest == asked:
            return wait
    rows = facts.rows.get(target, [])
    if rows and rows[-1][1].to_digest == digest and rows[-1][1].state not in LET_GO:
        return None  # The newest rollout that has the target is already moving it there, or has.
    if digest == assigned and (
        facts.unproven.get(target) not in UNPROVEN or digest in facts.quarantined or facts.seen.unreachable(target, now)
    ):
        return wait
    if (assigned, digest) in facts.moves:
        return Wait(str(target), Reason("StatefulMove", refusal(facts.moves[assigned, digest])))
    if assignment is not None and assignment.due == digest:
        held = _catches_up_later(facts, target)
        if held is not None:
            return Wait(str(target), held)
    if target.cluster in facts.blocked_clusters:
        return Wait(str(target), facts.blocked_clusters[target.cluster])
    if facts.seen.unreachable(target, now):
        cluster = facts.seen.clusters.get(target.cluster)
        why = cluster.silence if cluster is not None else f"cluster {target.cluster} does not answer"
        if assignment is not None and assignment.due == digest:
            return Wait(str(target), Reason("ClusterUnreachable", f"{why}; it catches up when it returns"))
    baked = assignment.baked if assignment is not None else None
    return Goal(target, digest, assigned or None, baked)


def _catches_up_later(facts: ApplicationFacts, target: Target) -> Reason | None:
    """Why a release that is due is not brought now: its rollout was stopped by then, or others catch up."""
    for rollout_id, _ in facts.rows.get(target, ()):
        if rollout_id in facts.stopped:
            return Reason("RolloutStopped", f"rollout {rollout_id} does not go on: nothing catches up meanwhile")
    if facts.catching_up:
        return Reason("CatchUpInProgress", f"others catch up first, in rollout {facts.catching_up}")
    return None


def _taken_over(facts: ApplicationFacts, target: Target, found: Goal | Wait | None) -> list[tuple[str, RolloutTarget]]:
    """Rows of older rollouts that this revision replaces: those of another release to which something may still
    happen. A target that succeeded there is one of them, for its rollout might go back."""
    if facts.blocked is not None or isinstance(found, Wait):
        return []
    digest = _wanted(facts, target)
    taken = []
    for rollout_id, row in facts.rows.get(target, ()):
        if row.to_digest == digest or row.state in LET_GO or row.superseding:
            continue
        taken.append((rollout_id, replace(row, superseding=True)))
    return taken


def _left(facts: ApplicationFacts) -> list[tuple[str, RolloutTarget]]:
    """Targets that the application no longer has and that only wait: they are skipped, or a cluster that was removed
    would hold its wave for ever; what is in flight runs to its end."""
    if facts.blocked is not None or not facts.deletions_allowed:
        return []
    reason = Reason("TargetLeft", "the application no longer has this target")
    return [
        (rollout_id, replace(row, state=TargetState.SKIPPED, reason=reason))
        for target in sorted(facts.rows)
        if target.cluster not in facts.goals
        for rollout_id, row in facts.rows[target]
        if row.state in WAITS
    ]


def _heal(facts: ApplicationFacts, target: Target, now: Now) -> Step | Wait | None:
    """Repair drift of a target in no rollout. One that Git no longer declares is left alone, unless it may be missing
    there by mistake."""
    if target.cluster not in facts.goals and facts.blocked is None and facts.deletions_allowed:
        return None
    return decide_heal(facts.seen.assignments[target], facts.seen, now)


def _prune(facts: ApplicationFacts, target: Target, now: Now) -> Step | Wait | None:
    """Delete what a healthy target's assigned release no longer has: last, in reverse order, within the limits. What
    was healthy when its cluster was last heard from is not known to be."""
    if target in facts.prune_failed:
        return Wait(str(target), facts.prune_failed[target])
    items = facts.prunable.get(target, ())
    if not items or target.cluster not in facts.goals:
        return None
    if not facts.deletions_allowed:
        return Wait(
            str(target), Reason("DeletionsHeld", "not everything of this source could be read: nothing is deleted")
        )
    if any(rollout_id in facts.stopped for rollout_id, _ in facts.rows.get(target, ())):
        return Wait(str(target), Reason("RolloutStopped", "its rollout does not go on: nothing is deleted meanwhile"))
    cluster = facts.seen.clusters.get(target.cluster)
    if cluster is None or cluster.suspended or cluster.unreachable(now):
        return Wait(str(target), Reason("PruneWaitsForCluster", "nothing is deleted on a cluster that is away"))
    assignment = facts.seen.assignments[target]
    verdict = facts.seen.verdict(target, assignment.digest)
    if verdict is not None and verdict.disabled:
        return Wait(str(target), Reason("ReconcileDisabled", "a live object says reconciler.dev/reconcile: disabled"))
    if verdict is None or verdict.sync is not Sync.IN_SYNC or verdict.health.rank > Health.SUSPENDED.rank:
        return Wait(str(target), Reason("PruneWaitsForHealth", "objects are deleted after the target is healthy"))
    summary = facts.seen.intents.get(target)
    if summary is not None and summary.pending:
        return None
    stateful = sum(item.key.kind in STATEFUL_KINDS for item in items)
    prune = Prune(target, assignment.digest, items, assignment.heal_count + 1, facts.deletes_max)
    return Step(target, None, (prune,), Cost(deletes=stateful))
