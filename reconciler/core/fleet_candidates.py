"""Which applications a fleet has: Application documents, and directories of plain Kubernetes YAML.

A directory below `applications` that holds plain objects is an application too, named after the directory, unless it
or a directory above it holds an Application: those are there for components to name by `path`, and a mistyped path must
not deploy them everywhere. It takes what is below it, except directories that have a rule of their own in `fleet.yaml`.
A kustomization or chart is an application as well, and not supported yet.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.components.manifests import directory_of
from reconciler.core.documents import Application, DirectoryRule, Fleet
from reconciler.core.fleet_files import Held, ParsedFile, Selected, broken_documents
from reconciler.core.formats import is_dns_label
from reconciler.core.problems import Problem, Severity
from reconciler.core.yaml_kube import Document


@dataclass(frozen=True, slots=True)
class Candidate:
    """One application to be. `application` is None for a directory, whose objects are `plain`; `directories` are those
    that components name. `held_back` is the problem because of which this commit changes nothing of it."""

    name: str
    file: str
    application: Application | None = None
    document: Document | None = None
    plain: tuple[Document, ...] = ()
    rule: DirectoryRule | None = None
    directories: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    held_back: Problem | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """All files it is made of."""
        inner = {document.file for documents in self.directories.values() for document in documents}
        return tuple(sorted({self.file} | inner | {document.file for document in self.plain}))

    def problem(self, code: str, message: str, hint: str = "") -> Problem:
        """A problem of the application as a whole."""
        if self.application is not None:
            return self.application.document.problem(("metadata", "name"), code, message, hint)
        if self.document is not None:
            return self.document.problem((), code, message, hint)
        return Problem(self.file, 0, 0, Severity.ERROR, code, message, hint)


def find(
    fleet: Fleet, selected: Selected, files: Mapping[str, ParsedFile], held: Mapping[str, tuple[Held, ...]]
) -> tuple[list[Candidate], list[Problem]]:
    """All candidates, duplicates included, in the order of their files."""
    ground = _Ground.of(fleet, selected, files, held)
    candidates = list(_declared(ground))
    plain, problems = _directories(ground)
    candidates += plain
    candidates += _other_tools(ground)
    candidates = [_named(candidate) for candidate in candidates]
    return sorted(candidates, key=lambda candidate: (candidate.file, candidate.name)), problems


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is where below `applications`."""

    fleet: Fleet
    selected: Selected
    files: Mapping[str, ParsedFile]
    held: Mapping[str, tuple[Held, ...]]
    plain: Mapping[str, list[Held]]  # directory -> plain objects directly in it
    applications: frozenset[str]  # directories with an Application, broken or not
    referenced: frozenset[str]  # directories that components name
    broken: Mapping[str, Problem]  # directory -> the first problem of a file in it that cannot be read whole
    doubtful: Mapping[str, Problem]  # the same, broken Applications included: one may name a directory below it

    @classmethod
    def of(
        cls, fleet: Fleet, selected: Selected, files: Mapping[str, ParsedFile], held: Mapping[str, tuple[Held, ...]]
    ) -> _Ground:
        plain: dict[str, list[Held]] = {}
        applications, referenced = set(), set()
        broken: dict[str, Problem] = {}
        doubtful: dict[str, Problem] = {}
        for path in sorted(selected.roots.keys() & held.keys()):
            directory = posixpath.dirname(path)
            for entry in held[path]:
                if entry.parsed.kind == "":
                    plain.setdefault(directory, []).append(entry)
                elif isinstance(entry.parsed.value, Application):
                    applications.add(directory)
                    referenced.update(referenced_by(entry.parsed.value))
            file = files.get(path)
            for parsed, problem in broken_documents(file) if file else ():
                if parsed.kind == "Application":
                    applications.add(directory)
                    doubtful.setdefault(directory, problem)
                else:
                    broken.setdefault(directory, problem)
            if file and file.problems:
                broken.setdefault(directory, file.problems[0])
        doubtful = {**doubtful, **broken}
        declared = frozenset(applications), frozenset(referenced)
        return cls(fleet, selected, files, held, plain, *declared, broken, doubtful)

    def broken_within(self, directory: str) -> Problem | None:
        """The first problem of a file in or below `directory`."""
        return next((self.broken[name] for name in sorted(self.broken) if within(name, directory)), None)

    def doubt_about(self, directory: str) -> Problem | None:
        """Why it cannot be told whose the objects of `directory` are: something in it, or above it, is broken."""
        return next((self.doubtful[name] for name in sorted(self.doubtful) if within(directory, name)), None)


def within(path: str, directory: str) -> bool:
    """True if `path` is `directory` or below it."""
    return path == directory or path.startswith(directory + "/")


def referenced_by(application: Application) -> set[str]:
    """The directories that components of `application` name."""
    return {directory_of(application.document.file, path) for path in application.paths}


def _declared(ground: _Ground) -> Iterator[Candidate]:
    for path in sorted(ground.selected.roots.keys() & ground.held.keys()):
        names = set()
        for entry in ground.held[path]:
            value = entry.parsed.value
            if not isinstance(value, Application):
                continue
            names.add(value.name)
            referenced = sorted(referenced_by(value))
            inside = {directory: _objects_within(ground, directory) for directory in referenced}
            directories = {name: tuple(each.parsed.document for each in some) for name, some in inside.items()}
            held_back = entry.broken
            for directory in referenced:
                older = next((each.broken for each in inside[directory] if each.broken), None)
                held_back = held_back or ground.broken_within(directory) or older
            yield Candidate(name=value.name, file=path, application=value, directories=directories, held_back=held_back)
        file = ground.files.get(path)
        for parsed, problem in broken_documents(file) if file else ():
            if parsed.kind == "Application" and parsed.name and parsed.name not in names:
                yield Candidate(name=parsed.name, file=path, document=parsed.document, held_back=problem)


def _objects_within(ground: _Ground, directory: str) -> tuple[Held, ...]:
    return tuple(entry for name in sorted(ground.plain) if within(name, directory) for entry in ground.plain[name])


def _directories(ground: _Ground) -> tuple[list[Candidate], list[Problem]]:
    owned: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for directory in sorted(ground.plain):
        if any(within(directory, reference) for reference in ground.referenced):
            continue
        if _below_an_application(ground, directory):
            problems += [_unused(entry) for entry in ground.plain[directory]]
        elif directory == _root_of(ground, directory):
            problems += [_stray(entry) for entry in ground.plain[directory]]
        elif not _under_other_tool(ground, directory):
            owned.setdefault(_owner(ground, directory), []).append(directory)
    rules = {rule.path: rule for rule in ground.fleet.directories}
    candidates = []
    for owner, directories in sorted(owned.items()):
        entries = [entry for directory in directories for entry in ground.plain[directory]]
        held_back = next((entry.broken for entry in entries if entry.broken), None)
        for directory in directories:
            held_back = held_back or ground.doubt_about(directory)
        candidates.append(
            Candidate(
                name=posixpath.basename(owner),
                file=entries[0].file,
                document=entries[0].parsed.document,
                plain=tuple(entry.parsed.document for entry in entries),
                rule=rules.get(owner),
                held_back=held_back,
            )
        )
    return candidates, problems


def _below_an_application(ground: _Ground, directory: str) -> bool:
    """True if an Application stands in `directory` or above it, with no rule of `fleet.yaml` in between."""
    root = _root_of(ground, directory)
    rules = {rule.path for rule in ground.fleet.directories}
    current = directory
    while current != root and within(current, root):
        if current in ground.applications:
            return True
        if current in rules:
            return False
        current = posixpath.dirname(current)
    return False


def _root_of(ground: _Ground, directory: str) -> str:
    return ground.selected.roots[ground.plain[directory][0].file]


def _owner(ground: _Ground, directory: str) -> str:
    """The topmost directory of plain objects that `directory` belongs to."""
    root = _root_of(ground, directory)
    rules = {rule.path for rule in ground.fleet.directories}
    owner = current = directory
    while owner not in rules:
        current = posixpath.dirname(current)
        if not within(current, root) or current == root or current in ground.applications:
            break
        if current in ground.plain:
            owner = current
        if current in rules:
            return current
    return owner


def _under_other_tool(ground: _Ground, directory: str) -> bool:
    return any(within(directory, other) for other in ground.selected.unsupported if other not in ground.applications)


def _unused(entry: Held) -> Problem:
    says = "no component of the Application here names this object: it is deployed nowhere"
    hint = "move it to a directory and name that in a component: {type: manifests, properties: {path: ...}}"
    return entry.parsed.document.problem((), "unused-object", says, hint, Severity.WARNING)


def _stray(entry: Held) -> Problem:
    says = "an object directly in the applications' directory belongs to no application"
    return entry.parsed.document.problem(
        (), "stray-object", says, "move it to a directory, which names the application"
    )


def _other_tools(ground: _Ground) -> Iterator[Candidate]:
    seen: set[str] = set()
    for directory, tool in sorted(ground.selected.unsupported.items()):
        name = posixpath.basename(directory)
        if directory in ground.applications or name in seen:
            continue
        seen.add(name)
        file = f"{directory}/{'Chart.yaml' if tool == 'helm' else 'kustomization.yaml'}"
        says = f"a directory of {tool} is not supported by this version"
        problem = Problem(file, 0, 0, Severity.ERROR, "unsupported", says, "render it into plain manifests")
        yield Candidate(name=name, file=file, held_back=problem, problems=(problem,))


def _named(candidate: Candidate) -> Candidate:
    """A directory's name has to be one an application can have."""
    wrong = is_dns_label(candidate.name)
    if candidate.application is not None or not wrong or candidate.held_back:
        return candidate
    problem = candidate.problem("invalid-value", f"the directory {candidate.name!r} is {wrong}", "rename it")
    return replace(candidate, held_back=problem, problems=(problem,))
