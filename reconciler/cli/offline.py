"""The commands that need no daemon and no cluster: validate, render, waves, init.

Each is a plain function from a path to a value; argument parsing, output formats and exit codes are `cli.main`'s.
Nothing here imports kubernetes, sqlalchemy or aiohttp, so these commands start at once.

    validate(path) -> Validated                          a fleet repository, a directory of documents, or one file
    problems_text(found) -> str                          for people; problems_json(found) -> the `-o json` shape
    compile_path(path) -> FleetSnapshot                  the compiled fleet of a working tree
    render(path, application, cluster) -> RenderResult   .problems (errors: nothing is rendered), .manifests, .text()
    waves(policy_file, clusters_path) -> WavesResult     .problems, .as_json(), .text()
    init(directory) -> list[str]                         the files written, or raises UsageError

An unknown or ambiguous application or cluster, a missing path and a directory that is not empty raise UsageError: exit
status 2.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from reconciler import resources
from reconciler.cli.scaffold import SCAFFOLD
from reconciler.core.compile import Inputs, compile_application
from reconciler.core.documents import Application, Cluster, Parsed, RolloutPolicy
from reconciler.core.fleet import Result, compile_fleet, wanted
from reconciler.core.fleet_files import FLEET_FILE
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings, FleetSnapshot
from reconciler.core.formats import exact_duration
from reconciler.core.model import Manifest, Target
from reconciler.core.objects import Scope
from reconciler.core.parse import parse_file
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.schema import suggest
from reconciler.core.values import clean_text
from reconciler.core.waves import Resolved, as_json, resolve, unmatched_message
from reconciler.core.yaml_dump import dump
from reconciler.shell.git_urls import unsafe_path

_YAML = (".yaml", ".yml", ".json")
#: Of a line for people: names and values of strangers stand in it.
PROBLEM_LENGTH_MAX = 2000
_SKIPPED_DIRECTORIES = {".git", ".hg", ".svn"}


class UsageError(ValueError):
    """The command cannot do what was asked: exit status 2. `hint` says what can be asked."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one application on one cluster."""

    application: str
    cluster: str
    digest: str
    manifests: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class RenderResult:
    """What `render` found. With errors in `problems` there is nothing to print but them."""

    problems: list[Problem]
    rendered: list[Rendered] = field(default_factory=list)

    @property
    def manifests(self) -> list[Manifest]:
        """All objects, those of one release once."""
        return [manifest for group in self._groups() for manifest in group[0].manifests]

    def _groups(self) -> list[list[Rendered]]:
        """Targets with the same release, in order."""
        groups: dict[str, list[Rendered]] = {}
        for rendered in self.rendered:
            groups.setdefault(rendered.digest, []).append(rendered)
        return list(groups.values())

    def text(self) -> str:
        """YAML for people and for kubectl: each release once, under a comment that names its targets."""
        parts = []
        for group in self._groups():
            clusters = ", ".join(rendered.cluster for rendered in group)
            parts.append(f"# {group[0].application} on {clusters}\n" + dump(group[0].manifests))
        return "---\n".join(parts)

    def as_json(self) -> list[dict[str, Any]]:
        """Per target: application, cluster, digest and objects."""
        return [
            {
                "application": rendered.application,
                "cluster": rendered.cluster,
                "digest": rendered.digest,
                "objects": list(rendered.manifests),
            }
            for rendered in self.rendered
        ]


@dataclass(frozen=True, slots=True)
class WavesResult:
    """What `waves` found. With errors in `problems` there is nothing to print but them."""

    problems: list[Problem]
    policy: RolloutPolicy | None = None
    resolved: Resolved | None = None

    def as_json(self) -> dict[str, Any]:
        """The shape of `waves -o json`."""
        if self.policy is None or self.resolved is None:
            return {"waves": []}
        return {"waves": as_json(self.policy, self.resolved.waves)}

    def text(self) -> str:
        """A block per wave."""
        lines = []
        for wave in self.as_json()["waves"]:
            names = ", ".join(wave["clusters"]) or "no cluster: skipped"
            lines.append(f"{wave['name']}: {names}")
            lines.append(
                f"  {count(wave['targets'], 'target')}, {wave['max_concurrent']} at a time, "
                f"bake {exact_duration(wave['bake_s'])}, at least {exact_duration(wave['minimum_s'])}; "
                f"stops above {wave['max_failures']} failed, waits above {wave['max_unreachable']} unreachable"
            )
        return "\n".join(lines) + "\n"


# ---- reading a working tree --------------------------------------------------------------------------------------


def list_directory(root: Path) -> tuple[dict[str, tuple[str, str]], dict[str, Path]]:
    """A working tree as a commit would be listed, and the file of each blob id. Links are listed and never followed."""
    listing: dict[str, tuple[str, str]] = {}
    blobs: dict[str, Path] = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED_DIRECTORIES)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in sorted([*files, *links]):
            path = Path(directory, name)
            # A name that is no UTF-8 is shown with its bytes written out, which makes it an odd path (odd_paths).
            relative = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                listing[relative] = ("120000", "")
            elif stat.S_ISREG(mode):
                blob = hashlib.sha1(relative.encode(), usedforsecurity=False).hexdigest()
                listing[relative] = ("100644", blob)
                blobs[blob] = path
    return listing, blobs


def yaml_files(root: Path) -> dict[str, Path]:
    """The YAML files in a working tree by their names as they are shown, sorted; links are none."""
    listing, blobs = list_directory(root)
    return {name: blobs[blob] for name, (_, blob) in sorted(listing.items()) if blob in blobs and name.endswith(_YAML)}


def compile_path(path: Path, scope: Scope | None = None) -> FleetSnapshot:
    """The fleet of a working tree, compiled from nothing."""
    return _compiled(path, scope).snapshot


def _compiled(path: Path, scope: Scope | None) -> Result:
    listing, blobs = list_directory(path)
    contents: dict[str, bytes] = {}
    while ids := wanted(listing, contents, EMPTY_CACHE):
        contents.update({blob: blobs[blob].read_bytes() for blob in ids})
    settings = FleetSettings(resources.catalogue(), scope or Scope())
    found = compile_fleet(listing, contents, EMPTY_CACHE, settings)
    odd = odd_paths(listing, found.snapshot)
    return found._replace(snapshot=replace(found.snapshot, problems=(*found.snapshot.problems, *odd)))


def odd_paths(names: Iterable[str], snapshot: FleetSnapshot) -> list[Problem]:
    """Warnings for paths of a tree that must never become files on a disk, but for those that `snapshot` speaks of."""
    known = {problem.file for problem in snapshot.problems}
    return [
        Problem(name, 0, 0, Severity.WARNING, "unsafe-path", reason.message, "rename it")
        for name in sorted(set(names) - known)
        if (reason := unsafe_path(name)) is not None
    ]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    return path


# ---- validate ----------------------------------------------------------------------------------------------------


class Validated(NamedTuple):
    """What `validate` found, and in how many applications, clusters and policies: that nothing is wrong with none of
    them says nothing."""

    problems: list[Problem]
    checked: Mapping[str, int]


def validate(path: Path, scope: Scope | None = None) -> Validated:
    """All problems of a fleet repository. A directory without `fleet.yaml` and a single file are checked document by
    document; an Application is compiled as far as it goes without clusters."""
    _existing(path)
    if path.is_dir() and (path / FLEET_FILE).exists():
        found = _compiled(path, scope)
        checked = _counts(parsed for file in found.cache.files.values() for parsed in file.documents)
        checked["applications"] = len(found.snapshot.applications)  # directories of plain objects are some too
        return Validated(list(found.snapshot.problems), checked)
    if path.is_dir():
        files = yaml_files(path)
        if not files:
            says = f"{path} holds no fleet.yaml and no YAML"
            hint = "`reconciler init` writes one"
            return Validated([Problem(FLEET_FILE, 0, 0, Severity.ERROR, "no-fleet", says, hint)], _counts(()))
        says = "there is no fleet.yaml here: every document was checked by itself, and nothing against the clusters"
        hint = "name the repository's root to check all of it"
        problems = [Problem(FLEET_FILE, 0, 0, Severity.WARNING, "no-fleet", says, hint)]
    else:
        files = {path.name: path}
        problems = []
    documents: list[Parsed] = []
    for name, file in files.items():
        some, of_file = parse_file(name, file.read_bytes())
        documents += some
        problems += of_file
    for parsed in documents:
        problems += parsed.problems
        if isinstance(parsed.value, Application):
            problems += _validate_application(parsed.value, scope or Scope())
    return Validated(sorted(set(problems)), _counts(documents))


def _counts(documents: Iterable[Parsed]) -> dict[str, int]:
    kinds = Counter(parsed.kind for parsed in documents)
    policies = kinds["RolloutPolicy"] + kinds["HealthPolicy"]
    return {"applications": kinds["Application"], "clusters": kinds["Cluster"], "policies": policies}


def _validate_application(application: Application, scope: Scope) -> list[Problem]:
    """What can be said of an application alone: on one made-up cluster per override, with all its labels."""
    catalogue = resources.catalogue()
    clusters: dict[str, Cluster] = {}
    for policy in application.topologies:
        for name in policy.selection.names or ("cluster",):
            clusters[name] = Cluster(name, policy.selection.labels, name)
    for override in application.overrides:
        for name in override.selection.names or ("overridden",):
            labels = {**application.topologies[0].selection.labels, **override.selection.labels}
            clusters.setdefault(name, Cluster(name, labels, name))
    paths = {"path-matches-nothing", "unknown-cluster"}
    inputs = Inputs(f"fleet/{application.name}", "default", catalogue.traits, scope)
    found = compile_application(application, clusters, inputs).problems
    # What other files say cannot be known here.
    return [problem for problem in found if problem.code not in paths]


def problems_text(found: Validated) -> str:
    """One line per problem, and a last one that counts them and what was looked at."""
    problems = found.problems
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    lines = [clean_text(str(problem), PROBLEM_LENGTH_MAX) for problem in problems]
    counted = f"{count(errors, 'error')}, {count(len(problems) - errors, 'warning')}"
    applications, clusters, policies = (found.checked[name] for name in ("applications", "clusters", "policies"))
    own = f"{policies} policies" if policies != 1 else "1 policy"
    where = f"{count(applications, 'application')}, {count(clusters, 'cluster')} and {own}"
    lines.append(f"{counted if problems else 'no problems'} in {where}")
    return "\n".join(lines) + "\n"


def count(number: int, word: str) -> str:
    """1 error, 2 errors."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def problems_json(found: Validated) -> dict[str, Any]:
    """The shape of `validate -o json`."""
    return {"problems": [problem.as_json() for problem in found.problems], "checked": dict(found.checked)}


# ---- render ------------------------------------------------------------------------------------------------------


def find_application(name: str, snapshot: FleetSnapshot) -> str:
    """The full name of the application called `name` or `fleet/name`."""
    if name in snapshot.applications:
        return name
    full = sorted(other for other in snapshot.applications if other.partition("/")[2] == name)
    if len(full) == 1:
        return full[0]
    if full:
        raise UsageError(f"{name!r} is ambiguous: {', '.join(full)}", "use one of the full names")
    known = [other.partition("/")[2] for other in snapshot.applications]
    raise UsageError(f"no application {name!r}", suggest(name, known))


def render(
    path: Path, application: str | None = None, cluster: str | None = None, scope: Scope | None = None
) -> RenderResult:
    """The manifests as they are declared, without the ownership mark. With an `application`, only its own problems and
    those of the fleet as a whole keep it from being rendered."""
    _existing(path)
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", "give the directory that holds fleet.yaml")
    snapshot = compile_path(path, scope)
    if snapshot.kept is not None:
        return RenderResult(list(snapshot.problems))
    if cluster is not None and cluster not in snapshot.clusters:
        raise UsageError(f"no cluster {cluster!r}", suggest(cluster, snapshot.clusters))
    names = [find_application(application, snapshot)] if application else list(snapshot.applications)
    problems = _errors_of(snapshot, names) if application else [p for p in snapshot.problems if _is_error(p)]
    if problems:
        return RenderResult(problems)
    rendered = [
        Rendered(name, target, digest, snapshot.applications[name].releases[digest].objects)
        for name in names
        for target, digest in sorted(snapshot.applications[name].targets.items())
        if cluster in (None, target)
    ]
    if application and cluster and not rendered:
        known = ", ".join(sorted(snapshot.applications[names[0]].targets))
        raise UsageError(f"{names[0]} does not go to {cluster}", f"it goes to {known}")
    return RenderResult([], rendered)


def _is_error(problem: Problem) -> bool:
    return problem.severity is Severity.ERROR


def _errors_of(snapshot: FleetSnapshot, names: Sequence[str]) -> list[Problem]:
    found: list[Problem] = []
    for name in names:
        application = snapshot.applications[name]
        own = [problem for problem in application.problems if _is_error(problem)]
        if not own and application.blocked:
            own = [problem for problem in snapshot.problems if _is_error(problem) and problem.file in application.files]
        if not own and application.blocked:
            own = [Problem(application.files[0], 0, 0, Severity.ERROR, "blocked", application.blocked.message)]
        found += own
    return found


# ---- waves -------------------------------------------------------------------------------------------------------


def waves(policy_file: Path, clusters_path: Path) -> WavesResult:
    """Which cluster is in which wave, for an application that goes to all of them."""
    problems: list[Problem] = []
    policies = [p for p in _documents(_existing(policy_file), problems) if isinstance(p, RolloutPolicy)]
    clusters: dict[str, Cluster] = {}
    for value in _documents(_existing(clusters_path), problems):
        if isinstance(value, Cluster):
            if value.name in clusters:
                says = f"a second Cluster named {value.name!r}; the first is in {clusters[value.name].file}"
                problems.append(Problem(value.file, 0, 0, Severity.ERROR, "duplicate-name", says, "rename one"))
            clusters[value.name] = value
    if has_errors(problems):
        return WavesResult(sorted(set(problems)))
    if len(policies) != 1:
        raise UsageError(f"{policy_file} holds {len(policies)} RolloutPolicy documents", "give a file with one")
    if not clusters:
        raise UsageError(f"{clusters_path} holds no Cluster documents", "give the directory of the Cluster documents")
    policy = policies[0]
    resolved = resolve(policy, [Target("application", name) for name in clusters], clusters, {})
    if resolved.unmatched:
        says = unmatched_message(policy.name, resolved.unmatched)
        hint = "end the policy with a wave of size: 100%"
        problems.append(Problem(policy.file, 0, 0, Severity.ERROR, "unmatched-targets", says, hint))
        return WavesResult(problems)
    return WavesResult(sorted(set(problems)), policy, resolved)


def _documents(path: Path, problems: list[Problem]) -> list[Any]:
    files = yaml_files(path) if path.is_dir() else {path.name: path}
    values = []
    for name, file in files.items():
        documents, found = parse_file(name, file.read_bytes())
        problems += found
        for parsed in documents:
            problems += parsed.problems
            values.append(parsed.value)
    return values


# ---- init --------------------------------------------------------------------------------------------------------


def init(directory: Path) -> list[str]:
    """Writes a minimal fleet repository into `directory`, which must be empty or absent. A `.git` may be there."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is not a directory")
    if directory.is_dir() and any(entry.name != ".git" for entry in directory.iterdir()):
        raise UsageError(f"{directory} is not empty", "give a new or empty directory")
    for name, text in SCAFFOLD.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(SCAFFOLD)
