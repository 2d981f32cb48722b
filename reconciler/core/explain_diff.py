"""What differs, for people: one line per path, with list keys instead of indices, and never a Secret's value.

Two questions are answered here. `change_of` words what the exact comparison of diff.py found. `changes` compares on the
client alone, for files, where nobody recorded who owns what: it walks what is declared, matches list items by their
merge key, and knows the defaults of built-in kinds; what only live has is nobody's business.

    [Change("/spec/replicas", "spec.replicas", "replace", 2, 3)]
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.built_in_defaults import (
    NAMED_DEFAULTS,
    default_of,
    in_quantities,
    is_built_in,
    merge_key,
    with_defaults,
)
from reconciler.core.diff_walk import Finding, Item, Kind, Place, find_differences
from reconciler.core.flink_config import flatten, is_flink
from reconciler.core.managed_fields import IDENTITY, METADATA_IDENTITY, applied_fields, foreign_fields
from reconciler.core.model import Manifest
from reconciler.core.values import clean_text, is_zero, quantity

#: Shown instead of what a Secret holds.
MASK = "***"
_SECRET_FIELDS = ("data", "stringData")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference at one place. `path` is a JSON Pointer, `op` add, remove or replace; `old` is live (or the release
    before), `new` is declared; both already masked. `place` is the same place as steps, for whoever looks up who wrote
    there."""

    path: str
    display: str
    op: str
    old: Any = None
    new: Any = None
    place: Place = field(default=(), compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The shape of `diff -o json`."""
        return {"path": self.path, "display": self.display, "op": self.op, "old": self.old, "new": self.new}

    def __str__(self) -> str:
        display = clean_text(self.display)
        if self.op == "add":
            return f"+ {display}: {_short(self.new)}"
        if self.op == "remove":
            return f"- {display}: {_short(self.old)}"
        return f"~ {display}: {_short(self.old)} -> {_short(self.new)}"


def _short(value: Any) -> str:
    return clean_text(value if isinstance(value, str) else repr(value), 120)


def is_secret(manifest: Mapping[str, Any]) -> bool:
    """True for the core kind Secret."""
    return manifest.get("kind") == "Secret" and manifest.get("apiVersion") == "v1"


def change_of(manifest: Mapping[str, Any], finding: Finding) -> Change:
    """`finding` as a Change of `manifest`, masked."""
    old, new = finding.old, finding.new
    if is_secret(manifest):
        old, new = _masked(finding.place, old), _masked(finding.place, new)
    return Change(finding.pointer(), finding.display(), finding.op, old, new, finding.place)


def _masked(place: Place, value: Any) -> Any:
    """A Secret's value at `place`, with every leaf that may be secret replaced."""
    if value is None:
        return None
    if place and place[0] in _SECRET_FIELDS:
        return dict.fromkeys(value, MASK) if len(place) == 1 and isinstance(value, dict) else MASK
    if place == ("metadata", "annotations", _LAST_APPLIED):
        return MASK
    if place == ("metadata", "annotations") and isinstance(value, dict):
        return {name: MASK if name == _LAST_APPLIED else text for name, text in value.items()}
    return value


# ---- on the client alone -----------------------------------------------------------------------------------------


def changes(desired: Manifest, live: Manifest) -> tuple[Change, ...]:
    """What applying `desired` over `live` would change, judged without a server. Where live carries our managedFields,
    what we own and no longer declare is removed; without them undeclared fields stay."""
    wanted = prepared(desired)
    findings = _Client(wanted).compare(live)
    owned = applied_fields(live, str(wanted.get("apiVersion", "")))
    if owned is not None:
        recorded = find_differences(wanted, live, owned, foreign_fields(live))
        findings += [finding for finding in recorded if finding.op == "remove" and finding.kind is Kind.VALUE]
    return tuple(change_of(wanted, finding) for finding in findings)


def prepared(manifest: Manifest) -> Manifest:
    """A manifest from a file as it would be sent: no nulls, no status, a Secret's stringData as data."""
    kept = {name: value for name, value in manifest.items() if name != "status"}
    if is_secret(kept) and isinstance(kept.get("stringData"), dict):
        encoded = {name: b64encode(str(text).encode()).decode() for name, text in kept.pop("stringData").items()}
        kept["data"] = {**(kept.get("data") or {}), **encoded}
    without = _without_nulls(kept)
    return without if isinstance(without, dict) else {}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(below) for name, below in value.items() if below is not None}
    if isinstance(value, list):
        return [_without_nulls(below) for below in value]
    return value


class _Client:
    """Walks what is declared. One instance per comparison."""

    def __init__(self, desired: Manifest) -> None:
        self._desired = desired
        self._kind = str(desired.get("kind", ""))
        self._built_in = is_built_in(str(desired.get("apiVersion", "")))
        self._flink = is_flink(desired)
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

    def _field(self, place: Place, desired: Any, parent: Mapping[str, Any]) -> None:
        name = str(place[-1])
        if self._flink and place == ("spec", "flinkConfiguration"):
            self._configuration(place, flatten(desired), flatten(parent.get(name)))
        elif name in parent:
            self._value(place, desired, parent[name])
        elif not self._says_nothing(place, desired):
            self._findings.append(Finding(Kind.VALUE, place, "not there", "add", None, desired))

    def _says_nothing(self, place: Place, desired: Any) -> bool:
        """Declared, absent from live, and the same: an empty value, or a built-in kind's default."""
        if desired in ({}, [], None):
            return True
        if not self._built_in:
            return False
        default = default_of(self._kind, place)
        return bool(desired == default) if default is not None else is_zero(desired)

    def _value(self, place: Place, desired: Any, live: Any) -> None:
        if isinstance(desired, dict) and isinstance(live, dict):
            for name, value in desired.items():
                self._field((*place, name), value, live)
        elif isinstance(desired, list) and isinstance(live, list):
            self._list(place, desired, live)
        elif not self._equal(place, desired, live):
            self._findings.append(Finding(Kind.VALUE, place, "another value", "replace", live, desired))

    def _equal(self, place: Place, desired: Any, live: Any) -> bool:
        if isinstance(desired, bool) or isinstance(live, bool):
            return desired is live
        if isinstance(desired, int | float) and isinstance(live, int | float):
            return desired == live
        if type(desired) is type(live) and desired == live:
            return True
        number = quantity(desired) if self._built_in and in_quantities(place) else None
        return number is not None and number == quantity(live)

    def _list(self, place: Place, desired: list[Any], live: list[Any]) -> None:
        keys = merge_key(place, desired, live)
        if keys is None:
            if not self._same_list(place, desired, live):
                self._findings.append(Finding(Kind.VALUE, place, "another list", "replace", live, desired))
            return
        by_key = {tuple(with_defaults(item, keys).values()): item for item in live}
        for index, item in enumerate(desired):
            key = with_defaults(item, keys)
            step = Item(index, ",".join(f"{name}={value}" for name, value in key.items() if name in item))
            if tuple(key.values()) in by_key:
                self._value((*place, step), item, by_key[tuple(key.values())])
            else:
                self._findings.append(Finding(Kind.VALUE, (*place, step), "not there", "add", None, item))

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
            extra = {name: value for name, value in live.items() if name not in desired}
            if any(not self._built_in or NAMED_DEFAULTS.get(name) != value for name, value in extra.items()):
                return False
            return all(
                self._same_item((*place, name), value, live[name])
                if name in live
                else self._says_nothing((*place, name), value)
                for name, value in desired.items()
            )
        if isinstance(desired, list) and isinstance(live, list):
            return self._same_list(place, desired, live)
        return self._equal(place, desired, live)

    def _configuration(self, place: Place, desired: dict[str, str], live: dict[str, str]) -> None:
        for key, value in desired.items():
            if key not in live:
                self._findings.append(Finding(Kind.VALUE, (*place, key), "not there", "add", None, value))
            elif live[key] != value:
                self._findings.append(Finding(Kind.VALUE, (*place, key), "another value", "replace", live[key], value))
