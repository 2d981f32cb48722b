"""Questions about a rollout's rows: who holds a slot, which wave is open, is it over budget, is it done.

Pure arithmetic over the frozen plan, so that each rule can be read, and tested, by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.core.model import (
    FAILURE_STATES,
    SLOT_STATES,
    FrozenPlan,
    Reason,
    RolloutTarget,
    TargetState,
    Wave,
)

#: A slot is held by what is on its way; a rollback reuses its target's slot, so it counts as well.
SLOT_HOLDING = SLOT_STATES | {TargetState.ROLLING_BACK}


def slots_held(rows: Sequence[RolloutTarget]) -> int:
    """How many targets hold a slot of the rollout's concurrency."""
    return sum(row.state in SLOT_HOLDING for row in rows)


def in_wave(rows: Sequence[RolloutTarget], wave: int) -> list[RolloutTarget]:
    """The rows of wave number `wave`."""
    return [row for row in rows if row.wave == wave]


@dataclass(frozen=True, slots=True)
class WaveStanding:
    """Where one wave stands. `complete` opens the next one; `blocked_by` says what keeps it from being complete."""

    complete: bool
    blocked_by: Reason | None
    failures: int
    unreachable: int


def standing(wave: Wave, rows: Sequence[RolloutTarget], *, mandatory: bool) -> WaveStanding:
    """Where `wave` stands, given its `rows`. A wave whose targets were all skipped passes as an empty one; one that
    baked nothing, because newer rollouts took its targets over for example, proves nothing: it opens the next only if
    the policy is not mandatory."""
    failures = sum(row.changed and row.state in FAILURE_STATES for row in rows)
    unreachable = sum(row.state is TargetState.UNREACHABLE for row in rows)
    blocked = [row for row in rows if row.state is TargetState.BLOCKED]
    succeeded = sum(row.state is TargetState.SUCCEEDED for row in rows)
    skipped = sum(row.state is TargetState.SKIPPED for row in rows)
    gone = skipped + sum(row.state is TargetState.SUPERSEDED for row in rows)
    unsettled = len(rows) - failures - unreachable - len(blocked) - succeeded - gone
    reason: Reason | None = None
    if wave.closed is not None and gone < len(rows):
        reason = wave.closed
    elif blocked:
        why = blocked[0].reason
        reason = Reason("TargetBlocked", f"{blocked[0].target} cannot take the release: {why.message if why else ''}")
    elif unreachable > wave.max_unreachable:
        message = f"{unreachable} targets of wave {wave.name} are unreachable, {wave.max_unreachable} allowed"
        reason = Reason("TooManyUnreachable", message)
    elif unsettled:
        reason = Reason("WaveInProgress", f"{unsettled} of {len(rows)} targets of wave {wave.name} are not done")
    elif skipped < len(rows) and not succeeded and mandatory:
        reason = Reason("NothingBaked", f"no target of wave {wave.name} baked: it proves nothing")
    return WaveStanding(reason is None, reason, failures, unreachable)


def open_wave(plan: FrozenPlan, rows: Sequence[RolloutTarget]) -> int:
    """The number of the first wave that is not complete; len(plan.waves) if all are."""
    for number, wave in enumerate(plan.waves):
        if not standing(wave, in_wave(rows, number), mandatory=plan.mandatory).complete:
            return number
    return len(plan.waves)


def over_budget(plan: FrozenPlan, rows: Sequence[RolloutTarget]) -> Reason | None:
    """Why the rollout must stop: more targets failed in one wave than its budget. None if it may go on."""
    for number, wave in enumerate(plan.waves):
        failed = [row for row in in_wave(rows, number) if row.changed and row.state in FAILURE_STATES]
        if len(failed) > wave.max_failures:
            first = failed[0]
            why = first.reason.message if first.reason is not None else str(first.state)
            message = f"{len(failed)} failed in wave {wave.name} ({wave.max_failures} allowed); {first.target}: {why}"
            return Reason("TooManyFailures", message)
    return None


def can_go_back(row: RolloutTarget) -> bool:
    """True if this rollout changed the target, and a release had baked there before to go back to."""
    return row.changed and not row.superseding and row.baked_digest is not None and row.baked_digest != row.to_digest
