"""Declared Kubernetes objects, made fit for a release.

What a server sets or a person exported by accident (nulls, `status`, `creationTimestamp`, `uid`) is removed; what is
missing and known (the namespace) is added; what an application must not do (another's namespace, a cluster-scoped kind,
our own marks, hooks of other tools) is refused with its place.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.formats import is_dns_label, is_dns_subdomain
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.order import is_cluster_scoped
from reconciler.core.ownership import DECLARABLE_ANNOTATIONS, OWN_PREFIX
from reconciler.core.problems import Problem
from reconciler.core.schema import describe
from reconciler.core.yaml_kube import Document, Path

_SERVER_SET = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "resourceVersion", "selfLink", "uid",
)  # fmt: skip
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_HOOKS = ("helm.sh/hook", "argocd.argoproj.io/hook")
_FLINK_NAME_MAX = 45
_FLINK_GROUP = "flink.apache.org"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a repository's applications may touch. `cluster_scoped` lists kinds, as `Kind` or `Kind.group`, that may be
    declared though they have no namespace; `own_namespace` is the controller's own, which nobody may."""

    cluster_scoped: frozenset[str] = frozenset()
    own_namespace: str = ""

    def allows(self, api_version: str, kind: str) -> bool:
        """True if this cluster-scoped kind may be declared."""
        group, _, _ = api_version.rpartition("/")
        return kind in self.cluster_scoped or f"{kind}.{group}" in self.cluster_scoped


@dataclass(frozen=True, slots=True)
class Located:
    """A declared object and where it stands."""

    manifest: Mapping[str, Any]
    document: Document
    at: Path = ()

    def problem(self, path: Path, code: str, message: str, hint: str = "") -> Problem:
        """A problem at `path` of the object."""
        return self.document.problem((*self.at, *path), code, message, hint)


def normalise(declared: Sequence[Located], namespace: str | None, scope: Scope) -> tuple[list[Manifest], list[Problem]]:
    """The objects of a release in the order they were declared, and what is wrong with them."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    seen: dict[ObjectKey, Located] = {}
    for located in declared:
        for item in _flattened(located, problems):
            wrong = list(_refusals(item, scope))
            manifest = None if wrong else _clean(item, namespace, problems)
            problems += wrong
            if manifest is None:
                continue
            key = ObjectKey.of(manifest)
            if key in seen:
                line, _ = seen[key].document.locate(seen[key].at)
                says = f"{key} is declared twice; the first is at {seen[key].document.file}:{line}"
                problems.append(item.problem(("metadata", "name"), "duplicate-name", says, "keep one of the two"))
                continue
            seen[key] = item
            wrong = list(_wrong_namespace(item, manifest, scope))
            problems += wrong
            if not wrong:
                manifests.append(manifest)
    return manifests, problems


def _flattened(located: Located, problems: list[Problem]) -> Iterator[Located]:
    kind, items = located.manifest.get("kind"), located.manifest.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield located
        return
    for index, item in enumerate(items):
        inner = Located(item if isinstance(item, dict) else {}, located.document, (*located.at, "items", index))
        if isinstance(inner.manifest.get("items"), list) and str(inner.manifest.get("kind")).endswith("List"):
            problems.append(
                inner.problem((), "invalid-value", "a List inside a List", "put its items into the outer one")
            )
        else:
            yield inner


def _refusals(item: Located, scope: Scope) -> Iterator[Problem]:
    manifest = item.manifest
    for field in ("apiVersion", "kind"):
        if not isinstance(manifest.get(field), str) or not manifest[field].strip():
            yield item.problem((field,), "missing-field", f"the field {field!r} is missing or blank")
            return
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        yield item.problem(("metadata",), "missing-field", "the field 'metadata' is missing or blank")
        return
    if metadata.get("generateName"):
        says = "generateName makes another object at every apply"
        yield item.problem(("metadata", "generateName"), "unsupported", says, "give it a name")
        return
    name = metadata.get("name")
    if name is not None and not isinstance(name, str):
        says = f"metadata.name is {describe(name)}, not a string"
        yield item.problem(("metadata", "name"), "invalid-type", says, "put it in quotes to make it a string")
        return
    if not name or not name.strip():
        yield item.problem(("metadata", "name"), "missing-field", "the field 'metadata.name' is missing or blank")
        return
    if len(name) > 253 or any(character in name for character in "/%") or name in (".", ".."):
        yield item.problem(("metadata", "name"), "invalid-value", f"{name[:60]!r} cannot be the name of an object")
    yield from _refused_metadata(item, metadata)
    yield from _refused_kind(item, str(manifest["apiVersion"]), str(manifest["kind"]), name, scope)


def _refused_metadata(item: Located, metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for field in ("labels", "annotations"):
        values = metadata.get(field)
        if values is None:
            continue
        if not isinstance(values, dict):
            yield item.problem(("metadata", field), "invalid-type", f"{field!r} is not a map")
            continue
        for name, value in values.items():
            at: Path = ("metadata", field, name)
            if value is not None and not isinstance(value, str):
                says = f"the value of {name!r} is not a string"
                yield item.problem(at, "invalid-type", says, "put it in quotes to make it a string")
            declarable = field == "annotations" and name in DECLARABLE_ANNOTATIONS
            if name.startswith(OWN_PREFIX) and not declarable:
                yield item.problem(
                    at, "scope", f"{name} is not to be declared: it is the reconciler's own", "remove it"
                )
            if field == "annotations" and name in _HOOKS:
                says = f"{name} makes this a hook of another tool; hooks are not run here"
                yield item.problem(at, "unsupported", says, "remove the object, or the annotation")
    for field in ("ownerReferences", "finalizers"):
        if metadata.get(field):
            says = f"metadata.{field} decide about deletion and cannot be declared"
            yield item.problem(("metadata", field), "scope", says, "remove it")


def _refused_kind(item: Located, api_version: str, kind: str, name: str, scope: Scope) -> Iterator[Problem]:
    group, _, _ = api_version.rpartition("/")
    if is_cluster_scoped(api_version, kind):
        if not scope.allows(api_version, kind):
            says = f"{kind} has no namespace, and the settings do not allow this repository to declare it"
            hint = f"an administrator can add {kind} to `clusterScoped` of the repository"
            yield item.problem(("kind",), "scope", says, hint)
        if item.manifest["metadata"].get("namespace"):
            yield item.problem(("metadata", "namespace"), "invalid-value", f"{kind} has no namespace", "remove it")
    if group == "" and kind == "ServiceAccount" and name == "default":
        says = "the ServiceAccount 'default' belongs to the cluster"
        yield item.problem(("metadata", "name"), "scope", says, "make one with another name")
    if group == _FLINK_GROUP:
        if kind == "FlinkBlueGreenDeployment":
            says = "FlinkBlueGreenDeployment is not supported: its status does not tell which spec it is of"
            yield item.problem(("kind",), "unsupported", says, "use a FlinkDeployment")
        if kind in ("FlinkDeployment", "FlinkSessionJob") and len(name) > _FLINK_NAME_MAX:
            says = f"{name!r} is {len(name)} long: the Flink operator allows {_FLINK_NAME_MAX}"
            yield item.problem(("metadata", "name"), "invalid-value", says)
        if is_dns_subdomain(name):
            yield item.problem(("metadata", "name"), "invalid-value", f"{name!r} is {is_dns_subdomain(name)}")


def _wrong_namespace(item: Located, manifest: Manifest, scope: Scope) -> Iterator[Problem]:
    namespace = manifest["metadata"].get("namespace")
    if is_cluster_scoped(manifest["apiVersion"], manifest["kind"]):
        if manifest["kind"] == "Namespace":
            yield from check_namespace(item, ("metadata", "name"), manifest["metadata"]["name"], scope)
        return
    at: Path = ("metadata", "namespace") if item.manifest["metadata"].get("namespace") is not None else ("metadata",)
    if namespace is None:
        says = f"{ObjectKey.of(manifest)} has no namespace"
        yield item.problem(
            at, "no-namespace", says, "set it, or `namespace` in the topology or in defaults of fleet.yaml"
        )
    else:
        yield from check_namespace(item, at, namespace, scope)


def check_namespace(item: Located, at: Path, namespace: Any, scope: Scope) -> Iterator[Problem]:
    """Refuses what is no namespace, and those that belong to the cluster or to us."""
    if is_dns_label(namespace):
        yield item.problem(at, "invalid-value", f"the namespace {str(namespace)[:80]!r} is {is_dns_label(namespace)}")
    elif namespace.startswith("kube-"):
        yield item.problem(at, "scope", f"the namespace {namespace!r} belongs to the cluster", "use another one")
    elif scope.own_namespace and namespace == scope.own_namespace:
        yield item.problem(at, "scope", f"the namespace {namespace!r} is the reconciler's own", "use another one")


# ---- cleaning ------------------------------------------------------------------------------------------------------


def _clean(item: Located, namespace: str | None, problems: list[Problem]) -> Manifest | None:
    manifest: Manifest = without_nulls(item.manifest)
    manifest.pop("status", None)
    metadata = manifest["metadata"]
    for field in _SERVER_SET:
        metadata.pop(field, None)
    metadata.get("annotations", {}).pop(_LAST_APPLIED, None)
    for field in ("labels", "annotations", "ownerReferences", "finalizers"):
        if field in metadata and not metadata[field]:
            del metadata[field]
    if (
        namespace is not None
        and "namespace" not in metadata
        and not is_cluster_scoped(manifest["apiVersion"], manifest["kind"])
    ):
        metadata["namespace"] = namespace
    if manifest["kind"] == "Secret" and manifest["apiVersion"] == "v1" and "stringData" in manifest:
        return _with_data(item, manifest, problems)
    return manifest


def _with_data(item: Located, manifest: Manifest, problems: list[Problem]) -> Manifest | None:
    """A Secret as the server keeps it: `stringData` is write-only there and would differ for ever."""
    plain, data = manifest.pop("stringData"), manifest.get("data") or {}
    wrong = not isinstance(plain, dict) or not isinstance(data, dict)
    if wrong or not all(isinstance(value, str) for value in plain.values()):
        # The value itself is never shown.
        problems.append(item.problem(("stringData",), "invalid-type", "'stringData' is not a map of strings"))
        return None
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
    manifest["data"] = {**data, **encoded}
    return manifest


def without_nulls(value: Any) -> Any:
    """A copy of `value` in which no map has a null member; a null in a list stays, for a list is positional."""
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
