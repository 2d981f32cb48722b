"""What may be deleted: objects we own that the assigned release no longer has.

The inventory is what we wrote and know to have written. Only an object in it, by uid, is ever pruned, and some kinds
never are: a namespace takes everything in it along, a CRD every object of its kind, a claim the data.

    prunable(items, release.objects, live).items    # in the order they are deleted: the reverse of applying
    prunable(items, release.objects, live).refused  # what stays, and why
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.health_common import metadata_of
from reconciler.core.model import InventoryItem, InventoryPhase, Manifest, ObjectKey, Reason
from reconciler.core.order import place_of

#: On a live object: never prune it.
PRUNE_ANNOTATION = "reconciler.dev/prune"
#: Never pruned, whatever a release says.
NEVER_PRUNED = frozenset(
    {("", "Namespace"), ("", "PersistentVolumeClaim"), ("apiextensions.k8s.io", "CustomResourceDefinition")}
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One object that is not pruned, and why."""

    item: InventoryItem
    reason: Reason


@dataclass(frozen=True, slots=True)
class Prunable:
    """What may be deleted, in the order of deletion, and what stays."""

    items: tuple[InventoryItem, ...] = ()
    refused: tuple[Refusal, ...] = ()


def prunable(
    inventory: Iterable[InventoryItem], declared: Iterable[Manifest], live: Mapping[ObjectKey, Manifest] | None = None
) -> Prunable:
    """Objects of one target's `inventory` that its assigned release (`declared`) does not have. `live` are the objects
    as last read, for the annotation that protects them; an object not in it is not known to be protected."""
    kept = {ObjectKey.of(manifest) for manifest in declared}
    items: list[InventoryItem] = []
    refused: list[Refusal] = []
    for item in sorted(inventory, key=_apply_order, reverse=True):
        if item.key in kept or item.phase is InventoryPhase.DELETING:
            continue  # one that is being deleted has its intent already
        reason = _refusal(item, (live or {}).get(item.key))
        if reason is None:
            items.append(item)
        else:
            refused.append(Refusal(item, reason))
    return Prunable(tuple(items), tuple(refused))


def left_behind(refused: Sequence[Refusal]) -> Reason:
    """How people are told of what stays, at least one: nobody will delete it but they."""
    first, more = refused[0], len(refused) - 1
    message = f"{first.item.key} stays though the release has it no longer: {first.reason.message}"
    return Reason("LeftBehind", message + (f"; and {more} more" if more else ""))


def _refusal(item: InventoryItem, live: Manifest | None) -> Reason | None:
    """Why `item` is not pruned; None if it may be."""
    if item.phase is not InventoryPhase.OWNED or not item.uid:
        return Reason("NotOwned", "its write was intended and never confirmed: nobody knows whose the object is")
    if (item.key.group, item.key.kind) in NEVER_PRUNED:
        return Reason("NeverPruned", f"a {item.key.kind} is never pruned: delete it by hand")
    if live is not None:
        metadata = metadata_of(live)
        if metadata.get("uid") != item.uid:
            return Reason("Recreated", "the live object is not the one we wrote")
        annotations = metadata.get("annotations")
        if isinstance(annotations, Mapping) and annotations.get(PRUNE_ANNOTATION) == "disabled":
            return Reason("PruneDisabled", f"it carries {PRUNE_ANNOTATION}: disabled")
    return None


def _apply_order(item: InventoryItem) -> tuple[int, int, str, str, str]:
    """As order.order_key sorts manifests."""
    key = item.key
    stage, rank = place_of(key.kind)
    return stage, rank, key.kind, key.namespace, key.name
