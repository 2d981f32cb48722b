"""Objects that no release has any more and that we have not deleted: gone in the end after all?

An object stays in the inventory until its deletion is confirmed. Where finalizers held it past the deadline, its intent
has failed; a claim is never pruned, and somebody deletes it by hand; a write may have been given up before anybody knew
of it. When such an object has gone the watch tells, it is read once more by name, and its row goes. That is done beside
the lane, and by itself: an answer that cannot be had is asked for again, after ever longer pauses.

    leaving.take(target, inventory, release.objects, pending)
    leaving.changed(keys)           # look at these now
    leaving.start_due()             # once it has ended, `ended` is told whose rows went
    leaving.times()                 # when to call that again without being told anything
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from reconciler.core.model import Intent, InventoryItem, InventoryPhase, ObjectKey, Target
from reconciler.shell.context import Context
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.live import NotSeen
from reconciler.shell.observe import Observer
from reconciler.shell.ports import Tx
from reconciler.shell.scope import Scope

RETRY_START_S = 1.0
RETRY_MAX_S = 300.0
#: One that is there is looked for again after this, in memory; where the watch does not show it (somebody took our mark
#: off it), it is asked for. The watch tells sooner.
STILL_THERE_S = 300.0
#: One of whose kind no list has arrived yet: it is looked for, in memory, after this.
NOT_LISTED_S = 10.0


@dataclass(slots=True)
class _Wait:
    """When to look again (Now.monotonic), and how often in a row no answer could be had."""

    at_s: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Leaving:
    """Those of the cluster that `kube` speaks to. `is_unsettled` says of which targets writes are under way: nothing is
    confirmed there meanwhile. Its task belongs to `scope`."""

    context: Context
    kube: KubeCluster
    observer: Observer
    scope: Scope
    is_unsettled: Callable[[Target], bool]
    ended: Callable[[Collection[Target]], None]
    _items: dict[ObjectKey, InventoryItem] = field(default_factory=dict)
    _waits: dict[ObjectKey, _Wait] = field(default_factory=dict)
    _of_target: dict[Target, tuple[ObjectKey, ...]] = field(default_factory=dict)
    _under_way: bool = False

    def take(
        self,
        target: Target,
        inventory: Iterable[InventoryItem],
        declared: Collection[ObjectKey] | None,
        pending: Iterable[Intent],
    ) -> None:
        """What the store says of `target` now; `declared` are the objects of its release, None where it has none."""
        before = {key: self._items[key] for key in self._of_target.pop(target, ()) if key in self._items}
        awaited = {intent.key for intent in pending}
        after = {
            item.key: item
            for item in inventory
            if item.key not in awaited
            and (item.phase is InventoryPhase.DELETING or (declared is not None and item.key not in declared))
        }
        for key, known in before.items():
            if known.target == target and after.get(key) != known:
                del self._items[key], self._waits[key]
        if after:
            self._of_target[target] = tuple(after)
            for key, item in after.items():
                if self._items.get(key) != item:
                    self._items[key], self._waits[key] = item, _Wait()

    def changed(self, keys: Sequence[ObjectKey]) -> None:
        """Something happened to these: look at those of them that are awaited."""
        for key in keys if self._items else ():
            if key in self._waits:
                self._waits[key] = _Wait()

    def times(self) -> list[float]:
        """When to look without being told of a change; while it is looked, that is told when it has ended."""
        return [] if self._under_way else [wait.at_s for wait in self._waits.values()]

    def start_due(self) -> None:
        """Ask for those that seem to have gone."""
        if self._under_way:
            return
        due = self._due(self.context.clock.now().monotonic)
        if due:
            self._under_way = True
            self.scope.start(self._task, self._confirm(due))

    async def close(self) -> None:
        """Cancel what is under way and wait for its end."""
        await self.scope.stop(self._task)

    @property
    def _task(self) -> str:
        return f"leaving:{self.kube.name}"

    def _due(self, now_s: float) -> list[InventoryItem]:
        """Those that are not there as far as is known. The others wait."""
        found = []
        for key, wait in sorted(self._waits.items()):
            if wait.at_s > now_s:
                continue
            live, item = self.observer.live(key), self._items[key]
            if isinstance(live, NotSeen):
                wait.at_s = now_s + NOT_LISTED_S
            elif live is not None:
                wait.at_s = now_s + STILL_THERE_S
            elif self.is_unsettled(item.target):
                wait.at_s = now_s + RETRY_START_S
            else:
                found.append(item)
        return found

    async def _confirm(self, due: list[InventoryItem]) -> None:
        """Drop what is gone from the inventory."""
        gone: list[InventoryItem] = []
        with self.context.hub.hold(self._task):
            try:
                gone = await self._found_gone(due)
                if gone:
                    await self.context.store.transact(f"gone:{self.kube.name}", lambda tx: _drop(tx, gone))
                for item in gone:
                    if self._items.get(item.key) == item:
                        del self._items[item.key], self._waits[item.key]
            finally:
                self._under_way = False
                self.ended(sorted({item.target for item in gone}))

    async def _found_gone(self, due: list[InventoryItem]) -> list[InventoryItem]:
        """Those that the cluster says are not there. Of the others it is put down when to ask again; where the cluster
        does not answer, of all that are left."""
        gone: list[InventoryItem] = []
        for place, item in enumerate(due):
            wait = self._waits.get(item.key)
            if wait is None or self._items.get(item.key) != item:
                continue  # it is another one, or wanted, by now
            try:
                there = await self.kube.get(item.api_version, item.key)
            except KubeError as error:
                self.observer.failed(error)
                again_s = self._retry_at(wait)
                if not error.answered:
                    for other in due[place + 1 :]:
                        if other.key in self._waits:
                            self._waits[other.key].at_s = again_s
                    break
            else:
                if there is None:
                    gone.append(item)
                wait.failures = 0
                wait.at_s = self.context.clock.now().monotonic + STILL_THERE_S
        return gone

    def _retry_at(self, wait: _Wait) -> float:
        """No answer could be had once more: when it is tried again."""
        wait.failures += 1
        delay_s = min(RETRY_START_S * 2 ** min(wait.failures - 1, 10), RETRY_MAX_S)
        wait.at_s = self.context.clock.now().monotonic + delay_s
        return wait.at_s


def _drop(tx: Tx, items: Iterable[InventoryItem]) -> None:
    """Unless a newer release asks for one again meanwhile: then its row says that what comes is ours."""
    for item in items:
        application, cluster = item.target
        wanted = {intent.key for intent in tx.intents(application=application, cluster=cluster, pending=True)}
        if item.key not in wanted and item in tx.inventory(item.target):
            tx.delete_inventory(item.target, [item.key])
