"""Structured merge: how server-side apply combines a configuration with the live object.

Values are plain JSON values and are never modified: results share every unchanged part with the live object, so that a
change touches only its own path and "nothing changed" is an identity test. The type of a value decides how it merges:

    struct, map      key by key                       list map   item by item, found by its keys
    set              value by value                   atomic     replaced, and owned, as a whole

`field_set` says what a configuration owns, `merge` lays it over the live value, `remove` takes paths away. The
algorithm is structured-merge-diff v6's; `schema.py` says where the types come from, `compare.py` what a write changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reconciler.sim import fieldset
from reconciler.sim.fieldset import EMPTY, MEMBER, SELF, FieldSet
from reconciler.sim.schema import Node, Shape
from reconciler.sim.typed import MISSING, item_element, same


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
