"""What a source opens, takes over, heals and prunes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Alert, Disabled, Due, Forgotten, Orphaned, Prune
from reconciler.core.decide_source import (
    DISABLED_TOLD_S,
    ORPHANS_KEPT_S,
    ApplicationDecision,
    ApplicationFacts,
    Goal,
    decide_application,
)
from reconciler.core.model import (
    SETTLED_STATES,
    Assignment,
    ClusterView,
    Health,
    InventoryItem,
    InventoryPhase,
    ObjectKey,
    Reason,
    RolloutKind,
    RolloutTarget,
    Sync,
    Target,
    TargetState,
)
from reconciler.core.observation import IntentSummary, Observation
from tests.core.decisions import APPLICATION, CONFIG, JOB, NEW, NEWER, OLD, applies, target_of, time_at, verdict

NOW = time_at(1000.0)


def facts(goals: dict[str, str] | None = None, assigned: dict[str, str] | None = None, **more: Any) -> ApplicationFacts:
    """Git asks for `goals`, and `assigned` is what is assigned, both by cluster; what was assigned has baked."""
    goals = {"c0": NEW} if goals is None else goals
    assigned = {"c0": OLD} if assigned is None else assigned
    due = more.pop("due", {})
    silent, suspended = more.pop("silent", ()), more.pop("suspended", ())
    verdicts = more.pop("verdicts", {})
    intents = more.pop("intents", {})
    names = sorted({*goals, *assigned, "c0"})
    clusters = {
        name: ClusterView(name, 0.0 if name in silent else 1000.0, 0.0, suspended=name in suspended) for name in names
    }
    assignments = {
        target_of(name): Assignment(target_of(name), digest, "fleet", baked=digest or None, due=due.get(name))
        for name, digest in assigned.items()
    }
    values: dict[str, Any] = {"blocked": None, "deletions_allowed": True, "deletes_max": 2, **more}
    seen = Observation(verdicts, clusters, assignments, intents)
    return ApplicationFacts(APPLICATION, "abc", goals, seen=seen, **values)


def row(state: TargetState, to: str = NEW, cluster: str = "c0", **more: Any) -> RolloutTarget:
    return RolloutTarget(target_of(cluster), 0, to, OLD, OLD, state=state, **more)


def rows(*found: RolloutTarget) -> dict[Target, list[tuple[str, RolloutTarget]]]:
    return {each.target: [(f"r{number}", each)] for number, each in enumerate(found)}


def codes(decision: ApplicationDecision) -> list[str]:
    return [wait.reason.code for wait in decision.decision.waits]


# ---- opening -----------------------------------------------------------------------------------------------------


def test_what_git_asks_for_and_is_not_assigned_is_opened() -> None:
    found = decide_application(facts({"c0": NEW, "c1": OLD, "c2": NEW}, {"c0": OLD, "c1": OLD}), NOW)
    assert found.open == (Goal(target_of("c0"), NEW, OLD, OLD), Goal(target_of("c2"), NEW, None, None))
    assert found.kind is RolloutKind.CHANGE


def test_nothing_is_opened_that_needs_no_move() -> None:
    assert decide_application(facts({"c0": OLD}), NOW) == ApplicationDecision()


@pytest.mark.parametrize("state", [state for state in TargetState if state not in SETTLED_STATES])
def test_a_target_already_on_its_way_is_not_opened_twice(state: TargetState) -> None:
    found = decide_application(facts(rows=rows(row(state))), NOW)
    assert (found.open, found.take_over) == ((), ())


def test_a_blocked_application_opens_takes_over_and_skips_nothing() -> None:
    why = Reason("BrokenDocument", "apps/orders.yaml:3 does not parse")
    found = decide_application(facts({}, blocked=why, rows=rows(row(TargetState.WAITING, NEWER))), NOW)
    assert (found.open, found.take_over) == ((), ())
    assert codes(found) == ["BrokenDocument"]


def test_no_new_release_goes_to_a_cluster_whose_document_is_broken() -> None:
    broken = {"c0": Reason("BrokenDocument", "clusters/c0.yaml:1")}
    found = decide_application(facts({"c0": NEW, "c1": NEW}, {}, blocked_clusters=broken), NOW)
    assert [goal.target.cluster for goal in found.open] == ["c1"]
    assert codes(found) == ["BrokenDocument"]


# ---- what is assigned and has not been proven ----------------------------------------------------------------------


def unbaked(found: ApplicationFacts, *clusters: str) -> ApplicationFacts:
    """What is assigned to `clusters` has not baked there."""
    changed = {target_of(name): replace(found.seen.assignments[target_of(name)], baked=OLD) for name in clusters}
    return replace(found, seen=replace(found.seen, assignments={**found.seen.assignments, **changed}))


@pytest.mark.parametrize("left", sorted(TargetState))
def test_a_release_that_was_not_seen_through_is_rolled_out_again(left: TargetState) -> None:
    """Superseded by a release that is not wanted any more, or lost in flight: assigned is not done. What was aborted
    comes along with others only, and what failed within its budget has been judged."""
    found = decide_application(unbaked(facts({"c0": NEW}, {"c0": NEW}, unproven={target_of("c0"): left}), "c0"), NOW)
    again = left in (TargetState.SUPERSEDED, TargetState.UNREACHABLE)
    assert found.open == ((Goal(target_of("c0"), NEW, NEW, OLD),) if again else ())


@pytest.mark.parametrize("more", [{"silent": ("c0",)}, {"quarantined": {NEW: "r0"}}, {"rows": "row"}])
def test_not_while_it_is_away_in_quarantine_or_on_its_way(more: dict[str, Any]) -> None:
    values = {**more, "rows": rows(row(TargetState.WAITING))} if "rows" in more else more
    lost = {target_of("c0"): TargetState.UNREACHABLE}
    assert decide_application(unbaked(facts({"c0": NEW}, {"c0": NEW}, unproven=lost, **values), "c0"), NOW).open == ()


def test_what_is_rolled_out_again_is_not_repaired_before() -> None:
    drifted = {target_of("c0"): verdict("c0", NEW, 1000.0, sync=Sync.DIFFERS)}
    lost = {target_of("c0"): TargetState.UNREACHABLE}
    again = facts({"c0": NEW}, {"c0": NEW}, unproven=lost, verdicts=drifted, due={"c0": NEW})
    found = decide_application(unbaked(again, "c0"), NOW)
    assert (len(found.open), found.kind, applies(found.decision)) == (1, RolloutKind.CATCH_UP, [])


def behind(*states: TargetState, **more: Any) -> ApplicationDecision:
    """A canary c0 that Git asks another release for, while c1 (and c2) wait behind it in the same older rollout."""
    old = {
        target_of(f"c{number}"): [("r0", replace(row(state, NEW, f"c{number}"), wave=min(number, 1)))]
        for number, state in enumerate(states)
    }
    goals = {"c0": NEWER, **{f"c{number}": NEW for number in range(1, len(states))}}
    values = {"rows": old, **more}
    return decide_application(facts(goals, dict.fromkeys(goals, OLD), **values), NOW)


def test_what_waits_behind_a_canary_that_is_taken_over_comes_along() -> None:
    found = behind(TargetState.PROGRESSING, TargetState.WAITING, TargetState.UNREACHABLE)
    assert [(goal.target.cluster, goal.digest) for goal in found.open] == [("c0", NEWER), ("c1", NEW), ("c2", NEW)]
    assert [(rollout, each.target.cluster, each.superseding) for rollout, each in found.take_over] == [
        ("r0", "c0", True), ("r0", "c1", True), ("r0", "c2", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("canary", "more"),
    [
        (TargetState.SUCCEEDED, {}),  # it has proven itself
        (TargetState.PROGRESSING, {"stopped": frozenset({"r0"})}),  # a person, or a failure, keeps the others back
        (TargetState.PROGRESSING, {"quarantined": {NEW: "r9"}}),
    ],
)
def test_otherwise_it_stays_where_it_is(canary: TargetState, more: dict[str, Any]) -> None:
    assert [goal.target.cluster for goal in behind(canary, TargetState.WAITING, **more).open] == ["c0"]


def test_a_canary_that_is_left_can_still_prove_the_release() -> None:
    old = rows(row(TargetState.PROGRESSING), row(TargetState.PROGRESSING, cluster="c3"))
    waiting = replace(row(TargetState.WAITING, cluster="c1"), wave=1)
    both = {target: [("r0", each)] for target, pairs in old.items() for _, each in pairs}
    goals = {"c0": NEWER, "c1": NEW, "c3": NEW}
    given = facts(goals, dict.fromkeys(goals, OLD), rows={**both, target_of("c1"): [("r0", waiting)]})
    assert [goal.target.cluster for goal in decide_application(given, NOW).open] == ["c0"]


# ---- what is due ---------------------------------------------------------------------------------------------------


def test_what_was_taken_back_is_no_longer_due() -> None:
    (step,) = decide_application(facts({"c0": OLD}, due={"c0": NEW}), NOW).decision.steps
    assert step.actions == (Due(target_of("c0"), None),)
    assert decide_application(facts({"c0": NEW}, due={"c0": NEW}, silent=("c0",)), NOW).decision.steps == ()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"catching_up": "r5"}, "CatchUpInProgress"),
        ({"stopped": frozenset({"r0"}), "rows": rows(row(TargetState.SKIPPED))}, "RolloutStopped"),
    ],
)
def test_catching_up_waits_for_others_and_for_what_was_stopped(more: dict[str, Any], code: str) -> None:
    found = decide_application(facts({"c0": NEW}, due={"c0": NEW}, **more), NOW)
    assert (found.open, codes(found)) == ((), [code])


# ---- quarantine --------------------------------------------------------------------------------------------------


def test_a_release_in_quarantine_is_not_started_again_whatever_the_commit() -> None:
    found = decide_application(facts(quarantined={NEW: "r0"}), NOW)
    assert (found.open, codes(found)) == ((), ["Quarantined"])
    # The sentence holds the command that ends it, ready to be copied.
    assert "`reconciler rollout retry r0`" in found.decision.waits[0].reason.message


def test_another_digest_ends_it() -> None:
    found = decide_application(facts({"c0": NEWER}, quarantined={NEW: "r0"}), NOW)
    assert [goal.digest for goal in found.open] == [NEWER]


def test_a_release_in_quarantine_that_is_assigned_is_left() -> None:
    assert decide_application(facts({"c0": NEW}, {"c0": NEW}, quarantined={NEW: "r0"}), NOW).open == ()


# ---- catch-up ----------------------------------------------------------------------------------------------------


def test_while_it_is_silent_a_due_target_waits_and_catches_up_on_its_return() -> None:
    found = decide_application(facts(due={"c0": NEW}, silent=["c0"]), NOW)
    assert (found.open, codes(found)) == ((), ["ClusterUnreachable"])
    found = decide_application(facts(due={"c0": NEW}), NOW)
    assert found.open == (Goal(target_of("c0"), NEW, OLD, OLD),)
    assert found.kind is RolloutKind.CATCH_UP


def test_a_silent_target_is_part_of_a_new_rollout_and_of_its_budget() -> None:
    assert len(decide_application(facts(silent=["c0"]), NOW).open) == 1


def test_on_its_return_the_goal_is_read_anew() -> None:
    found = decide_application(facts({"c0": NEWER}, due={"c0": NEW}), NOW)
    assert [goal.digest for goal in found.open] == [NEWER]
    assert found.kind is RolloutKind.CHANGE


def test_where_git_asks_for_what_was_stopped_the_release_that_is_due_is_caught_up_once() -> None:
    asked: dict[str, Any] = {"goals": {"c0": NEWER}, "due": {"c0": NEW}, "quarantined": {NEWER: "r0"}}
    found = decide_application(facts(**asked), NOW)
    assert [goal.digest for goal in found.open] == [NEW]
    # The rollout that catches up is not taken over by the release in quarantine.
    found = decide_application(facts(**asked, rows=rows(row(TargetState.WAITING, NEW))), NOW)
    assert (found.open, found.take_over) == ((), ())


def test_a_due_release_in_quarantine_is_not_caught_up() -> None:
    found = decide_application(facts({"c0": NEWER}, due={"c0": NEW}, quarantined={NEW: "r0", NEWER: "r0"}), NOW)
    assert (found.open, codes(found)) == ((), ["Quarantined"])


# ---- taking over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(TargetState))
def test_which_rows_a_newer_commit_takes_over(state: TargetState) -> None:
    found = decide_application(facts({"c0": NEWER}, rows=rows(row(state))), NOW)
    gone = state in (TargetState.ROLLED_BACK, TargetState.SKIPPED, TargetState.SUPERSEDED)
    # One that succeeded is taken over as well: its rollout might still go back.
    assert [taken.superseding for _, taken in found.take_over] == ([] if gone else [True])
    assert [goal.digest for goal in found.open] == [NEWER]


def test_a_row_is_taken_over_once() -> None:
    found = decide_application(facts({"c0": NEWER}, rows=rows(row(TargetState.APPLYING, superseding=True))), NOW)
    assert found.take_over == ()


def test_going_back_in_git_takes_over_and_opens_nothing_where_nothing_was_touched() -> None:
    found = decide_application(facts({"c0": OLD}, rows=rows(row(TargetState.WAITING))), NOW)
    assert (found.open, len(found.take_over)) == ((), 1)


# ---- leaving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "skipped"),
    [
        (TargetState.WAITING, True),
        (TargetState.UNREACHABLE, True),
        (TargetState.BLOCKED, True),
        (TargetState.APPLYING, False),
        (TargetState.BAKING, False),
        (TargetState.FAILED, False),
    ],
)
def test_a_target_that_left_is_skipped_if_it_only_waits(state: TargetState, skipped: bool) -> None:
    found = decide_application(facts({}, {}, rows=rows(row(state))), NOW)
    assert [taken.state for _, taken in found.take_over] == ([TargetState.SKIPPED] if skipped else [])
    found = decide_application(facts({}, {}, rows=rows(row(state)), deletions_allowed=False), NOW)
    assert found.take_over == ()


# ---- heal and prune ----------------------------------------------------------------------------------------------

DRIFTED = {target_of("c0"): verdict("c0", OLD, 1000.0, sync=Sync.DIFFERS)}
WELL = {target_of("c0"): verdict("c0", OLD, 1000.0)}


def item(key: ObjectKey) -> InventoryItem:
    return InventoryItem(target_of("c0"), key, "v1", InventoryPhase.OWNED, "u1")


@pytest.mark.parametrize(
    ("state", "by_source"),
    [(None, True), (TargetState.SUCCEEDED, True), (TargetState.WAITING, False), (TargetState.FAILED, False)],
)
def test_a_target_is_healed_by_its_source_if_no_rollout_has_it(state: TargetState | None, by_source: bool) -> None:
    found = decide_application(
        facts({"c0": OLD}, verdicts=DRIFTED, rows=rows(row(state)) if state is not None else {}), NOW
    )
    assert applies(found.decision) == ([f"heal c0 {OLD}"] if by_source else [])


def test_what_git_no_longer_declares_is_left_alone() -> None:
    assert applies(decide_application(facts({}, verdicts=DRIFTED), NOW).decision) == []


def test_while_the_application_cannot_be_read_drift_is_still_repaired() -> None:
    found = decide_application(facts({}, verdicts=DRIFTED, blocked=Reason("BrokenDocument", "x")), NOW)
    assert applies(found.decision) == [f"heal c0 {OLD}"]


def pruned(**more: Any) -> ApplicationDecision:
    target = target_of("c0")
    values: dict[str, Any] = {"verdicts": WELL, "prunable": {target: (item(CONFIG),)}, **more}
    return decide_application(facts({"c0": OLD}, **values), NOW)


def test_what_the_release_dropped_is_deleted_when_the_target_is_healthy() -> None:
    (step,) = pruned().decision.steps
    assert isinstance(step.actions[0], Prune)
    assert step.actions[0].items == (item(CONFIG),)
    assert step.cost.deletes == 0


def test_stateful_deletes_are_counted_and_limited() -> None:
    target = target_of("c0")
    (step,) = pruned(prunable={target: (item(JOB), item(CONFIG))}).decision.steps
    assert step.cost.deletes == 1
    (prune,) = pruned(prunable={target: (item(JOB), item(CONFIG))}, deletes_max=0).decision.steps[0].actions
    assert isinstance(prune, Prune)
    assert prune.stateful_max == 0  # what `admit` counts against


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"deletions_allowed": False}, "DeletionsHeld"),
        ({"prune_failed": {target_of("c0"): Reason("PruneFailed", "refused")}}, "PruneFailed"),
        ({"verdicts": {}}, "PruneWaitsForHealth"),
        ({"verdicts": {target_of("c0"): verdict("c0", NEW, 1000.0)}}, "PruneWaitsForHealth"),
        ({"verdicts": {target_of("c0"): verdict("c0", OLD, 1000.0, Health.PROGRESSING)}}, "PruneWaitsForHealth"),
        ({"verdicts": {target_of("c0"): verdict("c0", OLD, 1000.0, Health.UNKNOWN)}}, "PruneWaitsForHealth"),
        ({"verdicts": {target_of("c0"): verdict("c0", OLD, 1000.0, sync=Sync.ASK)}}, "PruneWaitsForHealth"),
        ({"silent": ("c0",)}, "PruneWaitsForCluster"),
        ({"suspended": ("c0",)}, "PruneWaitsForCluster"),
        ({"intents": {target_of("c0"): IntentSummary(pending=1)}}, None),
        ({"rows": rows(row(TargetState.BAKING, OLD))}, None),
        ({"rows": rows(row(TargetState.SUCCEEDED, OLD)), "stopped": frozenset({"r0"})}, "RolloutStopped"),
    ],
)
def test_what_keeps_a_deletion_waiting(more: dict[str, Any], code: str | None) -> None:
    found = pruned(**more)
    assert found.decision.steps == ()
    assert codes(found) == ([code] if code is not None else [])


def test_a_target_that_git_dropped_keeps_its_objects() -> None:
    found = decide_application(facts({}, verdicts=WELL, prunable={target_of("c0"): (item(CONFIG),)}), NOW)
    (step,) = found.decision.steps
    assert step.actions == (Orphaned(target_of("c0"), NOW.wall),)


@pytest.mark.parametrize(
    ("orphaned_s", "declared", "forgotten"),
    [
        (ORPHANS_KEPT_S - 1, frozenset(), False),
        (ORPHANS_KEPT_S, frozenset(), True),
        (10 * ORPHANS_KEPT_S, frozenset({"c0"}), False),  # the cluster is there: its objects may be taken up again
    ],
)
def test_what_is_left_of_a_removed_cluster_is_forgotten_in_the_end(
    orphaned_s: float, declared: frozenset[str], forgotten: bool
) -> None:
    base = facts({}, verdicts=WELL)
    target = target_of("c0")
    assigned = replace(base.seen.assignments[target], orphaned_wall=NOW.wall - orphaned_s)
    seen = replace(base.seen, assignments={target: assigned})
    found = decide_application(replace(base, seen=seen, declared_clusters=declared), NOW)
    assert [step.actions for step in found.decision.steps] == ([(Forgotten(target),)] if forgotten else [])
    # What may be missing by mistake is not forgotten.
    held = replace(base, seen=seen, declared_clusters=declared, deletions_allowed=False)
    assert decide_application(held, NOW).decision.steps == ()


def test_a_target_that_git_declares_again_is_no_orphan() -> None:
    base = facts({"c0": OLD}, verdicts=WELL)
    target = target_of("c0")
    seen = replace(base.seen, assignments={target: replace(base.seen.assignments[target], orphaned_wall=1.0)})
    (step,) = decide_application(replace(base, seen=seen), NOW).decision.steps
    assert step.actions == (Orphaned(target, None),)


def test_the_manual_escape_is_remembered_and_told_after_a_day() -> None:
    target = target_of("c0")
    disabled = {target: replace(WELL[target], disabled=True)}
    base = facts({"c0": OLD}, verdicts=disabled)
    (step,) = decide_application(base, NOW).decision.steps
    assert step.actions == (Disabled(target, NOW.wall),)

    def since(age_s: float, verdicts: Any) -> Any:
        assigned = replace(base.seen.assignments[target], disabled_wall=NOW.wall - age_s)
        seen = replace(base.seen, assignments={target: assigned}, verdicts=verdicts)
        return decide_application(replace(base, seen=seen), NOW).decision.steps

    assert since(DISABLED_TOLD_S - 1, disabled) == ()
    ((told,),) = (step.actions for step in since(DISABLED_TOLD_S, disabled))
    assert isinstance(told, Alert)
    assert told.reason.code == "ReconcileDisabled"
    ((undone,),) = (step.actions for step in since(60.0, WELL))
    assert undone == Disabled(target, None)


def test_the_earliest_recheck_is_the_decisions() -> None:
    base = facts({"c0": OLD}, verdicts=DRIFTED)
    target = target_of("c0")
    assigned = replace(base.seen.assignments[target], heal_streak=3, heal_at_s=995.0, heal_boot=1)
    seen = replace(base.seen, assignments={target: assigned})
    assert decide_application(replace(base, seen=seen), NOW).decision.recheck_at == 995.0 + 18.0
