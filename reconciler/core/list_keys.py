"""The items of a keyed list, told apart: `k:{"containerPort":80,"protocol":"TCP"}` and what is declared for it.

A key may be declared in part: the server defaults the rest and records the item under the whole key. Where the record
says that the item is ours without that part, it is the one that is meant.

    >>> recorded = {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}
    >>> keys = {(("port", 80), ("protocol", "TCP")): 'k:{"port":80,"protocol":"TCP"}'}
    >>> full_keys([{"port": 80}], ("port", "protocol"), recorded, keys)
    {(('port', 80), ('protocol', 'TCP')): 0}
"""

from __future__ import annotations

from typing import Any

from reconciler.core.managed_fields import FieldsV1, KeyFields, key_fields


def key_of(item: Any, fields: tuple[str, ...]) -> KeyFields | None:
    """The key of a list item; None if a part is missing or no scalar."""
    if not isinstance(item, dict) or any(isinstance(item.get(field, {}), dict | list) for field in fields):
        return None
    return tuple((field, item[field]) for field in fields)


def by_key(items: list[Any], fields: tuple[str, ...]) -> dict[KeyFields, int] | None:
    """Index of every item by key; None if some have none or share one."""
    places = {key: index for index, item in enumerate(items) if (key := key_of(item, fields)) is not None}
    return places if len(places) == len(items) else None


def full_keys(
    items: list[Any], fields: tuple[str, ...], recorded: FieldsV1, keys: dict[KeyFields, str]
) -> dict[KeyFields, int] | None:
    """Index of every declared item by its full key; None where a part is missing for good, or a key stands twice.
    `keys` are those of `recorded`, our record of the list, with the names that they have there."""
    found: dict[KeyFields, int] = {}
    for index, item in enumerate(items):
        key = key_of(item, fields) or _defaulted_key(item, recorded, keys)
        if key is None or key in found:
            return None
        found[key] = index
    return found


def _defaulted_key(item: Any, recorded: FieldsV1, keys: dict[KeyFields, str]) -> KeyFields | None:
    if not isinstance(item, dict):
        return None
    fitting = [
        key
        for key, name in keys.items()
        if all(item[field] == value if field in item else "f:" + field not in recorded[name] for field, value in key)
    ]
    return fitting[0] if len(fitting) == 1 else None


def names_of(key: KeyFields) -> tuple[str, ...]:
    """The fields of a key."""
    return tuple(field for field, _ in key)


def label(key: KeyFields | None, index: int) -> str:
    """The key for people: "name=main"."""
    return ",".join(f"{field}={value}" for field, value in key) if key else str(index)


def spelling(trees: list[FieldsV1], key: KeyFields) -> str:
    """How other managers' trees spell the item with `key`; "" if none has it."""
    return next((name for tree in trees for name in tree if name.startswith("k:") and key_fields(name) == key), "")
