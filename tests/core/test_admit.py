"""Shared budgets: what is spent, what is refused, and what never is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core.actions import Apply, Cost, Decision, Ledgers, Limits, Prune, Step
from reconciler.core.admit import WINDOW_S, Spend, admit, scopes_of
from reconciler.core.model import RolloutTarget, TargetState
from tests.core.decisions import NEW, OLD, target_of, time_at

REGIONS = {"c0": "eu", "c1": "eu", "c2": "us"}
LIMITS = Limits(restarts_per_cluster=2, restarts_per_region=3, changed_per_cluster=2, deletes_per_commit=2)
NOW = time_at(5000.0)


def step(cluster: str, purpose: str = "start", **cost: int) -> Step:
    target = target_of(cluster)
    return Step(target, None, (Apply(target, NEW, purpose, 1),), Cost(**cost))


def prune(cluster: str, deletes: int, stateful_max: int = 2) -> Step:
    target = target_of(cluster)
    return Step(target, None, (Prune(target, NEW, (), 1, stateful_max),), Cost(deletes=deletes))


def admitted(*steps: Step, spent: dict[tuple[str, str], int] | None = None, **ledgers: Any) -> tuple[Decision, Any]:
    return admit(
        Decision(None, steps, recheck_at=6000.0), Ledgers(spent or {}, **ledgers), LIMITS, REGIONS, "fleet/abc", NOW
    )


def test_within_the_limits_everything_goes_and_is_spent() -> None:
    steps = (step("c0", changed=1, restarts=1), step("c2", changed=1), prune("c1", 1), step("c1"))
    decision, spends = admitted(*steps)
    assert decision.steps == steps
    assert spends == [
        Spend("restarts", "cluster:c0", 1),
        Spend("restarts", "region:eu", 1),
        Spend("changed", "cluster:c0", 1),
        Spend("changed", "cluster:c2", 1),
        Spend("deletes", "commit:fleet/abc", 1),
        Spend("deletes", "commit:fleet/abc/sample/orders", 1),
    ]


@pytest.mark.parametrize(
    ("wanted", "spent"),
    [
        ({"restarts": 1}, {("restarts", "cluster:c0"): 2}),
        ({"restarts": 1}, {("restarts", "region:eu"): 3}),
        ({"changed": 1}, {("changed", "cluster:c0"): 2}),
    ],
)
def test_over_a_limit_a_step_waits_with_the_reason_and_the_time(wanted: dict[str, Any], spent: Any) -> None:
    (ledger,) = spent
    frees_at = {ledger: NOW.wall - WINDOW_S + 30.0}
    decision, spends = admitted(step("c0", **wanted), step("c2", changed=1), spent=spent, frees_at=frees_at)
    assert [each.target.cluster for each in decision.steps] == ["c2"]  # one refused does not stop another
    (wait,) = decision.waits
    assert (wait.reason.code, wait.recheck_at) == ("LedgerSpent", NOW.monotonic + 30.0)
    assert decision.recheck_at == NOW.monotonic + 30.0
    assert all(spend.scope == "cluster:c2" for spend in spends)


def test_what_one_step_spends_the_next_one_misses() -> None:
    decision, _ = admitted(*(step("c0", restarts=1) for _ in range(4)))
    assert len(decision.steps) == 2
    decision, _ = admitted(
        step("c0", restarts=1), step("c0", restarts=1), step("c1", restarts=1), step("c1", restarts=1)
    )
    assert len(decision.steps) == 3  # the region's budget


def test_a_rollback_spends_and_is_never_refused() -> None:
    spent = {("restarts", "cluster:c0"): 2, ("changed", "cluster:c0"): 2}
    back = step("c0", "rollback", changed=1, restarts=1)
    decision, spends = admitted(back, spent=spent)
    assert decision.steps == (back,)
    assert len(spends) == 3


@pytest.mark.parametrize("purpose", ["start", "heal"])
def test_starting_and_healing_are_refused(purpose: str) -> None:
    decision, _ = admitted(step("c0", purpose, restarts=1), spent={("restarts", "cluster:c0"): 2})
    assert decision.steps == ()


def test_stateful_deletes_above_the_commits_limit_wait_for_a_person() -> None:
    decision, _ = admitted(prune("c0", 2), prune("c1", 1))
    assert [each.target.cluster for each in decision.steps] == ["c0"]
    (wait,) = decision.waits
    assert (wait.reason.code, wait.recheck_at) == ("DeletesNeedApproval", None)


def test_one_commit_takes_no_more_from_an_application_than_its_policy_allows() -> None:
    """However many targets it has, and whenever their turn comes."""
    decision, spends = admitted(*(prune(f"c{number}", 1, stateful_max=1) for number in range(3)))
    assert [each.target.cluster for each in decision.steps] == ["c0"]
    assert {wait.reason.code for wait in decision.waits} == {"DeletesNeedApproval"}
    spent = {(spend.kind, spend.scope): spend.amount for spend in spends}
    assert admitted(prune("c1", 1, stateful_max=1), spent=spent)[0].steps == ()
    assert admitted(prune("c1", 1, stateful_max=0))[0].steps == ()


def test_a_repair_that_must_wait_still_ends_the_bake() -> None:
    row = RolloutTarget(target_of("c0"), 0, NEW, OLD, OLD, TargetState.PROGRESSING)
    repair = replace(step("c0", "heal", restarts=1), after=row)
    decision, spends = admitted(repair, spent={("restarts", "cluster:c0"): 2})
    assert [(each.after, each.actions) for each in decision.steps] == [(row, ())]
    assert ([wait.reason.code for wait in decision.waits], spends) == (["LedgerSpent"], [])
    start = replace(step("c0", restarts=1), after=row)
    assert admitted(start, spent={("restarts", "cluster:c0"): 2})[0].steps == ()


def test_a_step_without_cost_is_always_admitted() -> None:
    spent = {("restarts", "cluster:c0"): 99, ("changed", "cluster:c0"): 99}
    decision, spends = admitted(step("c0"), spent=spent)
    assert (len(decision.steps), spends) == (1, [])


def test_the_ledgers_that_a_decision_needs() -> None:
    decision = Decision(None, (step("c2", restarts=1), step("c0", changed=1), prune("c1", 1)))
    assert scopes_of(decision, REGIONS, "fleet/abc") == [
        ("changed", "cluster:c0"),
        ("deletes", "commit:fleet/abc"),
        ("deletes", "commit:fleet/abc/sample/orders"),
        ("restarts", "cluster:c2"),
        ("restarts", "region:us"),
    ]
