"""The client's own comparison: what differs as far as can be told without a server, and without a record of ownership.

It walks what is declared, matches list items by their merge key, and knows the defaults of built-in kinds; what only
live has is nobody's business. It judges files, and what the exact comparison leaves in doubt where no server will say.

    compared(desired, live)         # findings, Kind.VALUE: without managedFields
    settled(desired, doubt)         # the same for one doubtful finding of diff_walk.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.built_in_defaults import default_of, merge_key, with_defaults
from reconciler.core.built_in_kinds import TELLS_EMPTY_FROM_ABSENT, in_quantities, is_built_in, is_filled_in
from reconciler.core.diff_walk import Finding, Item, Kind, Place
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.managed_fields import IDENTITY, METADATA_IDENTITY
from reconciler.core.model import Manifest
from reconciler.core.values import is_zero, quantity
from reconciler.core.whole_values import Relation, encoded_field, encoded_relation


def compared(desired: Manifest, live: Manifest) -> list[Finding]:
    """Everything declared that live does not have, or has otherwise."""
    return _Client(desired).compare(live)


def settled(desired: Manifest, doubt: Finding) -> list[Finding]:
    """What differs where the exact comparison is in doubt; nothing, if the client takes it for the same."""
    return _Client(desired).settle(doubt)


class _Client:
    """Walks what is declared. One instance per comparison."""

    def __init__(self, desired: Manifest) -> None:
        self._desired = desired
        self._kind = str(desired.get("kind", ""))
        self._built_in = is_built_in(str(desired.get("apiVersion", "")))
        self._flink = is_flink(desired)
        self._encoded = encoded_field(desired)
        self._findings: list[Finding] = []

    def compare(self, live: Manifest) -> list[Finding]:
        for name, value in self._desired.items():
            if name == "metadata":
                live_metadata = live.get("metadata") or {}
                for field, below in value.items():
                    if field not in METADATA_IDENTITY:
                        self._field(("metadata", field), below, live_metadata)
            elif name not in IDENTITY:
                self._field((name,), value, live)
        return self._findings

    def settle(self, doubt: Finding) -> list[Finding]:
        place, desired, live = doubt.place, doubt.new, doubt.old
        if doubt.op == "remove":
            self._add(place, "no longer declared", live, None, "remove")
        elif doubt.op == "add":
            if not self._says_nothing(place, desired):
                self._add(place, "not there", None, desired, "add")
        elif self._flink and place == ("spec", "flinkConfiguration"):
            pass  # One configuration, written differently.
        elif not doubt.whole:
            self._value(place, desired, live)
        elif not self._same_item(place, desired, live):
            self._add(place, "another value", live, desired)
        return self._findings

    def _add(self, place: Place, why: str, old: Any, new: Any, op: str = "replace") -> None:
        self._findings.append(Finding(Kind.VALUE, place, why, op, old, new))

    def _field(self, place: Place, desired: Any, parent: Mapping[str, Any]) -> None:
        name = str(place[-1])
        if self._flink and place == ("spec", "flinkConfiguration"):
            self._configuration(place, flatten(desired), flatten(parent.get(name)))
        elif name in parent:
            self._value(place, desired, parent[name])
        elif not self._says_nothing(place, desired):
            self._add(place, "not there", None, desired, "add")

    def _says_nothing(self, place: Place, desired: Any) -> bool:
        """Declared, absent from live, and the same: an empty value, or a built-in kind's default. A map of texts and a
        custom resource keep what is empty."""
        if desired is None:
            return True
        if place[0] == "metadata":
            return len(place) == 2 and not desired
        if not self._built_in or place[:-1] in (("data",), ("binaryData",)):
            return False
        default = default_of(self._kind, place)
        if default is not None:
            return bool(desired == default)
        return is_zero(desired) and place[-1] not in TELLS_EMPTY_FROM_ABSENT

    def _value(self, place: Place, desired: Any, live: Any) -> None:
        if isinstance(desired, dict) and isinstance(live, dict):
            for name, value in desired.items():
                self._field((*place, name), value, live)
        elif isinstance(desired, list) and isinstance(live, list):
            self._list(place, desired, live)
        elif not self._equal(place, desired, live):
            self._add(place, "another value", live, desired)

    def _equal(self, place: Place, desired: Any, live: Any) -> bool:
        if isinstance(desired, bool) or isinstance(live, bool):
            return desired is live
        if isinstance(desired, int | float) and isinstance(live, int | float) and desired == live:
            return True
        if type(desired) is type(live) and desired == live:
            return True
        if len(place) > 1 and place[0] == self._encoded:
            return encoded_relation(desired, live) is not Relation.DIFFERENT
        if not self._built_in:
            return False
        if is_zero(desired) and place[-1] not in TELLS_EMPTY_FROM_ABSENT:
            return bool(live == default_of(self._kind, place) or is_filled_in(place, live))
        number = quantity(desired) if in_quantities(place) else None
        return number is not None and number == quantity(live)

    # ---- lists

    def _list(self, place: Place, desired: list[Any], live: list[Any]) -> None:
        if place == ("metadata", "finalizers"):
            # A set of texts: what others hold beside ours is theirs.
            for index, item in enumerate(desired):
                if item not in live:
                    self._add((*place, Item(index, str(item))), "not there", None, item, "add")
            if [item for item in live if item in desired] != [item for item in desired if item in live]:
                self._add(place, "another order", live, desired)
            return
        keys = merge_key(place, desired, live)
        if keys is None:
            if not self._same_list(place, desired, live):
                self._add(place, "another list", live, desired)
            return
        positions = {tuple(with_defaults(item, keys).values()): index for index, item in enumerate(live)}
        found: list[int] = []
        for index, item in enumerate(desired):
            key = with_defaults(item, keys)
            step = Item(index, ",".join(f"{name}={value}" for name, value in key.items() if name in item))
            position = positions.get(tuple(key.values()))
            if position is None:
                self._add((*place, step), "not there", None, item, "add")
            else:
                found.append(position)
                self._value((*place, step), item, live[position])
        if found != sorted(found):
            self._add(place, "another order", live, desired)

    def _same_list(self, place: Place, desired: list[Any], live: list[Any]) -> bool:
        """A list compared as a whole: what only live has inside an item counts, unless it is a known default."""
        if len(desired) != len(live):
            return False
        return all(
            self._same_item((*place, Item(index, str(index))), one, other)
            for index, (one, other) in enumerate(zip(desired, live, strict=True))
        )

    def _same_item(self, place: Place, desired: Any, live: Any) -> bool:
        if isinstance(desired, dict) and isinstance(live, dict):
            return self._same_map(place, desired, live)
        if isinstance(desired, list) and isinstance(live, list):
            return self._same_list(place, desired, live)
        return self._equal(place, desired, live)

    def _same_map(self, place: Place, desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
        extra = {name: value for name, value in live.items() if name not in desired}
        if not all(self._is_default((*place, name), value) for name, value in extra.items()):
            return False
        return all(
            self._same_item((*place, name), value, live[name])
            if name in live
            else self._says_nothing((*place, name), value)
            for name, value in desired.items()
        )

    def _is_default(self, place: Place, value: Any) -> bool:
        if not self._built_in:
            return False
        return default_of(self._kind, place) == value or is_filled_in(place, value)

    # ---- Flink

    def _configuration(self, place: Place, desired: dict[str, str], live: dict[str, str]) -> None:
        for key, value in desired.items():
            if key not in live:
                self._add((*place, key), "not there", None, value, "add")
            elif live[key] != value:
                self._add((*place, key), "another value", live[key], value)
