"""Which files of a commit a fleet reads, and what they say; a file that breaks keeps its last good version.

A commit is a listing: path -> (mode, blob id). Blob ids are content hashes, so a file whose id is known was parsed
before and is not read again. Links and submodules are never followed; paths that could mean something else on another
machine are refused.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.core.documents import Fleet, Parsed
from reconciler.core.parse import parse_file
from reconciler.core.problems import Problem, Severity
from reconciler.core.yaml_kube import BYTES_MAX, Path

#: Path -> (git file mode, blob id), for every file of a commit.
Listing = Mapping[str, tuple[str, str]]

FLEET_FILE = "fleet.yaml"
_YAML = (".yaml", ".yml", ".json")
_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_CHART = "Chart.yaml"
_MODES = {"120000": "a link", "160000": "a submodule"}
_PATH_MAX = 1024
#: One set for all files of the same areas.
_AREA_SETS = {
    areas: areas
    for size in range(4)
    for areas in map(frozenset, itertools.combinations(("clusters", "applications", "policies"), size))
}
#: Nearly all paths; the others are looked at part by part.
_ORDINARY_PATH = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*[A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Stands for the content of a blob that was not read because it has more than BYTES_MAX bytes."""

    bytes: int


#: Blob id -> what it holds.
Contents = Mapping[str, bytes | TooLarge]


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One file at one blob id. `problems` keep it from being read to its end."""

    path: str
    blob: str
    documents: tuple[Parsed, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A document in force: the present one, or the last good one with the problem that holds the present one back.
    `blob` is that of the file it was read from."""

    parsed: Parsed
    blob: str
    broken: Problem | None = None

    @property
    def file(self) -> str:
        """The file it stands in."""
        return self.parsed.document.file


@dataclass(frozen=True, slots=True)
class Selected:
    """The files a fleet reads. `roots` maps each application file to the directory of `fleet.yaml` it was found below,
    `areas` each file to what may stand in it; `unsupported` are directories of other tools, with the tool's name.
    `counts` says how many files each pattern matches, `folded` which paths are not in lower case, by what they are in
    it."""

    roots: Mapping[str, str]
    areas: Mapping[str, frozenset[str]]
    unsupported: Mapping[str, str]
    problems: tuple[Problem, ...]
    unmatched: bool
    counts: tuple[int, ...]
    folded: Mapping[str, str]

    @property
    def paths(self) -> list[str]:
        """The files to read, sorted."""
        return sorted(self.areas)


def select(fleet: Fleet, listing: Listing) -> Selected:
    """The files that `fleet` reads of a commit."""
    roots: dict[str, str] = {}
    areas: dict[str, set[str]] = {}
    problems: list[Problem] = []
    counts: list[int] = []
    for area in ("clusters", "applications", "policies"):
        for index, pattern in enumerate(getattr(fleet, area)):
            found = _matching(pattern, listing)
            counts.append(len(found))
            if not found:
                problems.append(_matches_nothing(fleet, area, index, pattern))
            for path, root in found.items():
                areas.setdefault(path, set()).add(area)
                if area == "applications":
                    roots.setdefault(path, root)
    unsupported = _other_tools(roots)
    readable = {}
    folded: dict[str, str] = {}
    # Of two paths that differ in case the one in lower case stands.
    for path in sorted(areas, key=str.swapcase):
        refused = _refused(path, listing[path][0], folded)
        if refused:
            problems.append(refused)
        elif path.endswith(_YAML) and not _is_other_tools(path, unsupported):
            readable[path] = _AREA_SETS[frozenset(areas[path])]
    folded = {lower: path for lower, path in folded.items() if lower != path}
    return Selected(roots, readable, unsupported, tuple(problems), 0 in counts, tuple(counts), folded)


def select_again(fleet: Fleet, listing: Listing, before: Selected, added: Listing, gone: Listing) -> Selected | None:
    """What `select` gives, if `before` is what it gave last and no paths but `added` and `gone` differ since.

    None where more than these files may be concerned: then `select` has to look at all of them."""
    if before.problems:
        return None
    more, less = select(fleet, added), select(fleet, gone)
    counts = tuple(
        count + plus - minus for count, plus, minus in zip(before.counts, more.counts, less.counts, strict=True)
    )
    refused = any(problem.code == "bad-path" for problem in more.problems)
    # A directory of applications that was none before may lie within another.
    rooted = set(more.roots.values()) <= set(before.roots.values())
    if refused or not rooted or 0 in counts or more.unsupported or less.unsupported:
        return None
    if any(_is_other_tools(path, before.unsupported) for path in added):
        return None
    # A path that may be the same as another one on some machine: which of the two stands is not decided here.
    if any(_folded(path) in before.folded for path in added) or any(lower in listing for lower in more.folded):
        return None
    roots = {**before.roots, **more.roots}
    areas = {**before.areas, **more.areas}
    folded = {**before.folded, **more.folded}
    for path in gone:
        roots.pop(path, None)
        areas.pop(path, None)
    for lower in less.folded:
        folded.pop(lower, None)
    return Selected(roots, areas, before.unsupported, (), False, counts, folded)


def _matches_nothing(fleet: Fleet, area: str, index: int, pattern: str) -> Problem:
    declared = fleet.document.value["spec"].get(area)
    at: Path = ("spec", area, index) if isinstance(declared, list) else ("spec", area)
    says = f"{pattern!r} matches no file"
    hint = "nothing of this source is deleted until it does; remove it if it is no longer meant"
    return fleet.document.problem(at, "path-matches-nothing", says, hint)


def _matching(pattern: str, listing: Listing) -> dict[str, str]:
    """The files below `pattern`, each with the directory that matched."""
    if pattern in ("", "."):
        return dict.fromkeys((path for path in listing if path != FLEET_FILE), "")
    if not any(character in pattern for character in "*?"):
        prefix = pattern + "/"
        found = {path: pattern for path in listing if path.startswith(prefix)}
        if pattern in listing:
            found[pattern] = posixpath.dirname(pattern)
        return found
    expression = _glob(pattern)
    matched = {}
    for path in listing:
        match = expression.match(path)
        if match and path != FLEET_FILE:
            matched[path] = posixpath.dirname(path) if match[1] == path else match[1]
    return matched


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within one part of a path, `**` does not. A directory that matches takes all below it."""
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    table = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("(" + "".join(table.get(part, re.escape(part)) for part in parts) + r")(?:/.*)?\Z", re.DOTALL)


def _refused(path: str, mode: str, folded: dict[str, str]) -> Problem | None:
    says = hint = ""
    other = folded.setdefault(_folded(path), path)
    if mode in _MODES:
        says, hint = f"{_MODES[mode]} is never followed", "put the file itself there"
    elif other != path:
        says = f"the path differs from {other!r} in letter case only"
    else:
        says = _odd(path)
    shown = path if len(path) <= 200 and path.isprintable() else repr(path)[:200]
    return Problem(shown, 0, 0, Severity.ERROR, "bad-path", says, hint or "rename it") if says else None


def _folded(path: str) -> str:
    """What `path` is on a machine that does not tell upper from lower case."""
    return (path if path.isascii() else unicodedata.normalize("NFC", path)).casefold()


def _odd(path: str) -> str:
    if len(path) > _PATH_MAX:
        return f"the path is {len(path)} long: at most {_PATH_MAX} is read"
    if _ORDINARY_PATH.fullmatch(path):
        return ""
    if not path.isprintable() or "\\" in path:
        return "the path has characters that cannot be shown, or backslashes"
    for part in path.split("/"):
        # What some file systems take for ".git": other case, ignorable characters, trailing dots and spaces.
        visible = "".join(character for character in part if unicodedata.category(character) != "Cf")
        if visible.casefold().rstrip(". ") in (".git", "git~1") or part in ("", ".", ".."):
            return f"the path has the part {part!r}, which is never read"
    return ""


def _other_tools(roots: Mapping[str, str]) -> dict[str, str]:
    """Directories that hold a kustomization or a chart."""
    found = {}
    for path, root in roots.items():
        if not path.endswith((*_KUSTOMIZATION, _CHART)):
            continue
        directory, name = posixpath.split(path)
        if directory != root and name in _KUSTOMIZATION:
            found[directory] = "kustomize"
        elif directory != root and name == _CHART:
            found[directory] = "helm"
    return found


def _is_other_tools(path: str, unsupported: Mapping[str, str]) -> bool:
    if not unsupported:
        return False
    directory, name = posixpath.split(path)
    if unsupported.get(directory) == "kustomize" and name in _KUSTOMIZATION:
        return True
    # Nothing of a chart is YAML before it is rendered.
    while directory:
        if unsupported.get(directory) == "helm":
            return True
        directory = posixpath.dirname(directory)
    return False


# ---- reading, with the last good version ------------------------------------------------------------------------


def parse_blob(path: str, blob: str, content: bytes | TooLarge) -> ParsedFile:
    """A file, parsed."""
    if isinstance(content, TooLarge):
        says = f"{content.bytes} bytes are more than the {BYTES_MAX} a file may have"
        return ParsedFile(path, blob, (), (Problem(path, 0, 0, Severity.ERROR, "invalid-yaml", says),))
    documents, problems = parse_file(path, content)
    return ParsedFile(path, blob, tuple(parsed.packed() for parsed in documents), problems)


def hold(file: ParsedFile, before: tuple[Held, ...]) -> tuple[Held, ...]:
    """The documents in force of `file`, given its last good ones.

    With a syntax error all of the last good ones stay. With an error in one document that one stays at its last good
    version; so does each that is missing now, for it cannot be told whether it was removed or is what broke."""
    if file.problems:
        return tuple(replace(entry, broken=file.problems[0]) for entry in before)
    broken = {identity_of(parsed): _first_error(parsed) for parsed in file.documents if parsed.broken}
    held = [Held(parsed, file.blob) for parsed in file.documents if not parsed.broken]
    if broken:
        present = {identity_of(entry.parsed) for entry in held}
        some = next(iter(broken.values()))
        missing = [entry for entry in before if identity_of(entry.parsed) not in present]
        held += [replace(entry, broken=broken.get(identity_of(entry.parsed), some)) for entry in missing]
    return tuple(held)


def is_whole(file: ParsedFile) -> bool:
    """True if nothing of the file is held back."""
    return not file.problems and not any(parsed.broken for parsed in file.documents)


def broken_documents(file: ParsedFile) -> list[tuple[Parsed, Problem]]:
    """The documents of `file` that cannot be used, each with its first error."""
    return [(parsed, _first_error(parsed)) for parsed in file.documents if parsed.broken]


def identity_of(parsed: Parsed) -> tuple[str, str]:
    """What a document is called in its file, whatever else it says."""
    return parsed.kind, parsed.name


def _first_error(parsed: Parsed) -> Problem:
    return next(problem for problem in parsed.problems if problem.severity is Severity.ERROR)
