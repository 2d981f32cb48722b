"""plan: what a change from one revision to another would do to the fleet, before anybody merges it.

Both revisions are read from Git objects, nothing is checked out, and compiled one after the other as the daemon would.
Targets whose release does not change are not in the plan. With `--live` the daemon says what is assigned (which may be
neither revision) and how the jobs are, so that effects are exact instead of expected.

    reconciler plan . --from origin/main --to HEAD --output markdown
"""

from __future__ import annotations

import argparse
import os
import time  # noqa: TID251 - deadlines of git, which is a process of the machine's
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler import resources
from reconciler.cli.client import find_client
from reconciler.cli.output import DONE, FOUND, USAGE, CommandError, Output
from reconciler.core.change import change_of
from reconciler.core.fleet import compile_fleet, wanted
from reconciler.core.fleet_files import TooLarge
from reconciler.core.fleet_model import EMPTY_CACHE, CompiledApplication, FleetCache, FleetSettings, FleetSnapshot
from reconciler.core.model import FrozenPlan, Manifest, ObjectKey, Release, Target, digest_of
from reconciler.core.plan_diff import Group, ObjectDiff, grouped, release_diff, state_problems, summary
from reconciler.core.problems import Problem, Severity, has_errors
from reconciler.core.waves import Change, UnmatchedTargetsError, as_json, freeze
from reconciler.core.yaml_kube import BYTES_MAX
from reconciler.shell.git_local import LocalRepository, open_local
from reconciler.shell.git_urls import unsafe_path
from reconciler.shell.ports import SourceError

CHECK_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """One application: what moves, in which waves."""

    application: str
    compiled: CompiledApplication
    changes: tuple[Change, ...]
    frozen: FrozenPlan

    @property
    def expected_s(self) -> float:
        """The least time it takes: its waves follow one another."""
        return sum(wave.minimum_s for wave in self.frozen.waves)

    def worst(self) -> tuple[str, str, str]:
        """Class, effect and state of its worst change."""
        worst = max(self.changes, key=lambda change: _SEVERITY.index((change.state == "lost", change.effect != "none")))
        return worst.change_class, worst.effect, worst.state


_SEVERITY = [(False, False), (False, True), (True, False), (True, True)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The fleet plan of a change."""

    before: str
    after: str
    applications: tuple[ApplicationPlan, ...]
    groups: tuple[Group, ...]
    problems: tuple[Problem, ...]
    live: bool = False

    @property
    def hash(self) -> str:
        """Over the plans of all applications: what an approval is bound to."""
        return digest_of([[plan.application, plan.frozen.hash] for plan in self.applications], length=32)

    @property
    def expected_s(self) -> float:
        """The least time it takes: applications roll out side by side."""
        return max((plan.expected_s for plan in self.applications), default=0.0)

    @property
    def targets(self) -> int:
        """How many targets change."""
        return sum(len(plan.changes) for plan in self.applications)

    def waves(self) -> list[dict[str, Any]]:
        """Every application's waves."""
        found: list[dict[str, Any]] = []
        for plan in self.applications:
            assert plan.compiled.policy is not None
            found += [
                {"application": plan.application, **wave} for wave in as_json(plan.compiled.policy, plan.frozen.waves)
            ]
        return found

    def as_json(self) -> dict[str, Any]:
        """The shape of `plan -o json`."""
        return {
            "hash": self.hash,
            "from": self.before,
            "to": self.after,
            "applications": [plan.application for plan in self.applications],
            "changes": [_change_json(plan) for plan in self.applications],
            "waves": self.waves(),
            "groups": [group.as_json() for group in self.groups],
            "summary": summary(self.groups),
            "problems": [problem.as_json() for problem in self.problems],
            "expected_s": self.expected_s,
            "live": self.live,
        }


def _change_json(plan: ApplicationPlan) -> dict[str, Any]:
    change_class, effect, state = plan.worst()
    return {
        "application": plan.application,
        "targets": len(plan.changes),
        "new": sum(change.from_digest is None for change in plan.changes),
        "class": change_class or None,
        "effect": effect,
        "state": state,
        "deletes": sum(change.deletes for change in plan.changes),
        "policy": plan.frozen.policy,
        "hash": plan.frozen.hash,
        "expected_s": plan.expected_s,
    }


# ---- the command ---------------------------------------------------------------------------------------------------


def plan(arguments: argparse.Namespace, out: Output) -> int:
    """`plan PATH --from REV --to REV [--live]`: 1 with error-severity problems."""
    from reconciler.cli import plan_view  # noqa: PLC0415 - on use

    before, after = _two_snapshots(Path(arguments.path), arguments.before, arguments.after)
    known = Known()
    if arguments.live:
        known = _known_live(arguments, sorted({*before.snapshot.applications, *after.snapshot.applications}))
    found = plan_of(before, after, known)
    if out.format == "json":
        out.value(found.as_json())
    elif out.format == "markdown":
        out.print(plan_view.markdown(found))
    else:
        plan_view.text(out, found)
    return FOUND if has_errors(found.problems) else DONE


@dataclass(frozen=True, slots=True)
class Compiled:
    """A fleet at one revision, with what was odd about the tree itself."""

    sha: str
    snapshot: FleetSnapshot
    problems: tuple[Problem, ...]


def _two_snapshots(path: Path, before: str, after: str) -> tuple[Compiled, Compiled]:
    """Compiled in order, so that the second one is judged as the daemon would judge it after the first."""
    try:
        with open_local(path, monotonic=time.monotonic) as repository:
            prefix = _prefix(path)
            revisions = [repository.resolve(before), repository.resolve(after)]
            first, cache = _compiled(repository, revisions[0], prefix, EMPTY_CACHE)
            second, _ = _compiled(repository, revisions[1], prefix, cache)
            return first, second
    except SourceError as error:
        usage = error.reason.code in ("NotARepository", "RefNotFound", "RefusedRef")
        raise CommandError(USAGE if usage else 3, _kebab(error.reason.code), error.reason.message) from error


def _kebab(code: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in code).lstrip("-")


def _prefix(path: Path) -> str:
    """Where below its repository's root `path` is: a fleet may be a directory of a larger repository."""
    here = path.resolve()
    for directory in (here, *here.parents):
        if (directory / ".git").exists():
            below = here.relative_to(directory).as_posix()
            return "" if below == "." else f"{below}/"
    return ""


def _compiled(repository: LocalRepository, sha: str, prefix: str, cache: FleetCache) -> tuple[Compiled, FleetCache]:
    _, listing = repository.listing(sha)
    inside = {name.removeprefix(prefix): entry for name, entry in listing.items() if name.startswith(prefix)}
    files = {name: (entry.mode, entry.blob) for name, entry in inside.items()}
    # What is too large is a problem of that file, as in the daemon.
    contents: dict[str, bytes | TooLarge] = {
        entry.blob: TooLarge(entry.size) for entry in inside.values() if entry.size > BYTES_MAX
    }
    while blobs := wanted(files, contents, cache):
        contents.update(repository.read(blobs))
    snapshot, after, _ = compile_fleet(files, contents, cache, FleetSettings(resources.catalogue()))
    return Compiled(sha, snapshot, tuple(_odd_paths(files))), after


def _odd_paths(files: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(str(PurePosixPath(name)), 0, 0, Severity.WARNING, "unsafe-path", reason.message, "rename it")
        for name in sorted(files)
        if (reason := unsafe_path(name)) is not None
    ]


# ---- what a daemon knows -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What is assigned and live, as a daemon says. Without one `assigned` is None: the first revision counts."""

    assigned: Mapping[Target, str] | None = None
    releases: Mapping[str, Release] = field(default_factory=dict)
    live: Mapping[Target, Mapping[ObjectKey, Manifest]] = field(default_factory=dict)


def _known_live(arguments: argparse.Namespace, names: list[str]) -> Known:
    client = find_client(arguments.server, arguments.config, os.environ)
    found = client.get("/api/v1/targets", app=names)
    assigned: dict[Target, str] = {}
    releases: dict[str, Release] = {}
    for row in found["targets"]:
        if row["digest"]:
            assigned[Target(row["application"], row["cluster"])] = row["digest"]
    for application, digest in sorted({(target.application, digest) for target, digest in assigned.items()}):
        objects = client.get(f"/api/v1/releases/{digest}")["objects"]
        releases[digest] = Release(digest, application, tuple(objects))
    live: dict[Target, dict[ObjectKey, Manifest]] = {}
    for row in found["objects"]:
        target = Target(row["application"], row["cluster"])
        live.setdefault(target, {})[ObjectKey(*row["key"])] = {"status": row["status"]}
    return Known(assigned, releases, live)


# ---- the plan ------------------------------------------------------------------------------------------------------


def plan_of(before: Compiled, after: Compiled, known: Known) -> Plan:
    """Compare two compiled fleets, target by target."""
    plans: list[ApplicationPlan] = []
    diffs: dict[Target, tuple[ObjectDiff, ...]] = {}
    problems = [*after.problems, *after.snapshot.problems]
    for name, compiled in sorted(after.snapshot.applications.items()):
        old = before.snapshot.applications.get(name)
        moves = _moves(name, compiled, old, known)
        if not moves or compiled.policy is None:
            continue
        diffs.update(_diffs(moves, known))
        changes = tuple(change_of(target, was, becomes) for target, (was, becomes) in moves.items())
        try:
            frozen = freeze(
                compiled.policy,
                changes,
                after.snapshot.clusters,
                {name: compiled.labels},
                check_interval_s=CHECK_INTERVAL_S,
            )
        except UnmatchedTargetsError as error:
            hint = "end the policy with a wave of size: 100%"
            problems.append(Problem(compiled.policy.file, 0, 0, Severity.ERROR, "unmatched-targets", str(error), hint))
            continue
        plans.append(ApplicationPlan(name, compiled, changes, frozen))
    files = {name: application.files[0] for name, application in after.snapshot.applications.items()}
    problems += state_problems(diffs, files)
    problems += _left_behind(before.snapshot, after.snapshot)
    live = known.assigned is not None
    return Plan(before.sha, after.sha, tuple(plans), grouped(diffs), tuple(sorted(set(problems))), live)


Moves = dict[Target, tuple[Release | None, Release]]


def _moves(name: str, compiled: CompiledApplication, old: CompiledApplication | None, known: Known) -> Moves:
    """The targets whose release changes, with the release before (None: nothing there yet) and after."""
    moves: Moves = {}
    for cluster, digest in sorted(compiled.targets.items()):
        target = Target(name, cluster)
        if known.assigned is not None:
            was = known.assigned.get(target)
        else:
            was = old.targets.get(cluster) if old is not None else None
        if was == digest:
            continue
        earlier = None
        if was is not None:
            earlier = old.releases.get(was) if old is not None else None
            earlier = earlier or known.releases.get(was)
        moves[target] = (earlier, compiled.releases[digest])
    return moves


def _diffs(moves: Moves, known: Known) -> dict[Target, tuple[ObjectDiff, ...]]:
    """Each pair of releases is compared once, however many clusters have it; but each job's own status counts."""
    cache: dict[tuple[str | None, str], tuple[ObjectDiff, ...]] = {}
    found: dict[Target, tuple[ObjectDiff, ...]] = {}
    for target, (was, becomes) in moves.items():
        old = was.objects if was is not None else ()
        if target in known.live:
            found[target] = release_diff(old, becomes.objects, target=target, live=known.live[target])
            continue
        pair = (was.digest if was is not None else None, becomes.digest)
        if pair not in cache:
            cache[pair] = release_diff(old, becomes.objects, target=target)
        found[target] = tuple(replace(part, cluster=target.cluster) for part in cache[pair])
    return found


def _left_behind(before: FleetSnapshot, after: FleetSnapshot) -> list[Problem]:
    """Targets that are no longer declared: their objects are kept, which whoever removes them should know."""
    found: list[Problem] = []
    for name, old in sorted(before.applications.items()):
        new = after.applications.get(name)
        if new is not None and new.blocked is not None:
            continue
        gone = sorted(old.targets.keys() - (new.targets.keys() if new is not None else set()))
        if gone:
            where = gone[0] if len(gone) == 1 else f"{len(gone)} clusters"
            message = f"{name} leaves {where}: its objects there are kept, and nobody looks after them any more"
            hint = "delete them by hand once nobody needs them"
            found.append(Problem(old.files[0], 0, 0, Severity.WARNING, "orphaned", message, hint))
    return found
