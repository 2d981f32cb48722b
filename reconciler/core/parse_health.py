"""A HealthPolicy: which rules it may hold, and the typed value.

Expressions are read here, so that a typing mistake is found where it stands and not when the first object fails; what
they give for an object is only known once there is one. Everything is bounded: a policy is read again by every commit
that touches it, and its rules run for every change of an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.flink_config import FLINK_DEPLOYMENT, FLINK_GROUP, FLINK_SESSION_JOB
from reconciler.core.formats import duration_s
from reconciler.core.health_cel import expression_problem
from reconciler.core.health_common import Thresholds
from reconciler.core.health_policy import threshold_values
from reconciler.core.health_rules import DEADLINE_S, HealthMatch, HealthPolicy, HealthRule
from reconciler.core.model import Health
from reconciler.core.schema import Finding
from reconciler.core.yaml_kube import Document, Path

MATCHES_MAX = 32
RULES_MAX = 16
#: Characters of all expressions of a policy together.
EXPRESSIONS_LENGTH_MAX = 6000
PROGRESS_DEADLINE_S = (10.0, 86_400.0)
_OF_RULES = ("otherwise", "progressDeadline", "suspendedBy")
_FLINK_KINDS = frozenset({FLINK_DEPLOYMENT, FLINK_SESSION_JOB})


def check_health_policy(spec: Mapping[str, Any]) -> list[Finding]:
    """What the schema cannot say of a HealthPolicy's spec."""
    findings = _check_size(spec)
    rules, thresholds = spec.get("rules"), spec.get("thresholds")
    if bool(rules) == bool(thresholds):
        says = "rules and thresholds are alternatives" if rules else "it says nothing: rules or thresholds is missing"
        hint = "rules judge by themselves, thresholds move the numbers of the function that comes with the program"
        findings.append(Finding(("spec", "rules"), "invalid-value", says, hint))
    if not rules:
        for name in _OF_RULES:
            if spec.get(name) is not None:
                says = f"{name!r} counts for rules, and there are none"
                findings.append(Finding(("spec", name), "invalid-value", says, "remove it"))
    if thresholds and (finding := _check_thresholds(thresholds)):
        findings.append(finding)
    deadline_s, (low, high) = duration_s(spec.get("progressDeadline")), PROGRESS_DEADLINE_S
    if deadline_s is not None and not low <= deadline_s <= high:
        says = f"'progressDeadline' is {spec['progressDeadline']}: from 10s to 24h is allowed"
        findings.append(Finding(("spec", "progressDeadline"), "invalid-value", says))
    if rules:
        findings += _check_flink(spec["match"])
        if not findings:
            findings += [found for index, rule in enumerate(rules) for found in _check_rule(spec, rule, index)]
    return findings


def _check_size(spec: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, limit in (("match", MATCHES_MAX), ("rules", RULES_MAX)):
        count = len(spec.get(name) or ())
        if count > limit:
            says = f"{name!r} has {count} entries: at most {limit} are allowed"
            findings.append(Finding(("spec", name), "invalid-value", says, "write a second HealthPolicy"))
    length = sum(
        len(rule.get(name) or "") for rule in spec.get("rules") or () for name in ("when", "messageExpression")
    )
    if length > EXPRESSIONS_LENGTH_MAX:
        says = f"all expressions together are {length} characters long: at most {EXPRESSIONS_LENGTH_MAX} are allowed"
        findings.append(Finding(("spec", "rules"), "invalid-value", says, "write a second HealthPolicy"))
    return findings


def _check_thresholds(thresholds: Mapping[str, Any]) -> Finding | None:
    try:
        Thresholds.of(threshold_values(thresholds))
    except ValueError as error:
        return Finding(("spec", "thresholds"), "invalid-value", str(error))
    return None


def _check_flink(matches: list[Mapping[str, Any]]) -> list[Finding]:
    """Restarts, jobs and savepoints of a Flink job are counted on the way to its health: rules cannot do that."""
    says = "the health of a Flink job is not judged by rules: restarts and the job's id are counted with it"
    return [
        Finding(("spec", "match", index, "kind"), "unsupported", says, "set thresholds.flink instead")
        for index, match in enumerate(matches)
        if match.get("group") == FLINK_GROUP and match["kind"] in _FLINK_KINDS
    ]


def _check_rule(spec: Mapping[str, Any], rule: Mapping[str, Any], index: int) -> list[Finding]:
    at: Path = ("spec", "rules", index)
    findings = []
    for name in ("when", "messageExpression"):
        problem = expression_problem(rule[name]) if rule.get(name) else ""
        if problem:
            says = f"{name!r} is no expression that can be evaluated: {problem}"
            hint = "docs/spec/health-policy.md has the language by example"
            findings.append(Finding((*at, name), "invalid-expression", says, hint))
    if rule["health"] == "Suspended" and spec.get("suspendedBy") is None:
        says = "a rule may say Suspended only where 'suspendedBy' names the field that asks for it"
        hint = "suspendedBy: {path: spec.suspend, value: true}"
        findings.append(Finding((*at, "health"), "missing-field", says, hint))
    return findings


def build_health_policy(document: Document, _findings: list[Finding]) -> HealthPolicy:
    """The policy of a document without errors."""
    spec = document.value["spec"]
    deadline_s = duration_s(spec.get("progressDeadline"))
    by = spec.get("suspendedBy")
    return HealthPolicy(
        name=document.value["metadata"]["name"],
        match=tuple(_match(match) for match in spec["match"]),
        rules=tuple(_rule(rule) for rule in spec.get("rules") or ()),
        otherwise=Health(spec.get("otherwise") or "Progressing"),
        progress_deadline_s=DEADLINE_S if deadline_s is None else deadline_s,
        suspended_by=None if by is None else (tuple(by["path"].split(".")), by["value"]),
        thresholds=tuple(sorted(threshold_values(spec.get("thresholds") or {}).items())),
        file=document.file,
    )


def _match(match: Mapping[str, Any]) -> HealthMatch:
    labels = match.get("labels") or {}
    return HealthMatch(match.get("group") or "", match["kind"], match.get("name"), tuple(sorted(labels.items())))


def _rule(rule: Mapping[str, Any]) -> HealthRule:
    return HealthRule(
        health=Health(rule["health"]),
        when=rule["when"],
        reason=rule.get("reason") or rule["health"],
        message=rule.get("message") or "",
        message_expression=rule.get("messageExpression") or "",
    )


def matches_of(document: Document) -> tuple[HealthMatch, ...] | None:
    """Which objects a policy is about that cannot be used for another mistake; None if even that cannot be read."""
    try:
        found = tuple(_match(match) for match in document.value["spec"]["match"])
    except (KeyError, TypeError, AttributeError):
        return None
    readable = all(isinstance(match.group, str) and isinstance(match.kind, str) for match in found)
    return found if found and readable else None
