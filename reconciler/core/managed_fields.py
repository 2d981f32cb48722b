"""managedFields: who set which field of a live object, as the API server records it.

Server-side apply keeps, per manager, a tree `fieldsV1`: `f:` is a field, `k:` an item of a keyed list, `v:` one of a
set, `i:` an index, `.` the container itself, and `{}` a leaf, which is a scalar, an empty map, or a whole atomic value.

    {"manager": "reconciler", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
     "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {...: {'k:{"name":"main"}': {".": {}, "f:image": {}}}}}}}
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

#: Our identity in server-side apply.
FIELD_MANAGER = "reconciler"

FieldsV1 = dict[str, Any]
#: One step down: ("f", name), ("k", sorted pairs), ("v", value as JSON) or ("i", index).
KeyFields = tuple[tuple[str, Any], ...]

#: Identity: sent with every apply, owned by nobody.
IDENTITY = ("apiVersion", "kind")
METADATA_IDENTITY = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "selfLink",
    "managedFields",
)


def entries_of(live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The managedFields entries of `live`, [] when the server sent none or something that is none."""
    entries = (live.get("metadata") or {}).get("managedFields")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def our_entries(live: Mapping[str, Any], manager: str = FIELD_MANAGER) -> list[dict[str, Any]]:
    """Every entry of `manager` made by apply on the object itself (not on status or scale), at any version."""
    return [
        entry
        for entry in entries_of(live)
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource")
    ]


def applied_fields(live: Mapping[str, Any], api_version: str, manager: str = FIELD_MANAGER) -> FieldsV1 | None:
    """The fields `manager` applied at `api_version`, if that is one entry and no other of its entries exists."""
    ours = our_entries(live, manager)
    if len(ours) != 1 or ours[0].get("apiVersion") != api_version:
        return None
    fields = ours[0].get("fieldsV1")
    return fields if isinstance(fields, dict) else None


def foreign_fields(live: Mapping[str, Any], manager: str = FIELD_MANAGER) -> list[FieldsV1]:
    """Trees of everyone else's fields on the object itself, without those that reach only metadata and status."""
    trees: list[FieldsV1] = []
    for entry in entries_of(live):
        if entry.get("subresource") or (entry.get("manager") == manager and entry.get("operation") == "Apply"):
            continue
        fields = entry.get("fieldsV1")
        if isinstance(fields, dict) and any(name not in ("f:metadata", "f:status") for name in fields):
            trees.append(fields)
    return trees


@functools.lru_cache(maxsize=4096)
def key_fields(name: str) -> KeyFields | None:
    """The key of a `k:` entry as sorted pairs; None if it is not JSON of an object with scalar values."""
    try:
        parsed = json.loads(name[2:])
    except ValueError:
        return None
    if not isinstance(parsed, dict) or any(isinstance(value, dict | list) for value in parsed.values()):
        return None
    return tuple(sorted(parsed.items()))


@functools.lru_cache(maxsize=4096)
def set_value(name: str) -> tuple[str, Any] | None:
    """The scalar of a `v:` entry with its JSON type's name; None if it is not a JSON scalar."""
    try:
        parsed = json.loads(name[2:])
    except ValueError:
        return None
    return None if isinstance(parsed, dict | list) else (type(parsed).__name__, parsed)


def children(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What lies below a node, without the mark of the node itself."""
    return ((name, below) for name, below in fields.items() if name != ".")


def descend(trees: list[FieldsV1], name: str) -> list[FieldsV1]:
    """The nodes called `name` (with its prefix) below each of `trees`, where there are any."""
    return [below for tree in trees if isinstance(below := tree.get(name), dict)]


def manages_inside(trees: list[FieldsV1]) -> bool:
    """True if one of `trees` owns something *below* this node: then the node cannot be atomic."""
    return any(name != "." for tree in trees for name in tree)


def leaf_paths(fields: FieldsV1, path: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Flat names of the leaves below maps, with where they stand: {"f:a": {"f:b.c": {}}} is {"a.b.c": ("a", "b.c")}."""
    below = list(children(fields))
    if not below:
        return {".".join(path): path}
    return {name: at for step, tree in below for name, at in leaf_paths(tree, (*path, step[2:])).items()}
