"""What one cluster says of its kinds, boiled down to what it takes to see that an object does not fit.

An API server publishes an OpenAPI document for each group and version: a megabyte of prose for `v1`. Of all that, a
write fails for good on three things only: a field that is not there, a value of another type, a kind that is not
served. So the document becomes a table of fields and types, and the rest is dropped: descriptions, defaults, limits
and enumerations are the server's own business, which it judges when the object is sent.

    compact(document, "apps", "v1").kinds["Deployment"].fields["spec"]      FieldType(NAMED, "…v1.DeploymentSpec")

The meaning is that of the server's own structured merge, as far as it is certain; where it is not (several
alternatives, an object without fields, a string of an unusual format) the type says less than the server knows, never
more. A document comes from outside: whatever it holds, `compact` ends, at a bounded size, without an error.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: Below this a type says nothing. Kubernetes' own documents name their types and nest them twice, Flink's nest 15 deep.
DEPTH_MAX = 64
#: Types in one document; beyond this they say nothing. Kubernetes' own `v1` has 1,500, Flink's 4,600.
TYPES_MAX = 50_000

_REFERENCE = "#/components/schemas/"
_PRESERVES = "x-kubernetes-preserve-unknown-fields"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Shape(enum.StrEnum):
    """What a value has to be. SCALAR is any of string, number and boolean; ANY is anything; NAMED is the type of that
    name. Null fits everywhere: to a server-side apply it is a value that is not there."""

    ANY = "any"
    SCALAR = "scalar"
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    LIST = "list"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of one field. An OBJECT has `fields`, and `element` is the type of fields beside them, None where there
    may be none; `element` of a LIST is that of its items. `name` is the type that a NAMED one stands for."""

    shape: Shape
    fields: Mapping[str, FieldType] = field(default_factory=lambda: _NOTHING)
    element: FieldType | None = None
    name: str = ""


ANY = FieldType(Shape.ANY)
_PLAIN = {shape: FieldType(shape) for shape in (Shape.SCALAR, Shape.STRING, Shape.NUMBER, Shape.BOOLEAN)}
_SCALARS = {"string": Shape.STRING, "integer": Shape.NUMBER, "number": Shape.NUMBER, "boolean": Shape.BOOLEAN}


@dataclass(frozen=True, slots=True)
class VersionSchema:
    """What a cluster says of one group and version: the type of each kind, and the types that are named in them."""

    kinds: Mapping[str, FieldType] = field(default_factory=lambda: _NOTHING)
    types: Mapping[str, FieldType] = field(default_factory=lambda: _NOTHING)

    def resolved(self, type_: FieldType) -> FieldType:
        """The type itself where `type_` only names it. Names that lead nowhere, or in a circle, say nothing."""
        for _ in range(8):
            if type_.shape is not Shape.NAMED:
                return type_
            type_ = self.types.get(type_.name, ANY)
        return ANY


def compact(document: Any, group: str, version: str) -> VersionSchema:
    """The kinds of `group` and `version` in an OpenAPI v3 document, as read from JSON. Whatever is not as expected says
    nothing."""
    schemas = _mapping(_mapping(document, "components"), "schemas")
    making = _Making()
    kinds = {}
    for name, schema in schemas.items():
        for kind in _kinds_of(schema, group, version):
            kinds[kind] = FieldType(Shape.NAMED, name=name)
            making.named.append(name)
    types: dict[str, FieldType] = {}
    while making.named:
        name = making.named.pop()
        if name not in types:
            types[name] = making.type_of(schemas.get(name), 0, preserves=False)
    return VersionSchema(kinds, types)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else _NOTHING


def _kinds_of(schema: Any, group: str, version: str) -> list[str]:
    marks = schema.get("x-kubernetes-group-version-kind") if isinstance(schema, dict) else None
    return [
        mark["kind"]
        for mark in (marks if isinstance(marks, list) else ())
        if isinstance(mark, dict)
        and (mark.get("group"), mark.get("version")) == (group, version)
        and isinstance(mark.get("kind"), str)
    ]


class _Making:
    """One document while it is boiled down. Equal types are kept once: most of a large schema repeats itself."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self._kept: dict[tuple[object, ...], FieldType] = {}
        self._made = 0

    def type_of(self, schema: Any, depth: int, *, preserves: bool) -> FieldType:
        """The type that `schema` describes. `preserves`: what is around it keeps fields that it does not name, and the
        server's merge passes that on to everything inside."""
        self._made += 1
        if not isinstance(schema, dict) or depth > DEPTH_MAX or self._made > TYPES_MAX:
            return ANY
        reference = _reference_of(schema)
        if reference:
            self.named.append(reference)
            return self._keep(FieldType(Shape.NAMED, name=reference), (Shape.NAMED, reference))
        if _takes_any_scalar(schema):
            return _PLAIN[Shape.SCALAR]
        preserves = preserves or schema.get(_PRESERVES) is True
        type_ = schema.get("type")
        if type_ == "object":
            return self._object(schema, depth, preserves=preserves)
        if type_ == "array":
            item = self.type_of(schema.get("items"), depth + 1, preserves=preserves)
            return self._keep(FieldType(Shape.LIST, element=item), (Shape.LIST, id(item)))
        if type_ == "string" and schema.get("format", "") not in ("", "byte"):
            return _PLAIN[Shape.SCALAR]
        return _PLAIN[_SCALARS[type_]] if isinstance(type_, str) and type_ in _SCALARS else ANY

    def _object(self, schema: Mapping[str, Any], depth: int, *, preserves: bool) -> FieldType:
        properties, others = _mapping(schema, "properties"), schema.get("additionalProperties")
        fields = {name: self.type_of(below, depth + 1, preserves=preserves) for name, below in properties.items()}
        if schema.get("x-kubernetes-embedded-resource") is True:
            fields = {"apiVersion": ANY, "kind": ANY, "metadata": ANY} | fields
        element: FieldType | None = None
        if isinstance(others, dict):
            element = self.type_of(others, depth + 1, preserves=preserves)
        elif others is True or preserves or not fields:
            element = ANY
        identity = (Shape.OBJECT, id(element), *((name, id(fields[name])) for name in sorted(fields)))
        return self._keep(FieldType(Shape.OBJECT, fields or _NOTHING, element), identity)

    def _keep(self, type_: FieldType, identity: tuple[object, ...]) -> FieldType:
        """The one that is kept of all types with this identity; its parts are kept, too, so their ids stay theirs."""
        return self._kept.setdefault(identity, type_)


def _reference_of(schema: Mapping[str, Any]) -> str:
    """The name that `schema` refers to, "" if it does not. With a default or a description beside it, the reference
    stands as the only member of an allOf."""
    reference, whole = schema.get("$ref"), schema.get("allOf")
    if reference is None and isinstance(whole, list) and len(whole) == 1 and isinstance(whole[0], dict):
        reference = whole[0].get("$ref")
    return reference.removeprefix(_REFERENCE) if isinstance(reference, str) else ""


def _takes_any_scalar(schema: Mapping[str, Any]) -> bool:
    """True for int-or-string and for quantities, however they are described."""
    if schema.get("x-kubernetes-int-or-string") is True or schema.get("format") == "int-or-string":
        return True
    if "type" in schema:
        return False
    alternatives = schema.get("oneOf", schema.get("anyOf"))
    return (
        isinstance(alternatives, list)
        and bool(alternatives)
        and all(
            isinstance(one, dict) and isinstance(one.get("type"), str) and one["type"] in _SCALARS
            for one in alternatives
        )
    )
