"""One target's way through its rollout: success, bake, deadline, and what never counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Abandon, Baked, Step
from reconciler.core.advance import BAKE_RESETS_MAX, BLOCKED_RETRY_S, Timing, accrue, advance, assigned_digest
from reconciler.core.model import (
    ClusterView,
    Health,
    ObjectKey,
    Reason,
    RolloutTarget,
    Sync,
    TargetState,
    TargetVerdict,
)
from reconciler.core.observation import IntentSummary, Observation
from tests.core.decisions import CONFIG, NEW, OLD, part, target_of, time_at, verdict

TIMING = Timing(bake_s=60.0, progress_deadline_s=300.0, check_interval_s=10.0)
ROW = RolloutTarget(
    target_of("c0"), 0, NEW, OLD, OLD, state=TargetState.PROGRESSING, changed=True, attempt=1, job_ids=("j1",)
)
BAKING = replace(ROW, state=TargetState.BAKING, observed_at=100.0, observed_boot=1)


def seen(
    found: TargetVerdict | None, heard_at: float | None = 110.0, intents: IntentSummary | None = None, **more: Any
) -> Observation:
    cluster = ClusterView("c0", heard_at, 0.0, **more)
    target = target_of("c0")
    verdicts = {target: found} if found is not None else {}
    return Observation(verdicts, {"c0": cluster}, {}, {target: intents} if intents is not None else {})


def step_of(row: RolloutTarget, observation: Observation, at: float = 110.0, boot: int = 1) -> Step | None:
    return advance(row, observation, time_at(at, boot), TIMING)


def after(row: RolloutTarget, observation: Observation, at: float = 110.0, boot: int = 1) -> RolloutTarget:
    """The row after one step; itself where nothing happens."""
    step = step_of(row, observation, at, boot)
    return row if step is None or step.after is None else step.after


# ---- accrual -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "boot_before", "observed", "added"),
    [
        (None, 1, 110.0, 0.0),  # the first look begins
        (100.0, 1, 110.0, 10.0),
        (100.0, 1, 120.0, 20.0),
        (100.0, 1, 500.0, 20.0),  # time unobserved: at most twice the check interval
        (100.0, 1, 100.0, 0.0),
        (100.0, 1, 90.0, 0.0),  # an older look takes nothing away
        (100.0, 0, 110.0, 0.0),  # another boot: time down adds nothing
        (5000.0, 0, 3.0, 0.0),
    ],
)
def test_accrual(before: float | None, boot_before: int, observed: float, added: float) -> None:
    row = replace(ROW, observed_at=before, observed_boot=boot_before)
    marked, seconds = accrue(row, observed, time_at(1000.0, 1), TIMING)
    assert seconds == added
    assert marked.observed_boot == 1
    # A new mark is set now; what was proven before it counts for nothing.
    assert marked.observed_at == (1000.0 if boot_before != 1 or before is None else max(before, observed))


# ---- getting there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "state", "code"),
    [
        (None, "Progressing", "NotObserved"),
        (verdict("c0", OLD, 110.0), "Progressing", "NotObserved"),  # judged against another release
        (verdict("c0", NEW, 110.0, applied=False), "Progressing", "NotObserved"),  # not what our write returned
        (verdict("c0", NEW, 110.0, Health.PROGRESSING), "Progressing", "Progressing"),
        (verdict("c0", NEW, 110.0, Health.UNKNOWN), "Progressing", "Unknown"),
        (verdict("c0", NEW, 110.0, Health.MISSING), "Progressing", "Missing"),
        (verdict("c0", NEW, 110.0, sync=Sync.ASK), "Progressing", "InDoubt"),
        (verdict("c0", NEW, 110.0, sync=Sync.DIFFERS), "Progressing", "OutOfSync"),
        (verdict("c0", NEW, 110.0, sync=Sync.UNKNOWN), "Progressing", "InDoubt"),
        (verdict("c0", NEW, 110.0, Health.DEGRADED), "Failed", "Degraded"),
        # What runs is not the release: that it is sick says nothing of the release.
        (verdict("c0", NEW, 110.0, Health.DEGRADED, sync=Sync.DIFFERS), "Progressing", "OutOfSync"),
        (verdict("c0", NEW, 110.0), "Baking", None),
    ],
)
def test_progressing(found: TargetVerdict | None, state: str, code: str | None) -> None:
    row = after(ROW, seen(found))
    assert row.state == state
    assert (row.reason.code if row.reason is not None else None) == code


def test_nothing_is_judged_while_writes_are_pending() -> None:
    row = replace(ROW, state=TargetState.APPLYING)
    assert after(row, seen(verdict("c0", NEW, 110.0), intents=IntentSummary(pending=1))).state is TargetState.APPLYING
    assert after(row, seen(verdict("c0", NEW, 110.0), intents=IntentSummary())).state is TargetState.BAKING


def test_health_seen_before_the_bake_began_is_not_part_of_it() -> None:
    row = after(ROW, seen(verdict("c0", NEW, 60.0)))
    assert (row.state, row.bake_s) == (TargetState.BAKING, 0.0)
    row = after(row, seen(verdict("c0", NEW, 115.0)), at=115.0)
    assert row.bake_s == 5.0


SESSION = ObjectKey("flink.apache.org", "FlinkSessionJob", "orders", "second")
SUSPENDED = part(health=Health.SUSPENDED, code="Suspended")
FINISHED = part(code="JobFinished")


@pytest.mark.parametrize(
    ("health", "objects", "state"),
    [
        (Health.SUSPENDED, (SUSPENDED,), "Succeeded"),
        (Health.HEALTHY, (FINISHED,), "Succeeded"),
        (Health.HEALTHY, (part(ObjectKey("batch", "Job", "orders", "once"), code="Complete"),), "Succeeded"),
        (Health.SUSPENDED, (part(CONFIG, code="Present"), SUSPENDED), "Succeeded"),
        # One that runs has to bake, whatever its neighbours do.
        (Health.SUSPENDED, (SUSPENDED, part(SESSION)), "Baking"),
        (Health.HEALTHY, (FINISHED, part(SESSION)), "Baking"),
        # Kinds without a health function are healthy by being there, and that is measured like anything else.
        (Health.HEALTHY, (part(CONFIG, code="Present"),), "Baking"),
    ],
)
def test_what_has_nothing_to_bake_succeeds_at_once(health: Health, objects: Any, state: str) -> None:
    step = step_of(ROW, seen(verdict("c0", NEW, 110.0, health, objects=objects)))
    assert step is not None
    assert step.after is not None
    assert step.after.state == state
    assert (Baked(target_of("c0"), NEW) in step.actions) is (state == "Succeeded")


def test_a_suspended_job_beside_a_running_one_does_not_disturb_the_bake() -> None:
    objects = (SUSPENDED, part(SESSION))
    row = after(BAKING, seen(verdict("c0", NEW, 110.0, Health.SUSPENDED, objects=objects)))
    assert (row.state, row.bake_s) == (TargetState.BAKING, 10.0)


# ---- bake --------------------------------------------------------------------------------------------------------


def test_a_bake_accrues_and_ends() -> None:
    row, at = BAKING, 100.0
    for _ in range(5):
        at += 10.0
        row = after(row, seen(verdict("c0", NEW, at), at), at)
        assert row.state is TargetState.BAKING
    step = step_of(row, seen(verdict("c0", NEW, 160.0), 160.0), 160.0)
    assert step is not None
    assert step.after is not None
    assert (step.after.state, step.after.bake_s) == (TargetState.SUCCEEDED, 60.0)
    assert step.actions == (Baked(target_of("c0"), NEW),)


@pytest.mark.parametrize(
    "found",
    [
        None,
        verdict("c0", NEW, 150.0, Health.UNKNOWN),
        verdict("c0", NEW, 150.0, applied=False),
        verdict("c0", NEW, 150.0, sync=Sync.ASK),  # only the server can tell, and was not asked
        verdict("c0", OLD, 150.0),
    ],
)
def test_unknown_pauses_a_bake(found: TargetVerdict | None) -> None:
    row = replace(BAKING, bake_s=40.0)
    paused = after(row, seen(found, 150.0), 150.0)
    assert paused == replace(row, observed_at=None)
    assert step_of(paused, seen(found, 160.0), 160.0) is None
    # The look that ends the doubt begins to count again: what lay between adds nothing.
    again = after(paused, seen(verdict("c0", NEW, 170.0), 170.0), 170.0)
    assert (again.state, again.bake_s) == (TargetState.BAKING, 40.0)
    assert after(again, seen(verdict("c0", NEW, 180.0), 180.0), 180.0).bake_s == 50.0


def test_nothing_new_adds_nothing() -> None:
    assert step_of(replace(BAKING, bake_s=40.0), seen(verdict("c0", NEW, 100.0), 150.0), 150.0) is None


def test_a_long_silence_adds_at_most_two_check_intervals() -> None:
    assert after(BAKING, seen(verdict("c0", NEW, 4000.0), 4000.0), 4000.0).bake_s == 20.0


def test_a_restart_of_the_daemon_adds_nothing_and_takes_nothing() -> None:
    row = replace(BAKING, bake_s=40.0, observed_at=90_000.0)
    row = after(row, seen(verdict("c0", NEW, 3.0), 3.0), 3.0, boot=2)
    assert (row.bake_s, row.observed_at, row.observed_boot) == (40.0, 3.0, 2)
    assert after(row, seen(verdict("c0", NEW, 13.0), 13.0), 13.0, boot=2).bake_s == 50.0


@pytest.mark.parametrize(
    ("changes", "state", "resets"),
    [
        ({"health": Health.DEGRADED}, "Progressing", 1),
        ({"health": Health.PROGRESSING}, "Progressing", 1),
        ({"job_ids": ("j2",)}, "Baking", 1),
        ({"restarts": 1}, "Baking", 1),
        ({"restarts": 1, "health": Health.PROGRESSING}, "Progressing", 1),
        # Somebody's edit explains the restart: the bake starts again, and it is no flapping.
        ({"sync": Sync.DIFFERS}, "Progressing", 0),
        ({"sync": Sync.DIFFERS, "job_ids": ("j2",), "restarts": 3}, "Progressing", 0),
    ],
)
def test_what_starts_a_bake_again(changes: dict[str, Any], state: str, resets: int) -> None:
    row = after(replace(BAKING, bake_s=50.0), seen(verdict("c0", NEW, 110.0, **changes)))
    assert (row.state, row.bake_s, row.bake_resets) == (state, 0.0, resets)


def test_more_than_three_resets_is_flapping() -> None:
    row, at = BAKING, 100.0
    for number in range(1, BAKE_RESETS_MAX + 1):
        at += 10.0
        row = after(row, seen(verdict("c0", NEW, at, restarts=number), at), at)
        assert (row.state, row.bake_resets) == (TargetState.BAKING, number)
    row = after(row, seen(verdict("c0", NEW, at + 10.0, restarts=9), at + 10.0), at + 10.0)
    assert row.state is TargetState.FAILED
    assert row.reason is not None
    assert row.reason.code == "Flapping"


def test_one_that_was_healthy_may_recover_and_fails_when_it_does_not() -> None:
    row = after(BAKING, seen(verdict("c0", NEW, 110.0, Health.DEGRADED)))
    row = after(row, seen(verdict("c0", NEW, 115.0, Health.DEGRADED), 115.0), 115.0)
    assert row.state is TargetState.PROGRESSING
    recovered = after(row, seen(verdict("c0", NEW, 120.0), 120.0), 120.0)
    assert (recovered.state, recovered.bake_s) == (TargetState.BAKING, 0.0)
    at = 120.0
    while row.state is TargetState.PROGRESSING:
        at += 10.0
        assert at < 200.0
        row = after(row, seen(verdict("c0", NEW, at, Health.DEGRADED), at), at)
    assert row.state is TargetState.FAILED


# ---- deadline ----------------------------------------------------------------------------------------------------


def test_the_deadline_accrues_while_the_cluster_is_heard_and_names_the_phase() -> None:
    for state, pending, phase in ((TargetState.APPLYING, 1, "being written"), (TargetState.PROGRESSING, 0, "healthy")):
        row, at = replace(ROW, state=state), 100.0
        while row.state is state:
            at += 10.0
            assert at < 600.0
            found = verdict("c0", NEW, at, Health.PROGRESSING)
            row = after(row, seen(found, at, IntentSummary(pending)), at)
        assert row.state is TargetState.TIMED_OUT
        assert row.reason is not None
        assert row.reason.code == "ProgressDeadline"
        assert phase in row.reason.message
        assert 400.0 <= at <= 430.0


def test_time_unheard_or_down_is_not_counted_against_the_deadline() -> None:
    row = replace(ROW, progress_s=290.0, observed_at=100.0, observed_boot=1)
    found = verdict("c0", NEW, 100.0, Health.PROGRESSING)
    assert after(row, seen(found, 100.0), 150.0).progress_s == 290.0
    assert after(row, seen(found, 5.0), 5.0, boot=2).progress_s == 290.0
    assert after(row, seen(found, None), 5.0, boot=2).progress_s == 290.0


def test_running_out_of_time_gives_up_what_is_pending() -> None:
    row = replace(ROW, state=TargetState.APPLYING, progress_s=299.0, observed_at=100.0, observed_boot=1)
    step = step_of(row, seen(None, intents=IntentSummary(pending=1)))
    assert step is not None
    assert [type(action) for action in step.actions] == [Abandon]


def test_a_suspended_cluster_is_no_failure_of_the_release() -> None:
    row, at = replace(ROW, state=TargetState.APPLYING), 100.0
    for _ in range(60):
        at += 10.0
        row = after(row, seen(None, at, IntentSummary(pending=1), suspended=True), at)
    assert (row.state, row.progress_s) == (TargetState.APPLYING, 0.0)


# ---- refusals, silence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "rolling", "state"),
    [
        ("SchemaMismatch", False, "Blocked"),
        ("KindMissing", False, "Blocked"),
        ("Invalid", False, "Failed"),
        ("NotOwned", False, "Failed"),
        ("FieldConflict", False, "Failed"),
        ("SchemaMismatch", True, "Failed"),
    ],
)
def test_a_refused_write(code: str, rolling: bool, state: str) -> None:
    row = replace(ROW, state=TargetState.ROLLING_BACK if rolling else TargetState.APPLYING, rolling=rolling)
    row = after(row, seen(None, intents=IntentSummary(0, Reason(code, "no"))))
    assert row.state == state
    assert row.reason == Reason(code, "no")


def test_what_is_blocked_is_tried_again_ten_minutes_later_however_rarely_a_waiting_rollout_looks() -> None:
    row = replace(ROW, state=TargetState.BLOCKED, progress_s=0.0, observed_at=None)
    started, at_s, looks = 110.0, 110.0, 0
    while row.state is TargetState.BLOCKED:
        row, at_s, looks = after(row, seen(None, at_s), at_s), at_s + 5 * TIMING.check_interval_s, looks + 1
        assert looks < 100
    assert row.state is TargetState.WAITING
    tried_s = at_s - 5 * TIMING.check_interval_s - started
    assert BLOCKED_RETRY_S <= tried_s <= BLOCKED_RETRY_S + 5 * TIMING.check_interval_s


@pytest.mark.parametrize(
    "state", [TargetState.APPLYING, TargetState.PROGRESSING, TargetState.BAKING, TargetState.ROLLING_BACK]
)
def test_silence_frees_the_slot_and_keeps_what_was_baked(state: TargetState) -> None:
    row = replace(ROW, state=state, bake_s=30.0, rolling=state is TargetState.ROLLING_BACK)
    step = step_of(row, seen(None, 0.0), 500.0)
    assert step is not None
    assert step.after is not None
    assert step.after.state is TargetState.UNREACHABLE
    assert (step.after.bake_s, step.after.rolling) == (30.0, row.rolling)
    assert [type(action) for action in step.actions] == [Abandon]
    assert step_of(step.after, seen(None, 0.0), 510.0) is None
    assert after(step.after, seen(None, 510.0), 510.0).state is TargetState.WAITING


@pytest.mark.parametrize(
    "state",
    [
        TargetState.WAITING,
        TargetState.SUCCEEDED,
        TargetState.FAILED,
        TargetState.TIMED_OUT,
        TargetState.ROLLED_BACK,
        TargetState.SKIPPED,
        TargetState.SUPERSEDED,
    ],
)
def test_what_stands_still_takes_no_step_by_itself(state: TargetState) -> None:
    assert step_of(replace(ROW, state=state), seen(verdict("c0", NEW, 110.0))) is None


# ---- going back --------------------------------------------------------------------------------------------------

BACK = replace(ROW, state=TargetState.ROLLING_BACK, rolling=True)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (verdict("c0", OLD, 110.0), "RolledBack"),
        (verdict("c0", OLD, 110.0, Health.SUSPENDED), "RolledBack"),
        (verdict("c0", NEW, 110.0), "RollingBack"),
        (verdict("c0", OLD, 110.0, applied=False), "RollingBack"),
        (verdict("c0", OLD, 110.0, sync=Sync.DIFFERS), "RollingBack"),
        (verdict("c0", OLD, 110.0, Health.PROGRESSING), "RollingBack"),
        (verdict("c0", OLD, 110.0, Health.DEGRADED), "RollingBack"),  # sick from the bad release: it may recover
        (verdict("c0", OLD, 110.0, Health.UNKNOWN), "RollingBack"),
    ],
)
def test_back_is_in_sync_and_healthy_once_at_the_baked_release(found: TargetVerdict, state: str) -> None:
    assert assigned_digest(BACK) == OLD
    assert after(BACK, seen(found)).state == state
