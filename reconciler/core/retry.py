"""Trying a halted rollout again, because a person says so: the same plan, from the first target that did not make it.

Opening another rollout instead would leave out the very target that failed (it has the release already), and the next
wave would start without a canary. So the rollout itself goes on: what failed or went back waits for its turn again, in
its own wave, and what succeeded stays.

    retry(rollout, rows)      # state Active; Failed, TimedOut, Blocked and taken-back rows are Waiting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.core.actions import Abandon, Decision, Step
from reconciler.core.model import FAILURE_STATES, Reason, Rollout, RolloutState, RolloutTarget, TargetState

AGAIN = FAILURE_STATES | {TargetState.BLOCKED, TargetState.ROLLING_BACK, TargetState.ROLLED_BACK}


def retry(rollout: Rollout, rows: Sequence[RolloutTarget], reason: Reason) -> Decision:
    """The halted `rollout` active again. Targets that a newer rollout wants are left to it."""
    assert rollout.state is RolloutState.HALTED, f"rollout {rollout.id} is {rollout.state}"
    steps = []
    for row in rows:
        if row.state not in AGAIN or row.superseding:
            continue
        # The counts of the failed attempt start anew; `attempt` goes on, for it names the writes. What went back has
        # another release by now: to start it is a change, and restarts it.
        back = row.state in (TargetState.ROLLING_BACK, TargetState.ROLLED_BACK) or row.rolling
        again = replace(
            row,
            state=TargetState.WAITING,
            reason=reason,
            changed=row.changed and not back,
            rolling=False,
            bake_s=0.0,
            bake_resets=0,
            progress_s=0.0,
            observed_at=None,
            healthy_wall=None,
            baked_wall=None,
        )
        steps.append(Step(row.target, again, (Abandon(row.target, reason),)))
    active = replace(rollout, state=RolloutState.ACTIVE, reason=None, paused_from=None)
    return Decision(active, tuple(steps))
