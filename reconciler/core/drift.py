"""Drift as a history: what was changed on a live object behind our back, by whom, when, from what to what.

The API server records per field manager which fields it wrote last, and when. That is all there is to know of "who":
a removed field has no owner any more, so whoever wrote last to the object is named as such.

    drift_of(desired, live).message
    # 'Deployment.apps orders/web was changed by kubectl-edit at 2026-01-01T10:00:00Z: spec.replicas is 5, declared 2'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.core.diff import compare
from reconciler.core.explain_diff import Change
from reconciler.core.field_paths import Writer, last_writer, writers_of
from reconciler.core.managed_fields import FIELD_MANAGER
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.values import clean_text

CHANGES_TOLD_MAX = 16
#: Values longer than this are cut in the history: it says what happened, Git and the cluster have the rest.
VALUE_LENGTH_MAX = 200
MESSAGE_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Drift:
    """One object's drift: a sentence for people, and the changes for programs, bounded and without secrets."""

    key: ObjectKey
    message: str
    data: dict[str, Any]


def drift_of(desired: Manifest, live: Manifest | None, server_says: tuple[Change, ...] = ()) -> Drift:
    """What differs on `live` from `desired`, the manifest as it would be sent. `server_says` are the differences that
    only the server could tell: what an apply would change."""
    key = ObjectKey.of(desired)
    where = {"apiVersion": str(desired.get("apiVersion", "")), "kind": key.kind, "namespace": key.namespace}
    where["name"] = key.name
    if live is None:
        return Drift(key, f"{key} was deleted", {"object": where, "changes": []})
    comparison = compare(desired, live)
    changes = comparison.changes or server_says
    told = [_told(live, change) for change in changes[:CHANGES_TOLD_MAX]]
    message = f"{key} was changed{_by(live, changes)}: {_what(changes) or comparison.reason.message}"
    return Drift(key, clean_text(message, MESSAGE_LENGTH_MAX), {"object": where, "changes": told})


def _told(live: Manifest, change: Change) -> dict[str, Any]:
    writers = writers_of(live, change.place, FIELD_MANAGER)
    writer = writers[0] if writers else Writer("", "", "", "")
    return {
        "path": clean_text(change.path, VALUE_LENGTH_MAX),
        "display": clean_text(change.display, VALUE_LENGTH_MAX),
        "op": change.op,
        "live": _short(change.old),
        "declared": _short(change.new),
        "manager": clean_text(writer.manager, 120),
        "operation": clean_text(writer.operation, 20),
        "subresource": clean_text(writer.subresource, 40),
        "time": clean_text(writer.time, 40),
    }


def _by(live: Manifest, changes: tuple[Change, ...]) -> str:
    """Who wrote there last, and when."""
    found = {writer for change in changes for writer in writers_of(live, change.place, FIELD_MANAGER)[:1]}
    writer = max(found, key=lambda each: each.time, default=None)
    if writer is not None:
        return f" by {_named(writer)}"
    last = last_writer(live, FIELD_MANAGER)
    return f" (the last other writer was {_named(last)})" if last is not None else ""


def _named(writer: Writer) -> str:
    through = f" through {clean_text(writer.subresource, 40)}" if writer.subresource else ""
    at = f" at {clean_text(writer.time, 40)}" if writer.time else ""
    return f"{clean_text(writer.manager, 120) or 'an unnamed manager'}{through}{at}"


def _what(changes: tuple[Change, ...]) -> str:
    if not changes:
        return ""
    first, more = changes[0], len(changes) - 1
    place = clean_text(first.display, 120)
    if first.op == "add":
        said = f"{place} was removed, declared {_text(first.new)}"
    elif first.op == "remove":
        said = f"{place} is {_text(first.old)}, not declared"
    elif first.old == first.new:
        said = f"{place} has another owner"
    else:
        said = f"{place} is {_text(first.old)}, declared {_text(first.new)}"
    return said + (f", and {more} more" if more else "")


def _text(value: Any) -> str:
    return clean_text(value if isinstance(value, str) else repr(value), 60)


def _short(value: Any) -> Any:
    """`value` if it is small, else the beginning of its text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= VALUE_LENGTH_MAX else clean_text(text, VALUE_LENGTH_MAX)
