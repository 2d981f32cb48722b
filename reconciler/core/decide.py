"""Decide: one pure step of one rollout.

    decide(rollout, rows, observation, now) -> Decision(steps, actions, waits, recheck_at)

Read top to bottom: every row advances by what was seen of it; failures above the budget stop the rollout; what a newer
rollout wants is handed over; then, as the rollout's state allows, targets are started, healed or taken back; at last it
is asked whether the rollout has ended. Asking again with the same arguments gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reconciler.core.actions import Abandon, Action, Alert, Apply, Cost, Decision, Due, Quarantine, Step, Wait
from reconciler.core.advance import Timing, advance
from reconciler.core.heal import decide_heal
from reconciler.core.model import (
    ENDED_STATES,
    FAILURE_STATES,
    Assignment,
    Now,
    Reason,
    Rollout,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
)
from reconciler.core.observation import Observation
from reconciler.core.rollout import SLOT_HOLDING, can_go_back, in_wave, open_wave, over_budget, slots_held, standing

#: States from which a target is handed to a newer rollout at once; Baking is healthy at its release, so it has settled.
HANDED_OVER = FAILURE_STATES | {
    TargetState.WAITING,
    TargetState.UNREACHABLE,
    TargetState.BLOCKED,
    TargetState.BAKING,
}
#: Rows of a running rollout that are healed when they drift.
HEALED = frozenset({TargetState.WAITING, TargetState.PROGRESSING, TargetState.BAKING})


@dataclass
class _Work:
    """The decision while it is being made. Rows change by `put`, so that later questions see earlier answers."""

    rollout: Rollout
    rows: list[RolloutTarget]
    seen: Observation
    steps: dict[Target, Step] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    held: int = 0  # slots held by `rows`

    def __post_init__(self) -> None:
        self._places = {row.target: place for place, row in enumerate(self.rows)}
        self.held = slots_held(self.rows)

    def put(self, step: Step) -> None:
        """Add `step`; a second one for a target goes on from the first."""
        earlier = self.steps.get(step.target)
        if earlier is not None:
            cost = Cost(
                earlier.cost.changed + step.cost.changed,
                earlier.cost.restarts + step.cost.restarts,
                earlier.cost.deletes + step.cost.deletes,
            )
            step = Step(step.target, step.after or earlier.after, (*earlier.actions, *step.actions), cost)
        self.steps[step.target] = step
        if step.after is not None:
            place = self._places[step.target]
            self.held += (step.after.state in SLOT_HOLDING) - (self.rows[place].state in SLOT_HOLDING)
            self.rows[place] = step.after


def timing_of(rollout: Rollout, row: RolloutTarget) -> Timing:
    """The frozen numbers that `row` is judged by."""
    plan = rollout.plan
    return Timing(plan.waves[row.wave].bake_s, plan.progress_deadline_s, plan.check_interval_s)


def decide(rollout: Rollout, rows: Sequence[RolloutTarget], seen: Observation, now: Now) -> Decision:
    """What `rollout` does next. `rows` are its targets in plan order. An ended rollout decides nothing."""
    if rollout.state in ENDED_STATES:
        return Decision(rollout)
    work = _Work(rollout, list(rows), seen)
    for row in rows:
        step = advance(row, seen, now, timing_of(rollout, row))
        if step is not None:
            work.put(step)
    _tell_of_blocked(work, rows)
    _stop_if_over_budget(work)
    _hand_over(work)
    if work.rollout.state is RolloutState.ACTIVE:
        _start(work, seen, now)
    elif work.rollout.state is RolloutState.ROLLING_BACK:
        _take_back(work, seen, now)
    else:
        work.waits.append(Wait("", work.rollout.reason or Reason(str(work.rollout.state), "nothing new starts")))
    _heal(work, seen, now)
    _end(work, now)
    before = {row.target: row for row in rows}
    steps = tuple(step for step in work.steps.values() if step.actions or step.after != before[step.target])
    return Decision(work.rollout, steps, tuple(work.actions), tuple(work.waits), _recheck_at(work, now))


def _tell_of_blocked(work: _Work, before: Sequence[RolloutTarget]) -> None:
    """People hear once that clusters cannot take the release: the rollout waits for them."""
    known = {row.target for row in before if row.state is TargetState.BLOCKED}
    new = [row for row in work.rows if row.state is TargetState.BLOCKED and row.target not in known]
    if new:
        why = new[0].reason
        assert why is not None, "a target is blocked for a reason"
        targets = tuple(row.target for row in new)
        work.actions.append(Alert(f"{work.rollout.id}/blocked", "alert", why, work.rollout.application, targets))


def _may_go_back(work: _Work, row: RolloutTarget) -> bool:
    """True if the row can be taken back without setting its job back to an older savepoint."""
    return can_go_back(row) and (row.to_digest, row.baked_digest) not in work.seen.one_way


def _stop_if_over_budget(work: _Work) -> None:
    """Failures above the budget: nothing new starts, people hear of it, and the release is not tried again."""
    rollout = work.rollout
    if rollout.state not in (RolloutState.ACTIVE, RolloutState.PAUSED) or _goes_back(rollout):
        return
    counted = [replace(row, changed=False) if row.superseding else row for row in work.rows]
    reason = over_budget(rollout.plan, counted)
    if reason is None:
        return
    changed = [row for row in work.rows if row.changed]
    goes_back = (
        rollout.plan.on_failure == "rollback"
        and rollout.state is RolloutState.ACTIVE
        and any(_may_go_back(work, row) for row in changed)
        and not rollout.went_back  # at most once, whoever made it active again
    )
    state = RolloutState.ROLLING_BACK if goes_back else RolloutState.HALTED
    work.rollout = replace(
        rollout, state=state, reason=reason, paused_from=None, went_back=rollout.went_back or goes_back
    )
    for application in sorted({row.target.application for row in work.rows}):
        digests = sorted({row.to_digest for row in work.rows if row.target.application == application})
        work.actions.append(Quarantine(application, tuple(digests), reason, rollout.id))
    targets = tuple(row.target for row in changed if row.state in FAILURE_STATES)
    # A rollout that is tried again and stops again is told again: its version is another one.
    key = f"{rollout.id}/stopped/{rollout.version}"
    work.actions.append(Alert(key, "alert", reason, rollout.application, targets))


def _hand_over(work: _Work) -> None:
    """Targets that a newer rollout wants leave as soon as they have settled or failed."""
    for row in list(work.rows):
        if row.superseding and row.state in HANDED_OVER:
            reason = Reason("Superseded", "a newer rollout has taken the target over")
            work.put(Step(row.target, replace(row, state=TargetState.SUPERSEDED, reason=reason)))


def _heal(work: _Work, seen: Observation, now: Now) -> None:
    for row in list(work.rows):
        assignment = seen.assignments.get(row.target)
        if (
            row.state not in HEALED
            or assignment is None
            or row.target in seen.held
            or _applies(work.steps.get(row.target))
        ):
            continue
        again = row if row.state is TargetState.WAITING else replace(row, state=TargetState.PROGRESSING, bake_s=0.0)
        found = decide_heal(assignment, seen, now, row=again)
        if isinstance(found, Step):
            work.put(found)
        elif found is not None:
            work.waits.append(found)


def _applies(step: Step | None) -> bool:
    return step is not None and any(isinstance(action, Apply) for action in step.actions)


def _start(work: _Work, seen: Observation, now: Now) -> None:
    """Start what the open wave and its concurrency allow, in plan order."""
    plan = work.rollout.plan
    number = open_wave(plan, work.rows)
    ready: list[RolloutTarget] = []
    for row in [row for row in work.rows if row.wave <= number and row.state is TargetState.WAITING]:
        wave = plan.waves[row.wave]
        gate = wave.closed or _closed_gate(row, work, seen, now)
        if gate is None:
            ready.append(row)
            continue
        work.waits.append(Wait(str(row.target), gate))
        if gate.code == "ClusterUnreachable":
            work.put(Step(row.target, replace(row, state=TargetState.UNREACHABLE, reason=gate)))
    over = {wave: _over_wait_budget(work, wave) for wave in sorted({row.wave for row in ready})}
    for row in ready:
        wave = plan.waves[row.wave]
        gate = over[row.wave]
        if gate is None and work.held >= wave.max_concurrent:
            gate = Reason("NoSlot", f"{wave.max_concurrent} targets at a time in wave {wave.name}")
        if gate is not None:
            work.waits.append(Wait(str(row.target), gate))
            continue
        work.put(_started(row, work.rollout, "start", row.to_digest, now, seen.assignments.get(row.target)))
    number = open_wave(plan, work.rows)
    if number < len(plan.waves):
        blocked_by = standing(plan.waves[number], in_wave(work.rows, number), mandatory=plan.mandatory).blocked_by
        if blocked_by is not None:
            work.waits.append(Wait(f"wave:{plan.waves[number].name}", blocked_by))


def _over_wait_budget(work: _Work, number: int) -> Reason | None:
    """More targets of the wave are unreachable or blocked than it allows: the rollout waits, the wave's others too."""
    plan = work.rollout.plan
    reason = standing(plan.waves[number], in_wave(work.rows, number), mandatory=plan.mandatory).blocked_by
    return reason if reason is not None and reason.code in ("TargetBlocked", "TooManyUnreachable") else None


def _kept_from_writing(row: RolloutTarget, seen: Observation, now: Now) -> Reason | None:
    """What stops every write to the target, a rollback's too; None if nothing does."""
    name = row.target.cluster
    cluster = seen.clusters.get(name)
    if seen.unreachable(row.target, now) or cluster is None:
        why = cluster.silence if cluster is not None else f"cluster {name} does not answer"
        return Reason("ClusterUnreachable", why)
    if cluster.suspended:
        return Reason("ClusterSuspended", f"cluster {name} is suspended")
    verdict = seen.verdicts.get(row.target)
    if verdict is not None and verdict.disabled:
        return Reason("ReconcileDisabled", "a live object says reconciler.dev/reconcile: disabled")
    return None


def _closed_gate(row: RolloutTarget, work: _Work, seen: Observation, now: Now) -> Reason | None:
    """Why this target may not be started now, None if it may."""
    stop = _kept_from_writing(row, seen, now)
    if stop is not None:
        return stop
    name = row.target.cluster
    cluster = seen.clusters[name]
    quiet_s = now.monotonic - cluster.heard_at if cluster.heard_at is not None else None
    if quiet_s is None or quiet_s > 2 * work.rollout.plan.check_interval_s:
        return Reason("ClusterQuiet", f"cluster {name} was not heard from within the check interval")
    if row.target in seen.held:
        return Reason("HeldByRollout", f"rollout {seen.held[row.target]} still has the target in flight")
    stopped = seen.quarantined.get((row.target.application, row.to_digest))
    if stopped is not None:
        return Reason("Quarantined", f"rollout {stopped} was stopped for the same release, {row.to_digest[:12]}")
    return None


def _started(
    row: RolloutTarget, rollout: Rollout, purpose: str, digest: str, now: Now, assignment: Assignment | None = None
) -> Step:
    """The step that assigns `digest`. A target that starts has by now the `assignment` that its rollout takes it from,
    and back to: an older rollout may have baked it there since this one was opened."""
    back = purpose == "rollback"
    if not row.changed and assignment is not None:
        row = replace(row, from_digest=assignment.digest or None, baked_digest=assignment.baked)
    after = replace(
        row,
        state=TargetState.ROLLING_BACK if back else TargetState.APPLYING,
        reason=row.reason if back else None,
        changed=True,
        rolling=back,
        attempt=row.attempt + 1,
        progress_s=0.0,
        observed_at=None,
        started_wall=row.started_wall if row.changed else now.wall,
    )
    apply = Apply(row.target, digest, purpose, after.attempt, rollout.revision)
    # Going back restarts once more; a start that an unreachable cluster interrupted is the same one.
    restarts = 1 if back or (row.from_digest is not None and not row.changed) else 0
    return Step(row.target, after, (apply,), Cost(changed=1, restarts=restarts))


def _take_back(work: _Work, seen: Observation, now: Now) -> None:
    """Newest wave first, under the same concurrency; a target in flight goes back in its own slot."""
    plan = work.rollout.plan
    failed = [row for row in work.rows if row.state in FAILURE_STATES and row.rolling]
    if failed:
        why = failed[0].reason.message if failed[0].reason is not None else "failed"
        reason = Reason("RollbackFailed", f"going back failed on {failed[0].target}: {why}")
        work.rollout = replace(work.rollout, state=RolloutState.HALTED, reason=reason)
        key = f"{work.rollout.id}/rollback-failed/{work.rollout.version}"
        work.actions.append(Alert(key, "alert", reason, work.rollout.application, (failed[0].target,)))
        return
    done = (TargetState.ROLLING_BACK, TargetState.ROLLED_BACK, TargetState.SUPERSEDED, TargetState.SKIPPED)
    waiting = [row for row in work.rows if _may_go_back(work, row) and row.state not in done]
    for row in sorted(waiting, key=lambda row: -row.wave):
        wave = plan.waves[row.wave]
        stop = _kept_from_writing(row, seen, now)
        if stop is not None:
            work.waits.append(Wait(str(row.target), replace(stop, message=f"{stop.message}; rollback waits for it")))
            continue
        if row.state not in SLOT_HOLDING and work.held >= wave.max_concurrent:
            reason = Reason("NoSlot", f"{wave.max_concurrent} targets at a time in wave {wave.name}")
            work.waits.append(Wait(str(row.target), reason))
            continue
        assert row.baked_digest is not None
        work.put(_started(row, work.rollout, "rollback", row.baked_digest, now))


def _end(work: _Work, now: Now) -> None:
    """Has it ended? Waiting targets of a rollout that ends are skipped."""
    rollout, rows = work.rollout, work.rows
    state: RolloutState | None = None
    reason = rollout.reason
    in_flight = any(row.state in SLOT_HOLDING for row in rows)
    left = [row for row in rows if row.state not in (TargetState.SUPERSEDED, TargetState.SKIPPED)]
    if not left or (
        rollout.state is not RolloutState.ACTIVE
        and any(row.state is TargetState.SUPERSEDED for row in rows)
        and all(row.state in (TargetState.SUCCEEDED, TargetState.ROLLED_BACK) for row in left)
        and not (
            _goes_back(rollout) and any(_may_go_back(work, row) for row in left if row.state is TargetState.SUCCEEDED)
        )
    ):
        state, reason = RolloutState.SUPERSEDED, Reason("Superseded", "newer rollouts have taken its targets over")
    elif (
        rollout.state is RolloutState.ACTIVE
        and not in_flight
        and (
            open_wave(rollout.plan, rows) >= len(rollout.plan.waves)
            or all(row.state is TargetState.SUCCEEDED for row in left)
        )
    ):
        state, reason = RolloutState.SUCCEEDED, None
    elif rollout.state is RolloutState.ROLLING_BACK and not in_flight:
        settled = (TargetState.ROLLED_BACK, TargetState.SUPERSEDED, TargetState.SKIPPED)
        owed = [row for row in rows if row.changed and row.state not in settled and not row.superseding]
        if not any(_may_go_back(work, row) for row in owed):
            state = _rolled_back(work, owed)
            reason = work.rollout.reason
    if state is None:
        return
    work.rollout = replace(rollout, state=state, reason=reason, ended_wall=now.wall if state in ENDED_STATES else None)
    if state in ENDED_STATES:
        _close_rows(work, state)


def _rolled_back(work: _Work, owed: list[RolloutTarget]) -> RolloutState:
    """Back at the last baked release, but for targets that never had one: nothing is deleted there, and people must
    look."""
    if not owed:
        return RolloutState.ROLLED_BACK
    first = owed[0]
    reason = Reason("NoBakedRelease", f"{first.target} has no baked release to go back to; nothing is deleted")
    fields = work.seen.one_way.get((first.to_digest, first.baked_digest or ""))
    if fields is not None:
        message = f"{first.target} is not taken back: {fields} would be set back, and its job to an older savepoint"
        reason = Reason("NeedsRestore", message)
    work.rollout = replace(work.rollout, reason=reason)
    return RolloutState.HALTED


def _close_rows(work: _Work, state: RolloutState) -> None:
    for row in list(work.rows):
        if row.state is TargetState.WAITING:
            reason = Reason("RolloutEnded", f"the rollout ended {state} before this target's turn")
            work.put(Step(row.target, replace(row, state=TargetState.SKIPPED, reason=reason), ()))
        elif row.state is TargetState.UNREACHABLE and state is RolloutState.SUCCEEDED:
            work.put(Step(row.target, row, (Due(row.target, row.to_digest),)))


def _recheck_at(work: _Work, now: Now) -> float | None:
    """One check interval while anything is on its way, five while it only waits; waits may ask for less."""
    if work.rollout.state in ENDED_STATES:
        return None
    interval = work.rollout.plan.check_interval_s
    busy = any(row.state in SLOT_HOLDING for row in work.rows)
    rechecks = [wait.recheck_at for wait in work.waits if wait.recheck_at is not None]
    return min([now.monotonic + (interval if busy else 5 * interval), *rechecks])


def _goes_back(rollout: Rollout) -> bool:
    """True if the rollout is on its way back, paused or not."""
    return RolloutState.ROLLING_BACK in (rollout.state, rollout.paused_from)


def pause(rollout: Rollout, reason: Reason) -> Rollout:
    """Start nothing new; what is in flight is observed to its end. One that stands still already stays as it is."""
    if rollout.state not in (RolloutState.ACTIVE, RolloutState.ROLLING_BACK):
        return rollout
    return replace(rollout, state=RolloutState.PAUSED, reason=reason, paused_from=rollout.state)


def resume(rollout: Rollout) -> Rollout:
    """Go on from where it was paused, or make a halted rollout active again. One that runs or has ended stays so."""
    if rollout.state not in (RolloutState.PAUSED, RolloutState.HALTED):
        return rollout
    return replace(rollout, state=rollout.paused_from or RolloutState.ACTIVE, reason=None, paused_from=None)


def abort(rollout: Rollout, rows: Sequence[RolloutTarget], reason: Reason, now: Now) -> Decision:
    """End it where it stands: nothing is taken back, what is not sent is given up, and its releases are quarantined,
    so that the same commit does not start again on our own."""
    steps = []
    for row in rows:
        if row.state in (TargetState.SUCCEEDED, TargetState.ROLLED_BACK, TargetState.SKIPPED, TargetState.SUPERSEDED):
            continue
        skipped = replace(row, state=TargetState.SKIPPED, reason=reason)
        steps.append(Step(row.target, skipped, (Abandon(row.target, reason),)))
    ended = replace(rollout, state=RolloutState.ABORTED, reason=reason, ended_wall=now.wall, paused_from=None)
    quarantines = tuple(
        Quarantine(
            application,
            tuple(sorted({row.to_digest for row in rows if row.target.application == application})),
            reason,
            rollout.id,
        )
        for application in sorted({row.target.application for row in rows})
    )
    return Decision(ended, tuple(steps), quarantines)
