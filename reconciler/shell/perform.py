"""Perform one intent on one cluster: read what is there, write only if need be, say what became of it.

    read live -> in sync?     -> UNCHANGED
                 ask?         -> one dry-run; equal -> UNCHANGED
                 absent?      -> server-side apply that creates (what is there after all is a conflict, and read again)
                 ours?        -> server-side apply with its uid, with force
                 may we adopt -> one dry-run; its record of owners becomes ours in one guarded write, then as above
                                 without force
                 else         -> FAILED(NotOwned)

An outcome that is not known is never repeated blindly: the object is read again first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.core import adopt
from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules, ObjectRule
from reconciler.core.as_sent import as_sent, depends_on_live
from reconciler.core.diff import compare, same_after_dry_run
from reconciler.core.inventory import PRUNE_ANNOTATION
from reconciler.core.judge import is_disabled
from reconciler.core.managed_fields import entries_of, our_entries
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
from reconciler.core.waits import finalizers_hold, not_ready
from reconciler.shell.kube_errors import (
    DryRunRefusedError,
    FieldConflictError,
    InvalidError,
    KubeError,
    ObjectConflictError,
)

#: How often a write is judged anew because the object changed under it.
CONFLICTS_MAX = 5
#: How soon an object that has to be there, or gone, before others is looked at again.
LOOK_AGAIN_S = 1.0


class Cluster(Protocol):
    """What performing needs of a cluster: `KubeCluster` is one."""

    async def get(self, api_version: str, key: ObjectKey) -> Manifest | None: ...

    async def apply(
        self, manifest: Manifest, *, uid: str | None, force: bool, dry_run: bool, resource_version: str | None = None
    ) -> Manifest: ...

    async def set_managed_fields(
        self, api_version: str, key: ObjectKey, fields: list[dict[str, Any]], *, uid: str, resource_version: str
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an intent is to bring about: `manifest` is the stamped object for an apply, None for a delete; `owner` is
    our mark; `rules` and `rule` say how it is written. `known` is the live object as last observed, where that can be
    trusted: it saves a read, for a write is guarded by its uid. `former_owner` is the mark our objects had when the
    application had another name."""

    manifest: Manifest | None
    item: InventoryItem | None
    owner: str
    rules: ApplyRules = DEFAULT_RULES
    rule: ObjectRule | None = None
    known: Manifest | None = None
    former_owner: str = ""


def is_ours(live: Manifest, item: InventoryItem | None, *owners: str) -> bool:
    """True if `live` is the object that our inventory names: by its uid, or, where a crash came between the write and
    its record, intended by us, marked as ours (with one of `owners`) and written by our field manager."""
    if item is None:
        return False
    metadata = live.get("metadata") or {}
    if item.uid and item.uid == metadata.get("uid"):
        return True
    mark = (metadata.get("labels") or {}).get(OWNER_LABEL)
    return bool(mark and mark in owners and our_entries(live))


async def perform(
    intent: Intent, wanted: Wanted, cluster: Cluster, seen: Seen, permit: Permit, now_wall: float
) -> IntentResult | Later:
    """Carry out `intent`. `now_wall` is compared with the deletion times of objects that do not go."""
    doing = _Doing(intent, wanted, cluster, seen, permit, now_wall)
    known = wanted.known
    try:
        if intent.verb is Verb.DELETE:
            return await doing.delete()
        for _ in range(CONFLICTS_MAX):
            try:
                return await doing.apply(known)
            except ObjectConflictError:
                known = None  # It was replaced or changed under us: read and judge again.
        return Later(Reason("ObjectConflict", f"{intent.key} keeps changing under our writes"))
    except KubeError as error:
        seen.failed(error)
        return _refusal(intent, error)


def _refusal(intent: Intent, error: KubeError) -> IntentResult | Later:
    if error.permanent:
        return _failed(intent, Reason(error.reason.code, f"{intent.key}: {error.reason.message}"))
    return Later(error.reason, error.retry_after_s, unreachable=not error.answered)


def _failed(intent: Intent, reason: Reason, *, gone: bool = False) -> IntentResult:
    return IntentResult(intent.id, IntentState.FAILED, reason, gone=gone)


def _terminating(intent: Intent, what: str, after_s: float | None = None) -> Later:
    return Later(Reason("Terminating", f"{intent.key} is being deleted{what}"), after_s)


@dataclass(frozen=True, slots=True)
class _Doing:
    """One intent while it is carried out."""

    intent: Intent
    wanted: Wanted
    cluster: Cluster
    seen: Seen
    permit: Permit
    now_wall: float

    # ---- applying

    async def apply(self, known: Manifest | None) -> IntentResult | Later:
        intent, wanted = self.intent, self.wanted
        assert wanted.manifest is not None, f"intent {intent.id} applies and has no manifest"
        live = known if known is not None else await self.cluster.get(intent.api_version, intent.key)
        if live is None:
            return await self._create(wanted.manifest)
        self.seen.observed(live)
        if live["metadata"].get("deletionTimestamp"):
            held = finalizers_hold(live, self.now_wall)
            return Later(held) if held is not None else _terminating(intent, "; it is created again once it is gone")
        if not is_ours(live, wanted.item, wanted.owner, wanted.former_owner):
            return await self._adopt(live)
        return await self._update(live, force=wanted.rules.conflicts == "force")

    async def _create(self, manifest: Manifest) -> IntentResult | Later:
        """What somebody else makes at the same moment is theirs, and nothing of it changes: it is a conflict, and read
        and judged like all that is there. So what bears our mark and was applied by us is ours, whatever was lost."""
        self.seen.gone(self.intent.key)
        refused = await self.permit()
        if refused is not None:
            return refused
        after = await self.cluster.apply(manifest, uid=None, force=False, dry_run=False)
        self.seen.observed(after)
        return self._done(after, IntentState.DONE)

    # ---- adopting

    async def _adopt(self, live: Manifest) -> IntentResult | Later:
        """Take over what is not ours, if it may be and would be: until that is known, nothing of it changes."""
        rules, force = self.wanted.rules, self.wanted.rules.adopt == "force"
        reason = adopt.refusal(live, rules.adopt, self.wanted.owner)
        if reason is not None:
            return _failed(self.intent, reason)
        fields = adopt.folded(live, self.intent.api_version)
        if fields is None:
            return await self._update(live, force=force)
        refused = await self.permit()
        if refused is not None:
            return refused
        await self._foresee(live, fields, force=force)
        folded = await self._set_record(live, fields)
        try:
            return await self._update(folded, force=force)
        except KubeError as error:
            if error.permanent:
                await self._put_back(live, folded)
            raise

    async def _foresee(self, live: Manifest, fields: list[dict[str, Any]], *, force: bool) -> None:
        """Raise what the server would refuse once the record is `fields`. A conflict with who is folded is none; what
        is invalid may be so by what goes with the record, unless it can never change."""
        assert self.wanted.manifest is not None
        rule, uid = self.wanted.rule, str(live["metadata"]["uid"])
        sent = as_sent(self.wanted.manifest, live, rule)
        try:
            await self.cluster.apply(sent, uid=uid, force=force, dry_run=True)
        except FieldConflictError as error:
            left = adopt.unfolded_conflicts(error.fields, fields)
            if left:
                raise FieldConflictError(left) from error
            await self._foresee(live, fields, force=True)
        except InvalidError as error:
            if error.immutable and not (rule is not None and rule.replace):
                raise
        except DryRunRefusedError:
            return  # only the write will tell

    async def _set_record(self, live: Manifest, fields: list[dict[str, Any]]) -> Manifest:
        """What tools that are called by hand set is ours from now on, so that what Git does not declare can go."""
        metadata = live["metadata"]
        uid, version = str(metadata["uid"]), str(metadata["resourceVersion"])
        after = await self.cluster.set_managed_fields(
            self.intent.api_version, self.intent.key, fields, uid=uid, resource_version=version
        )
        self.seen.observed(after)
        return after

    async def _put_back(self, live: Manifest, folded: Manifest) -> None:
        """The record that `live` had before it was folded, unless somebody has changed the object since."""
        try:
            await self._set_record(folded, entries_of(live))
        except KubeError as error:
            self.seen.failed(error)

    # ---- writing what is ours

    async def _update(self, live: Manifest, *, force: bool) -> IntentResult | Later:
        wanted, metadata = self.wanted, live["metadata"]
        assert wanted.manifest is not None
        sent = as_sent(wanted.manifest, live, wanted.rule)
        comparison = compare(sent, live)
        if comparison.sync is Sync.IN_SYNC:
            return self._done(live, IntentState.UNCHANGED)
        refused = await self.permit()
        if refused is not None:
            return refused
        uid = str(metadata["uid"])
        if comparison.sync is Sync.ASK and await self._equal_after_dry_run(sent, live, uid, force=force):
            return self._done(live, IntentState.UNCHANGED)
        # What is made of live values is right for exactly this version; everything else is guarded by the uid alone.
        version = str(metadata["resourceVersion"]) if depends_on_live(wanted.rule) else None
        try:
            after = await self.cluster.apply(sent, uid=uid, force=force, dry_run=False, resource_version=version)
        except InvalidError as error:
            if not (error.immutable and wanted.rule is not None and wanted.rule.replace):
                raise
            return await self._replace(uid)
        self.seen.observed(after)
        return self._done(after, IntentState.DONE)

    async def _replace(self, uid: str) -> IntentResult | Later:
        """A field that cannot change has to: Git allows that the object is deleted and created anew."""
        refused = await self.permit()
        if refused is not None:
            return refused
        if not await self.cluster.delete(self.intent.api_version, self.intent.key, uid):
            return _terminating(self.intent, "; it is created anew once it is gone", LOOK_AGAIN_S)
        assert self.wanted.manifest is not None
        return await self._create(self.wanted.manifest)

    async def _equal_after_dry_run(self, sent: Manifest, live: Manifest, uid: str, *, force: bool) -> bool:
        """True if the server itself says that applying would change nothing."""
        try:
            result = await self.cluster.apply(sent, uid=uid, force=force, dry_run=True)
        except (DryRunRefusedError, FieldConflictError):
            return False
        return same_after_dry_run(live, result)

    def _done(self, live: Manifest, state: IntentState) -> IntentResult | Later:
        """What others of the target need is waited for: a namespace to take them, a definition to be served."""
        waits = not_ready(live)
        if waits is not None:
            return Later(waits, LOOK_AGAIN_S)
        metadata = live["metadata"]
        return IntentResult(self.intent.id, state, None, str(metadata["uid"]), int(metadata.get("generation") or 0))

    # ---- deleting

    async def delete(self) -> IntentResult | Later:
        """Delete the object that the inventory names, by uid and marker; it is done when the object is confirmed
        absent. What finalizers hold for too long is told, and never forced."""
        intent, item = self.intent, self.wanted.item
        live = await self.cluster.get(intent.api_version, intent.key)
        if live is None:
            self.seen.gone(intent.key)
            return IntentResult(intent.id, IntentState.DONE, gone=True)
        self.seen.observed(live)
        metadata = live["metadata"]
        mark = (metadata.get("labels") or {}).get(OWNER_LABEL)
        marked = bool(mark) and mark in (self.wanted.owner, self.wanted.former_owner)
        if item is None or item.uid != metadata.get("uid") or not marked:
            reason = Reason("NotOwned", f"{intent.key} is not the object we own any more; it is left alone")
            return _failed(intent, reason, gone=item is not None and item.uid != metadata["uid"])
        if metadata.get("deletionTimestamp"):
            held = finalizers_hold(live, self.now_wall)
            return _terminating(intent, "") if held is None else _failed(intent, held)
        if is_disabled(live):
            return _failed(intent, Reason("ReconcileDisabled", f"{intent.key} says reconciler.dev/reconcile: disabled"))
        if (metadata.get("annotations") or {}).get(PRUNE_ANNOTATION) == "disabled":
            return _failed(intent, Reason("PruneDisabled", f"{intent.key} carries {PRUNE_ANNOTATION}: disabled"))
        refused = await self.permit()
        if refused is not None:
            return refused
        if await self.cluster.delete(intent.api_version, intent.key, item.uid):
            self.seen.gone(intent.key)
            return IntentResult(intent.id, IntentState.DONE, gone=True)
        return _terminating(intent, "", LOOK_AGAIN_S)
