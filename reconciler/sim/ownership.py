"""Ownership: the managedFields of an object, and how each write changes them.

An entry is identified by (manager, operation, apiVersion, subresource). `apply` is server-side apply: it merges a
configuration, removes what the manager applied before and no longer does, and finds conflicts with other managers.
`update` is every other write: what it changed now belongs to its manager, and to nobody else.

    outcome = apply(node, live, config, entries, owner, force=False, reset=EMPTY)
    outcome.value, outcome.entries, outcome.conflicts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from reconciler.sim import fieldset, merge, problems
from reconciler.sim.compare import NOTHING, compare
from reconciler.sim.fieldset import EMPTY, MEMBER, FieldSet
from reconciler.sim.schema import Node

MAX_UPDATE_MANAGERS = 10
ANCIENT = "ancient-changes"


class Owner(NamedTuple):
    """Who an entry belongs to."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One managedFields entry; `time` is RFC 3339 or "" (an apply that changed no value has none)."""

    fields: FieldSet
    time: str = ""


Entries = Mapping[Owner, Entry]

# Identity and bookkeeping fields belong to the server, never to a manager.
SERVER_FIELDS: FieldSet = {
    "f:apiVersion": MEMBER,
    "f:kind": MEMBER,
    "f:metadata": {
        ".": MEMBER,
        **{
            f"f:{name}": MEMBER
            for name in (
                "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
                "managedFields", "resourceVersion",
            )
        },
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply results in: the merged value, the entries (times not yet set), and conflicts by manager."""

    value: Any
    entries: dict[Owner, Entry]
    conflicts: tuple[tuple[Owner, FieldSet], ...] = ()


def apply(
    node: Node,
    live: Mapping[str, Any],
    config: Mapping[str, Any],
    entries: Entries,
    owner: Owner,
    *,
    force: bool,
    reset: FieldSet,
) -> Outcome:
    """Server-side apply of a valid configuration. `reset` are fields this endpoint does not write (status)."""
    merged = merge.merge(node, live, config)
    owned = merge.field_set(node, config)
    if reset:
        owned = fieldset.without_subtrees(owned, reset)
    last = entries[owner].fields if owner in entries else EMPTY
    after = dict(entries)
    if owned == last:
        # The usual case, and sharing makes what follows cheap.
        owned = last
    after[owner] = Entry(owned, entries[owner].time if owner in entries else "")
    if owned is not last and fieldset.difference(last, owned):
        merged = _prune(node, merged, last, after)
    changes = compare(node, live, merged)
    if changes is not NOTHING:
        touched, gone = changes.touched, changes.removed
        if reset:
            touched = fieldset.without_subtrees(touched, reset)
            gone = fieldset.without_subtrees(gone, reset)
        conflicts = _disown(after, owner, touched, gone)
        if conflicts and not force:
            return Outcome(merged, after, tuple(conflicts))
    _strip_server_fields(after, owner)
    return Outcome(merged, after)


def update(node: Node, before: Any, after: Any, entries: Entries, owner: Owner, time: str) -> dict[Owner, Entry]:
    """The entries after a write that made `after` of `before`."""
    changes = compare(node, before, after)
    if changes is NOTHING:
        return dict(entries)
    result = dict(entries)
    touched = changes.touched
    _disown(result, None, touched, changes.removed)
    mine = fieldset.difference(touched, SERVER_FIELDS)
    if mine:
        previous = result[owner].fields if owner in result else EMPTY
        result[owner] = Entry(fieldset.union(mine, previous), time)
    return _cap(result)


def _disown(
    entries: dict[Owner, Entry], writer: Owner | None, touched: FieldSet, gone: FieldSet
) -> list[tuple[Owner, FieldSet]]:
    """Take what was written, and what no longer exists, from everybody but the writer. Returns what conflicted."""
    conflicts: list[tuple[Owner, FieldSet]] = []
    for owner, entry in list(entries.items()):
        if owner == writer:
            continue
        contested = fieldset.intersection(entry.fields, touched) if touched else EMPTY
        if contested:
            conflicts.append((owner, contested))
        rest = fieldset.difference(fieldset.difference(entry.fields, contested), gone)
        if not rest:
            del entries[owner]
        elif rest is not entry.fields:
            entries[owner] = replace(entry, fields=rest)
    return conflicts


def _strip_server_fields(entries: dict[Owner, Entry], owner: Owner) -> None:
    entry = entries[owner]
    rest = fieldset.difference(entry.fields, SERVER_FIELDS)
    if rest:
        entries[owner] = replace(entry, fields=rest)
    else:
        del entries[owner]


def _prune(node: Node, merged: Any, last: FieldSet, entries: Entries) -> Any:
    """Remove what the manager applied last time, but for what anybody (itself included) owns now, and for what it did
    not own: a removed container keeps the parts of others."""

    def members(fields: FieldSet) -> FieldSet:
        return merge.named_fields_as_members(node, fields)

    pruned = merge.remove(node, merged, members(last))
    pruned = {} if pruned is None else pruned
    everything = members(merge.field_set(node, merged))
    managed: FieldSet = EMPTY
    for entry in entries.values():
        managed = fieldset.union(managed, entry.fields)
    kept = fieldset.union(members(merge.field_set(node, pruned)), members(managed))
    pruned = merge.remove(node, merged, fieldset.difference(everything, kept))
    remaining = members(merge.field_set(node, {} if pruned is None else pruned))
    gone = fieldset.intersection(fieldset.difference(everything, remaining), members(last))
    return merge.remove(node, merged, gone) if gone else merged


def _cap(entries: dict[Owner, Entry]) -> dict[Owner, Entry]:
    """At most ten Update entries: the oldest are folded into one bucket for each apiVersion."""
    updaters = [owner for owner in entries if owner.operation == "Update"]
    excess = len(updaters) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return entries
    updaters.sort(key=lambda owner: (entries[owner].time, owner))
    first: dict[str, Owner] = {}
    for owner in updaters:
        if excess <= 0:
            break
        version = owner.api_version
        if version not in first:
            first[version] = owner
            continue
        bucket = Owner(ANCIENT, "Update", version)
        if bucket not in entries:
            entries[bucket] = entries.pop(first[version])
        folded = entries.pop(owner)
        entries[bucket] = Entry(fieldset.union(folded.fields, entries[bucket].fields), folded.time)
        excess -= 1
    return entries


def encode(entries: Entries) -> list[dict[str, Any]]:
    """managedFields as the server writes them, in its order."""

    def order(item: tuple[Owner, Entry]) -> tuple[str, str, str, str, str]:
        owner, entry = item
        return owner.operation, entry.time, owner.manager, owner.api_version, owner.subresource

    return [_encode_entry(owner, entry) for owner, entry in sorted(entries.items(), key=order)]


def _encode_entry(owner: Owner, entry: Entry) -> dict[str, Any]:
    result: dict[str, Any] = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": owner.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields,
    }
    if entry.time:
        result["time"] = entry.time
    if owner.subresource:
        result["subresource"] = owner.subresource
    return result


def decode(managed_fields: Any) -> dict[Owner, Entry]:
    """The entries of a managedFields list. ValueError when it is not one."""
    entries: dict[Owner, Entry] = {}
    try:
        for item in managed_fields or ():
            owner = Owner(
                item.get("manager", ""), item["operation"], item.get("apiVersion", ""), item.get("subresource", "")
            )
            if owner.operation not in ("Apply", "Update"):
                raise ValueError(f"invalid operation {owner.operation!r}")
            fields = item.get("fieldsV1") or {}
            if not isinstance(fields, dict) or item.get("fieldsType", "FieldsV1") != "FieldsV1":
                raise ValueError("fieldsV1 is not a field set")
            entries[owner] = Entry(fields, item.get("time") or "")
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("managedFields is not a list of entries") from error
    return entries


def conflict_status(conflicts: tuple[tuple[Owner, FieldSet], ...]) -> problems.Status:
    """The 409 that names every manager and path in the way."""
    found: list[tuple[str, str]] = []
    for owner, fields in conflicts:
        found += [(_manager_text(owner), path) for path in fieldset.paths(fields)]
    found.sort(key=lambda one: one[0])
    if len(found) == 1:
        text = f"conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = []
        previous = None
        for manager, path in found:
            if manager != previous:
                lines.append(f"conflicts with {manager}:")
                previous = manager
            lines.append(f"- {path}")
        text = "\n".join(lines)
    plural = "" if len(found) == 1 else "s"
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, path in found
    ]
    message = f"Apply failed with {len(found)} conflict{plural}: {text}"
    return problems.status(409, message, details={"causes": causes})


def _manager_text(owner: Owner) -> str:
    """How a conflict names a manager: with subresource, and for updates with version and time left out."""
    text = f'"{owner.manager}"'
    if owner.subresource:
        text += f' with subresource "{owner.subresource}"'
    if owner.operation == "Update":
        text += f" using {owner.api_version}"
    return text
