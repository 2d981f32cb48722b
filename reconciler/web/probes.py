"""Is the process alive, is it ready, and what are its numbers: `/healthz`, `/readyz`, `/metrics`.

Alive means that the event loop runs and is not far behind. Ready means that the daemon knows what it should do: every
repository was read once (or says why not) and every declared cluster has its lane. A cluster that does not answer
makes nobody unready: that is an ordinary Tuesday.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from reconciler.core.model import Health, Rollout, RolloutTarget, Sync
from reconciler.shell.asking import ANSWERS_MAX
from reconciler.shell.daemon import Daemon
from reconciler.shell.looks import is_seen
from reconciler.shell.metrics import CONTENT_TYPE
from reconciler.shell.ports import Tx
from reconciler.web.api import answer

LAG_MEASURED_EVERY_S = 1.0
#: A loop that is this late does not do its work: whoever watches the process may start another.
LAG_MAX_S = 30.0


@dataclass(slots=True)
class LoopLag:
    """How late the event loop ran its last timer, in seconds; `follow` measures until cancelled."""

    value_s: float = 0.0

    async def follow(self) -> None:
        """Measure."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_MEASURED_EVERY_S
            await asyncio.sleep(LAG_MEASURED_EVERY_S)
            self.value_s = max(0.0, loop.time() - due_s)


def not_ready(daemon: Daemon) -> list[str]:
    """What is still missing, as sentences."""
    missing = [
        f"repository {name} has not been read yet"
        for name, unit in sorted(daemon.sources.items())
        if unit.snapshot is None and unit.failure is None
    ]
    for name, unit in sorted(daemon.sources.items()):
        declared = unit.snapshot.clusters if unit.snapshot is not None else {}
        missing += [
            f"cluster {cluster} of repository {name} has no lane yet"
            for cluster in sorted(declared)
            if cluster not in daemon.board.clusters
        ]
    return missing[:20]


def add_probes(application: web.Application, daemon: Daemon, lag: LoopLag) -> None:
    """Their routes."""

    async def healthz(_: web.Request) -> web.StreamResponse:
        well = lag.value_s <= LAG_MAX_S
        return answer({"status": "ok" if well else "late", "loop_lag_s": round(lag.value_s, 3)}, 200 if well else 503)

    async def readyz(_: web.Request) -> web.StreamResponse:
        missing = not_ready(daemon)
        failing = sorted(name for name, unit in daemon.sources.items() if unit.failure is not None)
        body = {"status": "waiting" if missing else "ok", "waiting_for": missing, "failing_sources": failing}
        return answer(body, 503 if missing else 200)

    async def metrics(_: web.Request) -> web.StreamResponse:
        await measure(daemon, lag)
        return web.Response(body=daemon.ports.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)


async def measure(daemon: Daemon, lag: LoopLag) -> None:
    """Set the gauges that are counted when they are asked for."""

    def read(tx: Tx) -> tuple[list[Rollout], list[RolloutTarget], int, dict[str, str]]:
        active = tx.rollouts(active=True, limit=ANSWERS_MAX)
        rows = [row for rollout in active for row in tx.rollout_targets(rollout.id)]
        problems = {name: row.problems for name in daemon.sources if (row := tx.source(name)) is not None}
        return active, rows, len(tx.outbox(sent=False, limit=ANSWERS_MAX)), problems

    active, rows, backlog, problems = await daemon.context.store.read("metrics", read)
    metrics, board, now = daemon.ports.metrics, daemon.board, daemon.ports.clock.now()
    metrics.set("loop_lag_seconds", lag.value_s)
    metrics.set("outbox_backlog", backlog)
    metrics.set_all("rollouts", _counted(str(rollout.state) for rollout in active))
    metrics.set_all("targets", _counted(str(row.state) for row in rows))
    verdicts = [(verdict, is_seen(daemon, target, now)) for target, verdict in board.verdicts.items()]
    healths = (verdict.health if seen else Health.UNKNOWN for verdict, seen in verdicts)
    metrics.set_all("targets_health", _counted(str(health) for health in healths))
    syncs = (verdict.sync if seen else Sync.UNKNOWN for verdict, seen in verdicts)
    metrics.set_all("targets_sync", _counted(str(sync) for sync in syncs))
    metrics.set_all("waits", _counted(wait.reason.code for waits in board.waits.values() for wait in waits))
    views = {name: entry.view() for name, entry in board.clusters.items()}
    reachable = {name: float(view.heard_at is not None and not view.unreachable(now)) for name, view in views.items()}
    metrics.set_all("cluster_reachable", reachable)
    for source, text in sorted(problems.items()):
        severities = Counter(problem["severity"] for problem in json.loads(text))
        for severity in ("error", "warning"):
            metrics.set("problems", severities[severity], source=source, severity=severity)


def _counted(names: Any) -> dict[str, float]:
    return {name: float(count) for name, count in Counter(names).items()}
