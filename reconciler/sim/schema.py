"""Types: what the simulated API server knows about each kind, read from the tables in `schemas/`.

The tables are derived from a real API server and from the Flink operator's CRDs (`make schemas`; their format is
described there). Here they become trees of `Node`, one per type, which the merge walks, and `Resource`, one per kind
that is served. A cluster may serve less than the tables hold, or other versions of a type: `Catalog.variant` returns a
catalog without some kinds, or with fields removed, which is how clusters of different ages are simulated.

    catalog = load_catalog()
    catalog.resource("flink.apache.org", "v1beta1", "flinkdeployments").node.fields["spec"].fields["image"].scalar
    catalog.variant(without_kinds=["FlinkSessionJob"], without_fields={"FlinkDeployment": [("spec", "restartNonce")]})
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

import orjson

Table = Mapping[str, Any]
SCALARS = {"string": "string", "integer": "numeric", "number": "numeric", "boolean": "boolean", "scalar": "untyped"}


class Shape(enum.Enum):
    """How a value is walked."""

    SCALAR = "scalar"
    MAP = "map"
    LIST = "list"
    ANY = "any"


class Node:
    """A type. `fields` are a struct's declared fields, `element` is the type of other map values or of list items."""

    __slots__ = (
        "always", "associative", "atomic", "defaults", "element", "enums", "fields", "integer", "key_defaults", "keys",
        "limits", "name", "nullable", "required", "scalar", "shape", "struct",
    )  # fmt: skip

    def __init__(self, shape: Shape, name: str = "") -> None:
        self.shape = shape
        self.name = name
        self.scalar = ""
        self.integer = False
        self.fields: dict[str, Node] = {}
        self.element: Node | None = None
        self.keys: tuple[str, ...] = ()
        self.key_defaults: dict[str, Any] = {}
        self.atomic = False
        self.associative = False
        self.struct = False
        self.defaults: dict[str, Any] = {}
        self.enums: dict[str, list[Any]] = {}
        self.limits: dict[str, dict[str, Any]] = {}
        self.required: tuple[str, ...] = ()
        self.nullable: frozenset[str] = frozenset()
        self.always: tuple[str, ...] = ()

    def copy(self) -> Node:
        """A shallow copy, for variants."""
        twin = Node(self.shape)
        for slot in Node.__slots__:
            setattr(twin, slot, getattr(self, slot))
        return twin

    def child(self, key: str) -> Node | None:
        """The type of a map's value under this key; None where the field is not declared."""
        found = self.fields.get(key)
        if found is not None:
            return found
        return self if self.shape is Shape.ANY else self.element


ANY = Node(Shape.ANY)


@dataclass(frozen=True, slots=True)
class Resource:
    """One served kind."""

    group: str
    version: str
    kind: str
    list_kind: str
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    subresources: tuple[str, ...]
    custom: bool
    columns: tuple[Mapping[str, Any], ...]
    node: Node = field(repr=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The plural with its group, as "not found" names it: flinkdeployments.flink.apache.org."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """The kind with its group, as "is invalid" names it: FlinkDeployment.flink.apache.org."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def storage(self) -> str:
        """Versions of one kind share their objects."""
        return f"{self.group}/{self.plural}"


class Catalog:
    """The kinds one cluster serves."""

    def __init__(self, served: Iterable[Resource]) -> None:
        self.resources = tuple(sorted(served, key=lambda one: (one.group, one.version, one.plural)))
        self._by_path = {(one.group, one.version, one.plural): one for one in self.resources}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        for one in self.resources:
            self._by_kind.setdefault((one.group, one.kind), one)
        self.groups = tuple(sorted({one.group for one in self.resources}))

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        """The kind served under this path, if any."""
        return self._by_path.get((group, version, plural))

    def kind(self, group: str, kind: str) -> Resource:
        """The kind of this name. KeyError when the cluster does not serve it."""
        return self._by_kind[(group, kind)]

    def variant(
        self,
        *,
        without_kinds: Iterable[str] = (),
        without_fields: Mapping[str, Iterable[tuple[str, ...]]] | None = None,
    ) -> Catalog:
        """A catalog that lacks some kinds, or some fields of a kind (each a path of field names)."""
        gone, cut = set(without_kinds), without_fields or {}
        served = []
        for one in self.resources:
            if one.kind in gone:
                continue
            node = one.node
            for path in cut.get(one.kind, ()):
                node = _without(node, path)
            served.append(one if node is one.node else replace(one, node=node))
        return Catalog(served)


def _without(node: Node, path: tuple[str, ...]) -> Node:
    head, rest = path[0], path[1:]
    if head not in node.fields:
        raise ValueError(f"no field {head!r} to remove")
    twin = node.copy()
    twin.fields = dict(node.fields)
    if rest:
        twin.fields[head] = _without(node.fields[head], rest)
    else:
        del twin.fields[head]
        twin.required = tuple(name for name in node.required if name != head)
    return twin


class _Compiler:
    """Turns table types into nodes, each named type once (types may be recursive)."""

    def __init__(self, types: Table, server_defaults: Table) -> None:
        self._types = types
        self._server_defaults = server_defaults
        self._named: dict[str, Node] = {}
        self._later: list[Callable[[], None]] = []

    def compile(self, type_: Any) -> Node:
        """The node of a type; list-map key defaults are filled in once all nodes exist."""
        node = self._node(type_)
        while self._later:
            self._later.pop()()
        return node

    def _node(self, type_: Any) -> Node:
        if isinstance(type_, str) and type_.startswith("#"):
            return self._reference(type_[1:])
        node = Node(Shape.ANY)
        self._fill(node, type_)
        return node

    def _reference(self, name: str) -> Node:
        known = self._named.get(name)
        if known is None:
            known = self._named[name] = Node(Shape.ANY, name)
            self._fill(known, self._types[name])
        return known

    def _fill(self, node: Node, type_: Any) -> None:
        if isinstance(type_, str):
            if type_.startswith("#"):
                source = self._reference(type_[1:])
                for slot in Node.__slots__:
                    if slot != "name":
                        setattr(node, slot, getattr(source, slot))
            elif type_ != "any":
                node.shape, node.scalar, node.integer = Shape.SCALAR, SCALARS[type_], type_ == "integer"
        elif "struct" in type_:
            self._fill_struct(node, type_)
        elif "map" in type_:
            node.shape, node.element, node.atomic = Shape.MAP, self._node(type_["map"]), bool(type_.get("atomic"))
        else:
            self._fill_list(node, type_)

    def _fill_struct(self, node: Node, type_: Table) -> None:
        node.shape, node.struct, node.atomic = Shape.MAP, True, bool(type_.get("atomic"))
        node.fields = {name: self._node(one) for name, one in type_["struct"].items()}
        node.element = ANY if type_.get("open") else None
        node.defaults = {**type_.get("defaults", {}), **self._server_defaults.get(node.name, {})}
        node.enums = dict(type_.get("enums", {}))
        node.limits = dict(type_.get("limits", {}))
        node.required = tuple(type_.get("required", ()))
        node.nullable = frozenset(type_.get("nullable", ()))
        node.always = tuple(type_.get("always", ()))

    def _fill_list(self, node: Node, type_: Table) -> None:
        node.shape, node.element = Shape.LIST, self._node(type_["list"])
        node.keys = tuple(type_.get("keys", ()))
        node.associative = bool(node.keys) or bool(type_.get("set"))
        node.atomic = not node.associative

        def fill_key_defaults() -> None:
            # A list map's key may have a default (a port's protocol): an item without it is owned under the default.
            item = node.element
            if item is not None:
                node.key_defaults = {key: item.defaults[key] for key in node.keys if key in item.defaults}

        if node.keys:
            self._later.append(fill_key_defaults)


def _table(name: str) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(
        (resources.files("reconciler.sim") / "schemas" / f"{name}.json").read_bytes()
    )
    return content


def _tables() -> dict[str, dict[str, Any]]:
    return {name: _table(name) for name in ("resources", "builtin", "flink", "defaults")}


@cache
def load_catalog(*extra: str) -> Catalog:
    """What the committed tables describe, and the kinds of extra tables ("specimen": the contract tests' own CRD).
    Compiled once in a process; catalogs are never modified."""
    tables = _tables()
    served = list(tables["resources"]["resources"])
    types = {**tables["builtin"]["types"], **tables["flink"]["types"]}
    for name in extra:
        table = _table(name)
        served += table["resources"]
        types |= table["types"]
    return catalog_from_tables(served, types, tables["defaults"]["defaults"])


def catalog_from_tables(served: Iterable[Table], types: Table, server_defaults: Table) -> Catalog:
    """A catalog of these RESOURCE and TYPE entries."""
    compiler = _Compiler(types, server_defaults)
    result = []
    for entry in served:
        node = compiler.compile(entry["type"])
        result.append(
            Resource(
                group=entry["group"],
                version=entry["version"],
                kind=entry["kind"],
                list_kind=entry["list_kind"],
                plural=entry["plural"],
                singular=entry["singular"],
                namespaced=entry["namespaced"],
                verbs=tuple(entry["verbs"]),
                short_names=tuple(entry.get("short_names", ())),
                categories=tuple(entry.get("categories", ())),
                subresources=tuple(entry.get("subresources", ())),
                custom=bool(entry.get("custom")),
                columns=tuple(entry.get("columns", ())),
                node=node,
            )
        )
    return Catalog(result)
