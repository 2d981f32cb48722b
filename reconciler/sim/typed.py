"""Typed values: whether a value is of its type, and how list items are named.

type_errors(node, {"spec": {"replicas": "3"}})      [(".spec.replicas", "expected numeric (int or float), got string")]
item_element(ports, {"containerPort": 80})          'k:{"containerPort":80,"protocol":"TCP"}'
"""

from __future__ import annotations

from typing import Any

import orjson

from reconciler.sim import fieldset
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
