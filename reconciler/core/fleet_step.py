"""From one commit to the next at the cost of what differs; it gives what looking at the whole commit would give.

    standing of the last commit + the paths whose blobs differ
      -> the files read again -> the files that decide together with them -> their applications -> the snapshot

Every stage is the one that the whole fleet goes through, given less to look at; what is not looked at is what the last
commit left. That is right as long as nothing that changed concerns all applications. So anything that may (a change of
`fleet.yaml`, of a cluster or a policy, a path that is refused, a second application of one name, a directory of another
tool) ends the step, and the commit is looked at as a whole.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from itertools import compress
from typing import NamedTuple

from reconciler.core.documents import Parsed
from reconciler.core.fleet_applications import Changed, compile_applications
from reconciler.core.fleet_candidates import find
from reconciler.core.fleet_files import FLEET_FILE, Contents, Listing, Selected, select_again
from reconciler.core.fleet_held import HeldBack, held_documents
from reconciler.core.fleet_model import (
    EMPTY_SNAPSHOT,
    Counters,
    FleetCache,
    FleetSettings,
    FleetSnapshot,
    Reading,
    Shared,
    Standing,
)
from reconciler.core.fleet_plots import scope_of
from reconciler.core.fleet_reading import is_known, read_again
from reconciler.core.problems import Problem

#: With more files than this the whole fleet is looked at: that costs less then.
CHANGES_MAX = 256
_REGULAR = ("100644", "100755")
#: What all applications of a fleet may depend on.
_SHARED_KINDS = frozenset({"Cluster", "RolloutPolicy", "HealthPolicy"})


class Result(NamedTuple):
    """What `compile_fleet` gives."""

    snapshot: FleetSnapshot
    cache: FleetCache
    counters: Counters


class Delta(NamedTuple):
    """What differs between two commits: the files to read that are new or have other content, and those that are not
    there any more. `selected` is of the newer one."""

    changed: list[str]
    gone: list[str]
    selected: Selected


def delta_of(listing: Listing, cache: FleetCache) -> Delta | None:
    """What differs from the commit that `cache` was left by; None if that has to be found by looking at all files."""
    standing = cache.standing
    if standing is None:
        return None
    before = standing.listing
    differing = list(compress(listing, map(operator.ne, listing.values(), map(before.get, listing))))
    added = {path: listing[path] for path in differing if path not in before}
    missing = before.keys() - listing.keys() if len(before) != len(listing) - len(added) else ()
    gone = {path: before[path] for path in missing}
    if FLEET_FILE in gone or FLEET_FILE in differing or len(differing) + len(gone) > CHANGES_MAX:
        return None
    for path in differing:
        modes = {listing[path][0], before[path][0]} if path in before else set()
        if len(modes) > 1 and not modes.issubset(_REGULAR):
            return None
    selected: Selected | None = standing.selected
    if added or gone:
        fleet = standing.shared.fleet
        # A rule of `fleet.yaml` that matches nothing is a problem, and one that begins to match is none any more.
        selected = None if fleet.directories else select_again(fleet, listing, standing.selected, added, gone)
    if selected is None:
        return None
    changed = [path for path in differing if path in selected.areas]
    return Delta(sorted(changed), sorted(path for path in gone if path in standing.selected.areas), selected)


def wanted_of(delta: Delta, listing: Listing, contents: Contents, cache: FleetCache) -> list[str]:
    """The blob ids that must be read before `step`."""
    return sorted({listing[path][1] for path in delta.changed if not is_known(path, listing, contents, cache)})


def step(listing: Listing, contents: Contents, cache: FleetCache, settings: FleetSettings) -> Result | None:
    """The fleet at the commit that `listing` lists, from the one that `cache` was left by; None if it has to be looked
    at as a whole."""
    standing, delta = cache.standing, delta_of(listing, cache)
    if standing is None or delta is None or standing.shared.settings != settings:
        return None
    paths = [*delta.changed, *delta.gone]
    reading = read_again(standing.reading, delta.changed, delta.gone, delta.selected, listing, contents, cache)
    if any(_concerns_all(path, each) for path in paths for each in (standing.reading, reading)):
        return None
    scope = scope_of(paths, standing, delta.selected, reading)
    while scope is not None:
        found = _recompile(scope, standing, delta.selected, reading, cache)
        if found is None:
            return None
        changed, of_files = found
        concerned = {changed.index.files[name] for name in changed.concerned}
        if concerned <= scope:
            return result_of(
                listing, standing.fleet_problems, delta.selected, reading, standing.shared, changed, of_files,
                standing.foreign, cache,
            )  # fmt: skip
        wider = scope_of([*paths, *concerned], standing, delta.selected, reading)
        scope = wider if wider != scope else None
    return None


def _concerns_all(path: str, reading: Reading) -> bool:
    documents: list[Parsed] = [entry.parsed for entry in reading.held.get(path, ())]
    if path in reading.files:
        documents += reading.files[path].documents
    return any(parsed.kind in _SHARED_KINDS for parsed in documents)


def _recompile(
    scope: frozenset[str], standing: Standing, selected: Selected, reading: Reading, cache: FleetCache
) -> tuple[Changed, tuple[Problem, ...]] | None:
    """The applications of the files of `scope` anew; None if one of them has the name of another."""
    roots = {path: selected.roots[path] for path in scope if path in selected.roots}
    here = Selected(roots, {}, {}, (), unmatched=False, counts=(), folded={})
    files = {path: reading.files[path] for path in roots if path in reading.files}
    held = {path: reading.held[path] for path in roots if path in reading.held}
    shared = standing.shared
    candidates, problems = find(shared.fleet, here, files, held)
    names = {f"{shared.fleet.name}/{candidate.name}" for candidate in candidates}
    before = {name for name, file in standing.index.files.items() if file in scope}
    if len(names) < len(candidates) or any(name in standing.index.files for name in names - before):
        return None
    served = cache.snapshot.applications if cache.snapshot is not None else {}
    gone = sorted(before - names)
    changed = compile_applications(shared, reading.files, candidates, gone, served, standing.index, cache)
    others = (problem for problem in standing.found if problem.file not in scope)
    return changed, tuple(sorted({*others, *problems}))


def result_of(
    listing: Listing,
    fleet_problems: tuple[Problem, ...],
    selected: Selected,
    reading: Reading,
    shared: Shared,
    changed: Changed,
    found: tuple[Problem, ...],
    foreign: frozenset[str] | None,
    cache: FleetCache,
) -> Result:
    """The snapshot that all stages together give, and what is kept for the next commit. `found` are problems of files
    that belong to no application; without `foreign` the next commit is looked at as a whole."""
    applications = changed.applications
    problems: set[Problem] = {*fleet_problems, *selected.problems, *shared.problems, *found}
    problems.update(_each(reading.problems.values()))
    problems.update(_each(applications[name].problems for name in changed.index.flawed))
    # The first error of anything that was to be read, or a path that matches nothing, may hide a document.
    broken = reading.broken or selected.unmatched or any(p.code == "bad-path" for p in selected.problems)
    last = cache.snapshot or EMPTY_SNAPSHOT
    snapshot = FleetSnapshot(
        fleet=shared.fleet.name,
        clusters=shared.clusters,
        applications=applications,
        problems=tuple(sorted(problems)),
        deletions_allowed=not broken and not shared.unmatched_directories,
        blocked_clusters=shared.blocked_clusters,
        health=shared.health,
        removed_applications=tuple(sorted(last.applications.keys() - applications.keys())),
        removed_clusters=tuple(sorted(last.clusters.keys() - shared.clusters.keys())),
    )
    standing = None
    if foreign is not None:
        standing = Standing(listing, fleet_problems, selected, reading, shared, changed.index, found, foreign)
    held_back = HeldBack(held_documents(reading.held, reading.held_back), changed.held_back)
    counters = Counters(reading.blobs_read, reading.documents_parsed, changed.compiled, changed.variants)
    kept = FleetCache(
        reading.files, reading.held, changed.entries, changed.claims, changed.contested, held_back, snapshot, standing
    )
    return Result(snapshot, kept, counters)


def _each(problems: Iterable[Collection[Problem]]) -> Iterable[Problem]:
    return (problem for some in problems for problem in some)
