"""A component as one cluster gets it: what it declares, with the overrides for that cluster merged in.

Maps are merged, lists and scalars are replaced, null removes; of two overrides the later wins. Where a property stands
is still known after the merge, so that a problem points into the override that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.documents import Component, ComponentOverride, TraitUse
from reconciler.core.problems import Problem
from reconciler.core.schema import Finding
from reconciler.core.traits import Place, TraitDefinition
from reconciler.core.yaml_kube import Document, Path


@dataclass(frozen=True, slots=True)
class Context:
    """What a component type may look at besides the component. `directory` holds, per directory below the application's
    own, the plain documents in it, for components that name a path."""

    document: Document
    traits: Mapping[str, TraitDefinition]
    directory: Mapping[str, tuple[Document, ...]]


@dataclass(frozen=True, slots=True)
class Effective:
    """One component for one variant. `layers` are the declarations it was merged of, the strongest last."""

    name: str
    type: str
    properties: Mapping[str, Any]
    traits: tuple[Place, ...]
    document: Document
    at: Path
    layers: tuple[tuple[Mapping[str, Any], Path], ...]

    def place_of(self, path: Path) -> Path:
        """Where in the document the property at `path` was declared."""
        for properties, at in reversed(self.layers):
            if _declares(properties, path):
                return (*at, "properties", *path)
        return (*self.at, "properties", *path)

    def problem(self, path: Path, code: str, message: str, hint: str = "") -> Problem:
        """A problem at a property."""
        return self.document.problem(self.place_of(path), code, message, hint)

    def problem_of(self, finding: Finding) -> Problem:
        """A finding about the properties, located."""
        place = self.place_of(finding.path)
        return self.document.problem(place, finding.code, finding.message, finding.hint, finding.severity)

    def line_of(self, path: Path) -> str:
        """File and line of the property at `path`."""
        line, _ = self.document.locate(self.place_of(path))
        return f"{self.document.file}:{line}"


def _declares(properties: Any, path: Path) -> bool:
    for step in path:
        if isinstance(properties, Mapping) and step in properties:
            properties = properties[str(step)]
        elif isinstance(properties, list) and isinstance(step, int) and step < len(properties):
            properties = properties[step]
        else:
            return False
    return True


def effective(component: Component, overrides: Sequence[ComponentOverride], document: Document) -> Effective:
    """`component` with the `overrides` of it that apply, in order."""
    properties: Any = component.properties
    layers = [(component.properties, component.at)]
    places = [Place(trait, document) for trait in component.traits]
    for override in overrides:
        properties = merge(properties, override.properties)
        layers.append((override.properties, override.at))
        places = _merge_traits(places, override.traits, document)
    return Effective(component.name, component.type, properties, tuple(places), document, component.at, tuple(layers))


def _merge_traits(places: list[Place], traits: tuple[TraitUse, ...], document: Document) -> list[Place]:
    merged = list(places)
    for trait in traits:
        for index, place in enumerate(merged):
            if place.use.type == trait.type:
                # The override's place: its properties are the ones that were added last.
                properties = merge(place.use.properties, trait.properties)
                merged[index] = Place(TraitUse(trait.type, properties, trait.at), document)
                break
        else:
            merged.append(Place(trait, document))
    return merged


def merge(base: Any, change: Any) -> Any:
    """`base` with `change` in it, neither of them changed."""
    if not isinstance(base, Mapping) or not isinstance(change, Mapping):
        return change
    merged = dict(base)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged[name], value) if name in merged else value
    return merged
