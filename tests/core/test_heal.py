"""Drift: to which release, when, how often, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Alert, Apply, Contested, Cost, Step, Wait
from reconciler.core.heal import HEAL_DELAY_MAX_S, HEAL_FORGET_S, decide_heal, drifted_fields, heal_delay_s
from reconciler.core.model import Assignment, ClusterView, Reason, RolloutState, Sync, TargetState
from reconciler.core.observation import IntentSummary, Observation
from tests.core.decisions import CONFIG, NEW, OLD, Fleet, applies, flown, part, target_of, time_at, verdict, wave

TARGET = target_of("c0")
ASSIGNED = Assignment(TARGET, OLD, "fleet", revision="abc", baked=OLD)
CLUSTER = ClusterView("c0", 1000.0, 0.0)
DRIFTED = verdict("c0", OLD, 1000.0, sync=Sync.DIFFERS)


def heal(assignment: Assignment = ASSIGNED, found: Any = DRIFTED, **more: Any) -> Step | Wait | None:
    values: dict[str, Any] = {"cluster": CLUSTER, "pending": 0, "now": time_at(1000.0), **more}
    seen = Observation(
        {TARGET: found} if found is not None else {},
        {"c0": values["cluster"]} if values["cluster"] is not None else {},
        {TARGET: assignment},
        {TARGET: IntentSummary(values["pending"])},
        report_only=frozenset(values.get("report_only", ())),
        heals={TARGET: values.get("heals", {})},
        refused={TARGET: values.get("refused", {})},
    )
    return decide_heal(assignment, seen, values["now"])


@pytest.mark.parametrize(
    ("streak", "delay_s"), [(0, 0), (1, 2), (2, 6), (3, 18), (4, 54), (5, 162), (6, 300), (99, 300), (5000, 300)]
)
def test_backoff(streak: int, delay_s: float) -> None:
    assert heal_delay_s(streak) == delay_s


def test_a_repair_restores_what_is_assigned() -> None:
    step = heal()
    assert isinstance(step, Step)
    (apply,) = step.actions
    assert apply == Apply(TARGET, OLD, "heal", 1, "abc", 1)
    assert (step.cost.changed, step.cost.restarts) == (0, 1)


def test_what_restarts_nothing_spends_no_restart() -> None:
    step = heal(found=verdict("c0", OLD, 1000.0, sync=Sync.MISSING, objects=(part(CONFIG, sync=Sync.MISSING), part())))
    assert isinstance(step, Step)
    assert step.cost.restarts == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"found": None},
        {"found": verdict("c0", NEW, 1000.0, sync=Sync.DIFFERS)},  # judged against another release
        {"found": verdict("c0", OLD, 1000.0)},
        {"found": verdict("c0", OLD, 1000.0, sync=Sync.ASK)},
        {"found": verdict("c0", OLD, 1000.0, sync=Sync.UNKNOWN)},
        {"assignment": Assignment(TARGET, "", "fleet"), "found": verdict("c0", "", 1000.0, sync=Sync.MISSING)},
        {"pending": 1},
        {"cluster": None},
        {"cluster": replace(CLUSTER, suspended=True)},
        {"cluster": replace(CLUSTER, heard_at=0.0)},
    ],
)
def test_what_is_not_repaired(arguments: dict[str, Any]) -> None:
    assert heal(**arguments) is None


def test_the_manual_escape_is_shown() -> None:
    found = heal(found=replace(DRIFTED, disabled=True))
    assert isinstance(found, Wait)
    assert found.reason.code == "ReconcileDisabled"


@pytest.mark.parametrize(
    ("streak", "healed_at", "boot", "now_s", "until"),
    [
        (1, 999.0, 1, 1000.0, 1001.0),
        (1, 998.0, 1, 1000.0, None),
        (6, 800.0, 1, 1000.0, 1100.0),
        (6, 800.0, 1, 1100.0, None),
        # After a restart the whole delay runs anew: time down does not count.
        (3, 800.0, 1, 5.0, 18.0),
        (3, 800.0, 1, 18.0, None),
    ],
)
def test_the_next_repair_waits(streak: int, healed_at: float, boot: int, now_s: float, until: float | None) -> None:
    assignment = replace(ASSIGNED, heal_count=9, heal_streak=streak, heal_at_s=healed_at, heal_boot=boot)
    now = time_at(now_s, 1 if now_s > 100 else 2)
    found = heal(assignment, cluster=replace(CLUSTER, heard_at=now_s), now=now)
    if until is None:
        assert isinstance(found, Step)
        assert found.actions[0] == Apply(TARGET, OLD, "heal", 10, "abc", streak + 1)
    else:
        assert isinstance(found, Wait)
        assert (found.reason.code, found.recheck_at) == ("HealBackoff", until)


@pytest.mark.parametrize("boot", [1, 2])
def test_one_that_stayed_in_sync_for_long_starts_over(boot: int) -> None:
    healed_at = 100.0 if boot == 1 else 90_000.0
    assignment = replace(ASSIGNED, heal_streak=6, heal_at_s=healed_at, heal_boot=1)
    now_s = (100.0 if boot == 1 else 0.0) + HEAL_FORGET_S + 1
    assert now_s > HEAL_DELAY_MAX_S
    found = heal(assignment, cluster=replace(CLUSTER, heard_at=now_s), now=time_at(now_s, boot))
    assert isinstance(found, Step)
    assert isinstance(found.actions[0], Apply)
    assert found.actions[0].streak == 1


# ---- in a rollout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(TargetState))
def test_which_rows_of_a_rollout_are_healed(state: TargetState) -> None:
    healed = state in (TargetState.WAITING, TargetState.PROGRESSING, TargetState.BAKING)
    fleet = Fleet([wave("all", ["c0", "c1"], max_failures=2, max_unreachable=2)])
    flown(fleet, "c1", state=TargetState.APPLYING)  # holds the only slot
    fleet.look("c1", digest=OLD)
    if state is TargetState.WAITING:
        fleet.put("c0", state=state)
    else:
        flown(fleet, "c0", state=state, rolling=state is TargetState.ROLLING_BACK)
    if state is TargetState.UNREACHABLE:
        fleet.silent.add("c0")
    if state is TargetState.APPLYING:
        fleet.intents[TARGET] = IntentSummary(pending=1)
    fleet.look("c0", sync=Sync.DIFFERS)
    expected = [f"heal c0 {fleet.assignments[TARGET].digest}"] if healed else []
    assert [each for each in applies(fleet.decide()) if each.startswith("heal")] == expected


@pytest.mark.parametrize("state", [RolloutState.ACTIVE, RolloutState.PAUSED, RolloutState.HALTED])
def test_a_target_not_reached_yet_is_healed_to_what_it_has(state: RolloutState) -> None:
    closed = Fleet([wave("canary", ["c0"]), wave("rest", ["c1"])])
    flown(closed, "c0", state=TargetState.PROGRESSING)
    closed.rollout = replace(closed.rollout, state=state)
    closed.look("c1", sync=Sync.MISSING)
    assert applies(closed.decide()) == [f"heal c1 {OLD}"]
    assert closed.row("c1").state is TargetState.WAITING


def test_a_repair_starts_the_bake_again() -> None:
    fleet = Fleet([wave("all", ["c0"])])
    flown(fleet, "c0", state=TargetState.BAKING, bake_s=15.0, observed_at=90.0, observed_boot=1)
    fleet.look("c0", sync=Sync.DIFFERS)
    assert applies(fleet.decide()) == [f"heal c0 {NEW}"]
    row = fleet.row("c0")
    assert (row.state, row.bake_s, row.bake_resets) == (TargetState.PROGRESSING, 0.0, 0)


def test_a_target_another_rollout_has_in_flight_is_not_healed() -> None:
    fleet = Fleet([wave("all", ["c0"])])
    fleet.held[TARGET] = "r0"
    fleet.look("c0", sync=Sync.DIFFERS)
    assert applies(fleet.decide()) == []


def test_a_target_is_started_rather_than_healed() -> None:
    fleet = Fleet([wave("all", ["c0"])])
    fleet.look("c0", sync=Sync.DIFFERS)
    assert applies(fleet.decide()) == [f"start c0 {NEW}"]


# ---- reported, fought over, owners only ----------------------------------------------------------------------------

FIELD = "ConfigMap ns/config: data.a"


def drifted(*, ownership_only: bool = False) -> Any:
    """A verdict on a ConfigMap that differs in one field, written by somebody named."""
    differing = replace(
        part(CONFIG, sync=Sync.DIFFERS),
        key=CONFIG._replace(namespace="ns", name="config"),
        drifted=("data.a",),
        drifted_by=("kubectl-edit",),
        ownership_only=ownership_only,
    )
    return verdict("c0", OLD, 1000.0, sync=Sync.DIFFERS, objects=(differing, part()))


def test_a_policy_that_only_reports_repairs_nothing() -> None:
    found = heal(report_only=(TARGET.application,))
    assert isinstance(found, Wait)
    assert found.reason.code == "SelfHealOff"


def test_fields_are_counted_of_the_objects_that_were_written() -> None:
    found = drifted()
    assert drifted_fields(found) == drifted_fields(found, {found.objects[0].key}) == (FIELD,)
    assert drifted_fields(found, {found.objects[1].key}) == ()


@pytest.mark.parametrize(("heals", "contested"), [(0, False), (2, False), (3, True), (9, True)])
def test_the_third_repair_of_one_field_is_the_last(heals: int, contested: bool) -> None:
    step = heal(found=drifted(), heals={FIELD: heals, "ConfigMap ns/config: data.other": 99})
    assert isinstance(step, Step)
    assert isinstance(step.actions[0], Contested) == contested
    if contested:
        told = step.actions[1]
        assert isinstance(told, Alert)
        assert told.reason.code == "Contested"
        assert "kubectl-edit" in told.reason.message
        assert step.cost == Cost()


def test_what_is_fought_over_waits_until_it_is_settled() -> None:
    fought = replace(ASSIGNED, contested=FIELD)
    found = heal(fought, drifted())
    assert isinstance(found, Wait)
    assert found.reason.code == "Contested"
    step = heal(fought, verdict("c0", OLD, 1000.0))
    assert isinstance(step, Step)
    assert step.actions == (Contested(TARGET, ()),)


def test_several_fields_may_be_fought_over() -> None:
    """Each is told once, each ends by itself, and the objects that are left repaired are fewer."""
    found = drifted()
    config, job = found.objects
    other = replace(job, sync=Sync.DIFFERS, drifted=("spec.image",), drifted_by=("tuner",))
    both, image = replace(found, objects=(config, other)), f"{job.key}: spec.image"
    one = replace(ASSIGNED, contested=FIELD, heal_count=7)
    step = heal(one, both)
    assert isinstance(step, Step)
    assert step.actions == (Apply(TARGET, OLD, "heal", 8, "abc", 1, (config.key,)),)
    assert step.cost == Cost(restarts=1)
    step = heal(one, both, heals={FIELD: 9, image: 3})
    assert isinstance(step, Step)
    given_up, told = step.actions
    assert given_up == Contested(TARGET, (FIELD, image))
    assert isinstance(told, Alert)
    assert "spec.image was repaired 3 times in ten minutes and changed again by tuner" in told.reason.message
    two = replace(one, contested=f"{FIELD}\n{image}")
    wait = heal(two, both)
    assert isinstance(wait, Wait)
    assert wait.reason.message.startswith(f"{FIELD} and 1 more is fought over with kubectl-edit, tuner")
    step = heal(two, replace(both, objects=(replace(config, sync=Sync.IN_SYNC, drifted=()), other)))
    assert isinstance(step, Step)
    assert step.actions == (Contested(TARGET, (image,)),)


@pytest.mark.parametrize("code", ["", "FieldConflict", "Forbidden"])
def test_a_fight_is_over_when_its_field_is_right_and_what_else_differs_is_repaired(code: str) -> None:
    """With the first delay, and whatever became of the last repair."""
    fought = replace(ASSIGNED, contested="ConfigMap ns/config: data.b", heal_streak=5, heal_at_s=999.0, heal_boot=1)
    found = drifted()
    refused = {found.objects[0].key: Reason(code, "no")} if code else {}
    repaired = (Contested(TARGET, ()), Apply(TARGET, OLD, "heal", 1, "abc", 1))
    for differing in (found, drifted(ownership_only=True)):
        step = heal(fought, differing, refused=refused)
        assert isinstance(step, Step)
        assert step.actions == repaired
    # Another field is fought over as well.
    step = heal(fought, found, heals={FIELD: 3})
    assert isinstance(step, Step)
    assert step.actions[:2] == (Contested(TARGET, ()), Contested(TARGET, (FIELD,)))
    # What keeps us from repairing does not keep the fight alive.
    for kept in (heal(fought, found, pending=1), heal(fought, replace(found, disabled=True))):
        assert isinstance(kept, Step)
        assert kept.actions == (Contested(TARGET, ()),)


@pytest.mark.parametrize("sync", [Sync.ASK, Sync.UNKNOWN])
def test_a_fight_is_not_over_while_its_object_is_in_doubt(sync: Sync) -> None:
    fought = replace(ASSIGNED, contested="FlinkDeployment.flink.apache.org orders/orders: spec.image")
    found = drifted()
    config, job = found.objects
    wait = heal(fought, replace(found, objects=(replace(config, sync=Sync.IN_SYNC), replace(job, sync=sync))))
    assert isinstance(wait, Wait)
    assert wait.reason.code == "Contested"
    # What differs beside it is repaired, and only that.
    step = heal(fought, replace(found, objects=(config, replace(job, sync=sync))))
    assert isinstance(step, Step)
    assert step.actions == (Apply(TARGET, OLD, "heal", 1, "abc", 1, (job.key,)),)
    assert heal(fought, verdict("c0", OLD, 1000.0, sync=sync)) is None


@pytest.mark.parametrize(("others", "over"), [(0, True), (15, True), (16, False)])
def test_a_fight_is_not_over_because_more_differs_than_is_named(others: int, over: bool) -> None:
    """So many fields are named of an object, and the one that is fought over may be among the rest."""
    found = drifted()
    names = tuple(f"data.other{number:02}" for number in range(others)) or ("data.other",)
    many = replace(found, objects=(replace(found.objects[0], drifted=names), found.objects[1]))
    answer = heal(replace(ASSIGNED, contested=FIELD), many)
    assert isinstance(answer, Step if over else Wait)
    # What is cut of another object hides nothing of this one.
    elsewhere = replace(ASSIGNED, contested="FlinkDeployment.flink.apache.org orders/orders: spec.image")
    assert isinstance(heal(elsewhere, many), Step)


def test_owners_only_is_not_fought_over() -> None:
    step = heal(found=drifted(ownership_only=True), heals={FIELD: 9})
    assert isinstance(step, Step)
    assert isinstance(step.actions[0], Apply)


CONFLICT = Reason("FieldConflict", "fields that we declare are owned by kubectl-edit: .data.a")


def test_whoever_is_not_to_be_overruled_stops_the_target() -> None:
    found = drifted()
    config, job = found.objects
    once = replace(ASSIGNED, heal_count=1, heal_streak=1, heal_at_s=1000.0, heal_boot=1)
    step = heal(once, found, refused={config.key: CONFLICT})
    assert isinstance(step, Step)
    assert step.cost == Cost()
    given_up, told = step.actions
    assert given_up == Contested(TARGET, (FIELD,))
    assert isinstance(told, Alert)
    assert (told.level, told.reason.code) == ("alert", "FieldConflict")
    wait = heal(replace(once, contested=FIELD), found, refused={config.key: CONFLICT})
    assert isinstance(wait, Wait)
    assert (wait.reason, wait.recheck_at) == (told.reason, None)
    assert "owned by kubectl-edit: .data.a" in wait.reason.message
    # An object that is right meanwhile holds nothing up.
    other = heal(once, found, refused={job.key: CONFLICT}, now=time_at(1002.0))
    assert isinstance(other, Step)
    assert isinstance(other.actions[0], Apply)


def test_a_repair_that_was_refused_is_not_called_one() -> None:
    once = replace(ASSIGNED, heal_count=1, heal_streak=1, heal_at_s=1000.0, heal_boot=1)
    wait = heal(once, refused={CONFIG: Reason("Forbidden", "app0 may not be patched")})
    assert isinstance(wait, Wait)
    assert wait.reason.code == "HealBackoff"
    assert "refused: Forbidden: app0 may not be patched" in wait.reason.message
    assert "repairs" not in wait.reason.message


def test_owners_only_is_no_disruption() -> None:
    owners = replace(DRIFTED, objects=(replace(part(sync=Sync.DIFFERS), ownership_only=True),))
    step = heal(found=owners)
    assert isinstance(step, Step)
    assert step.cost.restarts == 0
    fleet = Fleet([wave("all", ["c0"])])
    flown(fleet, "c0", state=TargetState.BAKING, bake_s=15.0, observed_at=90.0, observed_boot=1)
    fleet.look("c0", sync=Sync.DIFFERS, objects=owners.objects, job_ids=fleet.row("c0").job_ids)
    assert applies(fleet.decide()) == [f"heal c0 {NEW}"]
    assert (fleet.row("c0").state, fleet.row("c0").bake_s > 0) == (TargetState.BAKING, True)
