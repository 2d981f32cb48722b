"""Failure: budgets, halt, rollback, quarantine, and what stays so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Alert, Baked, Quarantine
from reconciler.core.decide import resume
from reconciler.core.model import Health, Reason, RolloutState, TargetState
from tests.core.decisions import (
    APPLICATION,
    INTERVAL_S,
    NEW,
    OLD,
    Fleet,
    actions_of,
    applies,
    flown,
    target_of,
    waits,
    wave,
)


def two_waves(numbers: dict[str, Any] | None = None, **more: Any) -> Fleet:
    """The canary has baked; the second wave's targets are as the test says."""
    rest = {"max_concurrent": 2, "max_failures": 0, **(numbers or {})}
    fleet = Fleet([wave("canary", ["c0"]), wave("rest", ["c1", "c2", "c3"], **rest)], **more)
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    return fleet


@pytest.mark.parametrize(
    ("failed", "timed_out", "max_failures", "stops"),
    [(0, 0, 0, False), (1, 0, 0, True), (0, 1, 0, True), (1, 0, 1, False), (1, 1, 1, True), (1, 1, 2, False)],
)
def test_the_failure_budget_is_the_waves(failed: int, timed_out: int, max_failures: int, stops: bool) -> None:
    fleet = two_waves({"max_failures": max_failures}, plan_fields={"on_failure": "halt"})
    for number in range(failed):
        flown(fleet, f"c{number + 1}", state=TargetState.FAILED)
    for number in range(timed_out):
        flown(fleet, f"c{number + 1 + failed}", state=TargetState.TIMED_OUT)
    fleet.decide()
    assert (fleet.stands() is RolloutState.HALTED) is stops


def test_a_failure_of_a_target_this_rollout_did_not_change_is_not_its_failure() -> None:
    fleet = two_waves()
    fleet.put("c1", state=TargetState.FAILED, changed=False)
    fleet.decide()
    assert fleet.stands() is RolloutState.ACTIVE


def test_a_halt_starts_nothing_alerts_and_quarantines() -> None:
    fleet = two_waves(plan_fields={"on_failure": "halt"})
    flown(fleet, "c1", state=TargetState.FAILED, reason=Reason("Degraded", "it crashes"))
    flown(fleet, "c2", state=TargetState.PROGRESSING)
    decision = fleet.decide()
    assert applies(decision) == []
    quarantine, alert = decision.actions
    assert isinstance(quarantine, Quarantine)
    assert (quarantine.application, quarantine.digests) == (APPLICATION, (NEW,))
    assert isinstance(alert, Alert)
    assert (alert.level, alert.targets, alert.reason.code) == ("alert", (target_of("c1"),), "TooManyFailures")
    assert "it crashes" in alert.reason.message


def test_in_flight_is_observed_to_its_end_after_a_halt_and_nobody_is_told_twice() -> None:
    fleet = two_waves(plan_fields={"on_failure": "halt"})
    flown(fleet, "c1", state=TargetState.FAILED)
    flown(fleet, "c2", state=TargetState.PROGRESSING, job_ids=("j1",))
    fleet.decide()
    decisions = fleet.bake("c2")
    assert fleet.states() == "Succeeded Failed Succeeded Waiting"
    assert fleet.stands() is RolloutState.HALTED
    assert [action for each in decisions for action in actions_of(each)] == [Baked(target_of("c2"), NEW)]


def test_a_halted_rollout_stays_halted_after_a_restart() -> None:
    fleet = two_waves(plan_fields={"on_failure": "halt"})
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.decide()
    fleet.boot, fleet.now_s = 2, 0.0
    for _ in range(10):
        fleet.now_s += INTERVAL_S
        fleet.well("c0", "c1", "c2", "c3")
        assert applies(fleet.decide()) == []
    assert fleet.stands() is RolloutState.HALTED


def test_resuming_does_not_forget_the_failures() -> None:
    fleet = two_waves(plan_fields={"on_failure": "halt"})
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.decide()
    fleet.rollout = resume(fleet.rollout)
    assert fleet.stands() is RolloutState.ACTIVE
    assert applies(fleet.decide()) == []
    assert fleet.stands() is RolloutState.HALTED


# ---- rollback ----------------------------------------------------------------------------------------------------


def test_a_rollback_goes_newest_wave_first_and_reuses_slots() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.SUCCEEDED)
    flown(fleet, "c2", state=TargetState.FAILED)
    flown(fleet, "c3", state=TargetState.PROGRESSING)
    decision = fleet.decide()
    # c3 goes back in its own slot; one of two is free; the canary's wave allows one at a time.
    assert fleet.stands() is RolloutState.ROLLING_BACK
    assert sorted(applies(decision)) == [f"rollback c1 {OLD}", f"rollback c3 {OLD}"]
    assert waits(decision) == {"c0": "NoSlot", "c2": "NoSlot"}
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    assert applies(fleet.decide()) == [f"rollback c2 {OLD}"]
    fleet.now_s += INTERVAL_S
    fleet.well("c2", "c3")
    assert applies(fleet.decide()) == [f"rollback c0 {OLD}"]
    fleet.now_s += INTERVAL_S
    fleet.well("c0")
    fleet.decide()
    assert fleet.stands() is RolloutState.ROLLED_BACK
    assert fleet.states() == "RolledBack RolledBack RolledBack RolledBack"


def test_a_rollback_spends_a_restart_and_a_change() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED)
    step = next(step for step in fleet.decide().steps if step.target == target_of("c1"))
    assert (step.cost.changed, step.cost.restarts) == (1, 1)


def test_a_rollback_goes_to_what_baked_and_not_to_what_was_there() -> None:
    fleet = two_waves(row_fields={"from_digest": "never-baked", "baked_digest": OLD})
    flown(fleet, "c1", state=TargetState.FAILED)
    assert applies(fleet.decide()) == [f"rollback c1 {OLD}"]


def test_targets_this_rollout_never_touched_stay_as_they_are() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.decide()
    for _ in range(4):
        fleet.now_s += INTERVAL_S
        fleet.well("c0", "c1")
        fleet.decide()
    assert fleet.stands() is RolloutState.ROLLED_BACK
    assert fleet.states() == "RolledBack RolledBack Skipped Skipped"
    assert fleet.assignments[target_of("c2")].digest == OLD


def test_a_first_install_halts_and_deletes_nothing() -> None:
    fleet = two_waves(row_fields={"from_digest": None, "baked_digest": None})
    flown(fleet, "c1", state=TargetState.FAILED)
    decision = fleet.decide()
    assert fleet.stands() is RolloutState.HALTED
    assert applies(decision) == []


def test_where_only_some_had_a_baked_release_those_go_back_and_it_halts() -> None:
    fleet = two_waves()
    fleet.put("c0", baked_digest=None)
    flown(fleet, "c1", state=TargetState.FAILED)
    assert applies(fleet.decide()) == [f"rollback c1 {OLD}"]
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    fleet.decide()
    assert fleet.stands() is RolloutState.HALTED
    assert fleet.rollout.reason is not None
    assert fleet.rollout.reason.code == "NoBakedRelease"
    assert fleet.row("c0").state is TargetState.SUCCEEDED


@pytest.mark.parametrize("failure", ["refused", "deadline"])
def test_a_rollback_that_fails_halts(failure: str) -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.decide()
    if failure == "refused":
        fleet.written("c1", failed=Reason("Invalid", "no"))
        decision = fleet.decide()
    else:
        fleet.written("c1")
        for _ in range(40):
            fleet.now_s += INTERVAL_S
            fleet.look("c1", Health.DEGRADED)
            decision = fleet.decide()
            if fleet.stands() is RolloutState.HALTED:
                break
    assert fleet.stands() is RolloutState.HALTED
    assert [type(action) for action in decision.actions] == [Alert]
    assert applies(decision) == []


def test_a_rollback_happens_at_most_once() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.decide()
    fleet.written("c1", failed=Reason("Invalid", "no"))
    fleet.decide()
    fleet.rollout = resume(fleet.rollout)
    assert applies(fleet.decide()) == []
    assert fleet.stands() is RolloutState.HALTED


def test_an_unreachable_target_does_not_hold_up_the_rollback_of_the_others() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"])])
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    flown(fleet, "c1", state=TargetState.FAILED)
    assert applies(fleet.decide()) == [f"rollback c0 {OLD}"]
    fleet.silent.add("c0")  # while it goes back
    assert applies(fleet.decide()) == [f"rollback c1 {OLD}"]
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    decision = fleet.decide()
    assert fleet.states() == "Unreachable RolledBack"
    assert fleet.stands() is RolloutState.ROLLING_BACK
    assert waits(decision)["c0"] == "ClusterUnreachable"
    fleet.silent.clear()
    assert applies(fleet.decide()) == [f"rollback c0 {OLD}"]  # and it is not forgotten
    fleet.now_s += INTERVAL_S
    fleet.well("c0")
    fleet.decide()
    assert fleet.stands() is RolloutState.ROLLED_BACK


@pytest.mark.parametrize("stop", ["suspended", "disabled"])
def test_a_rollback_waits_where_nothing_may_be_written(stop: str) -> None:
    fleet = Fleet([wave("all", ["c0"])])
    flown(fleet, "c0", state=TargetState.FAILED)
    if stop == "suspended":
        fleet.cluster_fields["c0"] = {"suspended": True}
    else:
        fleet.look("c0", disabled=True)
    decision = fleet.decide()
    assert applies(decision) == []
    assert waits(decision)["c0"] in ("ClusterSuspended", "ReconcileDisabled")
    assert fleet.stands() is RolloutState.ROLLING_BACK


def test_a_newer_rollout_takes_a_target_out_of_a_rollback() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.put("c0", superseding=True)  # it succeeded here, and Git asks for something newer by now
    fleet.decide()
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    decision = fleet.decide()
    assert applies(decision) == []
    assert fleet.stands() is RolloutState.ROLLED_BACK
    assert fleet.row("c0").state is TargetState.SUCCEEDED


def test_it_does_not_end_superseded_while_it_owes_a_rollback() -> None:
    fleet = two_waves()
    flown(fleet, "c1", state=TargetState.FAILED, superseding=True)
    fleet.put("c2", superseding=True)
    fleet.put("c3", superseding=True)
    fleet.rollout = replace(fleet.rollout, state=RolloutState.ROLLING_BACK, reason=Reason("TooManyFailures", "one"))
    fleet.silent.add("c0")
    fleet.decide()
    assert fleet.stands() is RolloutState.ROLLING_BACK
    fleet.silent.clear()
    assert applies(fleet.decide()) == [f"rollback c0 {OLD}"]


def test_a_cluster_that_left_the_fleet_is_not_waited_for() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_concurrent=2)])
    flown(fleet, "c0", state=TargetState.SKIPPED)
    flown(fleet, "c1", state=TargetState.FAILED)
    fleet.silent.add("c0")
    fleet.decide()
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    fleet.decide()
    assert fleet.stands() is RolloutState.ROLLED_BACK
