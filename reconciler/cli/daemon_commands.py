"""run, demo, and the commands that ask or steer a daemon: arguments to requests, answers to views and exit status."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reconciler.cli import views
from reconciler.cli.client import Client, actor, find_client
from reconciler.cli.output import DONE, FAILED, FOUND, USAGE, CommandError, Output
from reconciler.core.model import Reason

DEFAULT_CONFIG = Path("/etc/reconciler/reconciler.yaml")


# ---- run, demo -----------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace, _out: Output) -> int:
    """`run --config FILE`: until a signal. Problems of the settings end it with 3, all of them shown."""
    from reconciler.settings import load_settings  # noqa: PLC0415 - on use
    from reconciler.shell.store.errors import StoreError  # noqa: PLC0415 - on use

    path = Path(arguments.config or os.environ.get("RECONCILER_CONFIG") or DEFAULT_CONFIG)
    settings, problems = load_settings(path, os.environ)
    if settings is None:
        errors = [problem for problem in problems if problem.severity == "error"]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        hint = "docs/guides/settings.md lists all settings"
        raise CommandError(FAILED, "invalid-settings", f"{errors[0]}{more}", hint, errors)
    from reconciler.bootstrap import run_daemon  # noqa: PLC0415 - it loads everything there is

    try:
        return run_daemon(settings, warnings=problems)
    except StoreError as error:
        raise CommandError(FAILED, "store", str(error)) from error
    except OSError as error:
        raise CommandError(FAILED, "not-started", str(error)) from error


def demo(arguments: argparse.Namespace, _out: Output) -> int:
    """`demo`: played by its own module."""
    from reconciler.cli.demo import main as play  # noqa: PLC0415 - it loads the simulator

    return play(arguments)


# ---- questions -----------------------------------------------------------------------------------------------------


def _client(arguments: argparse.Namespace) -> Client:
    return find_client(arguments.server, arguments.config, os.environ)


def status(arguments: argparse.Namespace, out: Output) -> int:
    """`status`."""
    return _show(out, _client(arguments).get("/api/v1/status"), views.status)


def apps(arguments: argparse.Namespace, out: Output) -> int:
    """`apps`."""
    return _show(out, _client(arguments).get("/api/v1/apps"), views.apps)


def clusters(arguments: argparse.Namespace, out: Output) -> int:
    """`clusters`."""
    return _show(out, _client(arguments).get("/api/v1/clusters"), views.clusters)


def rollouts(arguments: argparse.Namespace, out: Output) -> int:
    """`rollouts [--app APP] [--active]`."""
    active = "true" if arguments.active else None
    return _show(out, _client(arguments).get("/api/v1/rollouts", app=arguments.app, active=active), views.rollouts)


def events(arguments: argparse.Namespace, out: Output) -> int:
    """`events`."""
    after = None if arguments.after is None else str(arguments.after)
    found = _client(arguments).get("/api/v1/events", app=arguments.app, after=after, limit=str(arguments.limit))
    return _show(out, found, views.events)


def explain(arguments: argparse.Namespace, out: Output) -> int:
    """`explain APP [--cluster C]`."""
    found = _client(arguments).get("/api/v1/explain", app=arguments.app, cluster=arguments.cluster)
    return _show(out, found, views.explain)


def _show(out: Output, found: Any, view: views.View) -> int:
    if out.is_text:
        view(out, found)
    else:
        out.value(found)
    return DONE


# ---- diff, health: of a daemon's applications, or of files -----------------------------------------------------------


def diff(arguments: argparse.Namespace, out: Output) -> int:
    """`diff [APP] [--cluster C]` or `diff --desired FILE --live FILE`: 1 with differences."""
    if arguments.desired or arguments.live:
        if not (arguments.desired and arguments.live) or arguments.app or arguments.cluster:
            message = "--desired and --live stand together, and without APP and --cluster"
            raise CommandError(USAGE, "usage", message, "`reconciler diff --help` shows how")
        return _diff_files(arguments, out)
    found = _client(arguments).get(
        "/api/v1/diff", app=arguments.app, cluster=arguments.cluster, against=arguments.against
    )
    _show(out, found, views.diff)
    differs = any(part["action"] != "none" for part in found["objects"])
    return FOUND if differs else DONE


def _diff_files(arguments: argparse.Namespace, out: Output) -> int:
    from reconciler.cli.file_commands import invalid  # noqa: PLC0415 - on use
    from reconciler.cli.offline_live import diff_files  # noqa: PLC0415 - on use

    result = diff_files(arguments.desired, _read(arguments.desired), arguments.live, _read(arguments.live))
    if result.failed:
        # Not 1, which says "they differ": nothing was compared.
        error = invalid(result.problems)
        raise CommandError(FAILED, error.code, error.message, error.hint)
    if out.is_text:
        for line in result.lines():
            out.print(line)
    else:
        out.value(result.as_json())
    return FOUND if result.differs else DONE


def health(arguments: argparse.Namespace, out: Output) -> int:
    """`health FILE [--policy FILE]` or `health APP`: 1 if anything is worse than Progressing."""
    if arguments.what == "-" or Path(arguments.what).is_file():
        return _health_of_file(arguments, out)
    if arguments.policy:
        message = "--policy is for a file of live objects: a daemon judges by the policies in its repositories"
        raise CommandError(USAGE, "usage", message, "`reconciler health --help` shows how")
    if "." in Path(arguments.what).name or arguments.what.count("/") > 1:
        raise CommandError(USAGE, "no-such-file", f"there is no file {arguments.what}", "an application is `name`")
    found = _client(arguments).get("/api/v1/health", app=arguments.what, cluster=arguments.cluster)["objects"]
    _show(out, found, views.health)
    return FOUND if any(part["health"] in ("Missing", "Degraded", "Unknown") for part in found) else DONE


def _health_of_file(arguments: argparse.Namespace, out: Output) -> int:
    from reconciler.cli.file_commands import invalid  # noqa: PLC0415 - on use
    from reconciler.cli.offline_live import health_of_file, policies_of_file  # noqa: PLC0415 - on use
    from reconciler.core.health_policy import thresholds  # noqa: PLC0415 - on use
    from reconciler.core.health_rules import HealthPolicies  # noqa: PLC0415 - on use
    from reconciler.core.problems import has_errors  # noqa: PLC0415 - on use
    from reconciler.resources import catalogue  # noqa: PLC0415 - on use

    shipped = catalogue()
    policies = dict(shipped.health_policies)
    for file in arguments.policy or ():
        own, problems = policies_of_file(file, _read(file))
        if has_errors(problems):
            error = invalid(problems)
            raise CommandError(FAILED, error.code, error.message, error.hint)
        policies.update({policy.name: policy for policy in own})
    in_force = HealthPolicies.of(policies.values())
    numbers = thresholds(shipped.thresholds)
    result = health_of_file(arguments.what, _read(arguments.what), numbers, in_force, _evaluate)
    if result.failed:
        error = invalid(result.problems)
        raise CommandError(FAILED, error.code, error.message, error.hint)
    if out.is_text:
        for line in result.lines():
            out.print(line)
    else:
        out.value(result.as_json())
    return FOUND if result.unhealthy else DONE


def _evaluate(requests: list[bytes]) -> list[bytes | Reason]:
    from reconciler.bootstrap import evaluate_once  # noqa: PLC0415 - it imports the whole daemon

    return evaluate_once(requests)


def _read(name: str) -> bytes:
    try:
        return Path("/dev/stdin").read_bytes() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(USAGE, "unreadable", f"{name} cannot be read: {error.strerror}") from error


# ---- orders --------------------------------------------------------------------------------------------------------


def sync(arguments: argparse.Namespace, out: Output) -> int:
    """`sync [APP]`."""
    body = {"actor": actor(), "reason": arguments.reason, **({"app": arguments.app} if arguments.app else {})}
    return _show(out, _client(arguments).post("/api/v1/sync", body), views.synced)


def rollout_show(arguments: argparse.Namespace, out: Output) -> int:
    """`rollout show ID`."""
    return _show(out, _client(arguments).get(f"/api/v1/rollouts/{quote(arguments.id, safe='')}"), views.rollout)


def rollout_pause(arguments: argparse.Namespace, out: Output) -> int:
    """`rollout pause ID`."""
    return _steer(arguments, out, "pause")


def rollout_resume(arguments: argparse.Namespace, out: Output) -> int:
    """`rollout resume ID`."""
    return _steer(arguments, out, "resume")


def rollout_abort(arguments: argparse.Namespace, out: Output) -> int:
    """`rollout abort ID`."""
    return _steer(arguments, out, "abort")


def rollout_retry(arguments: argparse.Namespace, out: Output) -> int:
    """`rollout retry ID`."""
    return _steer(arguments, out, "retry", views.retried)


def _steer(arguments: argparse.Namespace, out: Output, verb: str, view: views.View = views.rollout) -> int:
    body = {"actor": actor(), "reason": arguments.reason}
    path = f"/api/v1/rollouts/{quote(arguments.id, safe='')}/{verb}"
    return _show(out, _client(arguments).post(path, body), view)
