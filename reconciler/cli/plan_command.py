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
from pathlib import Path

from reconciler import resources
from reconciler.cli import plan_view
from reconciler.cli.client import find_client
from reconciler.cli.offline import odd_paths
from reconciler.cli.output import DONE, FOUND, USAGE, CommandError, Output
from reconciler.core.fleet import compile_fleet, wanted
from reconciler.core.fleet_files import TooLarge
from reconciler.core.fleet_model import EMPTY_CACHE, FleetCache, FleetSettings
from reconciler.core.fleet_plan import FleetAt, Known, plan_of
from reconciler.core.model import Manifest, ObjectKey, Release, Target
from reconciler.core.problems import has_errors
from reconciler.core.yaml_kube import BYTES_MAX
from reconciler.shell.git_local import LocalRepository, open_local
from reconciler.shell.ports import SourceError

CHECK_INTERVAL_S = 10.0


# ---- the command ---------------------------------------------------------------------------------------------------


def plan(arguments: argparse.Namespace, out: Output) -> int:
    """`plan PATH --from REV --to REV [--live]`: 1 with error-severity problems."""
    before, after = _two_snapshots(Path(arguments.path), arguments.before, arguments.after)
    known = Known()
    if arguments.live:
        known = _known_live(arguments, sorted({*before.snapshot.applications, *after.snapshot.applications}))
    found = plan_of(before, after, known, check_interval_s=CHECK_INTERVAL_S)
    if out.format == "json":
        out.value(found.as_json())
    elif out.format == "markdown":
        out.print(plan_view.markdown(found))
    else:
        plan_view.text(out, found)
    return FOUND if has_errors(found.problems) else DONE


def _two_snapshots(path: Path, before: str, after: str) -> tuple[FleetAt, FleetAt]:
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


def _compiled(repository: LocalRepository, sha: str, prefix: str, cache: FleetCache) -> tuple[FleetAt, FleetCache]:
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
    return FleetAt(sha, snapshot, tuple(odd_paths(files, snapshot))), after


# ---- what a daemon knows -------------------------------------------------------------------------------------------


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
