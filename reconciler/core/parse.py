"""From YAML documents to typed ones, every mistake located.

A document is checked against the schema of its kind (`schemas.py`), then built. One that has an error has no value; its
problems say where and what to do. Everything that is not of our kinds is a plain Kubernetes object.

    >>> from reconciler.core.yaml_kube import load
    >>> [document] = load("c.yaml", b"apiVersion: reconciler.dev/v1alpha1\\nkind: Clutser\\n").documents
    >>> parse(document).problems[0].message
    "no kind 'Clutser' in reconciler.dev/v1alpha1"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reconciler.core import schemas
from reconciler.core.apply_rules import DEFAULT_RULES, rules_of
from reconciler.core.documents import (
    OAM_VERSION,
    OWN_VERSION,
    Application,
    Cluster,
    DirectoryRule,
    Fleet,
    Parsed,
    RolloutPolicy,
    selection_of,
)
from reconciler.core.formats import duration_s, is_dns_label
from reconciler.core.health_rules import HealthPolicy
from reconciler.core.ownership import OWN_PREFIX, RENAMED_FROM
from reconciler.core.packed import common
from reconciler.core.parse_health import build_health_policy, check_health_policy
from reconciler.core.parse_policy import build_policy, check_policy
from reconciler.core.problems import Problem, Severity
from reconciler.core.schema import Finding, check, suggest
from reconciler.core.yaml_kube import Document, Loaded, Path, load

_OWN_KINDS = {"Fleet", "Cluster", "RolloutPolicy", "HealthPolicy", "TraitDefinition", *schemas.LATER_KINDS}
_POLICY_SCHEMAS = {
    "topology": schemas.TOPOLOGY,
    "override": schemas.OVERRIDE,
    "rollout": schemas.ROLLOUT,
    "apply": schemas.APPLY,
}
#: Policies of which an application has one: two would say different things.
_SINGLE_POLICIES = frozenset({"rollout", "apply"})


def parse_file(file: str, content: bytes) -> tuple[tuple[Parsed, ...], tuple[Problem, ...]]:
    """The documents of a file, and what keeps it from being read to its end."""
    loaded: Loaded = load(file, content)
    return tuple(parse(document) for document in loaded.documents), loaded.problems


def parse(document: Document) -> Parsed:
    """One document as what it is."""
    value = document.value
    kind, name, findings = "", "", _not_an_object(value)
    if not findings:
        version, kind = value["apiVersion"], value["kind"]
        name = _name_of(value)
        group = version.partition("/")[0]
        if group == "core.oam.dev":
            findings = _check_oam(version, kind)
        elif group == "reconciler.dev" or group.endswith(".reconciler.dev"):
            findings = _check_own(version, kind)
        else:
            return Parsed("", name, document, value)
    if not findings:
        return _parse_known(document, kind, name)
    return Parsed(kind or "?", name, document, None, tuple(_problem(document, finding) for finding in findings))


def _problem(document: Document, finding: Finding) -> Problem:
    return document.problem(finding.path, finding.code, finding.message, finding.hint, finding.severity)


def _name_of(value: Mapping[str, Any]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _not_an_object(value: Any) -> list[Finding]:
    if not isinstance(value, dict):
        return [Finding((), "not-an-object", "not a Kubernetes object: a map with apiVersion and kind is expected")]
    for field in ("apiVersion", "kind"):
        if not isinstance(value.get(field), str) or not value[field].strip():
            hint = "every document needs apiVersion and kind"
            return [Finding((field,), "missing-field", f"the field {field!r} is missing or blank", hint)]
    return []


def _check_oam(version: str, kind: str) -> list[Finding]:
    if version != OAM_VERSION:
        says = f"{kind} of {version} is not supported"
        return [Finding(("apiVersion",), "unsupported", says, f"write it as an Application of {OAM_VERSION}")]
    if kind != "Application":
        return [Finding(("kind",), "unsupported", f"{kind} of {version} is not supported", "only Application is")]
    return []


def _check_own(version: str, kind: str) -> list[Finding]:
    if version != OWN_VERSION:
        says = f"no version {version!r} of reconciler.dev"
        return [Finding(("apiVersion",), "unknown-kind", says, f"did you mean {OWN_VERSION!r}?")]
    if kind not in _OWN_KINDS:
        return [Finding(("kind",), "unknown-kind", f"no kind {kind!r} in {version}", suggest(kind, _OWN_KINDS))]
    if kind == "TraitDefinition":
        says = "traits come with the program; a TraitDefinition in a fleet is not supported"
        return [Finding(("kind",), "unsupported", says, "remove it")]
    return []


def _parse_known(document: Document, kind: str, name: str) -> Parsed:
    value = document.value
    if kind in schemas.LATER_KINDS:
        says = f"a {kind} is recognised, but not enforced by this version yet"
        warning = document.problem(("kind",), "not-yet-enforced", says, severity=Severity.WARNING)
        return Parsed(kind, name, document, None, (warning,))
    findings = check(schemas.SCHEMAS[kind], value)
    if not _errors(findings):
        findings += _CHECKS[kind](value.get("spec") or {})
        findings += _own_marks(kind, value["metadata"])
    problems = tuple(_problem(document, finding) for finding in findings)
    built = None if _errors(findings) else _BUILDERS[kind](document, findings)
    return Parsed(kind, name, document, built, problems)


def _errors(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _own_marks(kind: str, metadata: Mapping[str, Any]) -> list[Finding]:
    """A label or annotation of ours asks for something: what is not acted upon is refused, so that none is ignored."""
    findings: list[Finding] = []
    for where in ("labels", "annotations"):
        for name, value in (metadata.get(where) or {}).items():
            at: Path = ("metadata", where, name)
            if (kind, where, name) == ("Application", "annotations", RENAMED_FROM):
                wrong = is_dns_label(value) or ("its own name" if value == metadata["name"] else "")
                if wrong:
                    says = f"{name} is {wrong}: it names the application that this one was"
                    findings.append(Finding(at, "invalid-value", says))
            elif name.startswith(OWN_PREFIX):
                says = f"the {where[:-1]} {name!r} is not supported yet"
                findings.append(Finding(at, "unsupported", says, "remove it"))
    return findings


# ---- checks that a schema cannot say -----------------------------------------------------------------------------


def _selection_findings(value: Mapping[str, Any], at: Path, *, needed: bool) -> list[Finding]:
    has_labels, has_names = value.get("clusterLabelSelector") is not None, value.get("clusters") is not None
    if has_labels and has_names:
        says = "clusters and clusterLabelSelector are alternatives"
        return [Finding((*at, "clusters"), "invalid-value", says, "keep one of the two")]
    if needed and not has_labels and not has_names:
        says = "it selects no clusters: clusterLabelSelector or clusters is missing"
        return [Finding(at, "no-targets", says, "clusterLabelSelector: {} selects every cluster")]
    return []


def _check_fleet(spec: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for field in ("clusters", "applications", "policies"):
        if isinstance(spec.get(field), str):
            item = {"type": "string", "format": "repository-path"}
            findings += check(item, spec[field], ("spec", field))
    for index, rule in enumerate(spec.get("directories") or ()):
        findings += _selection_findings(rule, ("spec", "directories", index), needed=False)
    return findings


def _check_cluster(spec: Mapping[str, Any]) -> list[Finding]:
    if spec.get("staleAfter") is not None and (duration_s(spec["staleAfter"]) or 0) <= 0:
        return [Finding(("spec", "staleAfter"), "invalid-value", "'staleAfter' must be longer than nothing")]
    return []


def _check_application(spec: Mapping[str, Any]) -> list[Finding]:
    findings = _check_components(spec["components"])
    names = [component["name"] for component in spec["components"]]
    seen: set[str] = set()
    for index, policy in enumerate(spec.get("policies") or ()):
        at: Path = ("spec", "policies", index)
        kind = policy["type"]
        if kind not in _POLICY_SCHEMAS:
            findings.append(
                Finding((*at, "type"), "unsupported", f"no policy type {kind!r}", suggest(kind, _POLICY_SCHEMAS))
            )
            continue
        properties = policy.get("properties") or {}
        at = (*at, "properties")
        wrong = check(_POLICY_SCHEMAS[kind], properties, at)
        findings += wrong
        if wrong:
            continue
        if kind == "topology":
            findings += _selection_findings(properties, at, needed=True)
        elif kind == "override":
            findings += _selection_findings(properties, at, needed=False)
            findings += _check_override(properties, at, names)
        elif kind in _SINGLE_POLICIES and kind in seen:
            findings.append(Finding(at, "duplicate-name", f"a second {kind} policy", "keep one of the two"))
        seen.add(kind)
    if "topology" not in seen and not any(finding.severity is Severity.ERROR for finding in findings):
        hint = "add {type: topology, properties: {clusterLabelSelector: {...}}} to spec.policies"
        findings.append(Finding(("spec",), "no-targets", "the application names no clusters", hint))
    return findings


def _check_components(components: list[Mapping[str, Any]]) -> list[Finding]:
    findings, seen = [], set()
    for index, component in enumerate(components):
        at: Path = ("spec", "components", index)
        if component["name"] in seen:
            says = f"a second component named {component['name']!r}"
            findings.append(Finding((*at, "name"), "duplicate-name", says, "names are unique in an application"))
        seen.add(component["name"])
        if component.get("dependsOn"):
            says = "dependsOn is not supported: objects are applied in the order of their stages"
            findings.append(Finding((*at, "dependsOn"), "unsupported", says, "remove it"))
    return findings


def _check_override(properties: Mapping[str, Any], at: Path, names: list[str]) -> list[Finding]:
    """An override merges into what the components say, so that nothing in it may stand twice: the second would win."""
    findings, seen = [], set()
    for index, component in enumerate(properties["components"]):
        place = (*at, "components", index)
        if component["name"] not in names:
            says = f"no component {component['name']!r} in this application"
            findings.append(Finding((*place, "name"), "unknown-component", says, suggest(component["name"], names)))
        elif component["name"] in seen:
            says = f"the component {component['name']!r} stands twice in this override"
            findings.append(Finding((*place, "name"), "duplicate-name", says, "merge them into one"))
        seen.add(component["name"])
        traits: set[str] = set()
        for number, trait in enumerate(component.get("traits") or ()):
            if trait["type"] in traits:
                says = f"the trait {trait['type']!r} stands twice in this override"
                findings.append(
                    Finding((*place, "traits", number, "type"), "trait-duplicate", says, "merge them into one")
                )
            traits.add(trait["type"])
    return findings


# ---- building ------------------------------------------------------------------------------------------------------


def _paths(value: str | list[str] | None) -> tuple[str, ...]:
    paths = [value] if isinstance(value, str) else value or []
    return tuple(path.removeprefix("./").rstrip("/") for path in paths)


def _build_fleet(document: Document, _findings: list[Finding]) -> Fleet:
    spec = document.value["spec"]
    defaults = spec.get("defaults") or {}
    rules = [
        DirectoryRule(
            path=_paths(rule["path"])[0],
            selection=selection_of(rule),
            namespace=rule.get("namespace"),
            create_namespace=bool(rule.get("createNamespace")),
            apply=rules_of(rule.get("apply") or {}, ("spec", "directories", index, "apply")),
            at=("spec", "directories", index),
        )
        for index, rule in enumerate(spec.get("directories") or ())
    ]
    return Fleet(
        name=document.value["metadata"]["name"],
        clusters=_paths(spec["clusters"]),
        applications=_paths(spec["applications"]),
        policies=_paths(spec.get("policies")),
        rollout=defaults.get("rollout") or "standard",
        namespace=defaults.get("namespace"),
        directories=tuple(rules),
        document=document,
    )


def _build_cluster(document: Document, findings: list[Finding]) -> Cluster:
    metadata, spec = document.value["metadata"], document.value.get("spec") or {}
    stale_after_s = duration_s(spec.get("staleAfter"))
    return Cluster(
        name=metadata["name"],
        labels=dict(metadata.get("labels") or {}),
        credentials=spec.get("credentials") or metadata["name"],
        suspend=bool(spec.get("suspend")),
        stale_after_s=120.0 if stale_after_s is None else stale_after_s,
        flink_rest=spec.get("flinkRest") or "serviceProxy",
        not_enforced=tuple(str(finding.path[-1]) for finding in findings if finding.code == "not-yet-enforced"),
        file=document.file,
    )


def _build_application(document: Document, _findings: list[Finding]) -> Application:
    metadata, spec = document.value["metadata"], document.value["spec"]
    rollout: str | None = None
    rollout_at: Path = ("metadata", "name")
    apply = DEFAULT_RULES
    named = list(spec["components"])
    for index, policy in enumerate(spec.get("policies") or ()):
        properties = policy.get("properties") or {}
        at = ("spec", "policies", index, "properties")
        if policy["type"] == "override":
            named += properties["components"]
        elif policy["type"] == "apply":
            apply = rules_of(properties, at)
        elif policy["type"] == "rollout":
            rollout, rollout_at = properties["policy"], (*at, "policy")
    paths = [(component.get("properties") or {}).get("path") for component in named]
    return Application(
        name=metadata["name"],
        labels=_shared(metadata.get("labels") or {}),
        paths=tuple(path for path in paths if isinstance(path, str) and path),
        rollout=rollout,
        rollout_at=rollout_at,
        apply=apply,
        renamed_from=(metadata.get("annotations") or {}).get(RENAMED_FROM) or "",
        document=document,
    )


def _shared(labels: Mapping[str, str]) -> dict[str, str]:
    """A copy whose words are one for all applications that use them."""
    return {common(name): common(value) for name, value in labels.items()}


def _build_policy(document: Document, findings: list[Finding]) -> RolloutPolicy:
    return build_policy(document, findings)


_CHECKS: dict[str, Callable[[Mapping[str, Any]], list[Finding]]] = {
    "Fleet": _check_fleet,
    "Cluster": _check_cluster,
    "Application": _check_application,
    "RolloutPolicy": check_policy,
    "HealthPolicy": check_health_policy,
}
_Value = Fleet | Cluster | Application | RolloutPolicy | HealthPolicy
_BUILDERS: dict[str, Callable[[Document, list[Finding]], _Value]] = {
    "Fleet": _build_fleet,
    "Cluster": _build_cluster,
    "Application": _build_application,
    "RolloutPolicy": _build_policy,
    "HealthPolicy": build_health_policy,
}
