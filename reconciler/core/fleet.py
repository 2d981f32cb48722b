"""A whole fleet at one commit, compiled at the cost of what changed.

The caller lists the commit's files, reads the blobs that are `wanted`, and compiles; the cache of one compilation makes
the next one cheap. Nothing here does I/O:

    contents = {}
    while ids := wanted(listing, contents, cache):        # first fleet.yaml, then what it names; unchanged blobs never
        contents |= read(ids)
    snapshot, cache, counters = compile_fleet(listing, contents, cache, settings)

A commit that touches one application of a thousand reads and compiles that one. What breaks keeps its last good version
and blocks only what depends on it; while anything may be missing by mistake, nothing is deleted.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.fleet_applications import compile_applications, hold_back_duplicates
from reconciler.core.fleet_candidates import find
from reconciler.core.fleet_files import FLEET_FILE, Contents, Listing, select
from reconciler.core.fleet_model import (
    EMPTY_SNAPSHOT,
    Counters,
    FleetCache,
    FleetSettings,
    FleetSnapshot,
    Index,
)
from reconciler.core.fleet_plots import foreign_directories
from reconciler.core.fleet_reading import file_at, is_known, read, read_fleet
from reconciler.core.fleet_shared import shared_of
from reconciler.core.fleet_step import Result, delta_of, result_of, step, wanted_of
from reconciler.core.model import Reason
from reconciler.core.problems import Problem

__all__ = ["Result", "compile_fleet", "compile_whole", "wanted"]


def wanted(listing: Listing, contents: Contents, cache: FleetCache) -> list[str]:
    """The blob ids that must be read before `compile_fleet`; ask again with them until there are none."""
    delta = delta_of(listing, cache)
    if delta is not None:
        return wanted_of(delta, listing, contents, cache)
    entry = listing.get(FLEET_FILE)
    if entry is None or not _is_regular(entry[0]):
        return []
    file = file_at(FLEET_FILE, listing, contents, cache)
    if file is None:
        return [entry[1]]
    fleet, _ = read_fleet(listing, file)
    if fleet is None:
        return []
    ids = [listing[path][1] for path in select(fleet, listing).paths if not is_known(path, listing, contents, cache)]
    return sorted(set(ids))


def _is_regular(mode: str) -> bool:
    return mode not in ("120000", "160000")


def compile_fleet(listing: Listing, contents: Contents, cache: FleetCache, settings: FleetSettings) -> Result:
    """The fleet at the commit that `listing` lists, given the contents of all `wanted` blobs."""
    return step(listing, contents, cache, settings) or compile_whole(listing, contents, cache, settings)


def compile_whole(listing: Listing, contents: Contents, cache: FleetCache, settings: FleetSettings) -> Result:
    """What `compile_fleet` gives, found by looking at every file and every application: only what the unchanged ones
    say and compile to is taken from `cache`."""
    regular = _is_regular(listing.get(FLEET_FILE, ("", ""))[0])
    file = file_at(FLEET_FILE, listing, contents, cache) if FLEET_FILE in listing and regular else None
    fleet, problems = read_fleet(listing, file)
    if fleet is None or file is None:
        return Result(_kept(cache.snapshot, problems), cache, Counters())
    selected = select(fleet, listing)
    reading = read(selected, file, listing, contents, cache)
    shared = shared_of(fleet, selected, reading, settings)
    candidates, of_files = find(fleet, selected, reading.files, reading.held)
    candidates, duplicates = hold_back_duplicates(candidates)
    gone = sorted(cache.entries.keys() - {f"{fleet.name}/{candidate.name}" for candidate in candidates})
    changed = compile_applications(shared, reading.files, candidates, gone, {}, Index(), cache)
    found = tuple(sorted({*of_files, *duplicates}))
    foreign = foreign_directories(selected, reading) if not duplicates else None
    return result_of(listing, problems, selected, reading, shared, changed, found, foreign, cache)


def _kept(last: FleetSnapshot | None, problems: tuple[Problem, ...]) -> FleetSnapshot:
    problem = problems[0]
    reason = Reason("SourceKept", f"the source stays at its last good commit: {problem}")
    return replace(last or EMPTY_SNAPSHOT, problems=problems, deletions_allowed=False, kept=reason)
