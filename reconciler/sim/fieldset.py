"""Field sets: which paths of an object a manager owns, in the encoding the API server writes into managedFields.

A field set is kept as the `fieldsV1` value itself, so that an object's managedFields need no decoding: a tree of
dictionaries whose keys are path elements ("f:name" a field, 'k:{"name":"a"}' a list-map item, 'v:"x"' a set item). A
path is a *member* when its node is empty or holds ".". The root is never a member: an empty root is the empty set.

    {"f:spec": {"f:image": {}}}                    owns .spec.image, but not .spec itself
    {"f:labels": {".": {}, "f:app": {}}}           owns .labels and .labels.app

Field sets are values: no function changes its arguments, and results share structure with them. The rules are those of
structured-merge-diff v6, which the real server uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import orjson

FieldSet: TypeAlias = dict[str, Any]
EMPTY: FieldSet = {}
MEMBER: FieldSet = {}
SELF = "."


def is_member(node: FieldSet) -> bool:
    """Whether the path of this (non-root) node itself is in the set."""
    return not node or SELF in node


def node_of(children: FieldSet, member: bool) -> FieldSet | None:
    """The node with these children (which hold no "."); None when nothing is in the set at or below it."""
    if not children:
        return MEMBER if member else None
    return {SELF: MEMBER, **children} if member else children


def children_of(node: FieldSet) -> FieldSet:
    """The node without its own membership."""
    if SELF not in node:
        return node
    return {key: child for key, child in node.items() if key != SELF}


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Everything in either root set."""
    if left is right or not right:
        return left
    if not left:
        return right
    return _union_children(left, right)


def _union_children(left: FieldSet, right: FieldSet) -> FieldSet:
    result = left
    for key, theirs in right.items():
        ours = left.get(key)
        joined = theirs if ours is None else _union_node(ours, theirs)
        if joined is ours:
            continue
        if result is left:
            result = dict(left)
        result[key] = joined
    return result


def _union_node(left: FieldSet, right: FieldSet) -> FieldSet:
    if left is right:
        return left
    if not left:
        return left if not right else (right if SELF in right else {SELF: MEMBER, **right})
    if not right:
        return left if SELF in left else {SELF: MEMBER, **left}
    return _union_children(left, right)


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in the first root set and not in the second, path by path."""
    if not left or not right:
        return left
    return _difference_children(left, right)


def _difference_children(left: FieldSet, right: FieldSet) -> FieldSet:
    result = left
    for key, theirs in right.items():
        ours = left.get(key)
        if ours is None or key == SELF:
            continue
        rest = _difference_node(ours, theirs)
        if rest is ours:
            continue
        if result is left:
            result = dict(left)
        if rest is None:
            del result[key]
        else:
            result[key] = rest
    return result


def _difference_node(left: FieldSet, right: FieldSet) -> FieldSet | None:
    if left == right:
        return None
    member = is_member(left) and not is_member(right)
    if not left:
        return left if member else None
    rest = _difference_children(left, right) if right else left
    if SELF not in left:
        return rest or None
    return _collapse(rest) if member else node_of(children_of(rest), False)


def _collapse(node: FieldSet) -> FieldSet:
    """A member without children is written as an empty node."""
    return MEMBER if len(node) == 1 and SELF in node else node


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """What is in both root sets."""
    result: FieldSet = {}
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None or key == SELF:
            continue
        both = node_of(intersection(ours, theirs) if ours and theirs else EMPTY, is_member(ours) and is_member(theirs))
        if both is not None:
            result[key] = both
    return result


def without_subtrees(left: FieldSet, excluded: FieldSet) -> FieldSet:
    """The set without the excluded members *and everything below them* (fields that a subresource resets)."""
    result = left
    for key, theirs in excluded.items():
        ours = left.get(key)
        if ours is None:
            continue
        rest: FieldSet | None
        if is_member(theirs):
            rest = None
        elif not ours:
            continue
        else:
            below = without_subtrees(children_of(ours), theirs)
            rest = node_of(below, is_member(ours))
        if result is left:
            result = dict(left)
        if rest is None:
            del result[key]
        else:
            result[key] = rest
    return result


def paths(node: FieldSet, prefix: str = "") -> Iterator[str]:
    """Every member as a readable path ('.spec.template.spec.containers[name="a"].image'), in the order in which the
    server lists conflicts: of each node first its own members, then what is below."""
    elements = sorted(key for key in node if key != SELF)
    for key in elements:
        if is_member(node[key]):
            yield prefix + element_text(key)
    for key in elements:
        if node[key]:
            yield from paths(node[key], prefix + element_text(key))


def key_element(pairs: dict[str, Any]) -> str:
    """The path element of a list-map item with these key fields."""
    return "k:" + orjson.dumps(pairs, option=orjson.OPT_SORT_KEYS).decode()


def value_element(value: Any) -> str:
    """The path element of a set item."""
    return "v:" + orjson.dumps(value).decode()


def element_text(element: str) -> str:
    """A path element as conflicts and type errors show it: .name, [name="a"], [="x"]."""
    kind, body = element[:2], element[2:]
    if kind == "f:":
        return "." + body
    if kind == "k:":
        pairs = orjson.loads(body)
        return "[" + ",".join(f"{name}={_value_text(pairs[name])}" for name in sorted(pairs)) + "]"
    if kind == "v:":
        return f"[={_value_text(orjson.loads(body))}]"
    return f"[{body}]"


def _value_text(value: Any) -> str:
    return orjson.dumps(value).decode()
