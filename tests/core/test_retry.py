"""Trying a halted rollout again: what failed waits again, what succeeded stays, what is wanted elsewhere is left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.actions import Abandon
from reconciler.core.model import (
    FrozenPlan,
    Reason,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
    Wave,
)
from reconciler.core.retry import AGAIN, retry

TARGET = Target("test/orders", "a1")
WHY = Reason("RetriedByUser", "retried by ada")


def rollout(state: RolloutState = RolloutState.HALTED) -> Rollout:
    wave = Wave("canary", (TARGET,), 60.0, 1, 0, 0)
    plan = FrozenPlan((wave,), 900.0, "halt", True, "standard", "hash", 10.0)
    why = Reason("TooManyFailures", "1 failed")
    return Rollout("r", "fleet", "test/orders", RolloutKind.CHANGE, "sha", plan, state, why, 0.0, version=7)


def row(state: TargetState, *, superseding: bool = False) -> RolloutTarget:
    return RolloutTarget(
        TARGET, 0, "new", "old", "old", state, Reason("CrashLoop", "3 restarts"), changed=True, rolling=True, attempt=3,
        bake_s=30.0, bake_resets=4, progress_s=500.0, observed_at=12.0, superseding=superseding,
    )  # fmt: skip


@pytest.mark.parametrize("state", sorted(TargetState))
def test_only_what_did_not_make_it_waits_again(state: TargetState) -> None:
    decision = retry(rollout(), [row(state)], WHY)
    assert decision.rollout is not None
    assert (decision.rollout.state, decision.rollout.reason, decision.rollout.version) == (RolloutState.ACTIVE, None, 7)
    assert decision.actions == ()
    if state not in AGAIN:
        assert decision.steps == ()
        return
    (step,) = decision.steps
    after = step.after
    assert after is not None
    assert (after.state, after.reason, after.rolling) == (TargetState.WAITING, WHY, False)
    assert (after.bake_s, after.bake_resets, after.progress_s, after.observed_at) == (0.0, 0, 0.0, None)
    # What was not sent is given up; its next writes are others than the last ones, and to start it is a change again.
    assert step.actions == (Abandon(TARGET, WHY),)
    assert (after.attempt, after.changed, after.baked_digest) == (3, False, "old")


def test_what_failed_where_it_is_has_been_changed() -> None:
    (step,) = retry(rollout(), [replace(row(TargetState.FAILED), rolling=False)], WHY).steps
    assert step.after is not None
    assert step.after.changed


def test_what_a_newer_rollout_wants_is_left_to_it() -> None:
    assert retry(rollout(), [row(TargetState.FAILED, superseding=True)], WHY).steps == ()


def test_only_a_halted_rollout_is_tried_again() -> None:
    with pytest.raises(AssertionError):
        retry(rollout(RolloutState.ACTIVE), [], WHY)
