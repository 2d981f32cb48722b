"""Health policies: what a fleet says of the health of its own kinds, as values.

A policy either judges objects by rules, each a condition in CEL, or moves the thresholds by which a built-in function
judges them. The rules are evaluated elsewhere, in a process that can be ended (shell/worker.py); here is what goes
there, and what an answer means for an object at one moment.

    policy = policies.rules_for(manifest)           # the first by name whose match takes the object
    request = request_of(policy, live)              # bytes for health_cel.answer
    by_rules(policy, outcome_of(policy, answer), live, facts, now_s)   # (Degraded, WidgetFailed: ..., facts)
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.digest import canonical_json, digest_of
from reconciler.core.health_common import Judged, Thresholds, map_at, metadata_of, progressing, settled, spoken, text_at
from reconciler.core.model import Facts, Health, Manifest, Reason

#: What a rule may say; Missing is for objects that are not there.
RULE_HEALTHS = ("Healthy", "Suspended", "Progressing", "Degraded", "Unknown")
DEADLINE_S = 600.0
#: So many policies of its own a fleet may have.
POLICIES_MAX = 100


@dataclass(frozen=True, slots=True)
class HealthMatch:
    """Which objects: a group and kind, and where given the name and all of the labels as they are declared."""

    group: str
    kind: str
    name: str | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def takes(self, manifest: Mapping[str, Any]) -> bool:
        """True if the object, whose group and kind were looked up, is selected."""
        metadata = metadata_of(manifest)
        labels = map_at(metadata, "labels")
        named = self.name is None or metadata.get("name") == self.name
        return named and all(labels.get(name) == value for name, value in self.labels)


@dataclass(frozen=True, slots=True)
class HealthRule:
    """The first rule whose `when` (CEL) is true decides. `message_expression` is CEL too and gives a string."""

    health: Health
    when: str
    reason: str
    message: str = ""
    message_expression: str = ""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """One document. With `rules` it judges, and `thresholds` is empty; without, it sets thresholds by their names.
    `suspended_by` is the field, and its value, that makes the kind's controller stand still on purpose."""

    name: str
    match: tuple[HealthMatch, ...]
    rules: tuple[HealthRule, ...] = ()
    otherwise: Health = Health.PROGRESSING
    progress_deadline_s: float = DEADLINE_S
    suspended_by: tuple[tuple[str, ...], Any] | None = None
    thresholds: tuple[tuple[str, float], ...] = ()
    file: str = field(default="", compare=False)

    def as_value(self) -> dict[str, Any]:
        """Plain values that `policy_of` reads."""
        by = self.suspended_by
        return {
            "name": self.name,
            "match": [
                [match.group, match.kind, match.name, [list(pair) for pair in match.labels]] for match in self.match
            ],
            "rules": [
                [str(rule.health), rule.when, rule.reason, rule.message, rule.message_expression] for rule in self.rules
            ],
            "otherwise": str(self.otherwise),
            "deadline": self.progress_deadline_s,
            "suspendedBy": None if by is None else [list(by[0]), by[1]],
            "thresholds": [list(pair) for pair in self.thresholds],
        }


def _policy_of(value: Mapping[str, Any]) -> HealthPolicy:
    by = value["suspendedBy"]
    return HealthPolicy(
        name=value["name"],
        match=tuple(
            HealthMatch(group, kind, name, tuple((label, text) for label, text in labels))
            for group, kind, name, labels in value["match"]
        ),
        rules=tuple(HealthRule(Health(health), *rest) for health, *rest in value["rules"]),
        otherwise=Health(value["otherwise"]),
        progress_deadline_s=value["deadline"],
        suspended_by=None if by is None else (tuple(by[0]), by[1]),
        thresholds=tuple((name, number) for name, number in value["thresholds"]),
    )


@dataclass(frozen=True, slots=True)
class HealthPolicies:
    """All policies in force for one source. Of several that match an object the first by name counts."""

    policies: tuple[HealthPolicy, ...] = ()
    _digests: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    _by_kind: Mapping[tuple[str, str], tuple[tuple[HealthMatch, HealthPolicy], ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def of(cls, policies: Iterable[HealthPolicy]) -> HealthPolicies:
        """The collection, with what looking up needs."""
        ordered = tuple(sorted(policies, key=lambda policy: policy.name))
        by_kind: dict[tuple[str, str], tuple[tuple[HealthMatch, HealthPolicy], ...]] = {}
        for policy in ordered:
            for match in policy.match:
                key = (match.group, match.kind)
                by_kind[key] = (*by_kind.get(key, ()), (match, policy))
        return cls(ordered, {policy.name: digest_of(policy.as_value()) for policy in ordered}, by_kind)

    def digest(self, policy: HealthPolicy) -> str:
        """Equal for two policies that say the same."""
        return self._digests[policy.name]

    def rules_for(self, manifest: Mapping[str, Any]) -> HealthPolicy | None:
        """The policy whose rules judge the object, if any."""
        return next((policy for policy in self._matching(manifest) if policy.rules), None)

    def thresholds_for(self, manifest: Mapping[str, Any], base: Thresholds) -> Thresholds:
        """`base` with what the policies say of the object: of two that set one threshold the first by name counts."""
        found: dict[str, Any] = {}
        for policy in self._matching(manifest):
            found = {**dict(policy.thresholds), **found}
        return dataclasses.replace(base, **found) if found else base

    def _matching(self, manifest: Mapping[str, Any]) -> Iterable[HealthPolicy]:
        if not self._by_kind:
            return ()
        group, _, _ = text_at(manifest, "apiVersion").rpartition("/")
        known = self._by_kind.get((group, text_at(manifest, "kind")), ())
        return (policy for match, policy in known if match.takes(manifest))

    def as_text(self) -> str:
        """As canonical JSON, "" for none: how they are stored."""
        return canonical_json([policy.as_value() for policy in self.policies]).decode() if self.policies else ""


NO_POLICIES = HealthPolicies()


@functools.lru_cache(maxsize=256)
def policies_from_text(text: str) -> HealthPolicies:
    """What `as_text` made."""
    return HealthPolicies.of(_policy_of(value) for value in json.loads(text)) if text else NO_POLICIES


# ---- asking, and what the answer means -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What evaluating a policy's rules on an object gave: the rule that decides (None: no rule does) with its message,
    or why nothing is known."""

    rule: int | None = None
    message: str = ""
    error: Reason | None = None


NOT_EVALUATED = Outcome(error=Reason("NotEvaluated", "its health policy has not been evaluated yet"))


def request_of(policy: HealthPolicy, live: Manifest) -> bytes:
    """What `health_cel.answer` is asked: the rules, and the object without the fields that say who owns what. spec and
    status are there even where the object has none, so that a rule can ask for what is in them."""
    metadata = {name: value for name, value in metadata_of(live).items() if name != "managedFields"}
    found = {"spec": {}, "status": {}, **{name: value for name, value in live.items() if value is not None}}
    rules = [[rule.when, rule.message_expression] for rule in policy.rules]
    return json.dumps({"rules": rules, "object": {**found, "metadata": metadata}}, separators=(",", ":")).encode()


def outcome_of(policy: HealthPolicy, answer: bytes) -> Outcome:
    """What an answer of `health_cel.answer` says. One that is none is an error: where it comes from is not trusted."""
    try:
        said = json.loads(answer)
        rule, message, error = said["rule"], said["message"], said["error"]
        valid = isinstance(message, str) and isinstance(error, str) and (rule is None or type(rule) is int)
        if not valid or not (rule is None or 0 <= rule < len(policy.rules)):
            raise ValueError("its fields are not as expected")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        return Outcome(error=spoken("EvaluationFailed", f"the answer cannot be read: {problem}"))
    if error:
        where = "" if rule is None else f"rule {rule + 1} of health policy {policy.name}: "
        return Outcome(error=spoken("RuleError", f"{where}{error}"))
    return Outcome(rule, message)


def by_rules(policy: HealthPolicy, outcome: Outcome, manifest: Manifest, facts: Facts, now_s: float) -> Judged:
    """The health of an object by its policy's rules. Progressing, by whatever rules, is Degraded once it has lasted
    longer than the policy allows at this generation."""
    if outcome.error is not None:
        return Health.UNKNOWN, outcome.error, facts
    if outcome.rule is None:
        found, reason = policy.otherwise, Reason("NoRuleApplies", f"no rule of health policy {policy.name} applies")
    else:
        rule = policy.rules[outcome.rule]
        default = f"rule {outcome.rule + 1} of health policy {policy.name} applies"
        found, reason = rule.health, spoken(rule.reason, outcome.message or rule.message or default)
    if found is Health.PROGRESSING:
        return progressing(manifest, facts, now_s, "by-policy", reason, policy.progress_deadline_s)
    return settled(facts, now_s, found, reason)
