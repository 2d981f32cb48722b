"""A crash at every point where the shell meets the world, in a three-wave rollout that succeeds and in one that is
taken back."""

from __future__ import annotations

import pytest

from reconciler.core.model import RolloutState
from reconciler.sim.crashes import base_run, resume

SHARES = 8


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize(
    ("tag", "expected"), [("1.1", RolloutState.SUCCEEDED), ("1.1-crash-loop", RolloutState.ROLLED_BACK)]
)
def test_a_crash_at_any_point_costs_time_and_nothing_else(tag: str, expected: RolloutState, share: int) -> None:
    copies = base_run(tag, keep=(share, SHARES))
    assert len(copies) >= 150 // SHARES
    for saved in copies:
        try:
            resume(saved, expected)
        except Exception as error:
            error.add_note(f"the process died before point {saved.number}, {saved.point}")
            raise
