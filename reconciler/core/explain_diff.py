"""What differs, for people: one line per path, with list keys instead of indices, and never a Secret's value.

Two questions are answered here. `change_of` words what the exact comparison of diff.py found. `changes` compares
without a server: exactly, where live carries the record of what we applied, with the client's guess (client_diff.py)
wherever that leaves a doubt, and by the client alone where live carries none.

    [Change("/spec/replicas", "spec.replicas", "replace", 2, 3)]
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.client_diff import compared, settled
from reconciler.core.diff_walk import Finding, Kind, Place, find_differences
from reconciler.core.managed_fields import applied_fields, foreign_fields
from reconciler.core.model import Manifest
from reconciler.core.values import clean_text

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


# ---- without a server --------------------------------------------------------------------------------------------


def changes(desired: Manifest, live: Manifest) -> tuple[Change, ...]:
    """What applying `desired` over `live` would change, judged without a server. Where live carries our managedFields,
    what we own and no longer declare is removed; without them undeclared fields stay."""
    wanted = prepared(desired)
    owned = applied_fields(live, str(wanted.get("apiVersion", "")))
    if owned is None:
        return tuple(change_of(wanted, finding) for finding in compared(wanted, live))
    found: list[Finding] = []
    for finding in find_differences(wanted, live, owned, foreign_fields(live)):
        if finding.kind is Kind.VALUE:
            found.append(finding)
        elif finding.kind is Kind.DOUBT:
            found += settled(wanted, finding)
    return tuple(change_of(wanted, finding) for finding in found)


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
