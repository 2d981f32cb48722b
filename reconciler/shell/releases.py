"""Releases as they are sent: loaded once from the store, stamped with the ownership mark, shared by all lanes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.ownership import owner_hash, stamp
from reconciler.shell.ports import Store

RELEASES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class SentRelease:
    """A release as it is sent: stamped objects by key, in apply order. `owner` is the value of the owner label,
    `source` the repository in whose name it is written."""

    digest: str
    application: str
    owner: str
    objects: dict[ObjectKey, Manifest]
    source: str


class Releases:
    """A bounded cache of stamped releases by digest: a release never changes."""

    def __init__(self, store: Store, installation: str) -> None:
        self._store = store
        self._installation = installation
        self._cache: OrderedDict[tuple[str, str], SentRelease] = OrderedDict()

    async def sent(self, digest: str, source: str) -> SentRelease:
        """The release `digest` of an application of `source`, stamped."""
        found = self._cache.get((source, digest))
        if found is not None:
            self._cache.move_to_end((source, digest))
            return found
        release = await self._store.read(f"release:{digest}", lambda tx: tx.release(digest))
        assert release is not None, f"release {digest} is assigned and not stored"
        owner = owner_hash(self._installation, source, release.application)
        objects = {ObjectKey.of(item): stamp(item, owner, release.application) for item in release.objects}
        sent = SentRelease(digest, release.application, owner, objects, source)
        self._cache[source, digest] = sent
        while len(self._cache) > RELEASES_MAX:
            self._cache.popitem(last=False)
        return sent
