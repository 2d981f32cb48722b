"""Validation: what the API server refuses with 422, and why.

First what the type says (enumerations, limits, required fields, and for custom kinds the types themselves), then the
rules of single kinds (`kind_rules.py`). Parts identical to the live object's were valid before and are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.sim.kind_rules import RULES
from reconciler.sim.problems import Cause, forbidden_value, invalid_value, required, shown, unsupported_value
from reconciler.sim.schema import ANY, Node, Resource, Shape
from reconciler.sim.typed import item_element

Object = Mapping[str, Any]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NAMES: dict[str, tuple[str, str, str, int]] = {
    "subdomain": (
        (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character"
        ),
        _SUBDOMAIN,
        "example.com",
        253,
    ),
    "label": (
        (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character"
        ),
        _LABEL,
        "my-name",
        63,
    ),
}
_KIND_NAMES = {("", "Namespace"): "label", ("", "Service"): "label"}
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_GROUPS_WITH_PATH_NAMES = ("rbac.authorization.k8s.io",)


def validate(resource: Resource, value: dict[str, Any], live: Any) -> list[Cause]:
    """Why the object is refused; empty when it is accepted. `live` is None for a create."""
    known = live if live is not None else {}
    causes = list(_metadata(resource, value, known))
    causes += _structure(resource, value, known)
    rule = RULES.get((resource.group, resource.kind))
    if rule is not None and not causes:
        causes += rule(value, live)
    elif rule is not None and live is not None:
        causes += [cause for cause in rule(value, live) if cause.field not in {one.field for one in causes}]
    return causes


# ------------------------------------------------------------------------------------------------------- metadata


def _metadata(resource: Resource, value: Object, live: Object) -> Iterator[Cause]:
    metadata = value["metadata"]
    before = live.get("metadata", {})
    if not before:
        yield from _name(resource, metadata.get("name", ""))
    if metadata.get("labels") is not before.get("labels"):
        for key, text in (metadata.get("labels") or {}).items():
            yield from _label(key, text)
    added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if before.get("deletionTimestamp") and added:
        listed = ", ".join(shown(one) for one in sorted(added))
        why = "no new finalizers can be added if the object is being deleted, found new finalizers "
        # The real server validates the metadata of custom objects twice, and reports this twice.
        for _ in range(2 if resource.custom else 1):
            yield forbidden_value("metadata.finalizers", f"{why}[]string{{{listed}}}")
    for field in ("uid", "creationTimestamp"):
        if before and metadata.get(field) != before.get(field):
            # The real server validates metadata twice and reports this twice.
            yield invalid_value(f"metadata.{field}", metadata.get(field), "field is immutable")
            yield invalid_value(f"metadata.{field}", metadata.get(field), "field is immutable")


def _name(resource: Resource, name: str) -> Iterator[Cause]:
    if not name:
        yield required("metadata.name", "name or generateName is required")
        return
    if resource.group in _GROUPS_WITH_PATH_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            yield invalid_value("metadata.name", name, "may not contain '/' or '%', and may not be '.' or '..'")
        return
    text, pattern, example, longest = _NAMES[_KIND_NAMES.get((resource.group, resource.kind), "subdomain")]
    if len(name) > longest:
        yield invalid_value("metadata.name", name, f"must be no more than {longest} bytes")
    if not re.fullmatch(pattern, name):
        message = f"{text} (e.g. '{example}', regex used for validation is '{pattern}')"
        yield invalid_value("metadata.name", name, message)


def _label(key: str, value: Any) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if (slash and not re.fullmatch(_SUBDOMAIN, prefix)) or not _LABEL_NAME.fullmatch(name) or len(name) > 63:
        message = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
        yield invalid_value("metadata.labels", key, message)
    if isinstance(value, str) and not _LABEL_VALUE.fullmatch(value):
        message = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
            "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
        yield invalid_value("metadata.labels", value, message)
    if isinstance(value, str) and len(value) > 63:
        yield invalid_value("metadata.labels", value, "must be no more than 63 bytes")


# ------------------------------------------------------------------------------------------------------ structure


def _structure(resource: Resource, value: Object, live: Object) -> Iterator[Cause]:
    for key, child in value.items():
        if key in ("apiVersion", "kind", "metadata") or child is live.get(key):
            continue
        node = resource.node.child(key)
        if child is None and resource.custom and _needs_value(resource.node, key):
            yield _wrong_type(resource.node.fields[key], child, key)
        elif node is not None:
            yield from _check(node, child, live.get(key), key, resource.custom)
    for name in resource.node.required:
        if name not in value:
            yield required(name)


def _check(node: Node, value: Any, known: Any, path: str, custom: bool) -> Iterator[Cause]:
    if value is known:
        return
    if custom and not _has_type(node, value):
        yield _wrong_type(node, value, path)
    elif isinstance(value, dict) and node.shape is Shape.MAP:
        yield from _check_struct(node, value, known if isinstance(known, dict) else {}, path, custom)
    elif isinstance(value, list) and node.shape is Shape.LIST:
        item_node = node.element or ANY
        if item_node.shape is not Shape.ANY:
            done = {id(item) for item in known} if isinstance(known, list) else set()
            yield from _duplicates(node, value, path, custom)
            for index, item in enumerate(value):
                if id(item) not in done or item_node.shape is Shape.SCALAR:
                    yield from _check(item_node, item, None, f"{path}[{index}]", custom)


def _check_struct(node: Node, value: Object, known: Object, path: str, custom: bool) -> Iterator[Cause]:
    for name in node.required:
        # The real server skips what is required by the type alone when a built-in kind's rule has another message.
        if name not in value or (not custom and value[name] in (None, "", [])):
            yield required(f"{path}.{name}")
    for key, child in value.items():
        child_node = node.child(key)
        where = f"{path}.{key}"
        if child is None and custom and child_node is not None and _needs_value(node, key):
            yield _wrong_type(child_node, child, where)
        if child_node is None or child is None:
            continue
        allowed = node.enums.get(key)
        if allowed is not None and child not in allowed and (custom or child != ""):
            yield unsupported_value(where, child, allowed)
            continue
        if child_node.shape is not Shape.ANY:
            yield from _check(child_node, child, known.get(key), where, custom)
        if key in node.limits and child is not known.get(key):
            yield from _limits(node.limits[key], child, where, custom)


def _wrong_type(node: Node, value: Any, path: str) -> Cause:
    wanted, given = _type_name(node), _type_of(value)
    message = f'Invalid value: "{given}": {path} in body must be of type {wanted}: "{given}"'
    return Cause(path, "FieldValueTypeInvalid", message)


def _needs_value(node: Node, key: str) -> bool:
    """Whether null is no value of this field."""
    child = node.child(key)
    return key not in node.nullable and child is not None and child.shape is not Shape.ANY


def _duplicates(node: Node, items: list[Any], path: str, custom: bool) -> Iterator[Cause]:
    """Items of a custom kind's set or list map that stand twice."""
    seen: set[str] = set()
    for index, item in enumerate(items if custom and node.associative else ()):
        if not isinstance(item, dict) and node.keys:
            continue
        name = item_element(node, item)
        if name in seen:
            value = {key: item.get(key, node.key_defaults.get(key)) for key in node.keys} if node.keys else item
            yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {shown(value)}")
        seen.add(name)


def _has_type(node: Node, value: Any) -> bool:
    kind = value.__class__
    if node.shape is Shape.ANY or value is None:
        return True
    if node.shape is Shape.MAP:
        return kind is dict
    if node.shape is Shape.LIST:
        return kind is list
    if node.scalar == "numeric":
        return kind is int or (kind is float and (not node.integer or value.is_integer()))
    allowed: dict[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "untyped": (str, int)}
    return kind in allowed[node.scalar]


def _type_name(node: Node) -> str:
    if node.shape is Shape.MAP:
        return "object"
    if node.shape is Shape.LIST:
        return "array"
    return {"numeric": "integer" if node.integer else "number", "untyped": "integer,string"}.get(
        node.scalar, node.scalar
    )


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    return names.get(value.__class__, "null")


_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def _limits(limits: Mapping[str, Any], value: Any, path: str, custom: bool) -> Iterator[Cause]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "minimum" in limits and value < limits["minimum"]:
            at_least = f"{path} in body should be greater than or equal to {limits['minimum']}"
            yield invalid_value(path, value, at_least)
        if "maximum" in limits and value > limits["maximum"]:
            yield invalid_value(path, value, f"{path} in body should be less than or equal to {limits['maximum']}")
        low, high = _BOUNDS.get(limits.get("format", ""), (value, value))
        if custom and not low <= value <= high:
            yield invalid_value(path, value, f"{path} in body must be of type {limits['format']}: {_type_of(value)!r}")
    if isinstance(value, str):
        # Of a text only the first complaint is made, in this order.
        if len(value) > limits.get("maxLength", len(value)):
            yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limits['maxLength']} bytes")
        elif len(value) < limits.get("minLength", 0):
            yield invalid_value(path, value, f"{path} in body should be at least {limits['minLength']} chars long")
        elif "pattern" in limits and not re.search(limits["pattern"], value):
            yield invalid_value(path, value, f"{path} in body should match '{limits['pattern']}'")
