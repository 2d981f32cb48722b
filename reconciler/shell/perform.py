"""Perform one intent on one cluster: read what is there, write only if need be, say what became of it.

    read live -> in sync?  -> UNCHANGED
                 ask?      -> one dry-run; equal -> UNCHANGED
                 absent?   -> server-side apply without force (somebody else's object is a conflict, not ours)
                 ours?     -> server-side apply with its uid, with force
                 else      -> FAILED(NotOwned)

An outcome that is not known is never repeated blindly: the object is read again first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.inventory import PRUNE_ANNOTATION
from reconciler.core.model import (
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    Manifest,
    ObjectKey,
    Reason,
    Sync,
    Verb,
)
from reconciler.core.ownership import OWNER_LABEL
from reconciler.shell.kube_errors import (
    DryRunRefusedError,
    FieldConflictError,
    KubeError,
    ObjectConflictError,
)

FIELD_MANAGER = "reconciler"
#: How often a write is judged anew because the object changed under it.
CONFLICTS_MAX = 5


class Cluster(Protocol):
    """What performing needs of a cluster: `KubeCluster` is one."""

    async def get(self, api_version: str, key: ObjectKey) -> Manifest | None: ...

    async def apply(
        self, manifest: Manifest, *, uid: str | None, force: bool, dry_run: bool, resource_version: str | None = None
    ) -> Manifest: ...

    async def delete(self, api_version: str, key: ObjectKey, uid: str, propagation: str = "Background") -> bool: ...


class Seen(Protocol):
    """Where what was read or written is remembered: the cluster's observer is one."""

    def observed(self, manifest: Manifest) -> None: ...

    def gone(self, key: ObjectKey) -> None: ...

    def failed(self, error: KubeError) -> None: ...


@dataclass(frozen=True, slots=True)
class Later:
    """Not now: the intent stays pending. `after_s` is the least time to wait, None the lane's own backoff;
    `unreachable` says that the cluster as a whole does not answer."""

    reason: Reason
    after_s: float | None = None
    unreachable: bool = False


#: Asked right before each request that writes: None to go on, else why not.
Permit = Callable[[], Awaitable[Later | None]]


def is_ours(live: Manifest, item: InventoryItem | None, owner: str) -> bool:
    """True if `live` is the object that our inventory names: by its uid, or, where a crash came between the write and
    its record, intended by us, marked as ours and written by our field manager."""
    if item is None:
        return False
    metadata = live.get("metadata") or {}
    if item.uid and item.uid == metadata.get("uid"):
        return True
    marked = (metadata.get("labels") or {}).get(OWNER_LABEL) == owner
    return marked and any(_is_our_apply(entry) for entry in metadata.get("managedFields") or [])


def _is_our_apply(entry: dict[str, Any]) -> bool:
    return bool(
        entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")
    )


def _foreign_manager(live: Manifest) -> str | None:
    """The manager of a field that was there before our create, if there is one."""
    for entry in (live.get("metadata") or {}).get("managedFields") or []:
        if entry.get("manager") != FIELD_MANAGER and not entry.get("subresource"):
            return str(entry.get("manager"))
    return None


async def perform(
    intent: Intent,
    manifest: Manifest | None,
    item: InventoryItem | None,
    owner: str,
    cluster: Cluster,
    seen: Seen,
    permit: Permit,
    known: Manifest | None = None,
) -> IntentResult | Later:
    """Carry out `intent`. `manifest` is the stamped object for an apply, None for a delete. `known` is the live object
    as last observed, where that can be trusted: it saves a read, for a write is guarded by its uid."""
    try:
        if intent.verb is Verb.DELETE:
            return await _delete(intent, item, owner, cluster, seen, permit)
        assert manifest is not None
        for _ in range(CONFLICTS_MAX):
            try:
                return await _apply(intent, manifest, item, owner, cluster, seen, permit, known)
            except ObjectConflictError:
                known = None  # It was replaced or changed under us: read and judge again.
        return Later(Reason("ObjectConflict", f"{intent.key} keeps changing under our writes"))
    except KubeError as error:
        seen.failed(error)
        return _refusal(intent, error)


def _refusal(intent: Intent, error: KubeError) -> IntentResult | Later:
    if error.permanent:
        reason = Reason(error.reason.code, f"{intent.key}: {error.reason.message}")
        return IntentResult(intent.id, IntentState.FAILED, reason)
    return Later(error.reason, error.retry_after_s, unreachable=not error.answered)


async def _apply(
    intent: Intent,
    manifest: Manifest,
    item: InventoryItem | None,
    owner: str,
    cluster: Cluster,
    seen: Seen,
    permit: Permit,
    known: Manifest | None,
) -> IntentResult | Later:
    live = known if known is not None else await cluster.get(intent.api_version, intent.key)
    if live is None:
        seen.gone(intent.key)
        refused = await permit()
        if refused is not None:
            return refused
        after = await cluster.apply(manifest, uid=None, force=False, dry_run=False)
        seen.observed(after)
        manager = _foreign_manager(after)
        if manager is not None:
            reason = Reason("FieldConflict", f"{intent.key} was created by {manager} at the same moment")
            return IntentResult(intent.id, IntentState.FAILED, reason)
        return _done(intent, after, IntentState.DONE)
    seen.observed(live)
    if live["metadata"].get("deletionTimestamp"):
        return Later(Reason("Terminating", f"{intent.key} is being deleted; it is created again once it is gone"))
    if not is_ours(live, item, owner):
        reason = Reason("NotOwned", f"{intent.key} exists and is not ours; nothing is adopted unless Git asks for it")
        return IntentResult(intent.id, IntentState.FAILED, reason)
    comparison = compare(manifest, live)
    if comparison.sync is Sync.IN_SYNC:
        return _done(intent, live, IntentState.UNCHANGED)
    refused = await permit()
    if refused is not None:
        return refused
    uid = str(live["metadata"]["uid"])
    if comparison.sync is Sync.ASK and await _equal_after_dry_run(manifest, live, uid, cluster):
        return _done(intent, live, IntentState.UNCHANGED)
    after = await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
    seen.observed(after)
    return _done(intent, after, IntentState.DONE)


async def _equal_after_dry_run(manifest: Manifest, live: Manifest, uid: str, cluster: Cluster) -> bool:
    """True if the server itself says that applying would change nothing."""
    try:
        result = await cluster.apply(manifest, uid=uid, force=True, dry_run=True)
    except (DryRunRefusedError, FieldConflictError):
        return False
    return same_after_dry_run(live, result)


def _done(intent: Intent, live: Manifest, state: IntentState) -> IntentResult:
    metadata = live["metadata"]
    return IntentResult(intent.id, state, None, str(metadata["uid"]), int(metadata.get("generation") or 0))


async def _delete(
    intent: Intent, item: InventoryItem | None, owner: str, cluster: Cluster, seen: Seen, permit: Permit
) -> IntentResult | Later:
    """Delete the object that the inventory names, by uid and marker; it is done when the object is confirmed absent."""
    live = await cluster.get(intent.api_version, intent.key)
    if live is None:
        seen.gone(intent.key)
        return IntentResult(intent.id, IntentState.DONE, gone=True)
    seen.observed(live)
    metadata = live["metadata"]
    if item is None or item.uid != metadata.get("uid") or (metadata.get("labels") or {}).get(OWNER_LABEL) != owner:
        reason = Reason("NotOwned", f"{intent.key} is not the object we own any more; it is left alone")
        return IntentResult(
            intent.id, IntentState.FAILED, reason, gone=item is not None and item.uid != metadata["uid"]
        )
    if metadata.get("deletionTimestamp"):
        return Later(Reason("Terminating", f"{intent.key} is being deleted"))
    if (metadata.get("annotations") or {}).get(PRUNE_ANNOTATION) == "disabled":
        reason = Reason("PruneDisabled", f"{intent.key} carries {PRUNE_ANNOTATION}: disabled")
        return IntentResult(intent.id, IntentState.FAILED, reason)
    refused = await permit()
    if refused is not None:
        return refused
    if await cluster.delete(intent.api_version, intent.key, item.uid):
        seen.gone(intent.key)
        return IntentResult(intent.id, IntentState.DONE, gone=True)
    return Later(Reason("Terminating", f"{intent.key} is being deleted"), after_s=1.0)
