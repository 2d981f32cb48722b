"""The one gate that blocks, for every state a target can be in: nothing is left without a sentence."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.core.actions import Wait
from reconciler.core.model import (
    Assignment,
    ClusterView,
    Health,
    Now,
    Reason,
    RolloutState,
    Sync,
    TargetState,
    TargetVerdict,
)
from reconciler.shell.board import Board
from reconciler.shell.daemon import Daemon
from reconciler.shell.explain import Gate, gate_of
from reconciler.shell.looks import Look, Moving
from tests.core.test_retry import TARGET, rollout, row

NOW = Now(1_700_000_000.0, 100.0, 1)
VERDICT = TargetVerdict(TARGET, "new", 99.0, Sync.IN_SYNC, Health.HEALTHY, Reason("Running", "the job is running"))

SILENT = ClusterView("a1", -200.0, 0.0, reason=Reason("Unreachable", "connection refused"))


def gate(look: Look, *waits: Wait) -> Gate:
    """What is said of `look` while its rollout and application wait for `waits`."""
    board = Board()
    board.waits["rollout:r"] = waits
    board.waits["application:test/orders"] = waits
    compiled = SimpleNamespace(blocked=None, targets={"a1": "new"})
    snapshot = SimpleNamespace(applications={"test/orders": compiled}, kept=None)
    unit = SimpleNamespace(snapshot=snapshot, failure=None, commit=None)
    stand_in: Any = SimpleNamespace(board=board, lanes={}, sources={"fleet": unit})
    return gate_of(cast("Daemon", stand_in), look, NOW)


def moving(state: TargetState, of: RolloutState = RolloutState.ACTIVE) -> Look:
    """A target that a rollout moves."""
    return Look(TARGET, "new", None, None, Moving(rollout(of), row(state)), None, unreachable=False)


def standing(verdict: TargetVerdict | None = VERDICT, assigned: str = "new", goal: str = "new") -> Look:
    """A target that no rollout moves."""
    return Look(TARGET, goal, Assignment(TARGET, assigned, "fleet"), verdict, None, None, unreachable=False)


@pytest.mark.parametrize("state", sorted(TargetState))
@pytest.mark.parametrize(
    "of", [RolloutState.ACTIVE, RolloutState.HALTED, RolloutState.PAUSED, RolloutState.ROLLING_BACK]
)
def test_everything_that_moves_names_a_gate(state: TargetState, of: RolloutState) -> None:
    found = gate(moving(state, of))
    assert found.by
    assert found.reason.code
    assert found.reason.message


@pytest.mark.parametrize(
    ("look", "waits", "by", "code"),
    [
        (moving(TargetState.WAITING, RolloutState.HALTED), [], "rollout", "TooManyFailures"),
        (moving(TargetState.WAITING, RolloutState.ROLLING_BACK), [], "rollout", "TooManyFailures"),
        (moving(TargetState.FAILED), [], "failure", "CrashLoop"),
        (moving(TargetState.BAKING), [], "bake", "Baking"),
        (moving(TargetState.WAITING), [Wait(str(TARGET), Reason("NoSlot", "2 at a time"))], "slot", "NoSlot"),
        (moving(TargetState.WAITING), [Wait(str(TARGET), Reason("ClusterQuiet", "quiet"))], "cluster", "ClusterQuiet"),
        (moving(TargetState.WAITING), [Wait(str(TARGET), Reason("LedgerSpent", "60"))], "gate", "LedgerSpent"),
        (moving(TargetState.WAITING), [Wait("wave:early", Reason("NothingBaked", "1"))], "wave:early", "NothingBaked"),
        (moving(TargetState.PROGRESSING), [], "health", "CrashLoop"),
        (standing(), [], "", "UpToDate"),
        (standing(goal="newer"), [Wait(str(TARGET), Reason("Quarantined", "stopped"))], "quarantine", "Quarantined"),
        (standing(goal="newer"), [Wait("", Reason("UnmatchedTargets", "no wave"))], "source", "UnmatchedTargets"),
        (standing(goal="newer"), [], "source", "NotDecidedYet"),
        (standing(None), [], "observation", "NotObserved"),
        (standing(replace(VERDICT, sync=Sync.DIFFERS)), [], "drift", "Drift"),
        (standing(replace(VERDICT, health=Health.DEGRADED)), [], "health", "Running"),
        (replace(standing(), unreachable=True), [], "cluster", "ClusterUnreachable"),
        (replace(standing(), unreachable=True, view=SILENT), [], "cluster", "ClusterUnreachable"),
    ],
)  # fmt: skip
def test_the_gate_that_counts(look: Look, waits: list[Wait], by: str, code: str) -> None:
    found = gate(look, *waits)
    assert (found.by, found.reason.code) == (by, code)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (RolloutState.HALTED, "its rollout is Halted: 1 failed"),
        (RolloutState.PAUSED, "its rollout is Paused: 1 failed"),
        (RolloutState.ROLLING_BACK, "its rollout is going back: 1 failed"),
    ],
)
def test_what_waits_for_a_stopped_rollout_reads_why_it_stopped(state: RolloutState, says: str) -> None:
    assert gate(moving(TargetState.WAITING, state)).reason.message == says


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (SILENT, "cluster a1 does not answer: connection refused; last heard 5 min ago"),
        (replace(SILENT, reason=None), "cluster a1 does not answer; last heard 5 min ago"),
        (replace(SILENT, heard_at=None), "cluster a1 does not answer: connection refused"),
        (
            replace(SILENT, reason=Reason("Unauthorized", "the token has expired")),
            "cluster a1 is out of reach: the token has expired; last heard 5 min ago",
        ),
    ],
)
def test_a_silent_cluster_says_why_and_since_when(view: ClusterView, says: str) -> None:
    away = replace(moving(TargetState.UNREACHABLE), view=view, unreachable=True)
    assert gate(away).reason.message == says
    assert gate(replace(standing(), view=view, unreachable=True)).reason.message == says


def test_a_bake_says_when_it_is_over() -> None:
    found = gate(moving(TargetState.BAKING))
    assert found.reason.message == "healthy; baked 30 s of 60 s"
    assert found.recheck_at == NOW.monotonic + 30
