"""Objects whose deletion was asked for and given up on, because something held them: gone in the end after all?

An object stays in the inventory until its deletion is confirmed. Where finalizers held it past the deadline, its intent
has failed; when whoever runs them lets it go at last, the watch tells, it is read once more by name, and the row goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.core.model import Intent, InventoryItem, InventoryPhase, ObjectKey, Target
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.observe import Observer
from reconciler.shell.ports import Store, Tx


class Leaving:
    """Those of one cluster."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._items: dict[ObjectKey, InventoryItem] = {}
        self._of_target: dict[Target, tuple[ObjectKey, ...]] = {}

    def take(self, target: Target, inventory: Iterable[InventoryItem], pending: Iterable[Intent]) -> None:
        """What the store says of `target` now."""
        for key in self._of_target.pop(target, ()):
            if (item := self._items.get(key)) is not None and item.target == target:
                del self._items[key]
        awaited = {intent.key for intent in pending}
        items = [item for item in inventory if item.phase is InventoryPhase.DELETING and item.key not in awaited]
        if items:
            self._of_target[target] = tuple(item.key for item in items)
            self._items.update((item.key, item) for item in items)

    def concerns(self, keys: Sequence[ObjectKey]) -> bool:
        """True if one of `keys` is awaited."""
        return bool(self._items) and any(key in self._items for key in keys)

    async def confirm(self, observer: Observer, kube: KubeCluster, store: Store) -> list[InventoryItem]:
        """Drop what is gone from the inventory; returns it. An answer that cannot be had is asked for another time."""
        gone: list[InventoryItem] = []
        for key, item in sorted(self._items.items()):
            if observer.live(key) is not None:
                continue  # it is there, or nobody has looked yet
            try:
                if await kube.get(item.api_version, key) is None:
                    gone.append(item)
            except KubeError as error:
                observer.failed(error)
                break
        if gone:
            await store.transact(f"gone:{self._cluster}", lambda tx: _drop(tx, gone))
        for item in gone:
            self._items.pop(item.key, None)
        return gone


def _drop(tx: Tx, items: Iterable[InventoryItem]) -> None:
    for item in items:
        if item in tx.inventory(item.target):  # a newer release may have asked for it again meanwhile
            tx.delete_inventory(item.target, [item.key])
