"""Traits: what operations add to a component, as data.

A `TraitDefinition` of the shipped catalogue says which properties a trait has (a schema), which component types it
applies to, what it cannot stand beside, what it needs, and which paths of the workload it writes. This module is the
interpreter: it turns the traits of one component into writes, and refuses what does not go together *before* anything
is combined, naming file and line of both sides.

    checkpointing {interval: 60s} -> Write("/spec/flinkConfiguration/execution.checkpointing.interval", "60s")
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.documents import TraitUse
from reconciler.core.formats import duration_s
from reconciler.core.problems import Problem
from reconciler.core.schema import Schema, check, suggest, with_defaults
from reconciler.core.yaml_kube import Document, Path


@dataclass(frozen=True, slots=True)
class Patch:
    """One path that a trait writes: from a property (dotted), through a table or a conversion if it names one."""

    path: Path
    source: str
    table: Mapping[str, Any] | None = None
    conversion: str | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """What else must be there: another trait, or one of some paths set by the component itself."""

    trait: str
    or_paths: tuple[Path, ...]
    when_property: str
    when_in: tuple[Any, ...]
    because: str


@dataclass(frozen=True, slots=True)
class TraitDefinition:
    """One trait of the catalogue."""

    name: str
    description: str
    applies_to: tuple[str, ...]
    conflicts_with: tuple[str, ...]
    pod_disruptive: bool
    schema: Schema
    requires: tuple[Requirement, ...]
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A trait and where it stands: in the component, or in an override."""

    use: TraitUse
    document: Document

    def __str__(self) -> str:
        line, _ = self.document.locate(self.use.at)
        return f"{self.document.file}:{line}"

    def problem(self, path: Path, code: str, message: str, hint: str = "") -> Problem:
        """A problem at `path` inside the trait."""
        return self.document.problem((*self.use.at, *path), code, message, hint)


def definition_of(value: Mapping[str, Any]) -> TraitDefinition:
    """The typed value of a shipped TraitDefinition. Shipped data is tested; a mistake in it raises KeyError."""
    spec = value["spec"]
    return TraitDefinition(
        name=value["metadata"]["name"],
        description=spec["description"],
        applies_to=tuple(spec["appliesToWorkloads"]),
        conflicts_with=tuple(spec.get("conflictsWith") or ()),
        pod_disruptive=bool(spec["podDisruptive"]),
        schema=spec["schema"],
        requires=tuple(
            Requirement(
                trait=rule["trait"],
                or_paths=tuple(pointer(path) for path in rule.get("orPaths") or ()),
                when_property=rule["when"]["property"],
                when_in=tuple(rule["when"]["in"]),
                because=rule["because"],
            )
            for rule in spec.get("requires") or ()
        ),
        patches=tuple(
            Patch(pointer(patch["path"]), patch["from"], patch.get("map"), patch.get("as")) for patch in spec["patches"]
        ),
    )


def pointer(text: str) -> Path:
    """A JSON Pointer as a path of keys."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def show(path: Path) -> str:
    """A path as a JSON Pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def property_at(properties: Mapping[str, Any], dotted: str) -> Any:
    """The property `a.b` of `properties`, None if absent."""
    value: Any = properties
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def check_traits(
    component_type: str, places: Sequence[Place], catalogue: Mapping[str, TraitDefinition]
) -> list[Problem]:
    """What is wrong with each trait and with their company, before anything is combined."""
    problems: list[Problem] = []
    seen: dict[str, Place] = {}
    for place in places:
        use = place.use
        definition = catalogue.get(use.type)
        if definition is None:
            says = f"no trait {use.type!r}"
            problems.append(place.problem(("type",), "unknown-trait", says, suggest(use.type, catalogue)))
            continue
        if use.type in seen:
            says = f"the trait {use.type!r} stands twice; the first is at {seen[use.type]}"
            problems.append(place.problem(("type",), "trait-duplicate", says, "merge them into one"))
            continue
        seen[use.type] = place
        if component_type not in definition.applies_to:
            says = f"the trait {use.type!r} does not apply to components of type {component_type!r}"
            hint = f"it applies to {', '.join(definition.applies_to)}"
            problems.append(place.problem(("type",), "trait-applies", says, hint))
        problems += [
            place.problem(finding.path, finding.code, f"trait {use.type!r}: {finding.message}", finding.hint)
            for finding in check(definition.schema, dict(use.properties), ("properties",))
        ]
    return problems + _conflicts(seen, catalogue)


def _conflicts(seen: Mapping[str, Place], catalogue: Mapping[str, TraitDefinition]) -> list[Problem]:
    problems = []
    for name, place in seen.items():
        for other in catalogue[name].conflicts_with:
            if other in seen:
                says = f"the trait {name!r} does not go with {other!r} at {seen[other]}"
                problems.append(place.problem(("type",), "trait-conflict", says, "keep one of the two"))
    return problems


@dataclass(frozen=True, slots=True)
class Write:
    """One value at one path, and who writes it."""

    path: Path
    value: Any
    place: Place
    source: str


def writes_of(place: Place, definition: TraitDefinition) -> list[Write]:
    """What one checked trait writes: only properties that are given or have a default."""
    properties = with_defaults(definition.schema, place.use.properties)
    writes = []
    for patch in definition.patches:
        value = property_at(properties, patch.source)
        if value is not None:
            writes.append(Write(patch.path, _converted(patch, value), place, patch.source))
    return writes


def _converted(patch: Patch, value: Any) -> Any:
    if patch.table is not None:
        key = str(value).lower() if isinstance(value, bool) else str(value)
        return patch.table[key]
    if patch.conversion == "flink-duration":
        return flink_duration(value)
    return value


def flink_duration(text: str) -> str:
    """A duration as Flink reads it: one number with one unit. "1h30m" becomes "5400s"."""
    parts = sum(character.isalpha() for character in text.replace("ms", "s"))
    if parts == 1:
        return text
    seconds = duration_s(text) or 0.0
    return f"{int(seconds)}s" if seconds.is_integer() else f"{round(seconds * 1000)}ms"


def missing_prerequisites(
    places: Sequence[Place], workload: Mapping[str, Any], catalogue: Mapping[str, TraitDefinition]
) -> list[Problem]:
    """Traits that need another one, or a path, that is not there."""
    names = {place.use.type for place in places}
    problems = []
    for place in places:
        for rule in catalogue[place.use.type].requires:
            value = property_at(place.use.properties, rule.when_property)
            if value not in rule.when_in or rule.trait in names:
                continue
            if any(value_at(workload, path) is not None for path in rule.or_paths):
                continue
            says = f"{place.use.type!r} with {rule.when_property} {value!r} needs the trait {rule.trait!r}"
            hint = f"{rule.because}; add the trait {rule.trait!r}"
            at = ("properties", rule.when_property)
            problems.append(place.problem(at, "missing-prerequisite", says, hint))
    return problems


def value_at(workload: Mapping[str, Any], path: Path) -> Any:
    """The value at `path`, None if there is none."""
    value: Any = workload
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def combine(
    workload: Mapping[str, Any], writes: Sequence[Write], declared_at: Callable[[Path], str]
) -> tuple[dict[str, Any], list[Problem]]:
    """`workload` with all `writes` in it. Two writers with different values for one path are a problem that names both;
    `declared_at` says in which file and line the component declares a path of the workload."""
    combined = copy.deepcopy(dict(workload))
    problems: list[Problem] = []
    written: dict[Path, Write] = {}
    for write in writes:
        earlier = written.get(write.path)
        present = value_at(workload, write.path)
        if earlier is not None and earlier.value != write.value:
            who = f"the trait {earlier.place.use.type!r} at {earlier.place}"
            problems.append(_clash(write, earlier.value, who))
        elif present is not None and present != write.value:
            problems.append(_clash(write, present, f"the component at {declared_at(write.path)}"))
        else:
            written[write.path] = write
            _set(combined, write.path, write.value)
    return combined, problems


def _clash(write: Write, other: Any, who: str) -> Problem:
    trait = write.place.use.type
    says = f"the trait {trait!r} sets {show(write.path)} to {write.value!r}, and {who} to {other!r}"
    at: Path = ("properties", *write.source.split("."))
    return write.place.problem(at, "write-conflict", says, "keep one of the two")


def _set(target: dict[str, Any], path: Path, value: Any) -> None:
    for step in path[:-1]:
        child = target.get(str(step))
        if not isinstance(child, dict):
            child = {}
            target[str(step)] = child
        target = child
    target[str(path[-1])] = value
