"""What is known of live objects: a cache that only ever goes forward.

Reads arrive out of order: a list that was slow, an event that was delayed, the answer to our own apply. Here an older
state never replaces a newer one, a late event never revives a deleted object, and "we have not looked" is never taken
for "it is not there". Objects are kept whole (managedFields decide who owns what) and compressed, to a tenth of their
JSON where there are many alike.

    cache.offer(manifest, now_s=12.0)     # True: this is news
    cache.live(key)                       # the object, None (known to be absent) or NOT_SEEN

Versions are compared as numbers, which is what API servers make them; where one is no number, what arrives later
counts.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.packed import compress, decompress


class NotSeen(enum.Enum):
    """The answer "we have not looked", of type `NotSeen`, so that it is never mistaken for absence."""

    NOT_SEEN = "not-seen"


NOT_SEEN = NotSeen.NOT_SEEN


class GroupKind(NamedTuple):
    """A kind whatever its version: as it stands in an ObjectKey."""

    group: str
    kind: str

    @classmethod
    def of(cls, key: ObjectKey) -> GroupKind:
        """The kind of `key`."""
        return cls(key.group, key.kind)


@dataclass(frozen=True, slots=True)
class Live:
    """One object as last seen. `observed_at` is Now.monotonic of that moment; `body` is its JSON, compressed as one of
    its `sort`."""

    uid: str
    resource_version: str
    generation: int
    body: bytes
    sort: str
    observed_at: float

    def manifest(self) -> Manifest:
        """The object, a copy of one's own."""
        value: Manifest = orjson.loads(decompress(self.body, self.sort))
        return value


@dataclass(frozen=True, slots=True)
class Absent:
    """An object known to be gone. `resource_version` is the last one it is known to have had: older news is late."""

    resource_version: str
    observed_at: float


def is_older(version: str, than: str) -> bool:
    """True if `version` is certainly older. Versions that are no numbers are never certainly older."""
    if version.isascii() and version.isdigit() and than.isascii() and than.isdigit():
        return int(version) < int(than)
    return False


class LiveCache:
    """The live objects of one cluster, by key."""

    def __init__(self) -> None:
        self._entries: dict[GroupKind, dict[ObjectKey, Live | Absent]] = {}
        self._complete: set[GroupKind] = set()

    def entry(self, key: ObjectKey) -> Live | Absent | None:
        """What is known of `key`, None if nothing is."""
        return self._entries.get(GroupKind.of(key), {}).get(key)

    def live(self, key: ObjectKey) -> Manifest | NotSeen | None:
        """The object; None if it is known to be absent, or no object of this key was in the last complete list of its
        kind; NOT_SEEN if nobody has looked."""
        match self.entry(key):
            case Live() as entry:
                return entry.manifest()
            case Absent():
                return None
        return None if GroupKind.of(key) in self._complete else NOT_SEEN

    def keys(self, kind: GroupKind) -> list[ObjectKey]:
        """Keys of the live objects of `kind`, sorted."""
        return sorted(key for key, entry in self._entries.get(kind, {}).items() if isinstance(entry, Live))

    def offer(self, manifest: Manifest, now_s: float) -> bool:
        """Take `manifest` in unless something newer is known. True if this changed what is known. An object that cannot
        be kept, for it is nested deeper than anything that we send, is none of ours, whatever its labels say."""
        # One string in memory for all who name the object: the inventory and its release do as well.
        key, metadata = ObjectKey(*map(sys.intern, ObjectKey.of(manifest))), manifest["metadata"]
        uid, version = sys.intern(metadata["uid"]), str(metadata["resourceVersion"])
        known = self.entry(key)
        if known is not None and is_older(version, known.resource_version):
            return False
        if isinstance(known, Live) and (known.uid, known.resource_version) == (uid, version):
            return False
        sort = sys.intern(f"live {key.group}/{key.kind}")
        try:
            body = compress(orjson.dumps(manifest), sort)
        except orjson.JSONEncodeError:
            return False
        generation = metadata.get("generation")
        self._entries.setdefault(GroupKind.of(key), {})[key] = Live(
            uid=uid,
            resource_version=version,
            generation=generation if isinstance(generation, int) else 0,
            body=body,
            sort=sort,
            observed_at=now_s,
        )
        return True

    def absent(self, key: ObjectKey, now_s: float, resource_version: str = "") -> bool:
        """Note that `key` is gone; `resource_version` is that of its deletion, where known. True if this is news."""
        known = self.entry(key)
        version = resource_version
        if known is not None and (not version or is_older(version, known.resource_version)):
            version = known.resource_version
        news = not isinstance(known, Absent) and (known is not None or GroupKind.of(key) not in self._complete)
        self._entries.setdefault(GroupKind.of(key), {})[key] = Absent(version, now_s)
        return news

    def complete(self, kind: GroupKind, resource_version: str, seen: Collection[ObjectKey]) -> None:
        """Note that `kind` was listed as a whole at `resource_version` and that `seen` were in it. What was known to be
        gone by then, and is not in it, needs no memory of its own any more."""
        self._complete.add(kind)
        entries = self._entries.get(kind, {})
        late = [
            key
            for key, entry in entries.items()
            if isinstance(entry, Absent) and key not in seen and not is_older(resource_version, entry.resource_version)
        ]
        for key in late:
            del entries[key]

    def is_complete(self, kind: GroupKind) -> bool:
        """True if `kind` was listed as a whole once."""
        return kind in self._complete

    def forget(self, kind: GroupKind) -> None:
        """Drop all that is known of `kind`: from now on it is NOT_SEEN."""
        self._entries.pop(kind, None)
        self._complete.discard(kind)

    def __len__(self) -> int:
        return sum(isinstance(entry, Live) for entries in self._entries.values() for entry in entries.values())
