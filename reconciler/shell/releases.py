"""Releases as they are sent: loaded once from the store, stamped with the ownership mark, shared by all lanes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern

from reconciler.core.apply_rules import DEFAULT_RULES, ApplyRules, ObjectRule, rules_by_object, rules_from_text
from reconciler.core.digest import digest_of
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.ownership import owner_hash, stamp
from reconciler.core.packed import PackedMap
from reconciler.shell.follow import Kind
from reconciler.shell.ports import Store

RELEASES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class SentRelease:
    """A release as it is sent: stamped objects by key, in apply order. `owner` is the value of the owner label,
    `source` the repository in whose name it is written; `rules` say how its objects are written, `by_object` what of
    each was handed over; `former_owner` is the mark that its application had under an earlier name, `kinds` are those
    of its objects."""

    digest: str
    application: str
    owner: str
    objects: Mapping[ObjectKey, Manifest]
    source: str
    rules: ApplyRules = DEFAULT_RULES
    by_object: dict[ObjectKey, ObjectRule] = field(default_factory=dict)
    former_owner: str = ""
    kinds: frozenset[Kind] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {Kind(intern(str(manifest["apiVersion"])), key.kind) for key, manifest in self.objects.items()}
        object.__setattr__(self, "kinds", frozenset(kinds))

    @property
    def identity(self) -> str:
        """Equal for two that are sent in the same way: the digest, and that of the rules where there are some."""
        return self.digest if self.rules == DEFAULT_RULES else f"{self.digest}/{digest_of(self.rules.as_text())}"


class _Objects(PackedMap[ObjectKey, Manifest]):
    """The objects of a release as they are sent. Those of one kind are alike."""

    __slots__ = ()

    def _sort(self, key: ObjectKey) -> str:
        return f"sent {key.group}/{key.kind}"


class Releases:
    """A bounded cache of stamped releases by digest, packed: a release never changes."""

    def __init__(self, store: Store, installation: str) -> None:
        self._store = store
        self._installation = installation
        self._cache: OrderedDict[tuple[str, str, str], SentRelease] = OrderedDict()

    async def sent(self, digest: str, source: str, rules: str = "") -> SentRelease:
        """The release `digest` of an application of `source`, stamped; `rules` are its application's, as text."""
        found = self._cache.get((source, digest, rules))
        if found is not None:
            self._cache.move_to_end((source, digest, rules))
            return found
        release = await self._store.read(f"release:{digest}", lambda tx: tx.release(digest))
        assert release is not None, f"release {digest} is assigned and not stored"
        owner = owner_hash(self._installation, source, release.application)
        objects = {_shared(ObjectKey.of(item)): stamp(item, owner, release.application) for item in release.objects}
        parsed = rules_from_text(rules)
        by_object = rules_by_object(parsed, release.objects)
        former = owner_hash(self._installation, source, parsed.former) if parsed.former else ""
        sent = SentRelease(digest, release.application, owner, _Objects(objects), source, parsed, by_object, former)
        self._cache[source, digest, rules] = sent
        while len(self._cache) > RELEASES_MAX:
            self._cache.popitem(last=False)
        return sent


def _shared(key: ObjectKey) -> ObjectKey:
    """The same key, of strings that all keys share: there are a few for each object of a fleet."""
    return ObjectKey(*map(intern, key))
