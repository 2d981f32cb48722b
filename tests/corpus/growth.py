"""Growing an object along its schema: a declared field more, with a value of the field's type.

The schemas are those that the real API server serves, as the committed tables hold them (a test derives them anew).
What grows is of the right type and within enums and limits, but need not pass the server's further rules, so callers
take it back where the server refuses it.

    grown(node_of("deployments"), body, draw)       # a copy with, say, spec.template.spec.hostPID: false
"""

from __future__ import annotations

import copy
from typing import Any

from reconciler.sim.schema import Node, Resource, Shape, load_catalog
from tests.corpus.drawing import NUMBERS, Draw
from tests.corpus.kinds import BUILDERS

#: What a pod or an object may say that only the server or its nodes may write, or that reaches out of the corpus.
_LEFT_OUT = {
    "metadata", "status", "apiVersion", "kind", "nodeName", "finalizers", "ephemeralContainers", "clusterIP",
    "clusterIPs", "healthCheckNodePort", "nodePort", "schedulingGates", "resourceClaims", "stringData",
}  # fmt: skip


def resource_of(plural: str) -> Resource:
    """The kind of this plural name."""
    return next(one for one in load_catalog("specimen").resources if one.plural == plural and plural in BUILDERS)


def child_of(node: Node | None, step: Any) -> Node | None:
    """The type one step down."""
    if node is None:
        return None
    return node.child(step) if isinstance(step, str) else node.element


def _places(node: Node | None, value: Any) -> list[tuple[Node, dict[str, Any]]]:
    """Every map of declared fields in `value`, with its type."""
    found: list[tuple[Node, dict[str, Any]]] = []
    if node is None:
        return found
    if isinstance(value, dict):
        if node.fields:
            found.append((node, value))
        for name, below in value.items():
            if name not in _LEFT_OUT:
                found += _places(child_of(node, name), below)
    elif isinstance(value, list):
        for item in value:
            found += _places(node.element, item)
    return found


def grown(node: Node, body: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """`body` with one declared field more, or unchanged where there is nothing to add."""
    copied = copy.deepcopy(body)
    places = _places(node, copied)
    if not places:
        return copied
    where, holder = draw.pick(*places)
    names = sorted(name for name in where.fields if name not in holder and name not in _LEFT_OUT)
    if names:
        name = draw.pick(*names)
        holder[name] = value_of(where.fields[name], draw, 2, where, name)
    return copied


def value_of(node: Node, draw: Draw, depth: int, parent: Node | None = None, name: str = "") -> Any:
    """A value of this type; `parent` and `name` say which field it is, for its enum and limits."""
    if parent is not None and name in parent.enums:
        return draw.pick(*parent.enums[name])
    limits = parent.limits.get(name, {}) if parent is not None else {}
    if node.shape is Shape.SCALAR:
        return _scalar(node, draw, limits)
    if node.shape is Shape.LIST:
        return _list(node, draw, depth)
    if node.shape is Shape.ANY:
        return draw.free(depth)
    if not node.fields:
        element = node.element
        count = draw.number(0, 2) if element is not None and depth else 0
        return {draw.pick("a", "b", "c.d"): value_of(element, draw, depth - 1) for _ in range(count) if element}
    chosen = list(node.required)
    if depth:
        chosen += [draw.pick(*sorted(node.fields)) for _ in range(draw.number(0, 2))]
    wanted = [key for key in dict.fromkeys(chosen) if key in node.fields and key not in ("metadata", "status")]
    return {key: value_of(node.fields[key], draw, depth - 1 if depth else 0, node, key) for key in wanted}


def _scalar(node: Node, draw: Draw, limits: dict[str, Any]) -> Any:
    if node.scalar == "boolean":
        return draw.pick(False, True)
    if node.scalar == "numeric":
        fitting = [n for n in NUMBERS if limits.get("minimum", 0) <= n <= limits.get("maximum", 9)] or [1]
        return draw.pick(*fitting) if node.integer else draw.pick(*fitting, 0.5, 1.0)
    if node.scalar == "untyped":
        return draw.pick(1, "1", "50%", "1000m", "1Gi", "1024Mi")
    return draw.pick("a", "b", "a-b", "") if limits else draw.pick("a", "b", "", draw.text())


def _list(node: Node, draw: Draw, depth: int) -> list[Any]:
    element = node.element
    if element is None:
        return []
    items = [value_of(element, draw, depth) for _ in range(draw.number(0, 2))]
    if not node.associative:
        return items
    keys = [
        repr([item.get(key, node.key_defaults.get(key)) for key in node.keys] if node.keys else item) for item in items
    ]
    return [item for index, item in enumerate(items) if keys.index(keys[index]) == index]
