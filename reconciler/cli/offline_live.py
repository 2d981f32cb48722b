"""`diff --desired FILE --live FILE` and `health FILE`: judging files, without a cluster and without a daemon.

Pure halves: bytes in, the shapes of the JSON output and lines for people out. Wiring to arguments and streams is done
where the other commands are wired.

    result = diff_files("want.yaml", wanted, "live.yaml", live)
    result.problems or result.as_json(), result.differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.diff import compare
from reconciler.core.explain_diff import changes, prepared
from reconciler.core.health import DEFAULT_THRESHOLDS, Custom, Thresholds, health_from_file
from reconciler.core.health_rules import (
    NO_POLICIES,
    NOT_EVALUATED,
    HealthPolicies,
    HealthPolicy,
    Outcome,
    outcome_of,
    request_of,
)
from reconciler.core.managed_fields import applied_fields, our_entries
from reconciler.core.model import Health, Manifest, ObjectKey, Reason, Sync
from reconciler.core.order import order_key
from reconciler.core.ownership import APPLICATION_ANNOTATION, OWNER_LABEL
from reconciler.core.parse import parse_file
from reconciler.core.plan_diff import NO_EFFECT, ObjectDiff, manifest_effect
from reconciler.core.predict import predicted
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.values import clean_text
from reconciler.core.yaml_kube import load

_SHOWN_NONE = "-"

#: Runs the rules of health policies: an answer of health_cel.answer, or why there is none, for each request.
Evaluate = Callable[[list[bytes]], list[bytes | Reason]]


# ---- reading objects ---------------------------------------------------------------------------------------------


def objects_of(file: str, content: bytes) -> tuple[list[Manifest], list[Problem]]:
    """All Kubernetes objects in `content`, the items of a List one by one; what is none is a located problem."""
    loaded = load(file, content)
    problems = list(loaded.problems)
    found: list[Manifest] = []
    for document in loaded.documents:
        if document.value is None:
            continue
        line, column = document.locate()
        for manifest in _items(document.value):
            if _is_object(manifest):
                found.append(manifest)
            else:
                message = "not a Kubernetes object: apiVersion, kind and metadata.name are needed"
                problems.append(Problem(file, line, column, Severity.ERROR, "not-an-object", message))
    return found, problems


def _items(value: Any) -> Iterator[Any]:
    """The object itself, or what a List (as `kubectl get -o yaml` prints one) holds."""
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        yield from value["items"]
    else:
        yield value


def _is_object(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    metadata = value.get("metadata")
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str) and bool(metadata["name"])
    return named and all(isinstance(value.get(name), str) and value[name] for name in ("apiVersion", "kind"))


# ---- diff --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileDiff:
    """What `diff` of two files found."""

    objects: tuple[ObjectDiff, ...] = ()
    problems: tuple[Problem, ...] = field(default_factory=tuple)

    @property
    def differs(self) -> bool:
        """True if anything is to be created, updated or deleted: exit status 1."""
        return any(part.action != "none" for part in self.objects)

    @property
    def failed(self) -> bool:
        """True if a file could not be read: nothing is compared then."""
        return has_errors(self.problems)

    def as_json(self) -> dict[str, Any]:
        """The shape of `diff -o json`."""
        return {"objects": [part.as_json() for part in self.objects]}

    def lines(self) -> Iterator[str]:
        """For people."""
        for part in self.objects:
            if part.action != "none":
                yield from part.lines()
        differing = sum(part.action != "none" for part in self.objects)
        total = len(self.objects)
        yield f"{differing} of {total} object{'s' if total != 1 else ''} differ{'s' if differing == 1 else ''}"
        for part in self.objects:
            if part.verdict == "not-judgeable":
                yield f"{clean_text(str(part.key))} could not be compared: it is being deleted"


def diff_files(desired_file: str, desired: bytes, live_file: str, live: bytes) -> FileDiff:
    """Compare what is declared with what is live, on the client. Live objects nobody declares are only listed (as
    deletes) when their own marks say that we made them."""
    wanted, wanted_problems = objects_of(desired_file, desired)
    found, found_problems = objects_of(live_file, live)
    problems = (*wanted_problems, *found_problems, *_twice(desired_file, wanted), *_twice(live_file, found))
    if has_errors(problems):
        return FileDiff((), tuple(problems))
    by_key = {ObjectKey.of(manifest): manifest for manifest in found}
    objects = [_object_diff(manifest, _live_of(manifest, by_key)) for manifest in sorted(wanted, key=order_key)]
    declared = {ObjectKey.of(live_object) for each in wanted if (live_object := _live_of(each, by_key)) is not None}
    left = [each for each in found if ObjectKey.of(each) not in declared and _is_ours(each)]
    left.sort(key=order_key, reverse=True)
    objects += [_diff_of(manifest, "delete", "differs", effect_of=(manifest, None)) for manifest in left]
    return FileDiff(tuple(objects), tuple(problems))


def _twice(file: str, manifests: list[Manifest]) -> Iterator[Problem]:
    seen: set[ObjectKey] = set()
    for manifest in manifests:
        key = ObjectKey.of(manifest)
        if key in seen:
            yield Problem(file, 0, 0, Severity.ERROR, "duplicate-object", f"{key} stands in the file twice")
        seen.add(key)


def _live_of(desired: Manifest, by_key: Mapping[ObjectKey, Manifest]) -> Manifest | None:
    """The live object of the same identity. A file may leave the namespace out: then it is the only one so named."""
    key = ObjectKey.of(desired)
    if key in by_key or key.namespace:
        return by_key.get(key)
    same = [live for other, live in by_key.items() if other._replace(namespace="") == key]
    return same[0] if len(same) == 1 else None


def _is_ours(live: Manifest) -> bool:
    labels = (live.get("metadata") or {}).get("labels") or {}
    return OWNER_LABEL in labels or bool(our_entries(live))


def _object_diff(desired: Manifest, live: Manifest | None) -> ObjectDiff:
    wanted = prepared(desired)
    if live is None:
        return _diff_of(wanted, "create", "differs", effect_of=(None, wanted))
    if (live.get("metadata") or {}).get("deletionTimestamp"):
        return _diff_of(wanted, "none", "not-judgeable")
    found = changes(wanted, live)
    if not found:
        return _diff_of(wanted, "none", "equal")
    part = _diff_of(wanted, "update", _certainty(wanted, live), effect_of=(live, predicted(wanted, live)), live=live)
    return ObjectDiff(
        part.key,
        part.api_version,
        part.application,
        part.cluster,
        part.action,
        part.verdict,
        part.effect,
        found,
    )


def _certainty(wanted: Manifest, live: Manifest) -> str:
    """`differs` where the exact comparison says so too, `predicted` where only a server could be certain."""
    if ObjectKey.of(wanted) != ObjectKey.of(live) or applied_fields(live, str(wanted.get("apiVersion", ""))) is None:
        return "differs"
    return "predicted" if compare(wanted, live).sync is Sync.ASK else "differs"


def _diff_of(
    manifest: Manifest,
    action: str,
    verdict: str,
    *,
    effect_of: tuple[Manifest | None, Manifest | None] | None = None,
    live: Manifest | None = None,
) -> ObjectDiff:
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    application = annotations.get(APPLICATION_ANNOTATION)
    effect = NO_EFFECT if effect_of is None else manifest_effect(*effect_of, live)
    key, version = ObjectKey.of(manifest), str(manifest.get("apiVersion", ""))
    return ObjectDiff(key, version, application if isinstance(application, str) else "", "", action, verdict, effect)


# ---- health ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileHealth:
    """Health of every object in a file."""

    objects: tuple[tuple[Manifest, Health, Reason], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def unhealthy(self) -> bool:
        """True if anything is worse than Progressing: exit status 1."""
        return any(found.rank > Health.PROGRESSING.rank for _, found, _ in self.objects)

    @property
    def failed(self) -> bool:
        """True if the file could not be read."""
        return has_errors(self.problems)

    def as_json(self) -> list[dict[str, str]]:
        """The shape of `health -o json`."""
        return [
            {
                "apiVersion": str(manifest["apiVersion"]),
                "kind": str(manifest["kind"]),
                "namespace": ObjectKey.of(manifest).namespace,
                "name": ObjectKey.of(manifest).name,
                "health": str(found),
                "reason": reason.code,
                "message": reason.message,
            }
            for manifest, found, reason in self.objects
        ]

    def lines(self) -> Iterator[str]:
        """For people: one object a line."""
        for manifest, found, reason in self.objects:
            yield f"{found:<12} {clean_text(str(ObjectKey.of(manifest)))}  {reason}"
        if not self.objects:
            yield f"{_SHOWN_NONE} no objects"


def health_of_file(
    file: str,
    content: bytes,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    policies: HealthPolicies = NO_POLICIES,
    evaluate: Evaluate | None = None,
) -> FileHealth:
    """Judge every object in `content` by what it says itself; "now" is the newest time that stands in it. `evaluate`
    runs the rules of `policies`, and is called only if they judge any of the objects."""
    manifests, problems = objects_of(file, content)
    if has_errors(problems):
        return FileHealth((), tuple(problems))
    custom = _by_policy(manifests, policies, evaluate)
    judged = [
        (each, *health_from_file(each, policies.thresholds_for(each, thresholds), custom.get(index)))
        for index, each in enumerate(manifests)
    ]
    return FileHealth(tuple(judged), tuple(problems))


def _by_policy(manifests: list[Manifest], policies: HealthPolicies, evaluate: Evaluate | None) -> dict[int, Custom]:
    """What the rules give for the objects that they judge, by the objects' place."""
    judged = {index: policy for index, each in enumerate(manifests) if (policy := policies.rules_for(each)) is not None}
    if not judged or evaluate is None:
        return {index: Custom(policy, NOT_EVALUATED) for index, policy in judged.items()}
    answers = evaluate([request_of(policy, manifests[index]) for index, policy in judged.items()])
    return {
        index: Custom(policy, outcome_of(policy, answer) if isinstance(answer, bytes) else Outcome(error=answer))
        for (index, policy), answer in zip(judged.items(), answers, strict=True)
    }


def policies_of_file(file: str, content: bytes) -> tuple[list[HealthPolicy], list[Problem]]:
    """The health policies in a file, and what is wrong with it; other documents are left alone."""
    documents, problems = parse_file(file, content)
    found = [parsed.value for parsed in documents if isinstance(parsed.value, HealthPolicy)]
    wrong = [problem for parsed in documents if parsed.kind == "HealthPolicy" for problem in parsed.problems]
    if not found and not wrong and not problems:
        problems = (Problem(file, 0, 0, Severity.ERROR, "no-policy", "there is no HealthPolicy in it"),)
    return found, [*problems, *wrong]
