"""Edits of an object: what a person with kubectl, a controller or the next commit may do to it.

An edit is drawn once, on one object, and is then a function of any object of the same shape: the same edit is played on
the real and on the simulated server, whose objects differ in identities only.

    draw_edit(declared, node, draw)(live)       # a copy of live with one thing changed, or None: nothing to change
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from typing import Any

from reconciler.core.values import quantity
from reconciler.sim.schema import Node
from tests.corpus.drawing import LABEL_NAMES, LABEL_VALUES, Draw
from tests.corpus.growth import child_of, grown, value_of

Object = dict[str, Any]
Path = tuple[Any, ...]
Edit = Callable[[Object], Object]

#: The same number, spelled otherwise.
_SPELLINGS = (
    ("1", "1000m", "1.0", "1e0", 1, 1.0), ("0.5", "500m", 0.5), ("2", "2000m", 2, 2.0),
    ("1Gi", "1024Mi", "1073741824", 1073741824), ("0.5Gi", "512Mi"), ("1G", "1e9", "1000M"), ("0", 0, "0m"),
)  # fmt: skip
_IDENTITY = ("apiVersion", "kind", "status")
_METADATA = ("labels", "annotations", "finalizers")


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place below an object that somebody may own: leaves, maps and lists."""
    if isinstance(value, dict):
        for name, below in value.items():
            if (not path and name in _IDENTITY) or (path == ("metadata",) and name not in _METADATA):
                continue
            if (*path, name) != ("metadata",):
                yield (*path, name)
            yield from places(below, (*path, name))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield (*path, index)
            yield from places(below, (*path, index))


def get(value: Any, path: Path) -> Any:
    """What stands at `path`; KeyError, IndexError or TypeError where nothing does."""
    for step in path:
        value = value[step]
    return value


def _holder(value: Object, path: Path) -> Any:
    return get(value, path[:-1])


def has(value: Object, path: Path) -> bool:
    """Whether anything stands at `path`."""
    try:
        get(value, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def setting(path: Path, new: Any) -> Edit:
    """Put `new` at `path`."""

    def edit(value: Object) -> Object:
        copied = copy.deepcopy(value)
        if has(copied, path[:-1]) and isinstance(_holder(copied, path), dict | list):
            _holder(copied, path)[path[-1]] = copy.deepcopy(new)
        return copied

    return edit


def dropping(path: Path) -> Edit:
    """Take away what stands at `path`."""

    def edit(value: Object) -> Object:
        copied = copy.deepcopy(value)
        if has(copied, path):
            del _holder(copied, path)[path[-1]]
        return copied

    return edit


def reversing(path: Path) -> Edit:
    """Turn a list round."""

    def edit(value: Object) -> Object:
        copied = copy.deepcopy(value)
        if has(copied, path) and isinstance(get(copied, path), list):
            get(copied, path).reverse()
        return copied

    return edit


def node_at(node: Node, path: Path) -> Node | None:
    """The type at `path`."""
    found: Node | None = node
    for step in path:
        found = child_of(found, step)
    return found


def other_value(old: Any, node: Node, path: Path, draw: Draw) -> Any:
    """Another value for `path`: by the schema, or near the old one."""
    here, parent = node_at(node, path), node_at(node, path[:-1])
    if here is not None and draw.chance(40):
        name = path[-1] if isinstance(path[-1], str) else ""
        return value_of(here, draw, 1, parent, name)
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return draw.pick(old + 1, 0, old)
    if isinstance(old, str):
        return draw.pick(old + "x", "", respelled(old, draw), "x")
    if isinstance(old, list):
        return draw.pick([], old[:1], [*old, *old[:1]], list(reversed(old)))
    return draw.pick({}, old)


def respelled(old: Any, draw: Draw) -> Any:
    """The same value written otherwise, if it can be."""
    if isinstance(old, str) and old.startswith("aHVudGVy"):
        return base64.encodebytes(base64.b64decode(old)).decode()
    number = quantity(old)
    for group in _SPELLINGS:
        if number is not None and number == quantity(group[0]):
            return draw.pick(*group)
    return old


def _chosen_place(value: Object, draw: Draw, wanted: Callable[[Any], bool] | None = None) -> Path | None:
    found = [path for path in places(value) if wanted is None or wanted(get(value, path))]
    return draw.pick(*found) if found else None


def draw_change(value: Object, node: Node, draw: Draw) -> Edit:
    """One changed value somewhere."""
    path = _chosen_place(value, draw, lambda found: not isinstance(found, dict) or not found)
    return setting(path, other_value(get(value, path), node, path, draw)) if path else copy.deepcopy


def draw_drop(value: Object, _node: Node, draw: Draw) -> Edit:
    """One field or item less."""
    path = _chosen_place(value, draw)
    return dropping(path) if path else copy.deepcopy


def draw_reorder(value: Object, _node: Node, draw: Draw) -> Edit:
    """One list turned round."""
    path = _chosen_place(value, draw, lambda found: isinstance(found, list) and len(found) > 1)
    return reversing(path) if path else copy.deepcopy


def draw_respelling(value: Object, _node: Node, draw: Draw) -> Edit:
    """One value written otherwise."""

    def can_be(found: Any) -> bool:
        secret = isinstance(found, str) and found.startswith("aHVudGVy")
        number = None if isinstance(found, dict | list) else quantity(found)
        return secret or any(number is not None and number == quantity(group[0]) for group in _SPELLINGS)

    path = _chosen_place(value, draw, can_be)
    return setting(path, respelled(get(value, path), draw)) if path else copy.deepcopy


def draw_growth(value: Object, node: Node, draw: Draw) -> Edit:
    """One field more: along the schema, or one more item, or a map's key."""
    lists = _chosen_place(value, draw, lambda found: isinstance(found, list) and bool(found))
    if lists is not None and draw.chance(30):
        item = copy.deepcopy(get(value, lists)[0])
        if isinstance(item, dict):
            for name in ("name", "port", "containerPort", "key", "path"):
                if name in item:
                    item[name] = "new" if isinstance(item[name], str) else 99
        elif isinstance(item, str):
            item = "new"
        return setting(lists, [*get(value, lists), item])
    bigger = grown(node, value, draw)
    for path in places(bigger):
        if not has(value, path):
            return setting(path, get(bigger, path))
    return copy.deepcopy


def draw_label(_value: Object, _node: Node, draw: Draw) -> Edit:
    """A label or an annotation by hand, at times one of ours."""
    field = draw.pick("labels", "annotations")
    own = {"labels": "reconciler.dev/owner", "annotations": "reconciler.dev/application"}[field]
    path = ("metadata", field, draw.pick(*LABEL_NAMES, own))
    return dropping(path) if draw.chance(20) else setting(path, draw.pick(*LABEL_VALUES))


EDITS = {
    "change": draw_change,
    "drop": draw_drop,
    "reorder": draw_reorder,
    "respell": draw_respelling,
    "grow": draw_growth,
    "label": draw_label,
}


def part_of(declared: Object, draw: Draw) -> Object:
    """Some of what is declared, as another manager may apply it: top-level fields and members of maps are left out."""

    def thinned(value: Any, depth: int) -> Any:
        if isinstance(value, dict) and depth:
            return {name: thinned(below, depth - 1) for name, below in value.items() if draw.chance(60)}
        return copy.deepcopy(value)

    kept = {
        name: thinned(value, 2) for name, value in declared.items() if name not in ("apiVersion", "kind", "metadata")
    }
    labels = {name: text for name, text in declared["metadata"].get("labels", {}).items() if draw.chance(50)}
    return {**kept, "metadata": {"labels": labels} if labels else {}}
