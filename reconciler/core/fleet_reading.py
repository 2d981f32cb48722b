"""The files of one commit, read: what stands in each, what of it is in force, and what is wrong.

What one file says depends on nothing but the file, the part of the repository it stands in and what was in force of it
before. So only the files that changed need to be read, on top of what was read of the commit before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from reconciler.core.documents import Fleet, Parsed
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
)
from reconciler.core.fleet_model import FleetCache, Reading
from reconciler.core.problems import Problem, Severity

#: In which part of the repository a kind may stand: who may write there may write these.
AREAS = {
    "Cluster": "clusters",
    "Application": "applications",
    "": "applications",
    "RolloutPolicy": "policies",
    "HealthPolicy": "policies",
}


def is_known(path: str, listing: Listing, contents: Contents, cache: FleetCache) -> bool:
    """True if the file need not be read: it was given, or is the one that was read before."""
    blob = listing[path][1]
    cached = cache.files.get(path)
    return blob in contents or (cached is not None and cached.blob == blob)


def file_at(path: str, listing: Listing, contents: Contents, cache: FleetCache) -> ParsedFile | None:
    """The file, parsed; None if its content is not there."""
    blob = listing[path][1]
    cached = cache.files.get(path)
    if cached is not None and cached.blob == blob:
        return cached
    return parse_blob(path, blob, contents[blob]) if blob in contents else None


def read_fleet(listing: Listing, file: ParsedFile | None) -> tuple[Fleet | None, tuple[Problem, ...]]:
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


def read(
    selected: Selected, fleet_file: ParsedFile, listing: Listing, contents: Contents, cache: FleetCache
) -> Reading:
    """All files of a commit, given the contents of those that are not known."""
    nothing = Reading({FLEET_FILE: fleet_file}, {}, {}, frozenset(), frozenset(), frozenset())
    reading = _with(nothing, selected.paths, selected, listing, contents, cache)
    fresh = int(cache.files.get(FLEET_FILE) is not fleet_file)
    held, held_back = dict(reading.held), set(reading.held_back)
    # A path that became a link, or otherwise refused, keeps what it held.
    for path, before in cache.held.items():
        if path in listing and path not in held:
            refused = next((problem for problem in selected.problems if problem.file == path), None)
            if refused:
                held[path] = tuple(replace(entry, broken=refused) for entry in before)
                held_back.add(path)
    return replace(
        reading,
        held=held,
        held_back=frozenset(held_back),
        blobs_read=reading.blobs_read + fresh,
        documents_parsed=reading.documents_parsed + fresh,
    )


def read_again(
    before: Reading,
    changed: Collection[str],
    gone: Collection[str],
    selected: Selected,
    listing: Listing,
    contents: Contents,
    cache: FleetCache,
) -> Reading:
    """What `read` gives, if `before` is what it gave last and nothing but `changed` and `gone` differs since."""
    left = {*changed, *gone}
    without = Reading(
        files={**before.files},
        held={**before.held},
        problems={path: problems for path, problems in before.problems.items() if path not in left},
        broken=before.broken - left,
        unread=before.unread - left,
        held_back=before.held_back - left,
    )
    reading = _with(without, changed, selected, listing, contents, cache)
    files, held = dict(reading.files), dict(reading.held)
    for path in gone:
        files.pop(path, None)
        held.pop(path, None)
    return replace(reading, files=files, held=held)


def _with(
    reading: Reading,
    paths: Collection[str],
    selected: Selected,
    listing: Listing,
    contents: Contents,
    cache: FleetCache,
) -> Reading:
    """`reading` with these files read."""
    files, held, problems = dict(reading.files), dict(reading.held), dict(reading.problems)
    broken, unread, held_back = set(reading.broken), set(reading.unread), set(reading.held_back)
    blobs_read = documents_parsed = 0
    for path in paths:
        file = file_at(path, listing, contents, cache)
        if file is None:
            raise KeyError(f"the blob of {path} is wanted and was not given")
        if cache.files.get(path) is not file:
            blobs_read += 1
            documents_parsed += len(file.documents)
        files[path] = file
        one = take_in(file, selected.areas[path], cache.held.get(path, ()))
        held[path] = one.held
        if one.problems:
            problems[path] = one.problems
        if one.is_broken:
            broken.add(path)
        if not one.is_whole:
            held_back.add(path)
        if not is_whole(file):
            unread.add(path)
    sets = frozenset(broken), frozenset(unread), frozenset(held_back)
    return Reading(files, held, problems, *sets, blobs_read, documents_parsed)


class OneFile(NamedTuple):
    """One file, taken in."""

    held: tuple[Held, ...]
    problems: tuple[Problem, ...]
    is_broken: bool  # something of it may be missing
    is_whole: bool  # nothing of it is held back


def take_in(file: ParsedFile, areas: frozenset[str], before: tuple[Held, ...]) -> OneFile:
    """One file, given what was in force of it before. A document where its kind may not stand is as good as absent."""
    misplaced = [parsed for parsed in file.documents if _is_misplaced(parsed, areas)]
    if misplaced:
        file = replace(file, documents=tuple(parsed for parsed in file.documents if parsed not in misplaced))
    problems = [_misplaced(parsed) for parsed in misplaced]
    problems += file.problems
    for parsed in file.documents:
        problems += parsed.problems
    is_broken = bool(misplaced) or bool(file.problems) or bool(broken_documents(file))
    held = hold(file, before)
    return OneFile(held, tuple(problems), is_broken, is_whole(file))


def _is_misplaced(parsed: Parsed, areas: frozenset[str]) -> bool:
    return parsed.kind == "Fleet" or (parsed.kind in AREAS and AREAS[parsed.kind] not in areas)


def _misplaced(parsed: Parsed) -> Problem:
    area = AREAS.get(parsed.kind)
    what = parsed.kind or "Kubernetes object"
    says = f"a {what} cannot stand in this part of the repository"
    hint = f"move it below one of the paths that fleet.yaml gives for {area}" if area else "it belongs into fleet.yaml"
    return parsed.document.problem((), "misplaced-document", says, hint)
