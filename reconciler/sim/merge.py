"""Structured merge: how server-side apply combines a configuration with the live object, and what each write changed.

Values are plain JSON values and are never modified: results share every unchanged part with the live object, so that a
change touches only its own path and "nothing changed" is an identity test. The type of a value decides how it merges:

    struct, map      key by key                       list map   item by item, found by its keys
    set              value by value                   atomic     replaced, and owned, as a whole

`apply` merges a manager's configuration, removes what that manager applied before and no longer does (unless somebody
else owns it), and finds conflicts; `update` attributes what a plain write changed to its manager. The algorithm is
structured-merge-diff v6's; `schema.py` says where the types come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from reconciler.sim import fieldset
from reconciler.sim.fieldset import EMPTY, MEMBER, SELF, FieldSet
from reconciler.sim.schema import Node, Shape


class _Missing:
    """The absence of a value, which is not null."""


MISSING = _Missing()
TypeErrors = list[tuple[str, str]]


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values in which true is not 1."""
    if left is right:
        return True
    if left.__class__ is not right.__class__:
        return left.__class__ in (int, float) and right.__class__ in (int, float) and bool(left == right)
    if left != right:
        return False
    if left.__class__ in (dict, list):
        option = orjson.OPT_SORT_KEYS
        return orjson.dumps(left, option=option) == orjson.dumps(right, option=option)
    return True


# --------------------------------------------------------------------------------------------------- typed values


def type_errors(node: Node, value: Any, path: str = "", *, allow_duplicates: bool = False) -> TypeErrors:
    """Where the value is not of its type: [(path, message)], empty when it fits."""
    errors: TypeErrors = []
    _check(node, value, path, errors, allow_duplicates)
    return errors


def _check(node: Node, value: Any, path: str, errors: TypeErrors, allow_duplicates: bool) -> None:
    if value is None:
        return
    shape = node.shape
    if shape is Shape.SCALAR:
        message = _scalar_error(node.scalar, value)
        if message:
            errors.append((path, message))
    elif shape is Shape.MAP:
        if value.__class__ is not dict:
            errors.append((path, f"expected map, got {_go_value(value)}"))
            return
        fields, element = node.fields, node.element
        for key, child in value.items():
            child_node = fields.get(key, element)
            if child_node is None:
                errors.append((f"{path}.{key}", "field not declared in schema"))
                return
            if child_node.shape is not Shape.ANY:
                _check(child_node, child, f"{path}.{key}", errors, allow_duplicates)
    elif shape is Shape.LIST:
        if value.__class__ is not list:
            errors.append((path, f"expected list, got {_go_value(value)}"))
            return
        _check_items(node, value, path, errors, allow_duplicates)


def _check_items(node: Node, items: list[Any], path: str, errors: TypeErrors, allow_duplicates: bool) -> None:
    element = node.element
    if element is None:
        return
    seen: set[str] = set()
    for index, item in enumerate(items):
        if node.associative:
            try:
                key = item_element(node, item)
            except ValueError as error:
                errors.append((path, f"element {index}: {error}"))
                return
            if key in seen and not allow_duplicates:
                errors.append((path, f"duplicate entries for key {fieldset.element_text(key)}"))
            seen.add(key)
            where = path + fieldset.element_text(key)
        else:
            where = f"{path}[{index}]"
        _check(element, item, where, errors, allow_duplicates)


def _scalar_error(scalar: str, value: Any) -> str:
    kind = value.__class__
    if scalar == "string":
        return "" if kind is str else f"expected string, got {_go_pointer(value)}"
    if scalar == "numeric":
        return "" if kind in (int, float) else f"expected numeric (int or float), got {_go_type(value)}"
    if scalar == "boolean":
        return "" if kind is bool else f"expected boolean, got {_go_value(value)}"
    return "" if kind not in (dict, list) else f"expected any scalar, got {_go_value(value)}"


def _go_type(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "int64", float: "float64", dict: "map[string]interface {}"}
    return names.get(value.__class__, "[]interface {}")


def _go_pointer(value: Any) -> str:
    return f"&value.valueUnstructured{{Value:{_go_value(value)}}}"


def _go_value(value: Any) -> str:
    return orjson.dumps(value).decode()


def item_element(node: Node, item: Any) -> str:
    """The path element of a list-map or set item. ValueError when it has none."""
    if not node.keys:
        if item is None:
            raise ValueError("associative list without keys has an element that's an explicit null")
        if item.__class__ is dict:
            raise ValueError("associative list without keys has an element that's a map type")
        if item.__class__ is list:
            raise ValueError("not supported: associative list with lists as elements")
        return fieldset.value_element(item)
    if item is None:
        raise ValueError("associative list with keys may not have a null element")
    if item.__class__ is not dict:
        raise ValueError("associative list with keys may not have non-map elements")
    pairs: dict[str, Any] = {}
    for key in node.keys:
        if key in item:
            pairs[key] = item[key]
        elif key in node.key_defaults:
            pairs[key] = node.key_defaults[key]
    if not pairs:
        names = " ".join(f'"{key}"' for key in node.keys)
        raise ValueError(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    return fieldset.key_element(pairs)


# ----------------------------------------------------------------------------------------------------- field sets


def field_set(node: Node, value: Any) -> FieldSet:
    """What a configuration owns: its leaves, list items, open map keys and empty maps."""
    return _own(node, value)[0]


def _own(node: Node, value: Any) -> tuple[FieldSet, bool]:
    """(children, whether the path itself is owned)."""
    shape = node.shape
    if shape is Shape.ANY:
        if value.__class__ is not dict:
            return EMPTY, value is not None
    elif shape is Shape.SCALAR or node.atomic:
        return EMPTY, True
    if not value:
        return EMPTY, False
    children: FieldSet = {}
    if value.__class__ is dict:
        fields, element = node.fields, node.element
        for key, child in value.items():
            below, member = _own(fields.get(key) or element or node, child)
            if not member:
                member = key not in fields or child is None or (child.__class__ is dict and not child)
            owned = fieldset.node_of(below, member)
            if owned is not None:
                children["f:" + key] = owned
    elif value.__class__ is list:
        element = node.element or node
        elements = [item_element(node, item) for item in value]
        for name, item in zip(elements, value, strict=True):
            if name in children:
                children[name] = MEMBER
            else:
                children[name] = {SELF: MEMBER, **_own(element, item)[0]}
        for name, owned in children.items():
            if len(owned) == 1:
                children[name] = MEMBER
    return children, False


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


# ---------------------------------------------------------------------------------------------------------- merge


def merge(node: Node, live: Any, config: Any) -> Any:
    """The live value with the configuration laid over it; the live value itself when that changes nothing."""
    if config is MISSING:
        return live
    if live is MISSING:
        return config
    if live is config:
        return live
    if live.__class__ is dict and config.__class__ is dict and not node.atomic:
        return _merge_maps(node, live, config)
    if node.shape is Shape.LIST and not node.atomic and live.__class__ in _LISTS and config.__class__ in _LISTS:
        if not config:
            return live if live or same(live, config) else config
        return _merge_lists(node, live, config) if live else config
    if config is None and live and live.__class__ is dict and not node.atomic:
        return live
    return live if same(live, config) else config


_LISTS = (list, type(None))


def _merge_maps(node: Node, live: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    fields, element = node.fields, node.element
    result = live
    for key, wanted in config.items():
        present = live.get(key, MISSING)
        merged = merge(fields.get(key) or element or node, present, wanted)
        if merged is present:
            continue
        if result is live:
            result = dict(live)
        result[key] = merged
    return result


def _merge_lists(node: Node, live: list[Any], config: list[Any]) -> list[Any]:
    element = node.element or node
    live_names = [item_element(node, item) for item in live]
    config_names = [item_element(node, item) for item in config]
    if live_names == config_names and len(set(live_names)) == len(live_names):
        merged = [merge(element, mine, wanted) for mine, wanted in zip(live, config, strict=True)]
        return live if all(a is b for a, b in zip(merged, live, strict=True)) else merged
    by_live: dict[str, Any] = {}
    for name, item in zip(live_names, live, strict=True):
        by_live[name] = MISSING if name in by_live else item
    by_config = dict(zip(config_names, config, strict=True))
    result: list[Any] = []
    for source, position in _interleave(live_names, config_names):
        if source == "live":
            result.append(live[position])
        else:
            name = config_names[position]
            result.append(merge(element, by_live.get(name, MISSING), by_config[name]))
    if len(result) == len(live) and all(a is b for a, b in zip(result, live, strict=True)):
        return live
    return result


def _interleave(live: list[str], config: list[str]) -> Iterable[tuple[str, int]]:
    """The order of a merged list: the configuration's order wins for what both have, items only the live list has stay
    where they are between those. Yields ("live" | "config", position)."""
    in_live, in_config = set(live), set(config)
    shared = [name for name in config if name in in_live]
    next_shared = shared.pop(0) if shared else None
    taken: set[str] = set()
    left = right = 0
    while left < len(live) or right < len(config):
        if left < len(live) and right < len(config):
            name = live[left]
            if name == config[right]:
                taken.add(name)
                yield "config", right
                left, right = left + 1, right + 1
                next_shared = shared.pop(0) if shared else None
                continue
            if name in in_config and next_shared is not None and next_shared != name:
                left += 1
                continue
        if left < len(live):
            name = live[left]
            if name not in in_config:
                yield "live", left
                left += 1
                continue
            if name in taken:
                left += 1
        if right < len(config):
            name = config[right]
            taken.add(name)
            yield "config", right
            right += 1
            if next_shared == name:
                next_shared = shared.pop(0) if shared else None


# -------------------------------------------------------------------------------------------------------- compare


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
    added, modified, removed = into
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


# --------------------------------------------------------------------------------------------------------- remove


def remove(node: Node, value: Any, gone: FieldSet) -> Any:
    """The value without the given paths. A container that loses everything becomes null."""
    if value.__class__ is dict and value and not node.atomic:
        fields, element = node.fields, node.element
        result: dict[str, Any] = {}
        for key, child in value.items():
            below = gone.get("f:" + key)
            if below is None:
                result[key] = child
            elif not fieldset.is_member(below):
                result[key] = remove(fields.get(key) or element or node, child, below)
        return result or None
    if value.__class__ is list and node.associative:
        item_node = node.element or node
        items = []
        for item in value:
            below = gone.get(item_element(node, item))
            if below is None:
                items.append(item)
            elif not fieldset.is_member(below):
                items.append(remove(item_node, item, below))
        return items or None
    if node.shape is Shape.SCALAR or (node.shape is Shape.ANY and value.__class__ not in (dict, list)):
        return value
    return None


def named_fields_as_members(node: Node | None, fields: FieldSet) -> FieldSet:
    """The set in which each declared field that has something below it is a member itself."""
    result: FieldSet = {}
    for key, below in fields.items():
        if key == SELF:
            result[key] = below
            continue
        child = _descend(node, key)
        inner = named_fields_as_members(child, below) if below else below
        if inner and SELF not in inner and node is not None and key.startswith("f:") and key[2:] in node.fields:
            inner = {SELF: MEMBER, **inner}
        result[key] = inner
    return result


def _descend(node: Node | None, element: str) -> Node | None:
    if node is None:
        return None
    if node.shape is Shape.ANY:
        return node if element.startswith("f:") else None
    if element.startswith("f:"):
        return node.fields.get(element[2:], node.element) if node.shape is Shape.MAP else None
    return node.element if node.shape is Shape.LIST else None
