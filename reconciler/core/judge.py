"""One look at one live object, and what all looks at a target's objects say together.

This is what runs on every watch event: the object is compared with the assigned release (diff.py) and its health is
judged (health.py), once. A read older than our own write is Unknown, and an object that was recreated behind our back
is not the one we applied.

    verdict, facts = judge(desired, live, item, facts, now.wall)
    judge_target(target, digest, verdicts, items, Seen(oldest_s=87.0, newest_s=now.monotonic))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from reconciler.core.apply_rules import ObjectRule
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import Comparison, compare
from reconciler.core.explain_diff import Change, changes
from reconciler.core.field_paths import is_applied_at, last_writer, writers_of
from reconciler.core.health import DEFAULT_THRESHOLDS, Custom, Thresholds, evaluate
from reconciler.core.health_common import metadata_of, number_at, spoken, text_at
from reconciler.core.managed_fields import FIELD_MANAGER
from reconciler.core.model import (
    Facts,
    Health,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    ObjectVerdict,
    Reason,
    Sync,
    Target,
    TargetVerdict,
)
from reconciler.core.values import clean_text

#: The manual escape: on a live object it says that we are to leave its target alone.
RECONCILE_ANNOTATION = "reconciler.dev/reconcile"

#: Worst last. Unknown is worst: nothing may be concluded from the rest while a part was not seen.
_SYNC_ORDER = (Sync.IN_SYNC, Sync.ASK, Sync.DIFFERS, Sync.MISSING, Sync.UNKNOWN)
#: Of several equally healthy objects the one that says most gives the reason: a running job before a finished one (it
#: still has to bake), and both before what is only there for them.
_THERE = ("Present", "Active", "Bound", "AddressAssigned", "ScalingActive", "EnoughPods", "Established", "Ready")
_TELLING = {**dict.fromkeys(_THERE, 0), "JobFinished": 1}


#: What the server says to "would an apply change anything?": no (True: live is equal), yes (what would change; False if
#: that is only who owns what), or why it will not say, now or later: a webhook that does not support dry-run refuses it
#: for ever.
Answer = bool | Reason | tuple[Change, ...]
#: Reason codes of a comparison that no server has confirmed, for it refuses to.
BY_CLIENT = frozenset({"InSyncByClient", "DiffersByClient"})
#: So many fields are named where an object differs in more.
DRIFTED_MAX = 16


class Seen(NamedTuple):
    """Between which moments (Now.monotonic) the objects of a target were last proven to be as they are known."""

    oldest_s: float
    newest_s: float


def judge(
    desired: Manifest | None,
    live: Manifest | None,
    item: InventoryItem | None,
    facts: Facts,
    now_s: float,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    answer: Answer | None = None,
    rule: ObjectRule | None = None,
    custom: Custom | None = None,
) -> tuple[ObjectVerdict, Facts]:
    """Judge one object. `desired` is the stamped manifest as sent (None: no longer declared), `live` the object as read
    (None: it is not there), `item` its row in the inventory. `answer` is the server's where the client had to ask: it
    was asked about exactly this live object and this manifest. `rule` says what of the object was handed
    over, `custom` is the health policy that judges it."""
    key = _key(desired, live, item)
    if live is None:
        return _absent(key, desired), facts
    metadata = metadata_of(live)
    uid, generation = text_at(metadata, "uid"), number_at(metadata, "generation")
    version = text_at(metadata, "resourceVersion")
    if item is not None and item.uid == uid and generation < item.generation:
        message = f"generation {generation} was read, {item.generation} was written: the read is old"
        stale = Reason("StaleRead", message)
        return ObjectVerdict(key, Sync.UNKNOWN, Health.UNKNOWN, stale, uid, generation, version), facts
    sent = None if desired is None else as_sent(desired, live, rule)
    comparison = _settled(_compared(sent, live), answer, sent, live)
    replaced = bool(item is not None and item.uid and item.uid != uid)
    found, reason, facts = evaluate(live, Facts() if replaced else facts, now_s, thresholds, desired, custom)
    if replaced:
        found, reason = Health.PROGRESSING, Reason("Recreated", "somebody deleted and recreated it")
    message = "" if comparison.reason.code == "InSync" else comparison.reason.message
    verdict = ObjectVerdict(
        key,
        comparison.sync,
        found,
        reason,
        uid,
        generation,
        version,
        facts.job_id,
        facts.restarts,
        message,
        tuple(change.display for change in comparison.changes[:DRIFTED_MAX]),
        _writers(live, comparison.changes[:DRIFTED_MAX]),
        comparison.ownership_only,
        comparison.reason.code in BY_CLIENT,
    )
    return verdict, facts


def differs_unedited(desired: Manifest, live: Manifest) -> bool:
    """True if live differs only where the server still records what we applied: an edit would have taken the record
    from us. So this was not applied yet, or a webhook changes it at every write, and only a dry-run tells which."""
    changes = compare(desired, live).changes
    return bool(changes) and all(is_applied_at(live, change.place, FIELD_MANAGER) for change in changes)


def _writers(live: Manifest, changes: Sequence[Change]) -> tuple[str, ...]:
    """Who else wrote where live differs. Nobody owns a field that was removed: then whoever wrote last may have."""
    found: set[str] = set()
    for change in changes:
        writers = writers_of(live, change.place, FIELD_MANAGER)
        last = last_writer(live, FIELD_MANAGER) if not writers else None
        found.update(clean_text(writer.manager, 80) for writer in (*writers, *([last] if last else [])))
    return tuple(sorted(found))


def _key(desired: Manifest | None, live: Manifest | None, item: InventoryItem | None) -> ObjectKey:
    for manifest in (desired, live):
        if manifest is not None:
            return ObjectKey.of(manifest)
    if item is None:
        raise ValueError("there is nothing to judge: neither declared, nor live, nor in the inventory")
    return item.key


def _absent(key: ObjectKey, desired: Manifest | None) -> ObjectVerdict:
    if desired is None:
        return ObjectVerdict(key, Sync.IN_SYNC, Health.HEALTHY, Reason("Gone", "it is not declared and not there"))
    reason = Reason("Missing", "it does not exist on the cluster")
    return ObjectVerdict(key, Sync.MISSING, Health.MISSING, reason, message=reason.message, drifted=("",))


def _compared(desired: Manifest | None, live: Manifest) -> Comparison:
    if desired is None:
        return Comparison(Sync.DIFFERS, Reason("Undeclared", "it is no longer declared"))
    return compare(desired, live)


def _settled(comparison: Comparison, answer: Answer | None, desired: Manifest | None, live: Manifest) -> Comparison:
    """The comparison with the server's own answer, where there is one: it knows its defaults and webhooks."""
    if answer is None or desired is None or comparison.sync not in (Sync.ASK, Sync.DIFFERS):
        return comparison
    if answer is True:
        return Comparison(Sync.IN_SYNC, Reason("InSync", "the server says that an apply would change nothing"))
    if comparison.sync is Sync.DIFFERS:
        return comparison
    why = comparison.reason.message
    if answer is False:
        owned = Reason("OwnershipDiffers", f"the values are right, but not recorded as ours ({why})")
        return Comparison(Sync.DIFFERS, owned, ownership_only=True)
    if isinstance(answer, tuple):
        return Comparison(Sync.DIFFERS, Reason("Differs", f"the server says it differs ({why})"), answer)
    # Not judgeable by the server: the client's own comparison counts, is shown as such, and is no failure.
    whose = f"by the client's comparison, for the server refuses to say: {answer.message}"
    found = _changes_by_client(desired, live)
    if found == ():
        return Comparison(Sync.IN_SYNC, spoken("InSyncByClient", f"in sync {whose}"))
    return Comparison(Sync.DIFFERS, spoken("DiffersByClient", f"it differs {whose} ({why})"), found or ())


def means_the_same(desired: Manifest, live: Manifest) -> bool:
    """True if applying `desired` would change nothing, as far as a client can tell. What is too deeply nested to be
    compared is not the same."""
    return _changes_by_client(desired, live) == ()


def _changes_by_client(desired: Manifest, live: Manifest) -> tuple[Change, ...] | None:
    """What applying `desired` would change (explain_diff.py); None if it is too deeply nested to be compared."""
    try:
        return changes(desired, live)
    except RecursionError:
        return None


def is_disabled(live: Manifest | None) -> bool:
    """True if somebody put `reconciler.dev/reconcile: disabled` on the live object."""
    if live is None:
        return False
    annotations = metadata_of(live).get("annotations")
    return isinstance(annotations, Mapping) and annotations.get(RECONCILE_ANNOTATION) == "disabled"


def judge_target(
    target: Target,
    digest: str,
    objects: Sequence[ObjectVerdict],
    inventory: Mapping[ObjectKey, InventoryItem],
    seen: Seen,
    *,
    disabled: bool = False,
) -> TargetVerdict:
    """All declared objects of a target together, in release order; `inventory` holds the target's items by key. That
    all is well is known up to the moment at which the last of its objects was looked at; that something is not, as soon
    as that was seen: what counts towards a bake is never newer than its oldest proof, and bad news waits for nobody."""
    found, reason = _worst(objects)
    sync = worst_sync(objects)
    well = sync is Sync.IN_SYNC and found in (Health.HEALTHY, Health.SUSPENDED)
    return TargetVerdict(
        target,
        digest,
        seen.oldest_s if well else seen.newest_s,
        sync,
        found,
        reason,
        applied=bool(objects) and all(is_applied(part, inventory.get(part.key)) for part in objects),
        job_ids=tuple(part.job_id for part in objects if part.job_id),
        restarts=sum(part.restarts for part in objects),
        objects=tuple(objects),
        disabled=disabled,
    )


def worst_sync(objects: Iterable[ObjectVerdict]) -> Sync:
    """The sync of several objects together."""
    return max((part.sync for part in objects), key=_SYNC_ORDER.index, default=Sync.UNKNOWN)


def is_applied(verdict: ObjectVerdict, item: InventoryItem | None) -> bool:
    """True if the live object is the one we applied, at the generation our apply returned or a later one."""
    if item is None or item.phase is not InventoryPhase.OWNED or not item.uid:
        return False
    return verdict.uid == item.uid and verdict.generation >= item.generation


def _worst(objects: Sequence[ObjectVerdict]) -> tuple[Health, Reason]:
    """The worst health; of several equally bad, the first of those that say most gives the reason."""
    if not objects:
        return Health.UNKNOWN, Reason("NothingObserved", "nothing was observed")
    part = max(objects, key=lambda each: (each.health.rank, _TELLING.get(each.reason.code, 2)))
    if len(objects) == 1 or part.health in (Health.HEALTHY, Health.SUSPENDED):
        return part.health, part.reason
    return part.health, Reason(part.reason.code, f"{part.key.kind} {part.key.name}: {part.reason.message}")
