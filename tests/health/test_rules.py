"""Health policies: what their documents may say, what their rules give, and what that means over time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.core.health import Custom, Thresholds, evaluate
from reconciler.core.health_cel import EXPRESSION_LENGTH_MAX, answer, expression_problem
from reconciler.core.health_rules import (
    NO_POLICIES,
    NOT_EVALUATED,
    HealthPolicies,
    HealthPolicy,
    outcome_of,
    policies_from_text,
    request_of,
)
from reconciler.core.model import Facts, Health, Manifest
from reconciler.core.parse import parse
from reconciler.core.yaml_kube import load
from reconciler.resources import catalogue

WIDGETS = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: widgets}
spec:
  match:
  - {group: example.org, kind: Widget, labels: {tier: gold}}
  - {group: example.org, kind: Widget, name: main}
  rules:
  - {health: Suspended, when: "has(object.spec.paused) && object.spec.paused", reason: Paused}
  - health: Degraded
    when: object.status.phase == 'Failed'
    reason: WidgetFailed
    message: it failed
    messageExpression: "'failed: ' + object.status.why"
  - {health: Healthy, when: "object.status.ready >= object.spec.size"}
  otherwise: Progressing
  progressDeadline: 2m
  suspendedBy: {path: spec.paused, value: true}
"""


def policy_of(text: str) -> HealthPolicy:
    """The policy of a document without problems."""
    [document] = load("policies/w.yaml", text.encode()).documents
    parsed = parse(document)
    assert parsed.problems == ()
    assert isinstance(parsed.value, HealthPolicy)
    return parsed.value


def problems_of(text: str) -> list[tuple[str, int, str]]:
    """Code, line and message of each problem."""
    [document] = load("policies/w.yaml", text.encode()).documents
    return [(problem.code, problem.line, problem.message) for problem in parse(document).problems]


def widget(**status: Any) -> Manifest:
    return {
        "apiVersion": "example.org/v1",
        "kind": "Widget",
        "metadata": {"name": "main", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"size": 2},
        "status": status,
    }


def judged(
    policy: HealthPolicy, live: Manifest, *nows: float, desired: Manifest | None = None
) -> list[tuple[str, str]]:
    """Verdicts at these times, the facts carried on."""
    outcome, facts, said = outcome_of(policy, answer(request_of(policy, live))), Facts(), []
    for now_s in nows or (0.0,):
        found, reason, facts = evaluate(live, facts, now_s, Thresholds(), desired, Custom(policy, outcome))
        said.append((str(found), str(reason)))
    return said


# ---- rules -------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_applies_decides() -> None:
    policy = policy_of(WIDGETS)
    assert judged(policy, widget(phase="Failed", why="no disk", ready=2)) == [
        ("Degraded", "WidgetFailed: failed: no disk")
    ]
    assert judged(policy, widget(phase="Up", ready=2)) == [
        ("Healthy", "Healthy: rule 3 of health policy widgets applies")
    ]


def test_no_rule_and_progressing_have_a_deadline_per_generation() -> None:
    policy, live = policy_of(WIDGETS), widget(phase="Up", ready=0)
    said = judged(policy, live, 100.0, 219.0, 220.0)
    assert [health for health, _ in said] == ["Progressing", "Progressing", "Degraded"]
    assert said[-1][1] == "NoRuleApplies: no rule of health policy widgets applies, for 120 s"


def test_a_field_that_is_not_there_is_unknown_and_named() -> None:
    [(health, reason)] = judged(policy_of(WIDGETS), widget(ready=2))
    assert health == "Unknown"
    assert reason == "RuleError: rule 2 of health policy widgets: there is no field 'phase': ask has() for it first"


def test_an_object_without_status_can_be_asked_for_its_parts() -> None:
    text = WIDGETS.replace("object.status.phase == 'Failed'", "has(object.status.phase) && object.status.phase == 'F'")
    live = widget()
    del live["status"]
    [(health, reason)] = judged(
        policy_of(text.replace("object.status.ready >=", "has(object.status.ready) && 1 >=")), live
    )
    assert (health, reason.partition(":")[0]) == ("Progressing", "NoRuleApplies")


def test_a_message_that_cannot_be_made_changes_no_verdict() -> None:
    [(health, reason)] = judged(policy_of(WIDGETS), widget(phase="Failed"))
    assert health == "Degraded"
    assert "there is no field 'why'" in reason


def test_what_holds_for_every_kind_holds_for_these() -> None:
    policy, deleted, behind = policy_of(WIDGETS), widget(phase="Failed"), widget(phase="Failed", observedGeneration=0)
    deleted["metadata"]["deletionTimestamp"] = "2026-03-01T08:00:00Z"
    assert judged(policy, deleted)[0][1].startswith("Deleting")
    assert judged(policy, behind)[0][1].startswith("GenerationPending")


def test_suspended_is_what_git_declares() -> None:
    policy, live, undeclared = policy_of(WIDGETS), widget(), widget()
    live["spec"]["paused"] = True
    assert judged(policy, live, desired=live)[0][0] == "Suspended"
    [(first, reason), (then, _)] = judged(policy, live, 0.0, 600.0, desired=undeclared)
    assert (first, then) == ("Progressing", "Degraded")
    assert reason.startswith("SuspendedByHand: spec.paused is true on the cluster and not in Git")


def test_what_was_not_evaluated_is_unknown() -> None:
    live = widget(ready=2)
    found, reason, _ = evaluate(live, Facts(), 0.0, custom=Custom(policy_of(WIDGETS), NOT_EVALUATED))
    assert (found, reason.code) == (Health.UNKNOWN, "NotEvaluated")


@pytest.mark.parametrize(
    "said",
    [
        b"", b"[]", b"{}", b"nonsense", b"\xff", b'{"rule":7,"message":"","error":""}', b"[" * 100_000,
        b'{"rule":-1,"message":"","error":""}', b'{"rule":true,"message":"","error":""}',
        b'{"rule":0,"message":5,"error":""}', b'{"rule":0,"message":"","error":null}',
        b'{"rule":"0","message":"","error":""}',
    ],
)  # fmt: skip
def test_an_answer_is_not_trusted(said: bytes) -> None:
    outcome = outcome_of(policy_of(WIDGETS), said)
    assert outcome.error is not None
    assert outcome.error.code == "EvaluationFailed"


@pytest.mark.parametrize(
    ("when", "error"),
    [
        ("object.n", "`when` gives a number, not true or false"),
        ("'x'", "`when` gives a string, not true or false"),
        ("null", "`when` gives nothing, not true or false"),
        ("object.n / 0 == 1", "ZeroDivisionError: division by zero in CEL expression"),
        (
            "object.n + 'x' == ''",
            "TypeError: No such overload: the operation is not defined for the given operand types",
        ),
        ("object.deep.er == 1", "there is no field 'deep': ask has() for it first"),
    ],
)
def test_an_error_is_told_in_words(when: str, error: str) -> None:
    said = json.loads(answer(json.dumps({"rules": [[when, ""]], "object": {"n": 1}}).encode()))
    assert said == {"rule": 0, "message": "", "error": error}


def test_a_request_that_is_none_has_an_answer() -> None:
    for request in (b"", b"[]", b'{"rules": 3, "object": {}}', b'{"object": ' + b"[" * 100_000):
        assert json.loads(answer(request))["error"]


# ---- documents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "code", "line", "says"),
    [
        ("phase == 'Failed'", "phase = 'Failed'", "invalid-expression", 11, "line 1, column 21"),
        ("object.status.phase ==", "status.phase ==", "invalid-expression", 11, "there is no variable 'status'"),
        ("object.status.phase ==", "lower(object.status.phase) ==", "invalid-expression", 11, "no function 'lower'"),
        ("'failed: ' + object", "'failed: ' + objct", "invalid-expression", 14, "there is no variable 'objct'"),
        ("reason: WidgetFailed", "reason: widget failed", "invalid-value", 12, "reason"),
        ("health: Degraded", "health: Broken", "invalid-value", 10, "health"),
        ("health: Degraded", "health: Missing", "invalid-value", 10, "health"),
        ("progressDeadline: 2m", "progressDeadline: 1s", "invalid-value", 17, "from 10s to 24h"),
        ("progressDeadline: 2m", "progressDeadline: 2", "invalid-value", 17, "has no unit"),
        ("  suspendedBy: {path: spec.paused, value: true}\n", "", "missing-field", 9, "suspendedBy"),
        ("path: spec.paused", "path: status.paused", "invalid-value", 18, "path"),
        ("example.org, kind: Widget, n", "flink.apache.org, kind: FlinkDeployment, n", "unsupported", 7, "Flink"),
        ("kind: Widget, name", "kid: Widget, name", "unknown-field", 7, "kid"),
        ("otherwise: Progressing", "otherwise: Suspended", "invalid-value", 16, "otherwise"),
        ("otherwise: Progressing", "thresholds: {flink: {unstableTimes: 5}}", "invalid-value", 8, "alternatives"),
        ("phase == 'Failed'", f"phase == '{'x' * EXPRESSION_LENGTH_MAX}'", "invalid-expression", 11, "characters long"),
    ],
)  # fmt: skip
def test_a_mistake_is_located(before: str, after: str, code: str, line: int, says: str) -> None:
    assert before in WIDGETS
    found = problems_of(WIDGETS.replace(before, after, 1))
    assert (code, line) in [(each[0], each[1]) for each in found], found
    assert any(says in message for _, _, message in found), found


THRESHOLDS = """\
apiVersion: reconciler.dev/v1alpha1
kind: HealthPolicy
metadata: {name: slow-disks}
spec:
  match: [{kind: PersistentVolumeClaim}]
  thresholds: {workload: {progressingDegradedAfter: 2h}}
"""


def test_limits() -> None:
    many = "".join("  - {health: Healthy, when: 'true'}\n" for _ in range(17))
    kinds = "".join("  - {group: example.org, kind: Widget}\n" for _ in range(33))
    start = "apiVersion: reconciler.dev/v1alpha1\nkind: HealthPolicy\nmetadata: {name: x}\nspec:\n  match:\n"
    assert [each[0] for each in problems_of(start + kinds + "  rules:\n" + many)] == ["invalid-value"] * 2
    long = "".join(f"  - {{health: Healthy, when: \"'{'x' * 900}' == ''\"}}\n" for _ in range(8))
    assert "all expressions together" in problems_of(start + kinds.splitlines()[0] + "\n" + "  rules:\n" + long)[0][2]
    assert "it says nothing" in problems_of(THRESHOLDS.replace("  thresholds", "  #"))[0][2]
    assert problems_of(THRESHOLDS + "  otherwise: Healthy\n")[0][0] == "invalid-value"
    assert "above 0" in problems_of(THRESHOLDS.replace("2h", "0s"))[0][2]
    assert problems_of(THRESHOLDS.replace("progressingDegradedAfter", "progressing"))[0][0] == "unknown-field"


@pytest.mark.parametrize(
    "expression",
    [
        "object.items.exists(c, c.type == 'Ready' && c.status == 'True')",
        "object.a.map(x, x.y).filter(z, z > 1).all(q, q < 5)",
        "has(object.a.b) && size(object.a.b) > 0 && object.a.b.matches('^x')",
        "timestamp(object.t) < timestamp('2030-01-01T00:00:00Z')",
        "type(object.a) == map",
        "object['a']['b/c'] in ['x', 'y'] ? true : !false",
    ],
)
def test_the_language_is_there(expression: str) -> None:
    assert expression_problem(expression) == ""


# ---- the collection ----------------------------------------------------------------------------------------------


def test_policies_survive_being_stored() -> None:
    policies = HealthPolicies.of([policy_of(WIDGETS), policy_of(THRESHOLDS)])
    again = policies_from_text(policies.as_text())
    assert again == policies
    assert [again.digest(each) for each in again.policies] == [policies.digest(each) for each in policies.policies]
    assert policies_from_text("") == NO_POLICIES
    assert NO_POLICIES.as_text() == ""


def test_an_object_is_found_by_kind_name_and_labels() -> None:
    policies = HealthPolicies.of([policy_of(WIDGETS)])
    main, other, gold, of_another_group = widget(), widget(), widget(), widget()
    other["metadata"]["name"] = gold["metadata"]["name"] = "other"
    gold["metadata"]["labels"] = {"tier": "gold", "more": "x"}
    of_another_group["apiVersion"] = "example.com/v1"
    assert policies.rules_for(main) is policies.rules_for(gold) is policies.policies[0]
    assert policies.rules_for(other) is None
    assert policies.rules_for(of_another_group) is None
    assert policies.rules_for({"apiVersion": 3, "kind": None}) is None


def test_of_several_policies_the_first_by_name_counts() -> None:
    second = WIDGETS.replace("name: widgets", "name: a-widgets").replace("reason: WidgetFailed", "reason: Other")
    policies = HealthPolicies.of([policy_of(WIDGETS), policy_of(second)])
    found = policies.rules_for(widget())
    assert found is not None
    assert found.name == "a-widgets"


def test_thresholds_are_set_for_what_matches_alone() -> None:
    policies = HealthPolicies.of(
        [policy_of(THRESHOLDS), policy_of(THRESHOLDS.replace("slow-disks", "z").replace("2h", "3h"))]
    )
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
    assert policies.rules_for(claim) is None
    assert policies.thresholds_for(claim, Thresholds()) == Thresholds(workload_deadline_s=7200.0)
    assert policies.thresholds_for(widget(), Thresholds()) == Thresholds()


def test_the_shipped_policies_judge() -> None:
    policies = HealthPolicies.of(catalogue().health_policies.values())
    snapshot: Manifest = {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkStateSnapshot",
        "metadata": {"name": "s", "uid": "u", "resourceVersion": "1"},
    }
    policy = policies.rules_for(snapshot)
    assert policy is not None
    assert judged(policy, snapshot)[0][0] == "Progressing"
    assert judged(policy, {**snapshot, "status": {"state": "IN_PROGRESS"}})[0][0] == "Progressing"
    assert judged(policy, {**snapshot, "status": {"state": "COMPLETED"}})[0][0] == "Healthy"
    failed = {**snapshot, "status": {"state": "FAILED", "error": "no space"}}
    assert judged(policy, failed) == [("Degraded", "SnapshotFailed: FAILED: no space")]
