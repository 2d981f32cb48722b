"""Whatever a rollout's rows and the observation are, these hold for its next decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.actions import Apply
from reconciler.core.decide import decide
from reconciler.core.model import (
    ENDED_STATES,
    FAILURE_STATES,
    Health,
    Reason,
    RolloutState,
    Sync,
    TargetState,
    Wave,
)
from reconciler.core.observation import IntentSummary
from reconciler.core.rollout import SLOT_HOLDING
from tests.core.decisions import NEW, OLD, Fleet, actions_of, target_of, wave

FAILED = Reason("Invalid", "refused")
CHANGED = frozenset(TargetState) - {TargetState.WAITING, TargetState.SKIPPED, TargetState.SUPERSEDED}


@st.composite
def waves(draw: st.DrawFn) -> list[Wave]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    names = iter(f"c{number}" for number in range(sum(sizes)))
    budget = st.integers(0, 2)
    return [
        wave(
            f"w{number}",
            [next(names) for _ in range(size)],
            bake_s=draw(st.sampled_from([0.0, 20.0])),
            max_concurrent=draw(st.integers(1, 3)),
            max_failures=draw(budget),
            max_unreachable=draw(budget),
            closed=draw(st.sampled_from([None, None, None, Reason("NotYetEnforced", "closed")])),
        )
        for number, size in enumerate(sizes)
    ]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """A rollout somewhere on its way, as the store and the lanes might have it."""
    fields = {"on_failure": draw(st.sampled_from(["halt", "rollback"])), "mandatory": draw(st.booleans())}
    fleet = Fleet(draw(waves()), fields)
    fleet.rollout = replace(fleet.rollout, state=draw(st.sampled_from(list(RolloutState))))
    if fleet.rollout.state is RolloutState.PAUSED:
        paused = draw(st.sampled_from([RolloutState.ACTIVE, RolloutState.ROLLING_BACK]))
        fleet.rollout = replace(fleet.rollout, paused_from=paused)
    for row in list(fleet.rows):
        _scatter(draw, fleet, row.target.cluster)
    return fleet


def _scatter(draw: st.DrawFn, fleet: Fleet, name: str) -> None:
    state = draw(st.sampled_from(list(TargetState)))
    changed = state in CHANGED and (state is not TargetState.UNREACHABLE or draw(st.booleans()))
    baked = draw(st.sampled_from([OLD, OLD, None]))
    rolling = state in (TargetState.ROLLING_BACK, TargetState.ROLLED_BACK) or (
        state in FAILURE_STATES and draw(st.booleans())
    )
    rolling = rolling and baked is not None and changed
    if state in (TargetState.ROLLING_BACK, TargetState.ROLLED_BACK) and not rolling:
        state, rolling = TargetState.PROGRESSING, False
    digest = (OLD if rolling else NEW) if changed else OLD
    fleet.put(
        name,
        state=state,
        changed=changed,
        rolling=rolling,
        baked_digest=baked,
        attempt=int(changed),
        superseding=draw(st.booleans()) and draw(st.booleans()),
        bake_s=draw(st.sampled_from([0.0, 15.0])),
        bake_resets=draw(st.integers(0, 3)),
        progress_s=draw(st.sampled_from([0.0, 299.0])),
        observed_at=draw(st.sampled_from([None, 50.0, 95.0])),
        observed_boot=draw(st.sampled_from([0, 1])),
        job_ids=draw(st.sampled_from([(), ("j1",)])),
    )
    target = target_of(name)
    fleet.assignments[target] = replace(fleet.assignments[target], digest=digest, baked=baked)
    if draw(st.integers(0, 4)) == 0:
        fleet.silent.add(name)
    if draw(st.integers(0, 8)) == 0:
        fleet.cluster_fields[name] = {"suspended": True}
    if draw(st.integers(0, 3)):
        fleet.look(
            name,
            draw(st.sampled_from(list(Health))),
            digest=draw(st.sampled_from([digest, digest, OLD, NEW])),
            sync=draw(st.sampled_from(list(Sync))),
            applied=draw(st.integers(0, 3)) > 0,
            restarts=draw(st.integers(0, 1)),
            at=draw(st.sampled_from([60.0, 100.0])),
        )
    fleet.intents[target] = draw(
        st.sampled_from([IntentSummary(), IntentSummary(pending=1), IntentSummary(failed=FAILED)])
    )


EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)


@EXAMPLES
@given(fleets())
def test_the_same_question_has_the_same_answer_and_changes_no_argument(fleet: Fleet) -> None:
    rows, seen = list(fleet.rows), fleet.seen()
    first = decide(fleet.rollout, fleet.rows, seen, fleet.now)
    assert decide(fleet.rollout, fleet.rows, seen, fleet.now) == first
    assert rows == fleet.rows


@EXAMPLES
@given(fleets())
def test_what_is_started_keeps_to_the_concurrency(fleet: Fleet) -> None:
    before = {row.target: row for row in fleet.rows}
    decision = fleet.decide()
    held = sum(row.state in SLOT_HOLDING for row in fleet.rows)
    taken = [row for row in fleet.rows if row.state in SLOT_HOLDING and before[row.target].state not in SLOT_HOLDING]
    # What held a slot before keeps it, whatever the plan says; a new one is given only below the limit of its wave.
    if taken:
        assert held <= max(fleet.rollout.plan.waves[row.wave].max_concurrent for row in taken)
    for action in actions_of(decision):
        if isinstance(action, Apply) and action.purpose != "heal":
            assert fleet.row(action.target.cluster).state in SLOT_HOLDING


@EXAMPLES
@given(fleets())
def test_a_wave_starts_only_after_all_earlier_ones(fleet: Fleet) -> None:
    decision = fleet.decide()
    plan = fleet.rollout.plan
    starts = [action for action in actions_of(decision) if isinstance(action, Apply) and action.purpose == "start"]
    for action in starts:
        number = fleet.row(action.target.cluster).wave
        assert plan.waves[number].closed is None
        for earlier, its in enumerate(plan.waves[:number]):
            states = [row.state for row in fleet.rows if row.wave == earlier]
            failed = sum(row.changed and row.state in FAILURE_STATES for row in fleet.rows if row.wave == earlier)
            lost = states.count(TargetState.UNREACHABLE)
            gone = states.count(TargetState.SKIPPED) + states.count(TargetState.SUPERSEDED)
            baked = states.count(TargetState.SUCCEEDED)
            assert failed + lost + gone + baked == len(states)
            assert failed <= its.max_failures
            assert lost <= its.max_unreachable
            assert baked or gone == len(states) or not plan.mandatory


@EXAMPLES
@given(fleets())
def test_only_an_active_rollout_starts_and_only_one_that_goes_back_takes_back(fleet: Fleet) -> None:
    before = fleet.rollout.state
    decision = fleet.decide()
    purposes = {action.purpose for action in actions_of(decision) if isinstance(action, Apply)}
    if before in ENDED_STATES:
        assert (decision.steps, decision.actions) == ((), ())
    if before is not RolloutState.ACTIVE:
        assert "start" not in purposes
    if before not in (RolloutState.ACTIVE, RolloutState.ROLLING_BACK):
        assert "rollback" not in purposes
    if before is RolloutState.HALTED:
        assert fleet.rollout.state in (RolloutState.HALTED, RolloutState.SUPERSEDED)


@EXAMPLES
@given(fleets())
def test_every_write_is_of_the_right_release_and_goes_where_it_may(fleet: Fleet) -> None:
    before = {row.target: row for row in fleet.rows}
    assigned = {target: row.digest for target, row in fleet.assignments.items()}
    for action in actions_of(fleet.decide()):
        if not isinstance(action, Apply):
            continue
        name = action.target.cluster
        assert name not in fleet.silent
        assert not fleet.cluster_fields.get(name, {}).get("suspended")
        wanted = {
            "start": before[action.target].to_digest,
            "rollback": before[action.target].baked_digest,
            "heal": assigned[action.target],
        }
        assert action.digest == wanted[action.purpose]


@EXAMPLES
@given(fleets())
def test_success_needs_a_healthy_look_at_the_new_release(fleet: Fleet) -> None:
    before = {row.target: row for row in fleet.rows}
    fleet.decide()
    for row in fleet.rows:
        if row.state is TargetState.SUCCEEDED and before[row.target].state is not TargetState.SUCCEEDED:
            found = fleet.verdicts[row.target]
            assert (found.digest, found.applied, found.sync) == (row.to_digest, True, Sync.IN_SYNC)
            assert found.health in (Health.HEALTHY, Health.SUSPENDED)
            assert row.target.cluster not in fleet.silent


@EXAMPLES
@given(fleets())
def test_with_nothing_new_to_see_it_soon_has_nothing_more_to_say(fleet: Fleet) -> None:
    written: list[Any] = []
    for _ in range(4 * len(fleet.rows) + 4):
        decision = fleet.decide()
        written += [action for action in actions_of(decision) if isinstance(action, Apply)]
        if decision.steps == () and decision.actions == ():
            break
    else:
        raise AssertionError(f"it never comes to rest: {fleet.rollout.state} {fleet.states()}")
    assert len(written) <= 3 * len(fleet.rows)


@EXAMPLES
@given(fleets())
def test_left_to_itself_in_a_healthy_world_it_ends_or_says_what_it_waits_for(fleet: Fleet) -> None:
    fleet.silent.clear()
    fleet.cluster_fields.clear()
    decision = None
    for _ in range(80):
        fleet.now_s += 10.0
        fleet.well(*(row.target.cluster for row in fleet.rows))
        decision = fleet.decide()
        if fleet.rollout.state in ENDED_STATES:
            return
    assert decision is not None
    assert decision.waits
    assert decision.recheck_at is not None
