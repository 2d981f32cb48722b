"""Does an object fit what one cluster serves? Asked before anything of a release is written there.

Clusters differ in age: the field that a newer operator's CRD brought is refused by an older one, and by then the
objects that come earlier in the order are written. So every object is held against the schema of the very cluster
first, and one that does not fit blocks that target alone.

    mismatches(flink_deployment, served)
    (Mismatch(place=("spec", "resources"), message="is not a field"),)

It says only what is certain, and nothing of values (they may be secret): limits, enumerations, required fields and
names are for the server to judge. The server takes whatever this passes by mistake just as it would have without it;
the other way round a good release would be held up, so what is in doubt passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reconciler.core.cluster_schema import FieldType, Shape, VersionSchema
from reconciler.core.diff_walk import Item, Place, display
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.core.values import clean_text, pointer

#: One is enough to refuse; a few tell what kind of trouble it is.
MISMATCHES_MAX = 3
#: Documents are less deep (the parser sees to it); what is deeper passes.
DEPTH_MAX = 200
PATH_CHARACTERS_MAX = 200

_EXPECTED = {
    Shape.STRING: "a string",
    Shape.NUMBER: "a number",
    Shape.BOOLEAN: "true or false",
    Shape.SCALAR: "a single value",
    Shape.OBJECT: "a map",
    Shape.LIST: "a list",
}
_SHAPES = {
    str: Shape.STRING,
    bool: Shape.BOOLEAN,
    int: Shape.NUMBER,
    float: Shape.NUMBER,
    dict: Shape.OBJECT,
    list: Shape.LIST,
}
_CRD = ("apiextensions.k8s.io", "CustomResourceDefinition")
_API_SERVICE = ("apiregistration.k8s.io", "APIService")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One place of an object that the schema does not know, or knows as another type. `message` goes on after the
    place."""

    place: Place
    message: str

    def pointer(self) -> str:
        """The place as a JSON Pointer."""
        return pointer(tuple(step.position if isinstance(step, Item) else step for step in self.place))

    def __str__(self) -> str:
        return f"{clean_text(display(self.place), PATH_CHARACTERS_MAX)} {self.message}"


def mismatches(manifest: Manifest, served: VersionSchema) -> tuple[Mismatch, ...]:
    """Where `manifest` does not fit its kind in `served`, the schema of its own group and version; at most
    MISMATCHES_MAX. () where it fits, and where the schema says nothing of its kind."""
    kind = served.kinds.get(str(manifest.get("kind")))
    found: list[Mismatch] = []
    if kind is not None:
        _look(manifest, kind, (), served, found)
    return tuple(found[:MISMATCHES_MAX])


def _look(value: Any, type_: FieldType, place: Place, served: VersionSchema, found: list[Mismatch]) -> None:
    """Add to `found` what does not fit at `place` and below."""
    if type_.shape is Shape.NAMED:
        type_ = served.resolved(type_)
    if value is None or type_.shape is Shape.ANY or len(place) > DEPTH_MAX or len(found) >= MISMATCHES_MAX:
        return
    if not _fits(value, type_.shape):
        found.append(Mismatch(place, f"must be {_EXPECTED[type_.shape]} and is {_EXPECTED[_shape_of(value)]}"))
    elif isinstance(value, dict):
        fields, element = type_.fields, type_.element
        for name, below in value.items():
            expected = fields.get(name, element)
            if expected is None:
                found.append(Mismatch((*place, name), "is not a field"))
            elif not _fits(below, expected.shape) or isinstance(below, dict | list):
                _look(below, expected, (*place, name), served, found)
    elif isinstance(value, list) and type_.element is not None:
        for position, below in enumerate(value):
            _look(below, type_.element, (*place, _item(position, below)), served, found)


def _fits(value: Any, shape: Shape) -> bool:
    """True if `value` is of this shape, whatever it holds. (A name fits nothing: the type it stands for is asked.)"""
    found = _shape_of(value)
    if found is shape or found is Shape.ANY:
        return True
    return shape is Shape.SCALAR and found not in (Shape.OBJECT, Shape.LIST)


def _shape_of(value: Any) -> Shape:
    found = _SHAPES.get(value.__class__)
    if found is None:
        found = next((shape for kind, shape in _SHAPES.items() if isinstance(value, kind)), Shape.ANY)
    return found


def _item(position: int, value: Any) -> Item:
    """Items are told apart by their name where they have one."""
    name = value.get("name") if isinstance(value, dict) else None
    return Item(position, f"name={name}" if isinstance(name, str) else str(position))


# ---- what comes with a release -------------------------------------------------------------------------------------


def kinds_brought(manifests: Iterable[Manifest]) -> frozenset[tuple[str, str]]:
    """(group, kind) that `manifests` themselves define: what the cluster says of these now is not what it will say when
    their objects are written. For an API server of its own the kind is "": all of the group."""
    found = set()
    for manifest in manifests:
        key, spec = ObjectKey.of(manifest), manifest.get("spec")
        if isinstance(spec, dict) and (key.group, key.kind) == _CRD and isinstance(spec.get("names"), dict):
            found.add((str(spec.get("group")), str(spec["names"].get("kind"))))
        elif isinstance(spec, dict) and (key.group, key.kind) == _API_SERVICE:
            found.add((str(spec.get("group")), ""))
    return frozenset(found)


# ---- what people are told ------------------------------------------------------------------------------------------


def schema_mismatch(manifest: Manifest, found: tuple[Mismatch, ...], cluster: str, version: str) -> Reason:
    """Why `cluster`, whose API server is of `version` ("" if not known), cannot take `manifest`."""
    api_version = clean_text(manifest.get("apiVersion", ""), PATH_CHARACTERS_MAX)
    where = f"in {api_version} as cluster {cluster}{_of(version)} serves it"
    return Reason("SchemaMismatch", f"{ObjectKey.of(manifest)}: {'; '.join(map(str, found))} {where}")


def kind_missing(manifest: Manifest, cluster: str, version: str) -> Reason:
    """Why `cluster` cannot take `manifest`: it does not serve the kind, and nothing in the release brings it."""
    key, api_version = ObjectKey.of(manifest), clean_text(manifest.get("apiVersion", ""), PATH_CHARACTERS_MAX)
    return Reason("KindMissing", f"{key}: cluster {cluster}{_of(version)} does not serve {api_version} {key.kind}")


def _of(version: str) -> str:
    return f" (Kubernetes {clean_text(version, 40)})" if version else ""
