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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from reconciler.core.digest import digest_of
from reconciler.core.documents import Cluster, Fleet, Parsed, RolloutPolicy
from reconciler.core.fleet_applications import Changed, Shared, compile_applications
from reconciler.core.fleet_files import (
    FLEET_FILE,
    Contents,
    Held,
    Listing,
    ParsedFile,
    Selected,
    broken_documents,
    hold,
    is_whole,
    parse_blob,
    select,
)
from reconciler.core.fleet_health import policies_in_force
from reconciler.core.fleet_model import (
    EMPTY_SNAPSHOT,
    Counters,
    FleetCache,
    FleetSettings,
    FleetSnapshot,
)
from reconciler.core.model import Reason
from reconciler.core.problems import Problem, Severity

#: In which part of the repository a kind may stand: who may write there may write these.
AREAS = {
    "Cluster": "clusters",
    "Application": "applications",
    "": "applications",
    "RolloutPolicy": "policies",
    "HealthPolicy": "policies",
}


class Result(NamedTuple):
    """What `compile_fleet` gives."""

    snapshot: FleetSnapshot
    cache: FleetCache
    counters: Counters


def wanted(listing: Listing, contents: Contents, cache: FleetCache) -> list[str]:
    """The blob ids that must be read before `compile_fleet`; ask again with them until there are none."""
    entry = listing.get(FLEET_FILE)
    if entry is None or not _is_regular(entry[0]):
        return []
    file = _file(FLEET_FILE, listing, contents, cache)
    if file is None:
        return [entry[1]]
    fleet, _ = _read_fleet(listing, file)
    if fleet is None:
        return []
    ids = [listing[path][1] for path in select(fleet, listing).paths if not _known(path, listing, contents, cache)]
    return sorted(set(ids))


def _is_regular(mode: str) -> bool:
    return mode not in ("120000", "160000")


def _known(path: str, listing: Listing, contents: Contents, cache: FleetCache) -> bool:
    blob = listing[path][1]
    cached = cache.files.get(path)
    return blob in contents or (cached is not None and cached.blob == blob)


def _file(path: str, listing: Listing, contents: Contents, cache: FleetCache) -> ParsedFile | None:
    blob = listing[path][1]
    cached = cache.files.get(path)
    if cached is not None and cached.blob == blob:
        return cached
    return parse_blob(path, blob, contents[blob]) if blob in contents else None


def _read_fleet(listing: Listing, file: ParsedFile | None) -> tuple[Fleet | None, tuple[Problem, ...]]:
    """The Fleet document, or why there is none."""
    if not listing:
        return None, (Problem(FLEET_FILE, 0, 0, Severity.ERROR, "empty-repository", "the repository is empty"),)
    if file is None:
        hint = "`reconciler init` writes one"
        return None, (
            Problem(FLEET_FILE, 0, 0, Severity.ERROR, "no-fleet", "there is no fleet.yaml at the root", hint),
        )
    problems = list(file.problems)
    fleets = [parsed for parsed in file.documents if parsed.kind == "Fleet"]
    for parsed in file.documents:
        problems += parsed.problems
        if parsed.kind != "Fleet" and not parsed.broken:
            says = f"fleet.yaml holds the Fleet alone, not {parsed.kind or 'objects'}"
            problems.append(parsed.document.problem((), "misplaced-document", says, "move it to a file of its own"))
    for parsed in fleets[1:]:
        problems.append(parsed.document.problem((), "duplicate-name", "a second Fleet", "keep one of the two"))
    if not fleets and not problems:
        problems.append(Problem(FLEET_FILE, 0, 0, Severity.ERROR, "no-fleet", "fleet.yaml holds no Fleet document"))
    value = fleets[0].value if len(fleets) == 1 and not file.problems else None
    return (value if isinstance(value, Fleet) else None), tuple(problems)


def compile_fleet(listing: Listing, contents: Contents, cache: FleetCache, settings: FleetSettings) -> Result:
    """The fleet at the commit that `listing` lists, given the contents of all `wanted` blobs."""
    regular = _is_regular(listing.get(FLEET_FILE, ("", ""))[0])
    file = _file(FLEET_FILE, listing, contents, cache) if FLEET_FILE in listing and regular else None
    fleet, problems = _read_fleet(listing, file)
    if fleet is None or file is None:
        return Result(_kept(cache.snapshot, problems), cache, Counters())
    selected = select(fleet, listing)
    reading = _read(selected, file, listing, contents, cache)
    shared = _shared(fleet, selected, reading, settings)
    changed = compile_applications(shared, selected, reading.files, reading.held, cache)
    found = [*problems, *selected.problems, *reading.problems, *shared.problems, *changed.problems]
    snapshot = _snapshot(shared, changed, tuple(sorted(set(found))), cache.snapshot)
    # The first error of anything that was to be read, or a path that matches nothing, may hide a document.
    broken = reading.broken or selected.unmatched or any(p.code == "bad-path" for p in selected.problems)
    snapshot = replace(snapshot, deletions_allowed=not broken and not shared.unmatched_directories)
    counters = replace(reading.counters, applications_compiled=changed.compiled, variants_compiled=changed.variants)
    held_blobs = {**changed.held_blobs, **reading.held_blobs}
    return Result(
        snapshot,
        FleetCache(reading.files, reading.good, changed.entries, changed.claims, held_blobs, snapshot),
        counters,
    )


def _kept(last: FleetSnapshot | None, problems: tuple[Problem, ...]) -> FleetSnapshot:
    problem = problems[0]
    reason = Reason("SourceKept", f"the source stays at its last good commit: {problem}")
    return replace(last or EMPTY_SNAPSHOT, problems=problems, deletions_allowed=False, kept=reason)


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    files: Mapping[str, ParsedFile]
    good: Mapping[str, tuple[Parsed, ...]]
    held: Mapping[str, tuple[Held, ...]]
    held_blobs: Mapping[str, str]
    problems: list[Problem]
    broken: bool
    counters: Counters


def _read(
    selected: Selected,
    fleet_file: ParsedFile,
    listing: Listing,
    contents: Contents,
    cache: FleetCache,
) -> _Reading:
    files = {FLEET_FILE: fleet_file}
    good: dict[str, tuple[Parsed, ...]] = {}
    held: dict[str, tuple[Held, ...]] = {}
    held_blobs: dict[str, str] = {}
    problems: list[Problem] = []
    broken = False
    read, parsed_count = int(cache.files.get(FLEET_FILE) is not fleet_file), 0
    parsed_count += read
    for path in selected.paths:
        file = _file(path, listing, contents, cache)
        if file is None:
            raise KeyError(f"the blob of {path} is wanted and was not given")
        if cache.files.get(path) is not file:
            read += 1
            parsed_count += len(file.documents)
        files[path] = file
        # A document where its kind may not stand is as good as absent.
        misplaced = [parsed for parsed in file.documents if _is_misplaced(parsed, selected.areas[path])]
        if misplaced:
            documents = tuple(parsed for parsed in file.documents if parsed not in misplaced)
            file = replace(file, documents=documents)
            problems += [_misplaced(parsed) for parsed in misplaced]
            broken = True
        held[path] = hold(file, cache.good.get(path, ()))
        good[path] = tuple(entry.parsed for entry in held[path])
        if not is_whole(file):
            _note_held(path, held_blobs, cache)
        problems += file.problems
        for parsed in file.documents:
            problems += parsed.problems
        broken |= bool(file.problems) or bool(broken_documents(file))
    # A path that became a link, or otherwise refused, keeps what it held.
    for path, before in cache.good.items():
        if path in listing and path not in held:
            refused = next((problem for problem in selected.problems if problem.file == path), None)
            if refused:
                good[path] = before
                held[path] = tuple(Held(parsed, refused) for parsed in before)
                _note_held(path, held_blobs, cache)
    return _Reading(files, good, held, held_blobs, problems, broken, Counters(read, parsed_count))


def _note_held(path: str, held_blobs: dict[str, str], cache: FleetCache) -> None:
    """Remember at which blob a file that is held back could last be read whole, if it ever could."""
    before = cache.files.get(path)
    if path in cache.held_blobs:
        held_blobs[path] = cache.held_blobs[path]
    elif before is not None and is_whole(before):
        held_blobs[path] = before.blob


def _is_misplaced(parsed: Parsed, areas: frozenset[str]) -> bool:
    return parsed.kind == "Fleet" or (parsed.kind in AREAS and AREAS[parsed.kind] not in areas)


def _misplaced(parsed: Parsed) -> Problem:
    area = AREAS.get(parsed.kind)
    what = parsed.kind or "Kubernetes object"
    says = f"a {what} cannot stand in this part of the repository"
    hint = f"move it below one of the paths that fleet.yaml gives for {area}" if area else "it belongs into fleet.yaml"
    return parsed.document.problem((), "misplaced-document", says, hint)


# ---- what applications share ------------------------------------------------------------------------------------


def _shared(fleet: Fleet, selected: Selected, reading: _Reading, settings: FleetSettings) -> Shared:
    problems: list[Problem] = []
    clusters: dict[str, Cluster] = {}
    blocked_clusters: dict[str, Reason] = {}
    policies = dict(settings.catalogue.policies)
    own: set[str] = set()
    blocked_policies: dict[str, Reason] = {}
    for path in sorted(reading.held):
        for entry in reading.held[path]:
            value = entry.parsed.value
            if isinstance(value, Cluster):
                if value.name in clusters:
                    problems.append(_duplicate(entry.parsed, clusters[value.name].file))
                    blocked_clusters[value.name] = _because("DuplicateDocument", problems[-1])
                    continue
                clusters[value.name] = value
                if entry.broken:
                    blocked_clusters[value.name] = _because("BrokenDocument", entry.broken)
            elif isinstance(value, RolloutPolicy):
                if value.name in own:
                    problems.append(_duplicate(entry.parsed, policies[value.name].file))
                    blocked_policies[value.name] = _because("DuplicateDocument", problems[-1])
                    continue
                own.add(value.name)
                policies[value.name] = value
                if entry.broken:
                    blocked_policies[value.name] = _because("BrokenDocument", entry.broken)
        for parsed, problem in broken_documents(reading.files[path]) if path in reading.files else ():
            # Broken from the start: a shipped policy of that name must not step in for it.
            if parsed.kind == "RolloutPolicy" and parsed.name:
                blocked_policies.setdefault(parsed.name, _because("BrokenDocument", problem))
    health, blocked_health, of_health = policies_in_force(
        reading.held, reading.files, settings.catalogue.health_policies
    )
    problems += of_health
    labels = {name: [sorted(cluster.labels.items()), list(cluster.not_enforced)] for name, cluster in clusters.items()}
    unmatched = [rule for rule in fleet.directories if not any(_below(path, rule.path) for path in selected.paths)]
    for rule in unmatched:
        says = f"{rule.path!r} matches no file"
        problems.append(fleet.document.problem((*rule.at, "path"), "path-matches-nothing", says, "remove the rule"))
    return Shared(
        fleet=fleet,
        clusters=clusters,
        clusters_key=digest_of(labels),
        blocked_clusters=blocked_clusters,
        policies=policies,
        blocked_policies=blocked_policies,
        health=health,
        blocked_health=blocked_health,
        settings=settings,
        problems=tuple(problems),
        unmatched_directories=bool(unmatched),
    )


def _below(path: str, directory: str) -> bool:
    return path.startswith(directory + "/")


def _duplicate(parsed: Parsed, other_file: str) -> Problem:
    says = f"a second {parsed.kind} named {parsed.name!r}; the first is in {other_file}"
    return parsed.document.problem(("metadata", "name"), "duplicate-name", says, "rename one of the two")


def _because(code: str, problem: Problem) -> Reason:
    return Reason(code, f"{problem.file}:{problem.line}:{problem.column}: {problem.message}")


def _snapshot(
    shared: Shared, changed: Changed, problems: tuple[Problem, ...], last: FleetSnapshot | None
) -> FleetSnapshot:
    applications = changed.applications
    before = last or EMPTY_SNAPSHOT
    return FleetSnapshot(
        fleet=shared.fleet.name,
        clusters=shared.clusters,
        applications=dict(sorted(applications.items())),
        problems=problems,
        deletions_allowed=True,
        blocked_clusters=shared.blocked_clusters,
        health=shared.health,
        removed_applications=tuple(sorted(before.applications.keys() - applications.keys())),
        removed_clusters=tuple(sorted(before.clusters.keys() - shared.clusters.keys())),
    )
