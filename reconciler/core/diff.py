"""Is live what we declared? The client answers "in sync" or "ask"; only the server's dry-run settles the rest.

A dry-run costs the server as much as a write, so almost every look must be answered here, and an answer "in sync" must
be certain. It is, if what we declare is exactly what the server recorded as applied by us, and every value is equal:

    compare(desired, live).sync      # IN_SYNC: exactly one Apply entry of ours, the same fields, the same values
                                     # DIFFERS: a value is certainly another one; `changes` says where
                                     # MISSING: there is no live object
                                     # ASK:     a default, an order, another manager: the dry-run knows
                                     # UNKNOWN: it is being deleted: wait for what comes after

`desired` is the manifest as it is sent, ownership marks included. Its cost for an object in sync is one recursive walk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler.core.diff_walk import Finding, Kind, find_differences
from reconciler.core.digest import digest_of
from reconciler.core.explain_diff import Change, change_of
from reconciler.core.managed_fields import (
    FIELD_MANAGER,
    IDENTITY,
    METADATA_IDENTITY,
    FieldsV1,
    applied_fields,
    entries_of,
    foreign_fields,
    key_fields,
    our_entries,
)
from reconciler.core.model import Manifest, ObjectKey, Reason, Sync
from reconciler.core.values import clean_text, is_zero, strictly_equal


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one comparison said. `changes` explain DIFFERS and are empty otherwise. `ownership_only`: every value is
    right, but the server does not record all of them as ours (or more than we declare): one apply, no disruption."""

    sync: Sync
    reason: Reason
    changes: tuple[Change, ...] = ()
    ownership_only: bool = False


IN_SYNC = Comparison(Sync.IN_SYNC, Reason("InSync", "live is what is declared"))
MISSING = Comparison(Sync.MISSING, Reason("Missing", "it does not exist on the cluster"))
TERMINATING = Comparison(
    Sync.UNKNOWN, Reason("Terminating", "it is being deleted; nothing is applied until it is gone")
)


def compare(desired: Manifest, live: Manifest | None, manager: str = FIELD_MANAGER) -> Comparison:
    """Compare `desired`, the manifest as sent, with `live` as read, both at one API version."""
    if live is None:
        return MISSING
    metadata = live.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return TERMINATING
    api_version = str(desired.get("apiVersion", ""))
    if live.get("apiVersion") != api_version:
        return _ask("OtherVersion", f"live was read at {live.get('apiVersion')}, declared is {api_version}")
    if ObjectKey.of(live) != ObjectKey.of(desired):
        raise ValueError(f"compared {ObjectKey.of(desired)} with {ObjectKey.of(live)}")
    owned = applied_fields(live, api_version, manager)
    if owned is None:
        return _ask("NotAppliedByUs", _why_not_ours(live, api_version, manager))
    foreign = foreign_fields(live, manager)
    try:
        if (
            not foreign
            and not _labels_recorded_empty(desired, owned)
            and _same(_without_identity(desired), _without_identity(live), owned)
        ):
            return IN_SYNC
        return _classified(desired, find_differences(desired, live, owned, foreign))
    except RecursionError:
        return _ask("TooDeep", "it is nested too deeply to be compared here")


def same_after_dry_run(live: Manifest, dry_run: Manifest, manager: str = FIELD_MANAGER) -> bool:
    """True if the server's answer to a dry-run apply is the live object: the apply would change nothing of ours. What
    every write or status report moves (times, resourceVersion, generation, status) does not count, nor what others are
    recorded to hold: in other words (1000m for 1) an apply takes a field from its co-owner and changes nothing else."""
    try:
        return strictly_equal(_stable(live, manager), _stable(dry_run, manager))
    except RecursionError:
        return False


def content_digest(live: Manifest) -> str:
    """A digest of all of `live` that can change the answer of a dry-run: not of its status, nor of when what was
    written."""
    records = [
        {name: value for name, value in entry.items() if name != "time"}
        for entry in entries_of(live)
        if entry.get("subresource") != "status"
    ]
    return digest_of([_stable(live, FIELD_MANAGER), records], length=32)


def variant_digest(live: Manifest) -> str:
    """The same without what every cluster has of its own: equal objects on different clusters have it in common."""
    kept, own = _stable(live, FIELD_MANAGER), ("uid", "creationTimestamp", "selfLink")
    kept["metadata"] = {name: value for name, value in kept["metadata"].items() if name not in own}
    managers = sorted({str(entry.get("manager")) for entry in entries_of(live) if entry.get("subresource") != "status"})
    return digest_of([kept, managers], length=32)


def _stable(manifest: Manifest, manager: str) -> Manifest:
    kept = {name: value for name, value in manifest.items() if name not in ("metadata", "status")}
    metadata = manifest.get("metadata") or {}
    volatile = ("managedFields", "resourceVersion", "generation")
    kept["metadata"] = {name: value for name, value in metadata.items() if name not in volatile}
    ours = sorted(our_entries(manifest, manager), key=lambda entry: str(entry.get("apiVersion", "")))
    kept["managedFields"] = [{name: value for name, value in entry.items() if name != "time"} for entry in ours]
    return kept


# ---- from findings to an answer ----------------------------------------------------------------------------------


def _ask(code: str, message: str) -> Comparison:
    return Comparison(Sync.ASK, Reason(code, clean_text(message)))


def _why_not_ours(live: Manifest, api_version: str, manager: str) -> str:
    ours = our_entries(live, manager)
    if not ours:
        return "the server records nothing as applied by us"
    if len(ours) > 1:
        return f"the server records {len(ours)} applies by us"
    return f"it was last applied at {ours[0].get('apiVersion')}, not {api_version}"


def _classified(desired: Manifest, findings: list[Finding]) -> Comparison:
    """A certain difference wins, then a doubt, then ownership; nothing found at all is in sync."""
    by_kind = {kind: [finding for finding in findings if finding.kind is kind] for kind in Kind}
    if by_kind[Kind.VALUE]:
        shown = tuple(change_of(desired, finding) for finding in by_kind[Kind.VALUE])
        return Comparison(Sync.DIFFERS, Reason("Differs", _summary(shown, "differs", "differ")), shown)
    if by_kind[Kind.DOUBT]:
        first = by_kind[Kind.DOUBT][0]
        return _ask("Doubtful", f"{first.display()}: {first.why}; only the server can tell")
    if by_kind[Kind.OWNERSHIP]:
        shown = tuple(change_of(desired, finding) for finding in by_kind[Kind.OWNERSHIP])
        message = _summary(shown, "has the right value but another owner", "have the right values but other owners")
        return Comparison(Sync.DIFFERS, Reason("OwnershipDiffers", message), shown, ownership_only=True)
    return IN_SYNC


def _summary(changes: tuple[Change, ...], one: str, many: str) -> str:
    more, first = len(changes) - 1, clean_text(changes[0].display)
    return f"{first} {one}" if not more else f"{first} and {more} more {many}"


# ---- the fast answer: in sync, or not certain --------------------------------------------------------------------


def _without_identity(manifest: Manifest) -> Manifest:
    """Only what can be owned."""
    rest = {name: value for name, value in manifest.items() if name not in IDENTITY}
    metadata = rest.pop("metadata", None)
    if isinstance(metadata, dict):
        kept = {name: value for name, value in metadata.items() if name not in METADATA_IDENTITY}
        if kept:
            rest["metadata"] = kept
    return rest


def _labels_recorded_empty(desired: Manifest, owned: FieldsV1) -> bool:
    """Labels or annotations recorded as a leaf were applied empty once; unlike other leaves they are never atomic."""
    recorded = owned.get("f:metadata") or {}
    metadata = desired.get("metadata") or {}
    return any(recorded.get("f:" + name) == {} and metadata.get(name) for name in ("labels", "annotations"))


def _same(desired: Any, live: Any, owned: FieldsV1) -> bool:
    """True if `owned` is exactly what `desired` declares and every leaf is strictly equal in `live`."""
    if type(desired) is dict:
        if type(live) is not dict:
            return False
        for name, value in desired.items():
            below = owned.get("f:" + name)
            if below is None:
                return False
            if name not in live:
                # Still recorded as ours, so nobody took it away: the server leaves out what says nothing.
                if below or value is None or not is_zero(value):
                    return False
            elif below:
                if not _same(value, live[name], below):
                    return False
            elif not strictly_equal(value, live[name]):
                return False
        return len(desired) == len(owned) - ("." in owned)
    if type(desired) is list and type(live) is list:
        return _same_items(desired, live, owned)
    return not owned and strictly_equal(desired, live)


def _same_items(desired: list[Any], live: list[Any], owned: FieldsV1) -> bool:
    """The same for a list of which the server keeps items apart: by key, or by value. In the order declared."""
    names = [name for name in owned if name != "."]
    if not names or len(names) != len(desired):
        return False
    if names[0].startswith("v:"):
        wanted = {"v:" + _json_scalar(item) for item in desired}
        return wanted == set(names) and strictly_equal([item for item in live if item in desired], desired)
    first = key_fields(names[0]) if names[0].startswith("k:") else None
    if first is None:
        return False
    fields = [field for field, _ in first]
    try:
        places = {tuple([item[field] for field in fields]): index for index, item in enumerate(live)}
        owned_items = {tuple([value for _, value in key_fields(name) or ()]): owned[name] for name in names}
        if len(places) != len(live) or len(owned_items) != len(names):
            return False
        last = -1
        for item in desired:
            key = tuple([item[field] for field in fields])
            place, below = places[key], owned_items[key]
            # An item recorded as a leaf is atomic: its fields are not kept apart.
            if place <= last or not (_same(item, live[place], below) if below else strictly_equal(item, live[place])):
                return False
            last = place
    except (KeyError, TypeError):
        # A key is missing or no scalar: not certain, and the slow walk says why.
        return False
    return True


def _json_scalar(value: Any) -> str:
    """A scalar as a `v:` entry spells it, as far as certainty goes: strings and integers."""
    if type(value) is str and value.isascii() and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    return str(value) if type(value) is int else ""
