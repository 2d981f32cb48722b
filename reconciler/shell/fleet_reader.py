"""Reads and compiles the commits of one repository, each at the cost of what changed since the one before.

What is in force is not the newest commit alone: a file that cannot be read whole keeps its last good version, and an
application that is blocked the release it had. Which versions these are is noted with each commit, so that a new
process can read those too (`core/fleet_recall.py`) before it takes in the newest commit.

Git packs repetition so well that some kilobytes pushed become gigabytes read. So the sizes in the listing are added up
first, and a commit above FLEET_BYTES_MAX is refused as one that cannot be read: what was in force stays in force.

    reader = FleetReader(source, settings, metrics)
    await reader.recall(row)                        # at the start: what was in force before
    commit, snapshot = await reader.read(sha)
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress

from reconciler.core.fleet import compile_fleet, wanted
from reconciler.core.fleet_files import FLEET_FILE, Listing, ParsedFile, TooLarge, parse_blob
from reconciler.core.fleet_held import NOTHING_HELD, HeldBack
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings, FleetSnapshot
from reconciler.core.fleet_recall import recall
from reconciler.core.yaml_kube import BYTES_MAX
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Commit, Source, SourceError, SourceRow, TreeEntry

#: Bytes of all files that a fleet reads of one commit. Ten thousand applications of 2 KB are 20 MB.
FLEET_BYTES_MAX = 64 * 1024 * 1024
_LARGEST_NAMED, _PATH_SHOWN = 3, 120
#: So many blobs of earlier versions are read together.
_READ_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class _Listed:
    """A commit's files. `large` are those that are too large to be read, `bytes` is the size of all others together."""

    entries: Mapping[str, TreeEntry]
    files: Listing
    large: frozenset[str]
    bytes: int

    @classmethod
    def of(cls, entries: Mapping[str, TreeEntry]) -> _Listed:
        files = {path: (entry.mode, entry.blob) for path, entry in entries.items()}
        large = frozenset(path for path, entry in entries.items() if entry.size > BYTES_MAX)
        return cls(entries, files, large, sum(map(_size, entries.values())))

    def after(self, entries: Mapping[str, TreeEntry]) -> _Listed:
        """What `of` gives; only the entries that are not the very same as before are looked at."""
        differing = list(compress(entries, map(operator.is_not, entries.values(), map(self.entries.get, entries))))
        if len(entries) != len(self.entries) or any(path not in self.entries for path in differing):
            return self.of(entries)
        files, large, total = dict(self.files), set(self.large), self.bytes
        for path in differing:
            entry = entries[path]
            files[path] = (entry.mode, entry.blob)
            total += _size(entry) - _size(self.entries[path])
            large.discard(path)
            if entry.size > BYTES_MAX:
                large.add(path)
        return _Listed(entries, files, frozenset(large), total)


def _size(entry: TreeEntry) -> int:
    return entry.size if 0 < entry.size <= BYTES_MAX else 0


class FleetReader:
    """One source's commits, compiled one after the other. `usable` is the newest one that could be used at all."""

    def __init__(self, source: Source, settings: FleetSettings, metrics: Metrics) -> None:
        self._source = source
        self._settings = settings
        self._metrics = metrics
        self._cache = EMPTY_CACHE
        self._listed = _Listed.of({})
        self.usable: Commit | None = None

    async def head(self) -> str:
        """The commit that the remote's ref is at. Raises SourceError."""
        return await self._source.head()

    async def recall(self, row: SourceRow) -> None:
        """Come to know what was in force when `row` was written. Raises SourceError."""
        held = HeldBack.of_text(row.held)
        if row.last_usable and held != NOTHING_HELD:
            _, listed, contents = await self._contents(row.last_usable)
            self._cache = recall(listed.files, contents, held, await self._versions(held), self._settings)
        if row.last_usable and row.last_usable != row.last_attempted:
            await self.read(row.last_usable)

    async def read(self, sha: str) -> tuple[Commit, FleetSnapshot]:
        """Read and compile what changed at `sha`. Raises SourceError."""
        commit, listed, contents = await self._contents(sha)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        snapshot, self._cache, counters = compile_fleet(listed.files, contents, self._cache, self._settings)
        self._metrics.observe("compile_duration_seconds", loop.time() - started_s)
        self._metrics.add("blobs_read", counters.blobs_read)
        self._metrics.add("documents_parsed", counters.documents_parsed)
        self._metrics.add("applications_compiled", counters.applications_compiled)
        if snapshot.kept is None:
            self.usable = commit
        return commit, snapshot

    def noted(self, row: SourceRow, sha: str, snapshot: FleetSnapshot) -> SourceRow:
        """`row` after commit `sha` was read and found to be `snapshot`: what the next start needs to recall it."""
        row = replace(row, fleet=snapshot.fleet or row.fleet, last_attempted=sha)
        if snapshot.kept is not None:
            return row
        return replace(row, last_usable=sha, held=self._cache.held_back.as_text())

    async def _contents(self, sha: str) -> tuple[Commit, _Listed, Mapping[str, bytes | TooLarge]]:
        """The files of `sha`, and the contents of those that the cache does not know."""
        commit, entries = await self._source.listing(sha)
        listed = self._listed = self._listed.after(entries)
        large = {entries[path].blob: TooLarge(entries[path].size) for path in listed.large}
        contents: dict[str, bytes | TooLarge] = {}
        while blobs := wanted(listed.files, contents, self._cache):
            self._refuse_too_much(listed, contents)
            contents.update({blob: large[blob] for blob in blobs if blob in large})
            contents.update(await self._source.read([blob for blob in blobs if blob not in large]))
        return commit, listed, contents

    async def _versions(self, held: HeldBack) -> dict[tuple[str, str], ParsedFile]:
        """The files at the versions that `held` names; a few are read at a time, for each may be as large as a file may
        be."""
        versions: dict[tuple[str, str], ParsedFile] = {}
        blobs = held.blobs()
        for some in (blobs[start : start + _READ_AT_ONCE] for start in range(0, len(blobs), _READ_AT_ONCE)):
            contents = await self._source.read(sorted({blob for _, blob in some}))
            versions.update({(path, blob): parse_blob(path, blob, contents[blob]) for path, blob in some})
        return versions

    def _refuse_too_much(self, listed: _Listed, contents: Mapping[str, bytes | TooLarge]) -> None:
        """Raise SourceError TooLarge if the files of the fleet are too large together, whether they are known already
        or not: the next process has to read all of them."""
        if listed.bytes <= FLEET_BYTES_MAX:
            return
        entries, files = listed.entries, listed.files
        sizes = {path: entry.size for path, entry in entries.items() if 0 < entry.size <= BYTES_MAX}
        # Much of a repository may be nothing to the fleet: only what it selects counts, which `fleet.yaml` alone says.
        fleet = {path: file for path, file in self._cache.files.items() if path == FLEET_FILE}
        entry = files.get(FLEET_FILE)
        known = {entry[1]: contents[entry[1]]} if entry is not None and entry[1] in contents else {}
        selected = set(wanted(files, known, replace(EMPTY_CACHE, files=fleet)))
        read = {path: size for path, size in sizes.items() if entries[path].blob in selected}
        total = sum(read.values())
        if total > FLEET_BYTES_MAX:
            largest = sorted(read, key=lambda path: (-read[path], path))[:_LARGEST_NAMED]
            named = ", ".join(f"{path[:_PATH_SHOWN]} ({read[path]})" for path in largest)
            message = f"the {len(read)} files that fleet.yaml selects have {total} bytes, more than the"
            raise SourceError("TooLarge", f"{message} {FLEET_BYTES_MAX} a fleet may have; the largest: {named}")


def changed_applications(before: FleetSnapshot | None, after: FleetSnapshot) -> set[str]:
    """Applications about which something else may be decided now: they are new, gone or compile to something else, or
    have a target on a cluster that is declared, or blocked, in another way."""
    if before is None:
        return set(after.applications)
    changed = _differing(before.applications, after.applications)
    clusters = _differing(before.clusters, after.clusters) | _differing(before.blocked_clusters, after.blocked_clusters)
    if clusters:
        for snapshot in (before, after):
            changed |= {name for name, found in snapshot.applications.items() if clusters & found.targets.keys()}
    return changed


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    if before is after:
        return set()
    # Most values are the very same as before: comparing what they hold would take long.
    other = set(compress(after, map(operator.is_not, after.values(), map(before.get, after))))
    if len(before) != len(after) or any(name not in before for name in other):
        other |= before.keys() - after.keys()
    return {name for name in other if before.get(name) != after.get(name)}
