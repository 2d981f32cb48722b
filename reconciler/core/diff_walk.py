"""The slow, exact walk: every place where live is not certainly what we declare, and how sure that is.

It follows three trees at once: what is declared, what is live, and what the server recorded as ours; a list of other
managers' trees settles who else holds a field. It runs only when the fast answer in diff.py was "not certain".

    Finding(Kind.VALUE, ("spec", "replicas"), "another value", old=2, new=3)
    Finding(Kind.OWNERSHIP, ("spec", "image"), "not recorded as ours", old="x", new="x")
    Finding(Kind.DOUBT, ("spec", "cpu"), "written differently", old="1", new="1000m")
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.core.built_in_kinds import is_built_in
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.list_keys import by_key, full_keys, label, names_of, spelling
from reconciler.core.managed_fields import (
    IDENTITY,
    METADATA_IDENTITY,
    FieldsV1,
    children,
    descend,
    key_fields,
    leaf_paths,
    manages_inside,
    set_value,
)
from reconciler.core.model import Manifest
from reconciler.core.values import is_zero, pointer, strictly_equal
from reconciler.core.whole_values import Relation, encoded_field, encoded_relation, relation


class Kind(enum.StrEnum):
    """VALUE: certainly another value. DOUBT: only the server can tell. OWNERSHIP: same value, other owner."""

    VALUE = "value"
    DOUBT = "doubt"
    OWNERSHIP = "ownership"


class Item(NamedTuple):
    """One step into a list: its position, and a label for people ("name=main")."""

    position: int
    label: str


Step = str | Item
Place = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that is not certainly as declared. `old` is live, `new` is declared; None where there is none. `op` is
    add, remove or replace. `why` is a short phrase. `whole`: recorded as one whole value, to which nobody may add."""

    kind: Kind
    place: Place
    why: str
    op: str = "replace"
    old: Any = None
    new: Any = None
    whole: bool = False

    def pointer(self) -> str:
        """The place as a JSON Pointer."""
        return pointer(tuple(step.position if isinstance(step, Item) else step for step in self.place))

    def display(self) -> str:
        """The place for people: `spec.template.spec.containers[name=main].image`."""
        return display(self.place)


def display(place: Place) -> str:
    """`place` with list keys instead of indices; names that hold a dot stand in brackets."""
    shown = ""
    for step in place:
        if isinstance(step, Item):
            shown += f"[{step.label}]"
        elif "." in step or "/" in step or not step:
            shown += f"[{step}]"
        else:
            shown += f".{step}" if shown else step
    return shown


class _Absent:
    """Marks a value that is not there: None would be a JSON null."""


_ABSENT = _Absent()


class _Node(NamedTuple):
    """One place in all trees. `owned` is None where nothing is recorded as ours; {} is a leaf of ours."""

    place: Place
    desired: Any
    live: Any
    owned: FieldsV1 | None
    foreign: list[FieldsV1]

    def finding(self, kind: Kind, why: str) -> Finding:
        absent = self.live is _ABSENT
        op, old = ("add", None) if absent else ("replace", self.live)
        whole = (self.owned == {} or bool(self.foreign)) and not manages_inside(self.foreign)
        return Finding(kind, self.place, why, op, old, self.desired, whole)


def find_differences(desired: Manifest, live: Manifest, owned: FieldsV1, foreign: list[FieldsV1]) -> list[Finding]:
    """All findings, in the order of the declared manifest; none at all means in sync."""
    walk = _Walk(desired)
    walk.node(_Node((), desired, live, owned, foreign))
    return walk.findings


class _Walk:
    """Collects findings. One instance per comparison."""

    def __init__(self, desired: Manifest) -> None:
        self.findings: list[Finding] = []
        self._flink = is_flink(desired)
        self._built_in = is_built_in(str(desired.get("apiVersion", "")))
        self._encoded = encoded_field(desired)

    def node(self, node: _Node) -> None:
        """Decide what kind of thing stands here and compare it so."""
        if node.desired is None:
            self.add(node, Kind.DOUBT, "null is declared")
        elif node.live is _ABSENT or (node.live is None and self._built_in):
            self._absent(node)  # a required list that is empty is written as null
        elif self._flink and node.place == ("spec", "flinkConfiguration") and node.owned is not None:
            self._configuration(node)
        elif node.owned is None:
            self._unowned(node)
        elif not node.owned and node.place not in _MAPS:
            self._leaf(node)
        elif type(node.desired) is dict:
            self._map(node)
        elif type(node.desired) is list:
            self._list(node)
        else:
            self._scalar(node, Kind.DOUBT, "the server records a structure where a single value is declared")

    def add(self, node: _Node, kind: Kind, why: str) -> None:
        self.findings.append(node.finding(kind, why))

    # ---- values

    def _absent(self, node: _Node) -> None:
        """Declared and not there. Had anybody taken it away, it would no longer be recorded as ours: what still is, the
        server itself leaves out, as it does with what says nothing."""
        if not self._may_be_dropped(node.place) or (node.owned is None and not is_zero(node.desired)):
            self.add(node, Kind.VALUE, "not there")
        elif node.owned is None:
            self.add(node, Kind.DOUBT, "an empty value is declared and the server may drop it")
        elif node.owned or not is_zero(node.desired):
            self.add(node, Kind.DOUBT, "recorded as ours, and the server leaves it out")

    def _may_be_dropped(self, place: Place) -> bool:
        """True if the server may leave out what is declared at `place`: no item, nothing out of a map of texts, none of
        a custom resource's own fields."""
        if isinstance(place[-1], Item) or place[:-1] in _MAPS_OF_TEXTS:
            return False
        return self._built_in or place[0] == "metadata"

    def _scalar(self, node: _Node, if_equal: Kind | None, why: str) -> None:
        """Compare whole values; `if_equal` is what an equal value is worth here (None: nothing to say)."""
        if len(node.place) > 1 and node.place[0] == self._encoded:
            found = encoded_relation(node.desired, node.live)
        else:
            found = relation(node.desired, node.live, built_in=self._built_in, place=node.place)
        if found is Relation.DIFFERENT:
            self.add(node, Kind.VALUE, "another value")
        elif found is Relation.DOUBTFUL:
            self.add(node, Kind.DOUBT, "the server may have defaulted or rewritten it")
        elif if_equal is not None:
            self.add(node, if_equal, why)

    def _leaf(self, node: _Node) -> None:
        """A scalar or a whole atomic value of ours. If others own parts of it, it is not atomic after all."""
        inside = bool(node.desired) and isinstance(node.desired, dict | list) and manages_inside(node.foreign)
        self._scalar(node, Kind.DOUBT if inside else None, "another manager owns parts of it")

    def _unowned(self, node: _Node) -> None:
        """Declared, live, and not recorded as ours."""
        if type(node.desired) is dict and node.desired and type(node.live) is dict:
            for name, value in node.desired.items():
                below = node.live.get(name, _ABSENT)
                self.node(_Node((*node.place, name), value, below, None, descend(node.foreign, "f:" + name)))
        elif node.foreign and not manages_inside(node.foreign):
            self._scalar(node, Kind.OWNERSHIP, "not recorded as ours")  # another's leaf: one whole value
        elif type(node.desired) is list or not isinstance(node.desired, str | int | float):
            equal = bool(node.desired) and strictly_equal(node.desired, node.live)
            kind = Kind.OWNERSHIP if equal else Kind.DOUBT
            self.add(node, kind, "not recorded as ours" if equal else "a structure that is not recorded as ours")
        else:
            self._scalar(node, Kind.OWNERSHIP, "not recorded as ours")

    # ---- maps

    def _map(self, node: _Node) -> None:
        owned = node.owned or {}
        if type(node.live) is not dict:
            self.add(node, Kind.VALUE, "not a map")
            return
        skipped = _IDENTITY_AT.get(node.place, ())
        for name, value in node.desired.items():
            if name in skipped:
                continue
            if not node.place and name == "metadata" and value.keys() <= _ONLY_IDENTITY and "f:metadata" not in owned:
                continue
            below = node.live.get(name, _ABSENT)
            fields = descend(node.foreign, "f:" + name)
            self.node(_Node((*node.place, name), value, below, owned.get("f:" + name), fields))
        for name, fields in children(owned):
            if not name.startswith("f:"):
                self.add(node, Kind.DOUBT, "the server records a list where a map is declared")
            elif name[2:] not in node.desired:
                below = node.live.get(name[2:], _ABSENT)
                self.undeclared((*node.place, name[2:]), below, fields, descend(node.foreign, name))

    def undeclared(self, place: Place, live: Any, fields: FieldsV1, foreign: list[FieldsV1]) -> None:
        """Ours by record, no longer declared: the next apply removes it, unless somebody else holds it as well."""
        old = None if live is _ABSENT else live
        if live is _ABSENT or (foreign and not fields):
            self.findings.append(Finding(Kind.OWNERSHIP, place, "recorded as ours, not declared", "remove", old))
        elif foreign:
            self.findings.append(Finding(Kind.DOUBT, place, "no longer declared, partly held by others", "remove", old))
        else:
            self.findings.append(Finding(Kind.VALUE, place, "no longer declared", "remove", old))

    # ---- lists

    def _list(self, node: _Node) -> None:
        """A list of which the server keeps the items apart: by key (`k:`) or by value (`v:`)."""
        names = [name for name, _ in children(node.owned or {})]
        if type(node.live) is not list:
            self.add(node, Kind.VALUE, "not a list")
        elif names and all(name.startswith("k:") for name in names):
            self._keyed(node, names)
        elif names and all(name.startswith("v:") for name in names):
            self._set(node, names)
        else:
            self.add(node, Kind.DOUBT, "the server records the list in a form that is not compared here")

    def _keyed(self, node: _Node, names: list[str]) -> None:
        keys = {name: key_fields(name) for name in names}
        first = keys[names[0]]
        fields = tuple(field for field, _ in first) if first else ()
        live = by_key(node.live, fields)
        owned = {key: name for name, key in keys.items() if key is not None}
        if not fields or live is None or len(owned) != len(names) or any(names_of(key) != fields for key in owned):
            self.add(node, Kind.DOUBT, "its items cannot be told apart by key")
            return
        declared = full_keys(node.desired, fields, node.owned or {}, owned)
        if declared is None:
            # What seems undeclared may be an item that is declared without its full key.
            self.add(node, Kind.DOUBT, "an item is declared without its full key, or twice")
            return
        for key, index in declared.items():
            item = node.desired[index]
            place = (*node.place, Item(index, label(key, index)))
            value = node.live[live[key]] if key in live else _ABSENT
            name = owned.get(key)
            if name is None:
                foreign = descend(node.foreign, spelling(node.foreign, key))
                self.node(_Node(place, item, value, None, foreign))
                continue
            below = _Node(place, item, value, (node.owned or {})[name], descend(node.foreign, name))
            if below.owned and value is not _ABSENT:
                self._map(below)
            else:
                self.node(below)
        for key, name in owned.items():
            if key not in declared:
                value = node.live[live[key]] if key in live else _ABSENT
                place = (*node.place, Item(live.get(key, 0), label(key, 0)))
                self.undeclared(place, value, (node.owned or {})[name], descend(node.foreign, name))
        found = [live[key] for key in declared if key in live]
        if found != sorted(found):
            self.add(node, Kind.DOUBT, "its items stand in another order")

    def _set(self, node: _Node, names: list[str]) -> None:
        owned = {value: name for name in names if (value := set_value(name)) is not None}
        live = [(type(item).__name__, _hashable(item)) for item in node.live]
        declared = [(type(item).__name__, _hashable(item)) for item in node.desired]
        if len(owned) != len(names) or len(set(live)) != len(live) or len(set(declared)) != len(declared):
            self.add(node, Kind.DOUBT, "its items cannot be told apart")
            return
        for index, value in enumerate(declared):
            place = (*node.place, Item(index, str(value[1])))
            if value not in live:
                self.findings.append(Finding(Kind.VALUE, place, "not there", "add", None, node.desired[index]))
            elif value not in owned:
                item = node.desired[index]
                self.findings.append(Finding(Kind.OWNERSHIP, place, "not recorded as ours", "replace", item, item))
        for value, name in owned.items():
            if value not in declared:
                there = value in live
                place = (*node.place, Item(live.index(value) if there else 0, str(value[1])))
                self.undeclared(place, value[1] if there else _ABSENT, {}, descend(node.foreign, name))
        common = [live.index(value) for value in declared if value in live]
        if common != sorted(common):
            self.add(node, Kind.DOUBT, "its items stand in another order")

    # ---- Flink

    def _configuration(self, node: _Node) -> None:
        """Flink's configuration: the operator reads a flat string map, so that is what is compared."""
        desired, live = flatten(node.desired), flatten(node.live)
        leaves = leaf_paths(node.owned or {})
        owned = {name: isinstance(_at(node.live, path), dict | list) for name, path in leaves.items()}
        # A key that holds a text covers only itself: `high-availability` is not `high-availability.storageDir`.
        inside = {name: (f"{name}.", f"{name}[") if whole else () for name, whole in owned.items()}
        covered = tuple(start for starts in inside.values() for start in starts)
        foreign = {name for tree in node.foreign for name in leaf_paths(tree)}
        before = len(self.findings)
        for key, value in desired.items():
            place = (*node.place, key)
            if key not in live:
                self.findings.append(Finding(Kind.VALUE, place, "not there", "add", None, value))
            elif live[key] != value:
                self.findings.append(Finding(Kind.VALUE, place, "another value", "replace", live[key], value))
            elif key not in owned and not key.startswith(covered):
                self.findings.append(Finding(Kind.OWNERSHIP, place, "not recorded as ours", "replace", value, value))
        for key in sorted(owned.keys() - {""}):  # "" is the empty map itself, applied empty once
            if key in desired or (inside[key] and any(name.startswith(inside[key]) for name in desired)):
                continue
            old = next((text for name, text in live.items() if name == key or name.startswith(inside[key])), None)
            self.undeclared((*node.place, key), _ABSENT if old is None else old, {}, [{}] if key in foreign else [])
        if len(self.findings) == before and not _agree(node.desired, node.live):
            self.add(node, Kind.DOUBT, "the same configuration, written differently")


#: Fields of ObjectMeta that are maps for certain: recorded as a leaf of ours when they were once applied empty.
_MAPS_OF_TEXTS: frozenset[Place] = frozenset({("metadata", "labels"), ("metadata", "annotations")})
_MAPS: frozenset[Place] = frozenset({(), ("metadata",), *_MAPS_OF_TEXTS})
_ONLY_IDENTITY = frozenset(METADATA_IDENTITY)
_IDENTITY_AT: dict[Place, tuple[str, ...]] = {(): IDENTITY, ("metadata",): METADATA_IDENTITY}


def _agree(desired: Any, live: Any) -> bool:
    """Every declared value is strictly equal where it was declared; live may hold more."""
    if type(desired) is dict and desired:
        return type(live) is dict and all(name in live and _agree(value, live[name]) for name, value in desired.items())
    return strictly_equal(desired, live)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """What stands at `path`, None where nothing does."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value
