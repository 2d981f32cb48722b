"""The daemon: one unit per source, rollout and lane, started in order and ended in reverse.

    Git repos --> gather --> decide --> admit --> perform --> record
                    ^        (pure)     (pure)       |
                    +-------- live clusters <--------+

It owns no rule. Sources open rollouts, rollouts decide, lanes perform; all meet in the store and through wake-ups. What
it is made of is handed in: production adapters by `bootstrap.py`, simulated ones by the simulator and the demo.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.core.actions import Limits
from reconciler.core.documents import Cluster
from reconciler.core.fleet_model import FleetSettings
from reconciler.core.health import Thresholds
from reconciler.core.model import ClusterView, Reason
from reconciler.shell.board import Board, ClusterEntry
from reconciler.shell.cluster_schemas import ClusterSchemas, SchemaShelf
from reconciler.shell.context import INTENTS, Context
from reconciler.shell.evaluation import HealthEvaluations
from reconciler.shell.hub import Hub
from reconciler.shell.judging import Judging
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.lane import Lane, lane_name
from reconciler.shell.leaving import Leaving
from reconciler.shell.limiter import Limiter, WriteLimits
from reconciler.shell.logs import event
from reconciler.shell.metrics import Metrics
from reconciler.shell.observe import Observer
from reconciler.shell.outbox import OUTBOX, OutboxUnit
from reconciler.shell.performing import Performing
from reconciler.shell.ports import Clock, Evaluator, Notifier, Source, Store, Tx
from reconciler.shell.releases import Releases
from reconciler.shell.retention import INTERVAL_S, RETENTION, RetentionUnit
from reconciler.shell.rollout_unit import RolloutUnit, owner_of
from reconciler.shell.schedule import Schedule
from reconciler.shell.scope import Scope
from reconciler.shell.source_unit import POLL, RESYNC, SourceUnit, source_name

if TYPE_CHECKING:
    from random import Random  # noqa: TID251  # the type only: the object is handed in

CLUSTERS = "clusters"
OWNER_LABEL_SELECTOR = "reconciler.dev/owner"
#: How often it is asked, after a start, whether every source had its chance to declare its clusters.
LISTEN_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One repository: how it is read, how often it is polled (seconds) and what it may declare."""

    source: Source
    poll_s: float
    settings: FleetSettings


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the daemon is made of. `connect` makes the adapter of a cluster, or says why there is none;
    `evaluator` runs the rules of health policies (health_cel.answer); `random` spreads polls and retries.
    `executor` runs pure computations that take more than a moment; without one they run inline."""

    store: Store
    clock: Clock
    schedule: Schedule
    sources: Mapping[str, SourceSpec]
    connect: Callable[[Cluster], KubeCluster | Reason]
    evaluator: Evaluator
    notifier: Notifier
    random: Random
    metrics: Metrics
    log: logging.Logger
    on_failure: Callable[[str, BaseException], None]
    executor: Executor | None = None


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """The daemon's numbers: seconds, and writes a second."""

    check_interval_s: float = 10.0
    resync_interval_s: float = 300.0
    writes_per_second: float = 50.0
    writes_per_second_and_cluster: float = 10.0
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)


class Daemon:
    """All units of one process. `start`, then it runs by itself until `stop`."""

    def __init__(self, ports: Ports, settings: DaemonSettings) -> None:
        self.ports = ports
        self.settings = settings
        self.hub = Hub()
        self.board = Board()
        self.sources: dict[str, SourceUnit] = {}
        self.lanes: dict[str, Lane] = {}
        self._declared: dict[str, Mapping[str, Cluster]] = {}
        self._scope = Scope("daemon", ports.on_failure)
        self._context: Context | None = None
        self._releases: Releases | None = None
        fleet = settings.writes_per_second
        self._evaluations = HealthEvaluations(ports.evaluator)
        self._fleet_limiter = Limiter(fleet, fleet)
        self._shelf = SchemaShelf(ports.executor)

    @property
    def context(self) -> Context:
        """What the units share; there once the daemon has started."""
        assert self._context is not None, "the daemon has not started"
        return self._context

    async def start(self) -> None:
        """Start every unit: active rollouts first, so that each is decided once whatever Git says."""
        ports, settings = self.ports, self.settings
        installation, active, fleets = await ports.store.read("start", lambda tx: _at_start(tx, ports.sources))
        self._context = Context(
            store=ports.store,
            clock=ports.clock,
            hub=self.hub,
            board=self.board,
            metrics=ports.metrics,
            log=ports.log,
            limits=settings.limits,
            installation=installation,
            check_interval_s=settings.check_interval_s,
            rollout_opened=self._start_rollout,
            fleets=fleets,
        )
        self._releases = Releases(ports.store, installation)
        self.board.listening_since = ports.clock.now().monotonic
        event(ports.log, logging.INFO, "daemon.started", epoch=ports.store.epoch, active_rollouts=len(active))
        for rollout_id in active:
            self._start_rollout(rollout_id)
        self._scope.start(CLUSTERS, self._follow_clusters())
        self._scope.start(OUTBOX, OutboxUnit(self.context, ports.notifier).run())
        self._scope.start(RETENTION, RetentionUnit(self.context).run())
        for name, spec in sorted(ports.sources.items()):
            unit = SourceUnit(self.context, name, spec.source, spec.settings, self._clusters_declared)
            self.sources[name] = unit
            self._scope.start(source_name(name), unit.run())
            ports.schedule.every(f"poll:{name}", spec.poll_s, _waker(self.hub, source_name(name), POLL))
            ports.schedule.every(
                f"resync:{name}", settings.resync_interval_s, _waker(self.hub, source_name(name), RESYNC)
            )
        ports.schedule.every("outbox", 60.0, _waker(self.hub, OUTBOX))
        ports.schedule.every(RETENTION, INTERVAL_S, _waker(self.hub, RETENTION))

    async def stop(self, timeout_s: float = 4.0) -> tuple[str, ...]:
        """End every unit, newest first, then close what they used. Returns the names of those that did not end."""
        self.ports.schedule.close()
        left = await self._scope.close(timeout_s)
        for lane in self.lanes.values():
            await lane.kube.close()
        for spec in self.ports.sources.values():
            await spec.source.close()
        await self.ports.evaluator.close()
        await self.ports.store.close()
        event(self.ports.log, logging.INFO, "daemon.stopped")
        return left

    async def discard(self) -> None:
        """End every unit and close nothing: what is left of a process that was killed. For the simulator."""
        self.ports.schedule.close()
        await self._scope.close(3600.0)

    # ---- rollouts ----------------------------------------------------------------------------------------------

    def _start_rollout(self, rollout_id: str) -> None:
        self._scope.start(owner_of(rollout_id), self._run_rollout(rollout_id))

    async def _run_rollout(self, rollout_id: str) -> None:
        with self.hub.hold(f"{owner_of(rollout_id)} begins"):
            rollout = await self.context.store.read("rollout", lambda tx: tx.rollout(rollout_id))
        assert rollout is not None, f"rollout {rollout_id} is not stored"
        await RolloutUnit(self.context, rollout).run()

    # ---- lanes -------------------------------------------------------------------------------------------------

    def _clusters_declared(self, source: str, clusters: Mapping[str, Cluster]) -> None:
        """A source declares these clusters now."""
        if self._declared.get(source) != clusters:
            self._declared[source] = clusters
            self.hub.wake(CLUSTERS)

    async def _follow_clusters(self) -> None:
        """Keep one lane for each declared cluster until cancelled."""
        clock = self.ports.clock
        with self.hub.unit(CLUSTERS) as unit:
            while True:
                await self._match_lanes()
                if self.board.listening_since is not None:
                    if all(self._had_its_chance(name) for name in self.ports.sources):
                        self.board.listening_since = None
                    else:
                        unit.wake_at(clock, clock.now().monotonic + LISTEN_CHECK_S)
                await unit.wait()

    def _had_its_chance(self, source: str) -> bool:
        """True once `source` has declared its clusters in this boot, or is done with trying: it waits for its next
        poll. Until then a cluster without a lane may be one that it is about to declare."""
        unit = source_name(source)
        return source in self._declared or (unit in self.hub.names and unit not in self.hub.busy)

    async def _match_lanes(self) -> None:
        """Start, change and end lanes. Of two sources that declare one cluster the first by name counts."""
        wanted: dict[str, Cluster] = {}
        for name in sorted(self._declared):
            for cluster in self._declared[name].values():
                wanted.setdefault(cluster.name, cluster)
        for name in sorted(set(self.board.clusters) - set(wanted)):
            await self._end_lane(name)
        for name, cluster in sorted(wanted.items()):
            lane = self.lanes.get(name)
            if lane is None or lane.document.credentials != cluster.credentials:
                await self._end_lane(name)
                self._start_lane(cluster)
            elif lane.document != cluster:
                lane.document = cluster
                self.board.clusters[name].region = cluster.labels.get("region", "")
                self.hub.wake(lane_name(name), INTENTS)

    def _start_lane(self, cluster: Cluster) -> None:
        connected = self.ports.connect(cluster)
        region = cluster.labels.get("region", "")
        if isinstance(connected, Reason):
            reason = connected
            event(self.ports.log, logging.WARNING, "lane.refused", cluster=cluster.name, reason=str(reason))

            def view() -> ClusterView:
                since = self.ports.clock.now().monotonic - 10 * cluster.stale_after_s
                return ClusterView(cluster.name, None, since, cluster.stale_after_s, cluster.suspend, reason)

            self.board.clusters[cluster.name] = ClusterEntry(view, lambda _target: None, region)
            return
        settings = self.settings
        per_cluster = settings.writes_per_second_and_cluster
        assert self._releases is not None
        lane = Lane(
            self.context,
            cluster,
            connected,
            self._releases,
            Judging(settings.thresholds, settings.check_interval_s, self._evaluations),
            self.ports.log,
            settings.resync_interval_s,
        )
        lane.observer = Observer(
            connected,
            clock=self.ports.clock,
            scope=self._scope,
            selector=OWNER_LABEL_SELECTOR,
            jitter=self.ports.random.random,
            on_change=lane.objects_changed,
            on_heard=lane.heard,
            check_interval_s=settings.check_interval_s,
            resync_interval_s=settings.resync_interval_s,
            metrics=self.ports.metrics,
        )
        lane.performing = Performing(
            self.context,
            lane,
            connected,
            ClusterSchemas(connected, self._shelf, self.ports.log, self.ports.metrics),
            WriteLimits(Limiter(per_cluster, per_cluster), self._fleet_limiter),
            self._scope,
            self.ports.log,
        )
        unsettled = lane.performing.is_unsettled
        lane.leaving = Leaving(self.context, connected, lane.observer, self._scope, unsettled, lane.gone)
        self.lanes[cluster.name] = lane
        self.board.clusters[cluster.name] = ClusterEntry(lane.view, lane.freshness, region)
        self._scope.start(lane_name(cluster.name), lane.run())

    async def _end_lane(self, name: str) -> None:
        self.board.clusters.pop(name, None)
        lane = self.lanes.pop(name, None)
        if lane is not None:
            await self._scope.stop(lane_name(name))
            await lane.kube.close()
        for target in [target for target in self.board.verdicts if target.cluster == name]:
            del self.board.verdicts[target]


def _at_start(tx: Tx, sources: Iterable[str]) -> tuple[str, list[str], dict[str, str]]:
    """The installation, its active rollouts, and which of the configured sources had which fleet's name."""
    rows = [row for name in sorted(sources, reverse=True) if (row := tx.source(name)) is not None and row.fleet]
    active = [rollout.id for rollout in reversed(tx.rollouts(active=True, limit=100_000))]
    return tx.installation(), active, {row.fleet: row.name for row in rows}


def _waker(hub: Hub, unit: str, *dirty: str) -> Callable[[], None]:
    def wake() -> None:
        hub.wake(unit, *dirty)

    return wake
