"""Objects whose deletion was asked for and given up on, because something held them: gone in the end after all?

An object stays in the inventory until its deletion is confirmed. Where finalizers held it past the deadline, its intent
has failed; when whoever runs them lets it go at last, the watch tells, it is read once more by name, and the row goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.core.model import Intent, InventoryItem, InventoryPhase, ObjectKey
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.observe import Observer
from reconciler.shell.ports import Store, Tx


class Leaving:
    """Those of one cluster."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._items: dict[ObjectKey, InventoryItem] = {}

    def take_in(self, inventory: Iterable[InventoryItem], pending: Iterable[Intent]) -> None:
        """What the store says now."""
        awaited = {(intent.target, intent.key) for intent in pending}
        self._items = {
            item.key: item
            for item in inventory
            if item.phase is InventoryPhase.DELETING and (item.target, item.key) not in awaited
        }

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
        return gone


def _drop(tx: Tx, items: Iterable[InventoryItem]) -> None:
    for item in items:
        tx.delete_inventory(item.target, [item.key])
