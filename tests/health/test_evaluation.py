"""Outcomes of rules are asked for once per policy and version of the object, and a policy that keeps having to be ended
is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from reconciler.core.health_cel import answer
from reconciler.core.health_rules import HealthPolicies, HealthPolicy, Outcome
from reconciler.core.model import Manifest, Reason
from reconciler.shell import evaluation
from reconciler.shell.evaluation import Asked, HealthEvaluations
from tests.health.test_rules import WIDGETS, policy_of, widget

POLICY = policy_of(WIDGETS)
OTHER = policy_of(WIDGETS.replace("name: widgets", "name: others"))


class Counting:
    """An evaluator that notes what it was asked; `says` gives its answers, the real ones where that gives None."""

    def __init__(self, says: Callable[[bytes], bytes | Reason | None] = lambda _item: None) -> None:
        self.calls: list[int] = []
        self._says = says

    async def evaluate(self, items: Sequence[bytes]) -> list[bytes | Reason]:
        self.calls.append(len(items))
        return [answer(item) if (said := self._says(item)) is None else said for item in items]

    async def close(self) -> None:
        """Nothing is open."""


def asked(version: str, policy: HealthPolicy = POLICY) -> Asked:
    live: Manifest = widget(phase="Failed", why=f"version {version}")
    live["metadata"]["resourceVersion"] = version
    return Asked(policy, HealthPolicies.of([policy]).digest(policy), live)


def outcomes(evaluations: HealthEvaluations, *of: Asked, now_s: float = 0.0) -> list[Outcome]:
    return asyncio.run(evaluations.outcomes(of, now_s))


def codes(found: list[Outcome]) -> list[str]:
    return ["" if each.error is None else each.error.code for each in found]


def test_each_version_is_asked_for_once() -> None:
    evaluator = Counting()
    evaluations = HealthEvaluations(evaluator)
    first = outcomes(evaluations, asked("1"), asked("2"), asked("3"))
    assert [each.message for each in first] == [f"failed: version {version}" for version in (1, 2, 3)]
    assert outcomes(evaluations, asked("2"), asked("4"), asked("1"))[0] == first[1]
    assert evaluator.calls == [3, 1]
    assert outcomes(evaluations) == []
    outcomes(evaluations, asked("1", OTHER))
    assert evaluator.calls == [3, 1, 1], "another policy gives something else"


def test_what_has_no_version_is_asked_for_each_time() -> None:
    evaluator = Counting()
    evaluations = HealthEvaluations(evaluator)
    for _ in range(2):
        outcomes(evaluations, asked(""))
    assert evaluator.calls == [1, 1]


def test_policies_are_not_asked_together_and_much_is_asked_in_parts() -> None:
    evaluator = Counting()
    many = [asked(str(number), (POLICY, OTHER)[number % 2]) for number in range(2 * evaluation.BATCH_MAX + 2)]
    found = outcomes(HealthEvaluations(evaluator), *many)
    assert [each.message for each in found] == [f"failed: version {number}" for number in range(len(many))]
    assert evaluator.calls == [evaluation.BATCH_MAX, 1] * 2


def test_what_had_to_be_ended_is_not_tried_again_at_every_look() -> None:
    evaluator = Counting(lambda _item: Reason("EvaluationTimedOut", "it takes more than 1 s of processor time"))
    evaluations = HealthEvaluations(evaluator)
    [found] = outcomes(evaluations, asked("1"))
    assert found.error is not None
    assert str(found.error) == (
        "EvaluationTimedOut: the rules of health policy widgets: it takes more than 1 s of processor time"
    )
    assert outcomes(evaluations, asked("1"), now_s=599.0) == [found]
    assert evaluator.calls == [1]
    outcomes(evaluations, asked("1"), now_s=601.0)
    assert evaluator.calls == [1, 1]


def test_a_policy_that_keeps_having_to_be_ended_is_left_alone_and_others_are_not() -> None:
    bad = HealthPolicies.of([POLICY]).digest(POLICY)
    evaluator = Counting(lambda item: Reason("EvaluationCrashed", "it ended") if b"version 9" in item else None)
    evaluations = HealthEvaluations(evaluator)
    for number in range(evaluation.ENDED_MAX):
        assert codes(outcomes(evaluations, asked(f"9{number}"), now_s=number)) == ["EvaluationCrashed"]
    assert codes(outcomes(evaluations, asked("1"), asked("1", OTHER), now_s=10.0)) == ["EvaluationSuspended", ""]
    assert asked("1").digest == bad
    assert codes(outcomes(evaluations, asked("1"), now_s=evaluation.ENDED_WITHIN_S)) == [""]


def test_nobody_s_fault_is_not_remembered() -> None:
    evaluator = Counting(lambda _item: Reason("EvaluatorUnavailable", "it does not start"))
    evaluations = HealthEvaluations(evaluator)
    for look in range(9):
        now_s = look * evaluation.UNAVAILABLE_S / 2
        assert codes(outcomes(evaluations, asked("1"), now_s=now_s)) == ["EvaluatorUnavailable"]
    assert evaluator.calls == [1] * 5, "it is asked again, but not at every look"


def test_memory_is_bounded() -> None:
    evaluations = HealthEvaluations(Counting())
    kept = evaluation.OUTCOMES_REMEMBERED_MAX
    evaluation.OUTCOMES_REMEMBERED_MAX = 10
    try:
        outcomes(evaluations, *(asked(str(number)) for number in range(25)))
    finally:
        evaluation.OUTCOMES_REMEMBERED_MAX = kept
    assert len(evaluations._outcomes) == 10
