"""Apply rules: how an application's objects are written, beside what they are.

They come from the policy `apply` of an Application (or of a directory in fleet.yaml) and are no part of a release: they
count for every target at once, as soon as the commit is read, while a release moves in waves. So a rule that ends a
fight with an autoscaler does not wait for the third wave.

    rules = ApplyRules(adopt="ifUnowned", objects=(ObjectRule(Match(kind="Deployment"), ignore=(...,)),))
    rules_by_object(rules, release.objects)[key].ignore      # with what an autoscaler in the release takes over
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.digest import canonical_json
from reconciler.core.field_paths import FieldPath, parse_field_path
from reconciler.core.flink_config import FLINK_GROUP
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.values import Path

ADOPT = ("never", "ifUnowned", "force")
CONFLICTS = ("force", "fail")
#: What is never deleted in order to be created anew: it would take data, or everything below it, along.
NEVER_REPLACED = frozenset({"PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"})
#: Which field an autoscaler writes by the scale subresource.
_SCALED: dict[tuple[str, str], str] = {
    ("apps", "Deployment"): "/spec/replicas",
    ("apps", "StatefulSet"): "/spec/replicas",
    ("apps", "ReplicaSet"): "/spec/replicas",
    ("", "ReplicationController"): "/spec/replicas",
    (FLINK_GROUP, "FlinkDeployment"): "/spec/taskManager/replicas",
}


@dataclass(frozen=True, slots=True)
class Match:
    """Which objects: None matches every group, kind or name. The core group is ""."""

    group: str | None = None
    kind: str | None = None
    name: str | None = None

    def takes(self, key: ObjectKey) -> bool:
        """True if the object is selected."""
        return all(
            wanted is None or wanted == found
            for wanted, found in ((self.group, key.group), (self.kind, key.kind), (self.name, key.name))
        )


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """What holds for the objects that `match` takes. `ignore` are places whose live value is left alone, `handover` are
    field managers whose fields are theirs; `replace` allows an object to be deleted and created anew where a field that
    cannot change would have to. `at` is where the rule stands in its document."""

    match: Match = Match()
    ignore: tuple[FieldPath, ...] = ()
    handover: tuple[str, ...] = ()
    replace: bool = False
    at: Path = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class ApplyRules:
    """How one application's objects are written. `adopt` says what becomes of an object that exists and is not ours,
    `conflicts` whether fields that another manager holds are taken back, `self_heal` whether drift is repaired or only
    reported. `former` is the name ("fleet/name") that the application had before: its objects may carry that mark."""

    adopt: str = "never"
    conflicts: str = "force"
    self_heal: bool = True
    objects: tuple[ObjectRule, ...] = ()
    former: str = ""

    def as_text(self) -> str:
        """As canonical JSON, "" for the defaults: how they are stored."""
        if self == DEFAULT_RULES:
            return ""
        return canonical_json(
            {
                "adopt": self.adopt,
                "conflicts": self.conflicts,
                "selfHeal": self.self_heal,
                "renamedFrom": self.former,
                "objects": [
                    {
                        "match": {"group": rule.match.group, "kind": rule.match.kind, "name": rule.match.name},
                        "ignoreDifferences": [path.text for path in rule.ignore],
                        "handover": list(rule.handover),
                        "replace": rule.replace,
                    }
                    for rule in self.objects
                ],
            }
        ).decode()


DEFAULT_RULES = ApplyRules()


@functools.lru_cache(maxsize=1024)
def rules_from_text(text: str) -> ApplyRules:
    """What `as_text` made, or the checked properties of a policy as JSON."""
    return rules_of(json.loads(text)) if text else DEFAULT_RULES


def rules_of(properties: Mapping[str, Any], at: Path = ()) -> ApplyRules:
    """The rules that a checked policy `apply` declares; its properties stand at `at`."""
    rules = tuple(
        ObjectRule(
            Match(**{name: value for name, value in (rule.get("match") or {}).items() if value is not None}),
            tuple(parse_field_path(path) for path in rule.get("ignoreDifferences") or ()),
            tuple(sorted(set(rule.get("handover") or ()))),
            bool(rule.get("replace")),
            (*at, "objects", index),
        )
        for index, rule in enumerate(properties.get("objects") or ())
    )
    heal = properties.get("selfHeal")
    return ApplyRules(
        properties.get("adopt") or "never",
        properties.get("conflicts") or "force",
        heal is not False,
        rules,
        properties.get("renamedFrom") or "",
    )


def takes_back_now(before: str, after: str) -> bool:
    """True if a field that another manager holds may be taken back by the rules `after` (as text), and might not be by
    `before`: Git has decided a fight."""
    return (rules_from_text(before).conflicts, rules_from_text(after).conflicts) == ("fail", "force")


def rules_by_object(rules: ApplyRules, objects: Iterable[Manifest]) -> dict[ObjectKey, ObjectRule]:
    """The rule of every object that has one: all that match are united, and an autoscaler in the release hands over the
    field that it writes."""
    manifests = list(objects)
    scaled = {key: parse_field_path(path) for manifest in manifests for key, path in _scaled_by(manifest)}
    found: dict[ObjectKey, ObjectRule] = {}
    for manifest in manifests:
        key = ObjectKey.of(manifest)
        matching = [rule for rule in rules.objects if rule.match.takes(key)]
        ignore = [path for rule in matching for path in rule.ignore]
        if key in scaled:
            ignore.append(scaled[key])
        handover = sorted({manager for rule in matching for manager in rule.handover})
        replace = any(rule.replace for rule in matching) and may_be_replaced(key)
        if ignore or handover or replace:
            found[key] = ObjectRule(Match(*key[:2], key.name), tuple(dict.fromkeys(ignore)), tuple(handover), replace)
    return found


def may_be_replaced(key: ObjectKey) -> bool:
    """False for kinds that are never deleted in order to be created anew."""
    return key.kind not in NEVER_REPLACED and key.group != FLINK_GROUP


def _scaled_by(manifest: Manifest) -> Iterable[tuple[ObjectKey, str]]:
    """The object that a HorizontalPodAutoscaler scales, and the field."""
    group, _, _ = str(manifest.get("apiVersion", "")).rpartition("/")
    if group != "autoscaling" or manifest.get("kind") != "HorizontalPodAutoscaler":
        return ()
    target = (manifest.get("spec") or {}).get("scaleTargetRef") or {}
    target_group, _, _ = str(target.get("apiVersion", "")).rpartition("/")
    path = _SCALED.get((target_group, str(target.get("kind"))))
    if path is None:
        return ()
    namespace = (manifest.get("metadata") or {}).get("namespace") or ""
    return [(ObjectKey(target_group, str(target["kind"]), namespace, str(target.get("name"))), path)]
