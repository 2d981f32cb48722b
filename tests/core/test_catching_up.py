"""Which catch-up the others wait for: one that has something on its way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.model import RolloutKind, TargetState
from reconciler.shell.gather_source import catching_up
from tests.core.decisions import plan_of, rollout_of, rows_of, wave

PLAN = plan_of([wave("all", ["c0"])])
(ROW,) = rows_of(PLAN)
CATCH_UP = replace(rollout_of(PLAN), kind=RolloutKind.CATCH_UP)


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (TargetState.WAITING, True),
        (TargetState.APPLYING, True),
        (TargetState.BAKING, True),
        (TargetState.UNREACHABLE, False),  # away again: nobody else is held up by it
        (TargetState.BLOCKED, False),
        (TargetState.SUCCEEDED, False),
    ],
)
def test_only_one_that_moves_is_waited_for(state: TargetState, waits: bool) -> None:
    rows = {ROW.target: [("r1", replace(ROW, state=state))]}
    assert catching_up([CATCH_UP], rows) == ("r1" if waits else "")
    assert catching_up([replace(CATCH_UP, kind=RolloutKind.CHANGE)], rows) == ""
