"""Application x clusters -> releases.

Clusters that get the same (the same overrides apply, in the same namespace) are one *variant*, compiled once: a
thousand clusters with three kinds of overrides cost three compilations, and share three releases.

    application + cluster -> variant -> effective components -> objects -> Release(digest)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.components import COMPONENT_TYPES, LATER_TYPES
from reconciler.core.components.effective import Context, effective
from reconciler.core.documents import Application, Cluster, DirectoryRule, Override, Selection, Topology
from reconciler.core.model import Manifest, ObjectKey, Release, release_of
from reconciler.core.objects import Located, Scope, check_namespace, normalise
from reconciler.core.order import in_apply_order
from reconciler.core.packed import PackedMap, common
from reconciler.core.problems import Problem, has_errors
from reconciler.core.schema import suggest
from reconciler.core.traits import TraitDefinition
from reconciler.core.yaml_kube import Document


@dataclass(frozen=True, slots=True)
class Variant:
    """What decides what a cluster gets of an application: which overrides apply, and the namespace."""

    overrides: tuple[int, ...]
    namespace: str | None
    create_namespace: bool


class Releases(PackedMap[str, Release]):
    """The releases of one application by digest, packed. Two are equal if their digests are."""

    __slots__ = ("_application",)

    def __init__(self, application: str = "", releases: Iterable[Release] = ()) -> None:
        super().__init__({release.digest: release.objects for release in releases})
        self._application = application

    def _made(self, key: str, value: Any) -> Release:
        return Release(key, self._application, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Releases):
            return NotImplemented
        return self.keys() == other.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self))

    def __repr__(self) -> str:
        return f"Releases({self._application!r}, {list(self)})"


NO_RELEASES = Releases()


@dataclass(frozen=True, slots=True)
class Compiled:
    """The releases of one application. `by_cluster` has a digest for each cluster whose variant compiled, `variants`
    those of the variants; `claims` are the objects of all releases, each with the clusters it goes to."""

    by_cluster: Mapping[str, str]
    releases: Releases
    problems: tuple[Problem, ...]
    variants: Mapping[Variant, str] = field(default_factory=dict)
    claims: Mapping[ObjectKey, frozenset[str]] = field(default_factory=dict)
    variants_compiled: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What compiling needs besides the application and the clusters. `name` is "fleet/name"; `namespace` is the
    fleet's default; `directory` holds the plain documents per directory."""

    name: str
    namespace: str | None
    traits: Mapping[str, TraitDefinition]
    scope: Scope
    directory: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)


def select(application: Application, clusters: Mapping[str, Cluster]) -> tuple[dict[str, Variant], list[Problem]]:
    """The variant of each cluster the application goes to."""
    document, problems = application.document, list(_unknown_clusters(application, clusters))
    variants: dict[str, Variant] = {}
    chosen: dict[str, Topology] = {}
    for name in sorted(clusters):
        cluster = clusters[name]
        for topology in application.topologies:
            if not topology.selection.takes(cluster):
                continue
            first = chosen.setdefault(name, topology)
            if first.namespace != topology.namespace:
                line, _ = document.locate(first.at)
                says = f"{name} is selected twice, with another namespace at {document.file}:{line}"
                problems.append(document.problem((*topology.at, "namespace"), "write-conflict", says, "keep one"))
        if name in chosen:
            applying = tuple(i for i, override in enumerate(application.overrides) if override.selection.takes(cluster))
            variants[name] = Variant(applying, chosen[name].namespace, chosen[name].create_namespace)
    if not variants and not problems:
        at = application.topologies[0].at
        says = f"the application {application.name!r} has no targets: no cluster matches {_selections(application)}"
        problems.append(document.problem(at, "no-targets", says, "check the labels of the Cluster documents"))
    return variants, problems


def _selections(application: Application) -> str:
    return " or ".join(str(topology.selection) for topology in application.topologies)


def _unknown_clusters(application: Application, clusters: Mapping[str, Cluster]) -> Iterable[Problem]:
    policies: list[Topology | Override] = [*application.topologies, *application.overrides]
    for policy in policies:
        for index, name in enumerate(policy.selection.names or ()):
            if name not in clusters:
                at = (*policy.at, "clusters", index)
                says = f"no cluster {name!r}"
                yield application.document.problem(at, "unknown-cluster", says, suggest(name, clusters))


def compile_application(
    application: Application,
    clusters: Mapping[str, Cluster],
    inputs: Inputs,
    known: Mapping[Variant, Release] | None = None,
) -> Compiled:
    """All releases of one application. `known` are variants compiled before from the same application and inputs: when
    only clusters changed, most of them still hold."""
    selected, problems = select(application, clusters)
    compiled: dict[Variant, Release | None] = {}
    count = 0
    for variant in dict.fromkeys(selected.values()):
        if known and variant in known:
            compiled[variant] = known[variant]
            continue
        count += 1
        objects, wrong = _compile_variant(application, variant, inputs)
        problems += wrong
        compiled[variant] = None if has_errors(wrong) else release_of(inputs.name, objects)
    return _compiled(inputs.name, selected, compiled, problems, count)


def _compiled(
    name: str,
    selected: Mapping[str, Variant],
    compiled: Mapping[Variant, Release | None],
    problems: list[Problem],
    count: int,
) -> Compiled:
    releases = {release.digest: release for release in compiled.values() if release is not None}
    variants = {variant: release.digest for variant, release in compiled.items() if release is not None}
    by_cluster = {cluster: variants[variant] for cluster, variant in selected.items() if variant in variants}
    claims = _claims_of(by_cluster, releases.values())
    # Variants have most of their mistakes in common.
    found = tuple(dict.fromkeys(problems))
    return Compiled(by_cluster, Releases(name, releases.values()), found, variants, claims, count)


def _claims_of(by_cluster: Mapping[str, str], releases: Iterable[Release]) -> dict[ObjectKey, frozenset[str]]:
    """The objects of all releases, each with the clusters it goes to."""
    names: dict[str, set[str]] = {}
    for cluster, digest in by_cluster.items():
        names.setdefault(digest, set()).add(cluster)
    clusters = {digest: frozenset(found) for digest, found in names.items()}
    claims: dict[ObjectKey, frozenset[str]] = {}
    for release in releases:
        here = clusters.get(release.digest, frozenset())
        for manifest in release.objects:
            key = ObjectKey(*map(common, ObjectKey.of(manifest)))
            before = claims.get(key)
            claims[key] = here if before is None else before | here
    return claims


def _compile_variant(
    application: Application, variant: Variant, inputs: Inputs
) -> tuple[tuple[Manifest, ...], list[Problem]]:
    document = application.document
    context = Context(document, inputs.traits, inputs.directory)
    namespace = variant.namespace or inputs.namespace
    located: list[Located] = []
    problems: list[Problem] = []
    for component in application.components:
        kind = COMPONENT_TYPES.get(component.type)
        if kind is None:
            problems.append(_unknown_type(document, component.type, (*component.at, "type")))
            continue
        changes = [
            change
            for index in variant.overrides
            for change in application.overrides[index].components
            if change.name == component.name
        ]
        objects, wrong = kind.render(effective(component, changes, document), context)
        located += objects
        problems += wrong
    manifests, wrong = normalise(located, namespace, inputs.scope)
    problems += wrong
    if variant.create_namespace:
        manifests = _with_namespace(manifests, namespace, application, inputs.scope, problems)
    return in_apply_order(manifests), problems


def _unknown_type(document: Document, name: str, at: tuple[str | int, ...]) -> Problem:
    if name in LATER_TYPES:
        says = f"components of type {name!r} are not supported by this version"
        return document.problem(at, "unsupported", says, f"supported: {', '.join(sorted(COMPONENT_TYPES))}")
    hint = suggest(name, [*COMPONENT_TYPES, *LATER_TYPES])
    return document.problem(at, "unknown-component-type", f"no component type {name!r}", hint)


def _with_namespace(
    manifests: list[Manifest], namespace: str | None, application: Application, scope: Scope, problems: list[Problem]
) -> list[Manifest]:
    at = (*application.topologies[0].at, "createNamespace")
    if namespace is None:
        says = "createNamespace needs a namespace"
        problems.append(application.document.problem(at, "no-namespace", says, "set `namespace` beside it"))
        return manifests
    own = namespace_object(namespace)
    problems += check_namespace(Located(own, application.document, ()), at, namespace, scope)
    if any(ObjectKey.of(manifest) == ObjectKey.of(own) for manifest in manifests):
        return manifests
    return [own, *manifests]


def namespace_object(name: str) -> Manifest:
    """The Namespace that `createNamespace` adds."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def compile_directory(
    documents: Iterable[Document], clusters: Mapping[str, Cluster], rule: DirectoryRule | None, inputs: Inputs
) -> Compiled:
    """The releases of a directory of plain YAML: its objects as they were declared, on every cluster unless `rule`
    narrows it."""
    selection = rule.selection if rule else Selection({})
    namespace = (rule.namespace if rule else None) or inputs.namespace
    targets = [name for name in sorted(clusters) if selection.takes(clusters[name])]
    manifests, problems = normalise(
        [Located(document.value, document) for document in documents], namespace, inputs.scope
    )
    if rule and rule.create_namespace and namespace:
        manifests = [namespace_object(namespace), *manifests]
    variant = Variant((), namespace, create_namespace=False)
    release = None if has_errors(problems) else release_of(inputs.name, in_apply_order(manifests))
    return _compiled(inputs.name, dict.fromkeys(targets, variant), {variant: release}, problems, 1)
