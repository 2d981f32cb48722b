"""What the documents of a fleet repository say, as typed values.

`parse` makes them; nothing here is checked again. Each value that a later problem may point at keeps the path at which
it stands in its document.

    Fleet        what to read, and defaults
    Cluster      a name, labels, and how to reach it
    Application  components with traits, and policies: where (topology), what differs (override), how (rollout)
    RolloutPolicy  waves
    HealthPolicy   custom health (health_rules.py)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.apply_rules import ApplyRules
from reconciler.core.formats import Amount
from reconciler.core.health_rules import HealthPolicy
from reconciler.core.packed import UNPACKED_MAX
from reconciler.core.problems import Problem, Severity
from reconciler.core.yaml_kube import Document, Path

OAM_VERSION = "core.oam.dev/v1beta1"
OWN_VERSION = "reconciler.dev/v1alpha1"


def matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """True if `labels` has every pair of `wanted`; nothing wanted matches everything."""
    return all(labels.get(name) == value for name, value in wanted.items())


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster. `credentials` is a name that the daemon's settings resolve; `not_enforced` names fields of its
    document that this version does not act on."""

    name: str
    labels: Mapping[str, str]
    credentials: str
    suspend: bool = False
    stale_after_s: float = 120.0
    flink_rest: str = "serviceProxy"
    not_enforced: tuple[str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which clusters: those named, or those with all the labels."""

    labels: Mapping[str, str]
    names: tuple[str, ...] | None = None

    def takes(self, cluster: Cluster) -> bool:
        """True if `cluster` is selected."""
        return cluster.name in self.names if self.names is not None else matches(cluster.labels, self.labels)

    def __str__(self) -> str:
        if self.names is not None:
            return f"clusters {', '.join(self.names)}"
        return "labels " + ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items()))


EVERY_CLUSTER = Selection({})


@dataclass(frozen=True, slots=True)
class DirectoryRule:
    """Where a directory of plain YAML goes, if not to every cluster."""

    path: str
    selection: Selection
    namespace: str | None
    create_namespace: bool
    apply: ApplyRules
    at: Path


@dataclass(frozen=True, slots=True)
class Fleet:
    """`fleet.yaml`: paths are directories or globs relative to the repository's root."""

    name: str
    clusters: tuple[str, ...]
    applications: tuple[str, ...]
    policies: tuple[str, ...]
    rollout: str
    namespace: str | None
    directories: tuple[DirectoryRule, ...]
    document: Document


@dataclass(frozen=True, slots=True)
class TraitUse:
    """One trait of a component, or of an override."""

    type: str
    properties: Mapping[str, Any]
    at: Path


@dataclass(frozen=True, slots=True)
class Component:
    """One component of an application."""

    name: str
    type: str
    properties: Mapping[str, Any]
    traits: tuple[TraitUse, ...]
    at: Path


@dataclass(frozen=True, slots=True)
class Topology:
    """Where an application goes."""

    selection: Selection
    namespace: str | None
    create_namespace: bool
    at: Path


@dataclass(frozen=True, slots=True)
class ComponentOverride:
    """What differs in one component."""

    name: str
    properties: Mapping[str, Any]
    traits: tuple[TraitUse, ...]
    at: Path


@dataclass(frozen=True, slots=True)
class Override:
    """What differs on some clusters."""

    selection: Selection
    components: tuple[ComponentOverride, ...]
    at: Path


@dataclass(frozen=True, slots=True)
class Parts:
    """What compiling an application needs besides its name."""

    components: tuple[Component, ...]
    topologies: tuple[Topology, ...]
    overrides: tuple[Override, ...]


@dataclass(frozen=True, slots=True)
class Application:
    """One application, as declared. `rollout` is the policy's name, None for the fleet's default; `paths` are what its
    components name. Its parts are read from the document when they are asked for: of most applications of a fleet the
    next commit asks for none."""

    name: str
    labels: Mapping[str, str]
    paths: tuple[str, ...]
    rollout: str | None
    rollout_at: Path
    apply: ApplyRules
    renamed_from: str
    document: Document

    @property
    def components(self) -> tuple[Component, ...]:
        """What it is made of."""
        return parts_of(self.document).components

    @property
    def topologies(self) -> tuple[Topology, ...]:
        """Where it goes."""
        return parts_of(self.document).topologies

    @property
    def overrides(self) -> tuple[Override, ...]:
        """What differs on some clusters."""
        return parts_of(self.document).overrides


@functools.lru_cache(maxsize=UNPACKED_MAX)
def parts_of(document: Document) -> Parts:
    """The parts of a checked Application document."""
    spec = document.value["spec"]
    components = []
    for index, component in enumerate(spec["components"]):
        at: Path = ("spec", "components", index)
        properties = component.get("properties") or {}
        components.append(Component(component["name"], component["type"], properties, _traits(component, at), at))
    topologies, overrides = [], []
    for index, policy in enumerate(spec.get("policies") or ()):
        properties = policy.get("properties") or {}
        at = ("spec", "policies", index, "properties")
        if policy["type"] == "topology":
            create = bool(properties.get("createNamespace"))
            topologies.append(Topology(selection_of(properties), properties.get("namespace"), create, at))
        elif policy["type"] == "override":
            overrides.append(Override(selection_of(properties), _component_overrides(properties, at), at))
    return Parts(tuple(components), tuple(topologies), tuple(overrides))


def selection_of(value: Mapping[str, Any]) -> Selection:
    """The clusters that a checked topology, override or directory selects."""
    if value.get("clusters") is not None:
        return Selection({}, tuple(value["clusters"]))
    labels = value.get("clusterLabelSelector")
    return Selection(labels) if labels else EVERY_CLUSTER


def _traits(value: Mapping[str, Any], at: Path) -> tuple[TraitUse, ...]:
    return tuple(
        TraitUse(trait["type"], trait.get("properties") or {}, (*at, "traits", index))
        for index, trait in enumerate(value.get("traits") or ())
    )


def _component_overrides(properties: Mapping[str, Any], at: Path) -> tuple[ComponentOverride, ...]:
    overrides = []
    for index, component in enumerate(properties["components"]):
        place = (*at, "components", index)
        changes = component.get("properties") or {}
        overrides.append(ComponentOverride(component["name"], changes, _traits(component, place), place))
    return tuple(overrides)


@dataclass(frozen=True, slots=True)
class WaveSpec:
    """One wave as declared: it takes the targets that `clusters` and `applications` labels match, or a share."""

    name: str
    clusters: Mapping[str, str] | None
    applications: Mapping[str, str] | None
    size: Amount | None
    bake_s: float
    max_concurrent: Amount
    max_failures: Amount
    max_unreachable: Amount | None
    approval: str | None = None
    not_enforced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a change goes through its targets. `not_enforced` names what keeps all of its waves closed."""

    name: str
    waves: tuple[WaveSpec, ...]
    progress_deadline_s: float
    on_failure: str
    mandatory: bool
    max_unreachable: Amount
    max_deletes: Amount
    digest: str
    not_enforced: tuple[str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """One document: what it is, and what is wrong with it. `value` is None if it has errors.

    `kind` is "" for a plain Kubernetes object, whose `value` is the manifest as it was written."""

    kind: str
    name: str
    document: Document
    value: Fleet | Cluster | Application | RolloutPolicy | HealthPolicy | Mapping[str, Any] | None
    problems: tuple[Problem, ...] = ()

    @property
    def broken(self) -> bool:
        """True if an error keeps it from being used."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)

    def packed(self) -> Parsed:
        """The same in less memory. Of a plain object what it says is left to its document."""
        document, value = self.document.packed(), self.value
        if isinstance(value, Application):
            value = replace(value, document=document)
        return replace(self, document=document, value=None if self.kind == "" else value)
