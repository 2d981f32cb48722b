"""A rollout that goes well, and what it waits for: waves, slots, gates, concurrency, what ends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Abandon, Alert, Baked, Due
from reconciler.core.decide import abort, decide, pause, resume
from reconciler.core.model import (
    ENDED_STATES,
    Health,
    Reason,
    RolloutState,
    Sync,
    TargetState,
)
from reconciler.core.observation import IntentSummary, Observation
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


def three_waves(**more: Any) -> Fleet:
    return Fleet(
        [
            wave("canary", ["c0"]),
            wave("early", ["c1", "c2"]),
            wave("rest", ["c3", "c4", "c5", "c6"], max_concurrent=2, max_unreachable=1),
        ],
        **more,
    )


def test_a_whole_rollout_in_order() -> None:
    fleet = three_waves()
    started: list[str] = []
    for _ in range(60):
        decision = fleet.decide()
        started += applies(decision)
        if fleet.rollout.state in ENDED_STATES:
            break
        fleet.now_s += INTERVAL_S
        fleet.well(*(row.target.cluster for row in fleet.rows if row.changed))
    assert started == [f"start c{number} {NEW}" for number in range(7)]
    assert fleet.rollout.state is RolloutState.SUCCEEDED
    assert fleet.rollout.ended_wall == fleet.now.wall
    assert {row.state for row in fleet.rows} == {TargetState.SUCCEEDED}
    assert all(row.baked_wall is not None and row.healthy_wall is not None for row in fleet.rows)


def test_the_first_step_starts_the_canary_and_names_what_the_rest_waits_for() -> None:
    fleet = three_waves()
    decision = fleet.decide()
    assert applies(decision) == [f"start c0 {NEW}"]
    assert waits(decision) == {"wave:canary": "WaveInProgress"}
    row = fleet.row("c0")
    assert (row.state, row.changed, row.attempt, row.started_wall) == (TargetState.APPLYING, True, 1, fleet.now.wall)
    (step,) = decision.steps
    assert (step.cost.changed, step.cost.restarts) == (1, 1)


def test_a_first_install_restarts_nothing() -> None:
    decision = three_waves(row_fields={"from_digest": None, "baked_digest": None}).decide()
    assert decision.steps[0].cost.restarts == 0


def test_success_is_told_to_the_store_once() -> None:
    fleet = three_waves()
    fleet.decide()
    actions = [action for decision in fleet.bake("c0") for action in actions_of(decision)]
    assert [action for action in actions if isinstance(action, Baked)] == [Baked(target_of("c0"), NEW)]


@pytest.mark.parametrize("concurrent", [1, 2, 3, 9])
def test_slots(concurrent: int) -> None:
    fleet = Fleet([wave("all", ["c0", "c1", "c2", "c3"], max_concurrent=concurrent)])
    decision = fleet.decide()
    assert applies(decision) == [f"start c{number} {NEW}" for number in range(min(concurrent, 4))]
    assert list(waits(decision).values()).count("NoSlot") == max(4 - concurrent, 0)


@pytest.mark.parametrize(
    ("state", "holds"),
    [
        (TargetState.SNAPSHOTTING, True),
        (TargetState.APPLYING, True),
        (TargetState.PROGRESSING, True),
        (TargetState.BAKING, True),
        (TargetState.ROLLING_BACK, True),
        (TargetState.FAILED, False),
        (TargetState.TIMED_OUT, False),
        (TargetState.UNREACHABLE, False),
        (TargetState.SUCCEEDED, False),
        (TargetState.SKIPPED, False),
        (TargetState.SUPERSEDED, False),
    ],
)
def test_which_states_hold_a_slot(state: TargetState, holds: bool) -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_failures=1, max_unreachable=1)])
    flown(fleet, "c0", state=state)
    if state is TargetState.UNREACHABLE:
        fleet.silent.add("c0")
    assert applies(fleet.decide()) == ([] if holds else [f"start c1 {NEW}"])


@pytest.mark.parametrize(("away", "starts"), [(1, ["c3", "c4"]), (2, [])])
def test_a_wave_with_more_targets_away_than_allowed_waits(away: int, starts: list[str]) -> None:
    fleet = Fleet([wave("rest", [f"c{number}" for number in range(6)], max_concurrent=2, max_unreachable=1)])
    fleet.silent |= {f"c{number}" for number in range(away)}
    decision = fleet.decide()
    assert applies(decision) == [f"start {name} {NEW}" for name in (starts and ["c1", "c2"])]
    if not starts:
        assert waits(decision)["c3"] == "TooManyUnreachable"


def test_a_blocked_target_holds_its_wave_is_told_once_and_tried_again() -> None:
    fleet = Fleet([wave("rest", ["c0", "c1"])])
    fleet.decide()
    fleet.written("c0", failed=Reason("KindMissing", "not served"))
    decision = fleet.decide()
    assert (fleet.states(), applies(decision), waits(decision)["c1"]) == ("Blocked Waiting", [], "TargetBlocked")
    told = [action for action in decision.actions if isinstance(action, Alert)]
    assert [(alert.key, alert.reason.code) for alert in told] == [("r1/blocked", "KindMissing")]
    for _ in range(200):
        fleet.now_s += INTERVAL_S
        again = fleet.decide()
        assert not any(isinstance(action, Alert) for action in again.actions)
        if applies(again):
            break
    assert applies(again) == [f"start c0 {NEW}"]
    assert 600.0 <= fleet.now_s - 100.0 < 700.0


# ---- the wave after ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TargetState.WAITING, None),
        (TargetState.APPLYING, "WaveInProgress"),
        (TargetState.PROGRESSING, "WaveInProgress"),
        (TargetState.BAKING, "WaveInProgress"),
        (TargetState.BLOCKED, "TargetBlocked"),
        (TargetState.UNREACHABLE, "TooManyUnreachable"),
    ],
)
def test_a_wave_that_is_not_done_keeps_the_next_one_shut(state: TargetState, code: str | None) -> None:
    fleet = Fleet([wave("canary", ["c0"]), wave("rest", ["c1"])])
    flown(fleet, "c0", state=state)
    if state is TargetState.UNREACHABLE:
        fleet.silent.add("c0")
    fleet.written("c0")
    decision = fleet.decide()
    assert fleet.row("c1").state is TargetState.WAITING
    assert code is None or waits(decision)["wave:canary"] == code


@pytest.mark.parametrize(
    ("states", "numbers", "mandatory", "opens"),
    [
        ("Succeeded Succeeded", {}, True, True),
        ("Succeeded Skipped", {}, True, True),
        ("Succeeded Superseded", {}, True, True),
        ("Skipped Skipped", {}, True, True),  # nobody is left in it: passed as an empty one
        ("Superseded Skipped", {}, True, False),  # its proof went to a newer rollout
        ("Superseded Superseded", {}, False, True),
        ("Succeeded Failed", {"max_failures": 1}, True, True),
        ("Succeeded TimedOut", {"max_failures": 1}, True, True),
        ("Failed TimedOut", {"max_failures": 2}, True, False),  # nothing baked: it proves nothing
        ("Failed TimedOut", {"max_failures": 2}, False, True),
        ("Succeeded Unreachable", {"max_unreachable": 1}, True, True),
        ("Succeeded Unreachable", {"max_unreachable": 0}, True, False),
        ("Unreachable Unreachable", {"max_unreachable": 2}, True, False),
        ("Unreachable Unreachable", {"max_unreachable": 2}, False, True),
        ("Unreachable Unreachable", {"max_unreachable": 1}, False, False),
        ("Succeeded Blocked", {}, False, False),
    ],
)
def test_what_opens_the_next_wave(states: str, numbers: dict[str, int], mandatory: bool, opens: bool) -> None:
    fleet = Fleet([wave("canary", ["c0", "c1"], **numbers), wave("rest", ["c2"])], {"mandatory": mandatory})
    for name, state in zip(("c0", "c1"), states.split(), strict=True):
        flown(fleet, name, state=TargetState(state))
        if state == "Unreachable":
            fleet.silent.add(name)
    assert (applies(fleet.decide()) == [f"start c2 {NEW}"]) is opens


def test_a_closed_wave_stays_shut_and_says_why() -> None:
    closed = Reason("NotYetEnforced", "the wave stays closed: this version does not enforce approval")
    fleet = Fleet([wave("canary", ["c0"]), wave("rest", ["c1"], closed=closed)])
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    decision = fleet.decide()
    assert applies(decision) == []
    assert waits(decision) == {"c1": "NotYetEnforced", "wave:rest": "NotYetEnforced"}
    assert fleet.rollout.state is RolloutState.ACTIVE


# ---- what keeps a target from being started ----------------------------------------------------------------------


def test_a_suspended_cluster_is_not_touched() -> None:
    fleet = three_waves()
    fleet.cluster_fields["c0"] = {"suspended": True}
    assert waits(fleet.decide())["c0"] == "ClusterSuspended"
    assert fleet.row("c0").state is TargetState.WAITING


def test_a_cluster_that_was_not_heard_lately_is_not_touched() -> None:
    fleet = three_waves()
    seen = fleet.seen()
    quiet = replace(seen.clusters["c0"], heard_at=fleet.now_s - 2 * INTERVAL_S - 1)
    decision = decide(fleet.rollout, fleet.rows, replace(seen, clusters={**seen.clusters, "c0": quiet}), fleet.now)
    assert waits(decision)["c0"] == "ClusterQuiet"
    assert applies(decision) == []


def test_a_target_that_an_older_rollout_has_in_flight_is_not_touched() -> None:
    fleet = three_waves()
    fleet.held[target_of("c0")] = "r0"
    assert waits(fleet.decide())["c0"] == "HeldByRollout"


def test_a_release_that_another_rollout_was_stopped_for_is_not_started() -> None:
    fleet = three_waves()
    seen = replace(fleet.seen(), quarantined={(APPLICATION, NEW): "r0"})
    decision = decide(fleet.rollout, fleet.rows, seen, fleet.now)
    assert waits(decision)["c0"] == "Quarantined"
    assert applies(decision) == []


def test_the_manual_escape_keeps_us_out() -> None:
    fleet = three_waves()
    fleet.look("c0", disabled=True)
    assert waits(fleet.decide())["c0"] == "ReconcileDisabled"


def test_nothing_known_of_any_cluster_starts_nothing() -> None:
    fleet = three_waves()
    decision = decide(fleet.rollout, fleet.rows, Observation(), fleet.now)
    assert applies(decision) == []


# ---- pause, resume, abort, ended ---------------------------------------------------------------------------------


def test_a_paused_rollout_starts_nothing_and_observes_what_is_in_flight_to_its_end() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_concurrent=2)])
    fleet.decide()
    fleet.put("c1", state=TargetState.WAITING, changed=False)
    fleet.rollout = pause(fleet.rollout, Reason("PausedByPerson", "looking"))
    decisions = fleet.bake("c0")
    assert [applies(decision) for decision in decisions] == [[]] * len(decisions)
    assert fleet.states() == "Succeeded Waiting"
    assert waits(decisions[-1])[""] == "PausedByPerson"
    fleet.rollout = resume(fleet.rollout)
    assert applies(fleet.decide()) == [f"start c1 {NEW}"]


def test_failures_while_paused_halt_and_take_nothing_back() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"])])
    flown(fleet, "c0", state=TargetState.FAILED)
    fleet.rollout = pause(fleet.rollout, Reason("PausedByPerson", "looking"))
    decision = fleet.decide()
    assert fleet.rollout.state is RolloutState.HALTED
    assert applies(decision) == []


def test_a_rollback_may_be_paused_and_goes_on_afterwards() -> None:
    fleet = Fleet([wave("canary", ["c0"]), wave("rest", ["c1", "c2"])])
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    flown(fleet, "c1", state=TargetState.FAILED)
    assert applies(fleet.decide()) == [f"rollback c1 {OLD}"]
    fleet.rollout = pause(fleet.rollout, Reason("PausedByPerson", "looking"))
    fleet.now_s += INTERVAL_S
    fleet.well("c1")
    assert applies(fleet.decide()) == []
    assert (fleet.rollout.state, fleet.row("c1").state) == (RolloutState.PAUSED, TargetState.ROLLED_BACK)
    fleet.rollout = resume(fleet.rollout)
    assert fleet.rollout.state is RolloutState.ROLLING_BACK
    assert applies(fleet.decide()) == [f"rollback c0 {OLD}"]


@pytest.mark.parametrize("state", list(RolloutState))
def test_pause_and_resume_twice_are_once(state: RolloutState) -> None:
    rollout = replace(three_waves().rollout, state=state)
    why = Reason("PausedByPerson", "looking")
    once = pause(rollout, why)
    assert pause(once, why) == once
    if state in (RolloutState.ACTIVE, RolloutState.ROLLING_BACK):
        assert once.state is RolloutState.PAUSED
        assert resume(once) == rollout
        assert resume(resume(once)) == rollout
    else:
        assert once == rollout


@pytest.mark.parametrize("state", sorted(ENDED_STATES))
def test_an_ended_rollout_decides_nothing(state: RolloutState) -> None:
    fleet = three_waves()
    flown(fleet, "c0", state=TargetState.APPLYING)
    fleet.rollout = replace(fleet.rollout, state=state)
    decision = fleet.decide()
    assert (decision.steps, decision.actions, decision.waits, decision.recheck_at) == ((), (), (), None)
    assert resume(fleet.rollout) == fleet.rollout


def test_abort_gives_up_what_is_pending_and_quarantines() -> None:
    fleet = Fleet([wave("canary", ["c0"]), wave("rest", ["c1", "c2"])])
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    flown(fleet, "c1", state=TargetState.APPLYING)
    why = Reason("AbortedByPerson", "enough")
    decision = abort(fleet.rollout, fleet.rows, why, fleet.now)
    assert applies(decision) == []
    assert [step.target.cluster for step in decision.steps] == ["c1", "c2"]
    assert {type(action) for step in decision.steps for action in step.actions} == {Abandon}
    (quarantine,) = decision.actions
    assert getattr(quarantine, "digests", None) == (NEW,)
    fleet.take(decision)
    assert fleet.states() == "Succeeded Skipped Skipped"
    assert fleet.rollout.state is RolloutState.ABORTED
    assert fleet.decide().steps == ()


# ---- unreachable -------------------------------------------------------------------------------------------------


def test_an_unreachable_target_has_a_state_of_its_own_and_no_failure() -> None:
    fleet = three_waves()
    fleet.silent.add("c0")
    decision = fleet.decide()
    assert applies(decision) == []
    assert fleet.row("c0").state is TargetState.UNREACHABLE
    assert waits(decision)["wave:canary"] == "TooManyUnreachable"
    assert fleet.rollout.state is RolloutState.ACTIVE
    assert decision.actions == ()  # no alert storm


def test_a_cluster_that_returns_is_started_in_its_turn() -> None:
    fleet = three_waves()
    fleet.silent.add("c0")
    fleet.decide()
    fleet.silent.clear()
    assert applies(fleet.decide()) == [f"start c0 {NEW}"]


@pytest.mark.parametrize("state", [TargetState.APPLYING, TargetState.PROGRESSING, TargetState.BAKING])
def test_one_lost_in_flight_frees_its_slot_and_gives_up_what_was_not_sent(state: TargetState) -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_unreachable=1)])
    flown(fleet, "c0", state=state)
    fleet.silent.add("c0")
    decision = fleet.decide()
    assert fleet.states() == "Unreachable Applying"
    assert [type(action) for action in decision.steps[0].actions] == [Abandon]
    fleet.silent.clear()
    decision = fleet.decide()
    assert waits(decision)["c0"] == "NoSlot"
    assert fleet.row("c0").state is TargetState.WAITING


def test_what_was_unreachable_at_the_end_is_due() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_unreachable=1)])
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    fleet.silent.add("c1")
    decision = fleet.decide()
    assert fleet.rollout.state is RolloutState.SUCCEEDED
    assert Due(target_of("c1"), NEW) in actions_of(decision)
    assert fleet.row("c1").state is TargetState.UNREACHABLE


# ---- superseding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "leaves"),
    [
        (TargetState.WAITING, True),
        (TargetState.UNREACHABLE, True),
        (TargetState.BLOCKED, True),
        (TargetState.FAILED, True),
        (TargetState.TIMED_OUT, True),
        (TargetState.BAKING, True),
        (TargetState.APPLYING, False),
        (TargetState.PROGRESSING, False),
        (TargetState.ROLLING_BACK, False),
    ],
)
def test_when_a_target_is_handed_to_a_newer_rollout(state: TargetState, leaves: bool) -> None:
    fleet = Fleet([wave("all", ["c0", "c1"], max_concurrent=2)])
    flown(fleet, "c0", state=state, superseding=True, rolling=state is TargetState.ROLLING_BACK)
    if state is TargetState.UNREACHABLE:
        fleet.silent.add("c0")
    fleet.intents[target_of("c0")] = IntentSummary(pending=1)
    fleet.decide()
    assert (fleet.row("c0").state is TargetState.SUPERSEDED) is leaves
    assert fleet.row("c1").state is TargetState.APPLYING  # what remains of the old one goes on


def test_with_nothing_left_it_ends_superseded() -> None:
    fleet = three_waves()
    for row in fleet.rows:
        fleet.put(row.target.cluster, superseding=True)
    fleet.decide()
    assert fleet.rollout.state is RolloutState.SUPERSEDED


@pytest.mark.parametrize("state", [RolloutState.HALTED, RolloutState.PAUSED])
def test_a_new_digest_for_its_targets_ends_a_rollout_that_stands_still(state: RolloutState) -> None:
    fleet = three_waves()
    fleet.rollout = replace(fleet.rollout, state=state)
    flown(fleet, "c0", state=TargetState.SUCCEEDED)
    fleet.decide()
    assert fleet.rollout.state is state  # a commit that changes nothing of it ends nothing
    for row in fleet.rows:
        fleet.put(row.target.cluster, superseding=True)
    fleet.decide()
    assert fleet.rollout.state is RolloutState.SUPERSEDED


def test_a_superseded_failure_is_no_failure_any_more() -> None:
    fleet = Fleet([wave("all", ["c0", "c1"])])
    flown(fleet, "c0", state=TargetState.FAILED, superseding=True)
    decision = fleet.decide()
    assert fleet.states() == "Superseded Applying"
    assert decision.actions == ()


# ---- when to look again ------------------------------------------------------------------------------------------


def test_recheck_at() -> None:
    fleet = three_waves()
    assert fleet.decide().recheck_at == fleet.now_s + INTERVAL_S  # something is on its way
    fleet = three_waves()
    fleet.cluster_fields["c0"] = {"suspended": True}
    assert fleet.decide().recheck_at == fleet.now_s + 5 * INTERVAL_S  # it only waits
    fleet = three_waves()
    fleet.assignments[target_of("c1")] = replace(
        fleet.assignments[target_of("c1")], heal_streak=2, heal_at_s=fleet.now_s - 1, heal_boot=1
    )
    fleet.look("c1", sync=Sync.DIFFERS)
    assert fleet.decide().recheck_at == fleet.now_s - 1 + 6.0  # a repair is allowed again before that


def test_a_verdict_of_another_digest_or_not_of_our_write_opens_nothing() -> None:
    for changes in ({"digest": OLD}, {"applied": False}):
        fleet = three_waves()
        fleet.decide()
        fleet.written("c0")
        for _ in range(20):
            fleet.now_s += INTERVAL_S
            fleet.look("c0", **changes)
            fleet.decide()
        assert fleet.row("c0").state is TargetState.PROGRESSING


@pytest.mark.parametrize("health", [Health.UNKNOWN, Health.PROGRESSING, Health.MISSING])
def test_only_healthy_opens_a_wave(health: Health) -> None:
    fleet = three_waves()
    fleet.decide()
    fleet.written("c0")
    for _ in range(20):
        fleet.now_s += INTERVAL_S
        fleet.look("c0", health)
        assert applies(fleet.decide()) == []
    assert fleet.row("c0").state is TargetState.PROGRESSING


def test_a_verdict_that_gets_no_fresher_bakes_nothing() -> None:
    fleet = three_waves()
    fleet.decide()
    fleet.now_s += INTERVAL_S
    fleet.well("c0")
    fleet.decide()
    assert fleet.row("c0").state is TargetState.BAKING
    for _ in range(20):
        fleet.now_s += INTERVAL_S
        fleet.decide()
    assert (fleet.row("c0").state, fleet.row("c0").bake_s) == (TargetState.BAKING, 0.0)


def test_the_arguments_are_not_changed() -> None:
    fleet = three_waves()
    rows, rollout = list(fleet.rows), fleet.rollout
    decide(fleet.rollout, fleet.rows, fleet.seen(), fleet.now)
    assert (rows, rollout) == (fleet.rows, fleet.rollout)
