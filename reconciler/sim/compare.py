"""Comparison: what a write changed, path by path.

`compare` walks two values of one type. Parts that are the same object are skipped, and a write shares what it does not
change with the live object, so the walk is as long as the change.

    compare(node, {"spec": {"image": "a"}}, {"spec": {"image": "b"}}).modified      {"f:spec": {"f:image": {}}}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.sim import fieldset
from reconciler.sim.fieldset import EMPTY, MEMBER, SELF, FieldSet
from reconciler.sim.schema import Node, Shape
from reconciler.sim.typed import MISSING, item_element, same


def _every_path(node: Node, value: Any) -> FieldSet:
    """The node of a value that was added or removed as a whole: all its paths, inner ones included."""
    if not value or node.atomic or value.__class__ not in (dict, list):
        return MEMBER
    if value.__class__ is dict:
        fields, element = node.fields, node.element
        children = {"f:" + key: _every_path(fields.get(key) or element or node, child) for key, child in value.items()}
        return {SELF: MEMBER, **children}
    if not node.associative:
        return MEMBER
    element = node.element or node
    result: FieldSet = {SELF: MEMBER}
    for item in value:
        name = item_element(node, item)
        result[name] = MEMBER if name in result else _every_path(element, item)
    return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a write changed, as three disjoint field sets."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def touched(self) -> FieldSet:
        """Added or modified."""
        return fieldset.union(self.modified, self.added)


NOTHING = Comparison(EMPTY, EMPTY, EMPTY)


def compare(node: Node, before: Any, after: Any) -> Comparison:
    """What differs between two values of one type."""
    if before is after:
        return NOTHING
    added, modified, removed = _Changes(), _Changes(), _Changes()
    _compare(node, before, after, added, modified, removed)
    return Comparison(added.children, modified.children, removed.children)


class _Changes:
    """A field set while it is collected: `children` so far and whether the path itself is in it."""

    __slots__ = ("children", "member")

    def __init__(self) -> None:
        self.children: FieldSet = {}
        self.member = False

    def put(self, name: str, changes: _Changes) -> None:
        owned = fieldset.node_of(changes.children, changes.member)
        if owned is not None:
            self.children[name] = owned


def _compare(node: Node, before: Any, after: Any, added: _Changes, modified: _Changes, removed: _Changes) -> None:
    if before is after:
        return
    is_map = node.shape in (Shape.MAP, Shape.ANY) and not node.atomic
    is_list = node.shape is Shape.LIST and not node.atomic
    if is_map and (before or after) and (before.__class__ is dict or after.__class__ is dict):
        old = before if before.__class__ is dict else {}
        new = after if after.__class__ is dict else {}
        kinds_differ = before.__class__ not in _MAPS or after.__class__ not in _MAPS
        modified.member = modified.member or kinds_differ
        _compare_maps(node, old, new, added, modified, removed)
    elif is_list and (before or after):
        _compare_lists(node, before or [], after or [], added, modified, removed)
    elif not same(before, after):
        modified.member = True


_MAPS = (dict, type(None))


def _compare_child(node: Node, name: str, before: Any, after: Any, into: tuple[_Changes, _Changes, _Changes]) -> None:
    added, _, removed = into
    if before is after:
        return
    if before is MISSING:
        added.children[name] = _every_path(node, after)
    elif after is MISSING:
        removed.children[name] = _every_path(node, before)
    else:
        below = _Changes(), _Changes(), _Changes()
        _compare(node, before, after, *below)
        for whole, part in zip(into, below, strict=True):
            whole.put(name, part)


def _compare_maps(
    node: Node,
    before: dict[str, Any],
    after: dict[str, Any],
    added: _Changes,
    modified: _Changes,
    removed: _Changes,
) -> None:
    fields, element = node.fields, node.element
    into = (added, modified, removed)
    for key, old in before.items():
        _compare_child(fields.get(key) or element or node, "f:" + key, old, after.get(key, MISSING), into)
    for key, new in after.items():
        if key not in before:
            _compare_child(fields.get(key) or element or node, "f:" + key, MISSING, new, into)


def _group(node: Node, items: list[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(item_element(node, item), []).append(item)
    return groups


def _compare_lists(
    node: Node, before: list[Any], after: list[Any], added: _Changes, modified: _Changes, removed: _Changes
) -> None:
    element = node.element or node
    into = (added, modified, removed)
    old, new = _group(node, before), _group(node, after)
    for name in list(old) + [name for name in new if name not in old]:
        mine, theirs = old.get(name, []), new.get(name, [])
        if len(mine) <= 1 and len(theirs) <= 1:
            _compare_child(element, name, mine[0] if mine else MISSING, theirs[0] if theirs else MISSING, into)
        elif len(mine) >= 2 and len(theirs) >= 2:
            if not same(mine, theirs):
                modified.children[name] = MEMBER
        elif len(mine) >= 2:
            if theirs:
                _compare_child(element, name, MISSING, theirs[0], into)
            removed.children[name] = MEMBER
        else:
            if mine:
                _compare_child(element, name, mine[0], MISSING, into)
            added.children[name] = MEMBER
