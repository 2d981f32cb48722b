"""The stage: repository, simulated clusters, the shipped daemon, its API, and the clock that all of them go by.

The policy clock is stepped: to the next timer that anybody waits for, at most one check interval at a time, and only
when everything has come to rest: no unit has work, no request or watch line is on its way, no cluster has anything due.
So nothing is ever late because this machine is slow, and an hour of observation passes in seconds. What is real stays
real: Git, HTTP, the store and their timeouts go by the machine's own time.

    async with open_stage(fleet, directory) as stage:
        await stage.drained()
        stage.advance()
"""

from __future__ import annotations

import asyncio
import math
import random  # noqa: TID251 - the demo makes the Random that spreads its polls: the same one every time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from reconciler.bootstrap import Assembly, Parts, build, limits_of
from reconciler.core.documents import Cluster
from reconciler.core.health_policy import thresholds
from reconciler.core.model import Reason
from reconciler.demo.fleet import APPLICATION, DemoFleet
from reconciler.demo.repository import BRANCH, LocalRepository
from reconciler.demo.traffic import TrackedTransport, Traffic
from reconciler.resources import catalogue
from reconciler.settings import Repository, RepositoryCredentials
from reconciler.settings_values import Listen
from reconciler.shell.daemon import Daemon, DaemonSettings
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_connect import LazyTransport, MeteredTransport
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.kubeconfig import SslContexts
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Tx
from reconciler.shell.schedule import ClockSchedule
from reconciler.shell.transport import Transport
from reconciler.sim.cluster import SimCluster, intercept_all
from reconciler.sim.http import ConnectionDropped, HttpFace
from reconciler.sim.loop import SteppedClock
from reconciler.sim.operator import FLINK_GROUP
from reconciler.sim.store import Event, Key
from reconciler.web.server import Server, serve

#: The daemon's name for the repository, and who commits to it.
SOURCE = "fleet"
AUTHOR = "Mia Keller"
POLL_S = 30.0
#: Timers closer together than this fire in one step: a cluster takes longer to answer.
RESOLUTION_S = 1.0
#: Rounds of the event loop in which nothing may happen before all counts as drained.
QUIET_ROUNDS = 4
#: How long to leave the processor to the store's and git's threads before looking again.
LOOK_AGAIN_S = 0.0005
STOP_TIMEOUT_S = 3.0

T = TypeVar("T")
#: When (policy clock, seconds since the epoch), with which image, the operator's lifecycleState, the job's own state.
JobState = tuple[float, str, str, str]


class DaemonFailedError(Exception):
    """A unit of the daemon ended with an exception: a defect."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """Where the API listens: the socket, and any free port of 127.0.0.1."""

    state_dir: Path
    listen: Listen | None = field(default_factory=lambda: Listen("127.0.0.1", 0))
    token_file: Path | None = None


@dataclass(slots=True)
class Stage:
    """Everything that plays."""

    clock: SteppedClock
    clusters: dict[str, SimCluster]
    repository: LocalRepository
    assembly: Assembly
    traffic: Traffic
    server: Server
    failures: list[tuple[str, BaseException]]
    check_interval_s: float
    jobs: dict[str, list[JobState]]
    """By cluster: what the operator wrote of the job that the steps change, whenever that changed."""

    @property
    def daemon(self) -> Daemon:
        """The shipped daemon."""
        return self.assembly.daemon

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Ask the store."""
        return await self.assembly.store.read("demo", work)

    async def commit(self, files: dict[str, bytes], subject: str) -> str:
        """Somebody pushes a commit; its SHA."""
        return await self.repository.commit(files, subject, AUTHOR, self.clock.now().wall)

    # ---- time ----------------------------------------------------------------------------------------------------

    async def drained(self) -> None:
        """Wait until nothing moves any more at the present moment. Raises DaemonFailedError."""
        quiet = 0
        while quiet < QUIET_ROUNDS:
            if self.failures:
                name, error = self.failures[0]
                raise DaemonFailedError(f"unit {name} of the daemon failed: {error!r}") from error
            if self.still():
                quiet += 1
                await asyncio.sleep(0)
            else:
                quiet = 0
                await asyncio.sleep(LOOK_AGAIN_S)

    def still(self) -> bool:
        """True if no unit has work, nothing is on its way to or from a cluster, and no cluster has anything due."""
        daemon = self.daemon
        return (
            daemon.hub.idle
            and self.traffic.still
            and not any(lane.observer.busy for lane in daemon.lanes.values())
            and all(cluster.idle() for cluster in self.clusters.values())
        )

    def advance(self) -> float:
        """Let time go on to the next timer, at most one check interval; the seconds that passed."""
        now_s = self.clock.now().monotonic
        limit_s = now_s + self.check_interval_s
        due_s = self.clock.next_timer()
        next_s = limit_s if due_s is None else min(limit_s, math.ceil(due_s / RESOLUTION_S) * RESOLUTION_S)
        next_s = max(now_s, next_s)
        self.clock.advance_to(next_s)
        return next_s - now_s


@asynccontextmanager
async def open_stage(fleet: DemoFleet, directory: Path, seed: int = 1) -> AsyncIterator[Stage]:
    """Set everything up below `directory`, and end all of it afterwards; the directory is the caller's."""
    async with AsyncExitStack() as stack:
        clock = SteppedClock()
        repository = await LocalRepository.create(directory / "fleet", fleet.files, AUTHOR, clock.now().wall)
        clusters = {cluster.name: SimCluster(cluster.name, clock, seed=seed) for cluster in fleet.clusters}
        jobs = {name: _record_job(cluster) for name, cluster in clusters.items()}
        face = HttpFace(
            {name: cluster.server for name, cluster in clusters.items()},
            intercept=intercept_all(clusters, ConnectionDropped),
            token="simulated",  # noqa: S106 - no secret: it opens simulated clusters
        )
        await face.start()
        stack.push_async_callback(face.stop)
        for cluster in clusters.values():
            stack.callback(cluster.stop)
        kubeconfig = directory / "kubeconfig"
        face.write_kubeconfig(kubeconfig)
        traffic = Traffic(face.watch_lines)
        failures: list[tuple[str, BaseException]] = []

        def failed(name: str, error: BaseException) -> None:
            failures.append((name, error))

        settings = _daemon_settings()
        numbers = random.Random(seed)  # noqa: S311 - it spreads polls
        state_dir = directory / "state"
        state_dir.mkdir()
        parts = Parts(
            state_dir=state_dir,
            repositories=(_repository(repository),),
            connect=_connect(kubeconfig, traffic, clock),
            protocols=("file",),
            make_clock=lambda boot: _booted(clock, boot),
            make_schedule=lambda policy_clock, _: ClockSchedule(policy_clock, numbers),
            seed=seed,
        )
        assembly = build(parts, settings, failed)
        stack.push_async_callback(assembly.close, STOP_TIMEOUT_S)
        await assembly.daemon.start()
        server = await serve(assembly.daemon, _Serving(state_dir), failed)
        stack.push_async_callback(server.stop)
        yield Stage(clock, clusters, repository, assembly, traffic, server, failures, settings.check_interval_s, jobs)


def _record_job(cluster: SimCluster) -> list[JobState]:
    """From now on, the states of the job that the steps change."""
    states: list[JobState] = []

    def changed(key: Key, event: Event) -> None:
        if key != Key(FLINK_GROUP, "FlinkDeployment", APPLICATION, APPLICATION) or event.type == "DELETED":
            return
        value = event.after.value
        status = value.get("status") or {}
        job = str((status.get("jobStatus") or {}).get("state", ""))
        state = (str(value["spec"].get("image", "")), str(status.get("lifecycleState", "")), job)
        if not states or states[-1][1:] != state:
            states.append((cluster.clock.now().wall, *state))

    cluster.server.observe(changed)
    return states


def _booted(clock: SteppedClock, boot: int) -> SteppedClock:
    clock.boot = boot
    return clock


def _daemon_settings() -> DaemonSettings:
    """As shipped."""
    shipped = catalogue()
    return DaemonSettings(limits=limits_of(shipped), thresholds=thresholds(shipped.thresholds))


def _repository(repository: LocalRepository) -> Repository:
    nobody = RepositoryCredentials(None, "", None, None)
    return Repository(SOURCE, repository.url, BRANCH, POLL_S, (), nobody)


def _connect(
    kubeconfig: Path, traffic: Traffic, clock: SteppedClock
) -> Callable[[Cluster, Metrics], KubeCluster | Reason]:
    """Connections as in production, by the contexts of one kubeconfig, and counted."""
    ssl_contexts = SslContexts()

    def connect(cluster: Cluster, metrics: Metrics) -> KubeCluster | Reason:
        async def make() -> Transport:
            return await transport_from_kubeconfig(kubeconfig, cluster.credentials, ssl_contexts=ssl_contexts)

        transport = TrackedTransport(MeteredTransport(LazyTransport(make), metrics), traffic)
        return KubeCluster(cluster.name, transport, now_s=lambda: clock.now().monotonic)

    return connect
