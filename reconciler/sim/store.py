"""The store of one simulated cluster: objects, the history that watches read, and the write log.

Objects are plain JSON values that nobody modifies; a write stores a new value which shares the unchanged parts, and its
serialised bytes are made once. So a snapshot of a cluster copies a few dictionaries of references, whatever the size of
the objects, and may be restored any number of times. Histories and the log are append-only lists: a snapshot remembers
their length, and a restore copies that much.

    saved = store.snapshot(); ...; store = Store.restore(saved)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from reconciler.sim.ownership import Entry, Owner, decode

HISTORY_MAX = 1000
#: A cluster has had writes before anybody looks: older versions are gone from its history.
FIRST_REVISION = 100


class Key(NamedTuple):
    """Which object; `namespace` is "" for cluster-scoped kinds."""

    group: str
    kind: str
    namespace: str
    name: str


class Stored:
    """One version of one object. `value` must not be modified."""

    __slots__ = ("_entries", "_raw", "labels", "revision", "uid", "untidy", "value")

    def __init__(
        self,
        value: dict[str, Any],
        revision: int,
        entries: dict[Owner, Entry] | None = None,
        untidy: tuple[str, ...] = (),
    ) -> None:
        """`untidy` names the empty parts of metadata that an apply left in a custom object's stored bytes: nobody sees
        them, but the next write removes them, and so is a write even if it changes nothing else."""
        metadata = value["metadata"]
        self.value = value
        self.revision = revision
        self.untidy = untidy
        self.uid: str = metadata["uid"]
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self._entries = entries
        self._raw: bytes | None = None

    @property
    def raw(self) -> bytes:
        """The object as JSON."""
        if self._raw is None:
            self._raw = orjson.dumps(self.value)
        return self._raw

    @property
    def raw_item(self) -> bytes:
        """The object as JSON without kind and apiVersion, which stand first: how lists of built-in kinds show it."""
        return b"{" + self.raw[self.raw.index(b'"metadata":') :]

    @property
    def entries(self) -> dict[Owner, Entry]:
        """Its managedFields by owner; must not be modified."""
        if self._entries is None:
            self._entries = decode(self.value["metadata"].get("managedFields"))
        return self._entries


@dataclass(frozen=True, slots=True)
class Event:
    """One change: what was, and what is; a deletion's `after` is the last state with the deletion's revision."""

    revision: int
    type: str
    namespace: str
    name: str
    before: Stored | None
    after: Stored


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """One line of the write log: a write that reached the server, dry runs and refused ones (by `code`) included.

    `labels` are the object's after the write (before a delete); `changed` says whether anything was stored; `digest` is
    a hash of the request's body. `revision_before` is 0 when the object did not exist. Writes of simulated controllers
    have no user.
    """

    sequence: int
    time: float
    user: str
    manager: str
    verb: str
    key: Key
    subresource: str
    uid: str
    revision_before: int
    revision_after: int
    dry_run: bool
    digest: str
    labels: dict[str, str]
    changed: bool
    code: int


@dataclass(slots=True)
class Shelf:
    """The objects of one kind, by (namespace, name), and their history; `horizon` is the newest compacted revision."""

    objects: dict[tuple[str, str], Stored] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    horizon: int = FIRST_REVISION


class Snapshot(NamedTuple):
    """An opaque copy of a store."""

    revision: int
    counter: int
    shelves: tuple[tuple[str, dict[tuple[str, str], Stored], list[Event], int, int], ...]
    log: list[WriteEntry]
    log_length: int
    requests: dict[str, int]


class Store:
    """All objects of one cluster. `revision` counts every change, as etcd does."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self.counter = 0
        self.shelves: dict[str, Shelf] = {}
        self.log: list[WriteEntry] = []
        self.requests: dict[str, int] = {}
        self.listeners: list[Callable[[str, Event], None]] = []

    def shelf(self, storage: str) -> Shelf:
        """The objects of one kind."""
        found = self.shelves.get(storage)
        if found is None:
            found = self.shelves[storage] = Shelf()
        return found

    def put(
        self,
        storage: str,
        namespace: str,
        name: str,
        value: dict[str, Any],
        entries: dict[Owner, Entry],
        untidy: tuple[str, ...] = (),
    ) -> Stored:
        """Store a new version; sets its resourceVersion."""
        self.revision += 1
        metadata = {**value["metadata"], "resourceVersion": str(self.revision)}
        stored = Stored({**value, "metadata": metadata}, self.revision, entries, untidy)
        shelf = self.shelf(storage)
        before = shelf.objects.get((namespace, name))
        shelf.objects[(namespace, name)] = stored
        kind = "ADDED" if before is None else "MODIFIED"
        self._record(storage, shelf, Event(self.revision, kind, namespace, name, before, stored))
        return stored

    def drop(self, storage: str, namespace: str, name: str) -> Stored:
        """Remove an object. Returns its last state with the revision of the deletion."""
        self.revision += 1
        shelf = self.shelf(storage)
        before = shelf.objects.pop((namespace, name))
        metadata = {**before.value["metadata"], "resourceVersion": str(self.revision)}
        last = Stored({**before.value, "metadata": metadata}, self.revision, before.entries)
        self._record(storage, shelf, Event(self.revision, "DELETED", namespace, name, before, last))
        return last

    def _record(self, storage: str, shelf: Shelf, event: Event) -> None:
        shelf.history.append(event)
        if len(shelf.history) > 2 * HISTORY_MAX:
            # A new list: snapshots hold the old one.
            shelf.horizon = shelf.history[-HISTORY_MAX - 1].revision
            shelf.history = shelf.history[-HISTORY_MAX:]
        for listener in self.listeners:
            listener(storage, event)

    def compact(self) -> None:
        """Forget the history, as etcd's compaction does: older resourceVersions answer 410 from now on."""
        for shelf in self.shelves.values():
            shelf.horizon = self.revision
            shelf.history = []

    def since(self, storage: str, revision: int) -> Iterator[Event]:
        """The changes of one kind after a revision."""
        return (event for event in list(self.shelf(storage).history) if event.revision > revision)

    def snapshot(self) -> Snapshot:
        """A copy that later writes do not touch."""
        shelves = tuple(
            (name, dict(shelf.objects), shelf.history, len(shelf.history), shelf.horizon)
            for name, shelf in self.shelves.items()
        )
        return Snapshot(self.revision, self.counter, shelves, self.log, len(self.log), dict(self.requests))

    @classmethod
    def restore(cls, saved: Snapshot) -> Store:
        """A store as it was; the snapshot may be restored again."""
        store = cls()
        store.revision, store.counter = saved.revision, saved.counter
        for name, objects, history, length, horizon in saved.shelves:
            store.shelves[name] = Shelf(dict(objects), history[:length], horizon)
        store.log = saved.log[: saved.log_length]
        store.requests = dict(saved.requests)
        return store
