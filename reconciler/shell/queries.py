"""What is going on: the answers of the API, as plain JSON values.

Everything comes from the store's rows, the board and the sources' snapshots, never from a cluster: an answer costs no
request and does not depend on who is reachable.

    await status(daemon)          # {"sources": [...], "clusters": {...}, "targets": {...}, "rollouts": [...], ...}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from reconciler import __version__
from reconciler.core.model import ENDED_STATES, Assignment, Now, Rollout, RolloutTarget
from reconciler.shell.asking import (
    ANSWERS_MAX,
    declared_applications,
    find_application,
    find_rollout,
    moment_of,
    reason_json,
    rfc3339,
)
from reconciler.shell.daemon import Daemon
from reconciler.shell.looks import WELL, Look, all_looks, goals_of
from reconciler.shell.ports import Tx
from reconciler.shell.rollout_unit import owner_of
from reconciler.shell.source_unit import SourceUnit

Json = dict[str, Any]
WAITS_MAX = 100
#: Why a cluster is not even asked: there is nothing to ask it with.
NO_CREDENTIALS = frozenset({"NoCredentials", "KubeconfigInvalid", "KubeconfigRefused"})


# ---- status --------------------------------------------------------------------------------------------------------


async def status(daemon: Daemon) -> Json:
    """The whole daemon on one page."""
    now = daemon.ports.clock.now()
    found = await all_looks(daemon)

    def read(tx: Tx) -> tuple[list[Rollout], list[list[RolloutTarget]], int, list[Json]]:
        active = tx.rollouts(active=True, limit=ANSWERS_MAX)
        backlog = len(tx.outbox(sent=False, limit=ANSWERS_MAX))
        sources = [_source_json(tx, name, daemon.sources[name]) for name in sorted(daemon.sources)]
        return active, [tx.rollout_targets(rollout.id) for rollout in active], backlog, sources

    active, rows, backlog, sources = await daemon.context.store.read("status", read)
    clusters = _clusters(daemon, now)
    return {
        "version": __version__,
        "epoch": now.boot,
        "time": rfc3339(now.wall),
        "uptime_s": round(now.monotonic, 1),
        "sources": sources,
        "clusters": {"total": len(clusters), **_counted(entry["state"] for entry in clusters)},
        "applications": len({look.target.application for look in found}),
        "targets": {
            "total": len(found),
            "synced": sum(look.state == "Synced" for look in found),
            "healthy": sum(look.health in WELL for look in found),
            "states": _counted(look.state for look in found),
        },
        "rollouts": [rollout_json(daemon, rollout, of_it) for rollout, of_it in zip(active, rows, strict=True)],
        "waits": _waits(daemon, now)[:WAITS_MAX],
        "outbox_backlog": backlog,
    }


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _source_json(tx: Tx, name: str, unit: SourceUnit) -> Json:
    row = tx.source(name)
    commit = unit.commit
    if commit is None and row is not None and row.last_attempted:
        commit = tx.revision(name, row.last_attempted)
    problems = json.loads(row.problems) if row is not None else []
    return {
        "name": name,
        "fleet": row.fleet if row is not None else "",
        "last_attempted": (row.last_attempted or None) if row is not None else None,
        "last_applied": (row.last_applied or None) if row is not None else None,
        "last_baked": (row.last_baked or None) if row is not None else None,
        "commit": None
        if commit is None
        else {
            "sha": commit.sha,
            "author": commit.author,
            "subject": commit.subject,
            "authored_at": rfc3339(commit.authored_wall),
        },
        "errors": sum(problem["severity"] == "error" for problem in problems),
        "warnings": sum(problem["severity"] == "warning" for problem in problems),
        "failure": reason_json(unit.failure),
        "kept": reason_json(unit.snapshot.kept) if unit.snapshot is not None else None,
    }


def _waits(daemon: Daemon, now: Now) -> list[Json]:
    """Everything that waits, by unit."""
    return [
        {
            "unit": unit,
            "subject": wait.subject,
            "reason": wait.reason.code,
            "message": wait.reason.message,
            "recheck_at": moment_of(wait.recheck_at, now),
        }
        for unit in sorted(daemon.board.waits)
        for wait in daemon.board.waits[unit]
    ]


# ---- applications, clusters ----------------------------------------------------------------------------------------


async def apps(daemon: Daemon) -> Json:
    """One line per application."""
    found: dict[str, list[Look]] = {name: [] for name in declared_applications(daemon)}
    for look in await all_looks(daemon):
        found.setdefault(look.target.application, []).append(look)
    return {"applications": [_app_json(daemon, name, found[name]) for name in sorted(found)]}


def _app_json(daemon: Daemon, name: str, found: Sequence[Look]) -> Json:
    source, _ = goals_of(daemon, name)
    unit = daemon.sources.get(source)
    compiled = unit.snapshot.applications.get(name) if unit is not None and unit.snapshot is not None else None
    worst = max((look.health for look in found), key=lambda health: health.rank, default=None)
    moving = sorted({look.moving.rollout.id for look in found if look.moving is not None})
    return {
        "application": name,
        "source": source or None,
        "targets": len(found),
        "synced": sum(look.state == "Synced" for look in found),
        "healthy": sum(look.health in WELL for look in found),
        "health": str(worst) if worst is not None else None,
        "states": _counted(look.state for look in found),
        "rollouts": moving,
        "revisions": sorted({look.assignment.revision for look in found if look.assignment and look.assigned}),
        "blocked": reason_json(compiled.blocked) if compiled is not None else None,
        "policy": compiled.policy.name if compiled is not None and compiled.policy is not None else None,
    }


def clusters(daemon: Daemon) -> Json:
    """One line per declared cluster: is it reached, when was it last heard of, how many targets are well there."""
    return {"clusters": _clusters(daemon, daemon.ports.clock.now())}


def _clusters(daemon: Daemon, now: Now) -> list[Json]:
    # One walk over all verdicts, not one for each cluster.
    total: Counter[str] = Counter()
    well: Counter[str] = Counter()
    for target, verdict in daemon.board.verdicts.items():
        total[target.cluster] += 1
        well[target.cluster] += verdict.health in WELL
    return [_cluster_json(daemon, name, now, total[name], well[name]) for name in sorted(daemon.board.clusters)]


def _cluster_json(daemon: Daemon, name: str, now: Now, targets_: int, healthy: int) -> Json:
    entry = daemon.board.clusters[name]
    view = entry.view()
    labels = daemon.lanes[name].document.labels if name in daemon.lanes else {}
    unreachable = view.unreachable(now)
    if view.reason is not None and view.reason.code in NO_CREDENTIALS:
        state = "NoCredentials"
    elif view.suspended:
        state = "Suspended"
    else:
        state = "Unreachable" if unreachable else "Reachable" if view.heard_at is not None else "Connecting"
    heard_wall = None if view.heard_at is None else now.wall - (now.monotonic - view.heard_at)
    return {
        "cluster": name,
        "state": state,
        "region": entry.region or None,
        "labels": dict(sorted(labels.items())),
        "heard_at": rfc3339(heard_wall),
        "reason": reason_json(view.reason),
        "targets": targets_,
        "healthy": 0 if unreachable else healthy,
    }


# ---- rollouts ------------------------------------------------------------------------------------------------------


async def rollouts(daemon: Daemon, *, application: str | None, active: bool | None, limit: int = 50) -> Json:
    """Rollouts, the newest first."""
    name = await find_application(daemon, application) if application else None

    def read(tx: Tx) -> list[tuple[Rollout, list[RolloutTarget]]]:
        found = tx.rollouts(application=name, active=active, limit=min(limit, ANSWERS_MAX))
        return [(rollout, tx.rollout_targets(rollout.id)) for rollout in found]

    found = await daemon.context.store.read("rollouts", read)
    return {"rollouts": [rollout_json(daemon, rollout, rows) for rollout, rows in found]}


async def rollout(daemon: Daemon, name: str) -> Json:
    """One rollout with all of its targets and what they wait for."""
    found = await find_rollout(daemon, name)
    now = daemon.ports.clock.now()

    def read(tx: Tx) -> tuple[Rollout | None, list[RolloutTarget]]:
        return tx.rollout(found.id), tx.rollout_targets(found.id)

    newest, rows = await daemon.context.store.read("rollout", read)
    assert newest is not None
    answer = rollout_json(daemon, newest, rows)
    for number, wave in enumerate(answer["waves"]):
        wave["targets"] = [_row_json(row) for row in rows if row.wave == number]
    answer["waits"] = [
        {
            "subject": wait.subject,
            "reason": wait.reason.code,
            "message": wait.reason.message,
            "recheck_at": moment_of(wait.recheck_at, now),
        }
        for wait in daemon.board.waits.get(owner_of(newest.id), ())
    ]
    return answer


def rollout_json(daemon: Daemon, found: Rollout, rows: Sequence[RolloutTarget]) -> Json:
    """One rollout and its waves, without its targets. What it waits for as a whole is its `wait`."""
    waits = daemon.board.waits.get(owner_of(found.id), ()) if found.state not in ENDED_STATES else ()
    whole = next((wait for wait in waits if wait.subject.startswith("wave:") or not wait.subject), None)
    first = whole or next(iter(waits), None)
    return {
        "id": found.id,
        "application": found.application,
        "source": found.source,
        "revision": found.revision,
        "kind": str(found.kind),
        "state": str(found.state),
        "reason": found.reason.code if found.reason is not None else None,
        "message": found.reason.message if found.reason is not None else None,
        "policy": found.plan.policy,
        "hash": found.plan.hash,
        "created_at": rfc3339(found.created_wall),
        "ended_at": rfc3339(found.ended_wall),
        "wait": reason_json(first.reason) if first is not None else None,
        "waves": [
            {
                "name": wave.name,
                "total": len(wave.targets),
                "states": _counted(str(row.state) for row in rows if row.wave == number),
                "bake_s": wave.bake_s,
                "max_concurrent": wave.max_concurrent,
                "max_failures": wave.max_failures,
                "max_unreachable": wave.max_unreachable,
                "closed": reason_json(wave.closed),
            }
            for number, wave in enumerate(found.plan.waves)
        ],
    }


def _row_json(row: RolloutTarget) -> Json:
    return {
        "application": row.target.application,
        "cluster": row.target.cluster,
        "state": str(row.state),
        "reason": row.reason.code if row.reason is not None else None,
        "message": row.reason.message if row.reason is not None else None,
        "from": row.from_digest,
        "to": row.to_digest,
        "baked": row.baked_digest,
        "changed": row.changed,
        "attempt": row.attempt,
        "bake_s": round(row.bake_s, 1),
        "bake_resets": row.bake_resets,
        "started_at": rfc3339(row.started_wall),
        "healthy_at": rfc3339(row.healthy_wall),
        "baked_at": rfc3339(row.baked_wall),
    }


# ---- events, problems ----------------------------------------------------------------------------------------------


async def events(daemon: Daemon, *, application: str | None, rollout_id: str | None, after: int, limit: int) -> Json:
    """The audit log, the newest first; `after` gives only what is newer than that id."""
    name = await find_application(daemon, application) if application else None
    found = await daemon.context.store.read(
        "events",
        lambda tx: tx.audit_log(application=name, rollout=rollout_id, after_id=after, limit=min(limit, ANSWERS_MAX)),
    )
    return {
        "events": [
            {
                "id": row.id,
                "time": rfc3339(row.wall),
                "level": row.level,
                "reason": row.code,
                "message": row.message,
                "source": row.source or None,
                "application": row.application or None,
                "cluster": row.cluster or None,
                "rollout": row.rollout or None,
                "actor": row.actor,
                "data": dict(row.data) if row.data is not None else None,
            }
            for row in found
        ]
    }


async def problems(daemon: Daemon) -> Json:
    """What is wrong in the last attempted commit of each repository."""

    def read(tx: Tx) -> list[Json]:
        found: list[Json] = []
        for name in sorted(daemon.sources):
            row = tx.source(name)
            if row is not None:
                where = {"source": name, "revision": row.last_attempted or None}
                found += [{**where, **problem} for problem in json.loads(row.problems)]
        return found

    return {"problems": await daemon.context.store.read("problems", read)}


async def targets(daemon: Daemon, applications: Sequence[str]) -> Json:
    """What is assigned to each target of `applications`: for `plan --live`."""

    def read(tx: Tx) -> list[Assignment]:
        return [row for name in applications for row in tx.assignments(application=name)]

    found = await daemon.context.store.read("targets", read)
    return {
        "targets": [
            {
                "application": row.target.application,
                "cluster": row.target.cluster,
                "digest": row.digest or None,
                "baked": row.baked,
                "revision": row.revision or None,
            }
            for row in found
        ]
    }
