"""How a new process comes to know what was in force before it: the cache that the last one had, made anew.

Reading the commit again is not enough, for what is in force of a fleet depends on the commits before. Each document
that was held back is taken from the blob it was read from, and each application that was blocked is compiled from its
own files alone. Nothing of that meets what the commit says otherwise: two that claim one object, or one name, or files
whose names differ in letter case only, would block each other here, where both are to be known.

    cache = recall(listing, contents, held, files, settings)     # of the last commit that could be used
    snapshot, cache, _ = compile_fleet(listing, contents, cache, settings)

An earlier version of an application is compiled for the clusters and policies of now: those of then are not kept. While
it is blocked nothing is decided by that; where nothing comes of it, it counts as never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.core.fleet_applications import compile_one
from reconciler.core.fleet_candidates import Candidate, find
from reconciler.core.fleet_files import FLEET_FILE, Contents, Held, Listing, ParsedFile, identity_of, select
from reconciler.core.fleet_held import Blobs, HeldApplication, HeldBack, HeldDocument
from reconciler.core.fleet_model import EMPTY_CACHE, Entry, FleetCache, FleetSettings, Shared
from reconciler.core.fleet_reading import file_at, read, read_fleet, take_in
from reconciler.core.fleet_shared import shared_of
from reconciler.core.model import ObjectKey

#: The parsed file at each path and blob id.
Versions = Mapping[tuple[str, str], ParsedFile]


def recall(
    listing: Listing, contents: Contents, held: HeldBack, versions: Versions, settings: FleetSettings
) -> FleetCache:
    """What the process that noted `held` at this commit left for the next one, but for the commit itself. `contents`
    has all that is `wanted` of the commit, `versions` all of `held.blobs()`."""
    documents = {path: _documents(path, some, versions) for path, some in held.documents.items()}
    cache = replace(EMPTY_CACHE, held=documents)
    file = file_at(FLEET_FILE, listing, contents, cache) if FLEET_FILE in listing else None
    fleet, _ = read_fleet(listing, file)
    if fleet is None or file is None:
        return EMPTY_CACHE  # a version before this one could read it
    selected = select(fleet, listing)
    reading = read(selected, file, listing, contents, cache)
    # What was in force stays so while a policy is broken: only something new has to wait for that.
    shared = replace(shared_of(fleet, selected, reading, settings), blocked_policies={}, blocked_health=())
    entries: dict[str, Entry] = {}
    for name, application in sorted(held.applications.items()):
        entry = _entry(name, application, shared, versions)
        if entry is not None:
            entries[name] = entry
    claims: dict[ObjectKey, tuple[str, ...]] = {}
    for name, entry in entries.items():
        for key in entry.compiled.claims:
            claims[key] = (*claims.get(key, ()), name)
    contested = frozenset(key for key, names in claims.items() if len(names) > 1)
    return replace(cache, files=reading.files, entries=entries, claims=claims, contested=contested)


def _documents(path: str, some: tuple[HeldDocument, ...], versions: Versions) -> tuple[Held, ...]:
    return tuple(
        Held(parsed, document.blob)
        for document in some
        for parsed in versions[path, document.blob].documents
        if identity_of(parsed) == (document.kind, document.name) and not parsed.broken
    )


def _entry(name: str, application: HeldApplication, shared: Shared, versions: Versions) -> Entry | None:
    """What was kept of a blocked application; None if neither version is an application of this name now."""
    entry: Entry | None = None
    candidate = _candidate(name, application.last, shared, versions)
    if candidate is not None:
        entry, served = compile_one(name, candidate, None, shared, _files(application.last, versions))
        entry = replace(entry, last=None if served.blocked else served, last_blobs=application.last)
    if application.newest != application.last:
        candidate = _candidate(name, application.newest, shared, versions)
        if candidate is not None:
            entry, _ = compile_one(name, candidate, entry, shared, _files(application.newest, versions))
    return entry


def _files(blobs: Blobs, versions: Versions) -> dict[str, ParsedFile]:
    return {path: versions[path, blob] for path, blob in blobs}


def _candidate(name: str, blobs: Blobs, shared: Shared, versions: Versions) -> Candidate | None:
    """The application `name` in these files, as if there were no others."""
    if not blobs:
        return None
    fleet, files = shared.fleet, _files(blobs, versions)
    selected = select(fleet, {path: ("100644", blob) for path, blob in blobs})
    held = {path: take_in(files[path], areas, ()).held for path, areas in selected.areas.items()}
    candidates, _ = find(fleet, selected, files, held)
    fits = [each for each in candidates if f"{fleet.name}/{each.name}" == name and each.held_back is None]
    return fits[0] if len(fits) == 1 else None
