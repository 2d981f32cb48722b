"""The ground that is played on: simulated clusters, or real control planes of this machine.

Either way the daemon comes by the contexts of one kubeconfig, as in production, and everything that is on its way can
be asked for, so that the policy clock goes on only when nothing is.

    async with simulated_ground(fleet, directory, clock, seed=1) as ground: ...
    async with real_ground(fleet, directory, clock, seed=1, assets=find(), failed=note) as ground: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from reconciler.core.documents import Cluster
from reconciler.core.model import Reason
from reconciler.demo.cluster import SimulatedCluster, StageCluster
from reconciler.demo.control_plane.assets import Assets
from reconciler.demo.control_plane.plane import (
    LOOK_EVERY_S,
    START_ATTEMPTS,
    ControlPlane,
    ControlPlaneError,
    install_crds,
    introduce,
    is_ready,
    launch,
    lost_its_ports,
)
from reconciler.demo.fleet import DemoFleet
from reconciler.demo.real_cluster import RealCluster
from reconciler.demo.traffic import TrackedTransport, Traffic
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_connect import LazyTransport, MeteredTransport
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.kubeconfig import SslContexts
from reconciler.shell.metrics import Metrics
from reconciler.shell.scope import OnFailure, Scope
from reconciler.shell.transport import Transport
from reconciler.sim.cluster import SimCluster, intercept_all
from reconciler.sim.http import ConnectionDropped, HttpFace
from reconciler.sim.loop import SteppedClock

SIMULATED, REAL = "simulated", "real"
STOP_TIMEOUT_S = 3.0

Connect = Callable[[Cluster, Metrics], KubeCluster | Reason]
#: (cluster, transport) -> the same, with what is on its way counted.
Tracked = Callable[[str, Transport], Transport]


@dataclass(frozen=True, slots=True)
class Ground:
    """The clusters, and the daemon's way to them. `control_plane` says of which kind they are; `still` that nothing is
    on its way between them and the daemon."""

    control_plane: str
    clusters: Mapping[str, StageCluster]
    connect: Connect
    still: Callable[[], bool]


@asynccontextmanager
async def simulated_ground(
    fleet: DemoFleet, directory: Path, clock: SteppedClock, *, seed: int
) -> AsyncIterator[Ground]:
    """Simulated clusters over HTTP; the kubeconfig lies in `directory`."""
    async with AsyncExitStack() as stack:
        clusters = {cluster.name: SimCluster(cluster.name, clock, seed=seed) for cluster in fleet.clusters}
        shown = {name: SimulatedCluster(cluster) for name, cluster in clusters.items()}
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
        connect = _connect(kubeconfig, clock, lambda _, transport: TrackedTransport(transport, traffic))
        yield Ground(SIMULATED, shown, connect, lambda: traffic.still)


@asynccontextmanager
async def real_ground(
    fleet: DemoFleet, directory: Path, clock: SteppedClock, *, seed: int, assets: Assets, failed: OnFailure
) -> AsyncIterator[Ground]:
    """A control plane for each cluster, started side by side; the kubeconfig lies in `directory`. `failed` hears of
    controllers that failed. Raises ControlPlaneError."""
    async with AsyncExitStack() as stack:
        planes = await stack.enter_async_context(_planes(assets, [cluster.name for cluster in fleet.clusters]))
        clusters = {name: RealCluster(name, plane, clock) for name, plane in planes.items()}
        for cluster in clusters.values():
            stack.push_async_callback(cluster.stop)
        scope = Scope("ground", failed)
        stack.push_async_callback(scope.close, STOP_TIMEOUT_S)
        for cluster in clusters.values():
            await cluster.start(scope, seed)
        kubeconfig = directory / "kubeconfig"
        _write_kubeconfig(kubeconfig, clusters)
        connect = _connect(kubeconfig, clock, lambda name, transport: clusters[name].wired(transport))
        # What is on its way to or from a cluster is its wire's business: a cluster with anything there is not idle.
        yield Ground(REAL, clusters, connect, lambda: True)


@asynccontextmanager
async def _planes(assets: Assets, names: list[str]) -> AsyncIterator[dict[str, ControlPlane]]:
    """Running control planes by name. When this ends, however it ends, so have they."""
    launched: list[ControlPlane] = []
    try:
        try:
            async with asyncio.TaskGroup() as group:
                starting = {name: group.create_task(_started(assets, launched)) for name in names}
        except BaseExceptionGroup as problems:
            raise problems.exceptions[0] from problems
        yield {name: task.result() for name, task in starting.items()}
    finally:
        # Letting go waits for the programs to end, hence threads: side by side it takes as long as one.
        await asyncio.gather(*(asyncio.to_thread(plane.close) for plane in launched))


async def _started(assets: Assets, launched: list[ControlPlane]) -> ControlPlane:
    """One control plane with Flink's CRDs, once it answers. Whoever cancels this closes what was `launched`."""
    for attempt in range(1, START_ATTEMPTS + 1):
        plane = launch(assets)
        launched.append(plane)
        try:
            while not is_ready(plane):  # noqa: ASYNC110 - another process tells it, by a file
                await asyncio.sleep(LOOK_EVERY_S)
        except ControlPlaneError as problem:
            if attempt < START_ATTEMPTS and lost_its_ports(problem):
                continue
            raise
        await asyncio.to_thread(install_crds, plane, assets)
        introduce(plane)
        return plane
    raise AssertionError("the last attempt returns or raises")


def _write_kubeconfig(path: Path, clusters: Mapping[str, RealCluster]) -> None:
    """A kubeconfig with a context for each cluster, named after it. Readable by the owner only."""
    access = {name: cluster.access() for name, cluster in sorted(clusters.items())}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": one.server, "certificate-authority-data": one.certificate_authority}}
            for name, one in access.items()
        ],
        "users": [{"name": name, "user": {"token": one.token}} for name, one in access.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in access],
        "current-context": next(iter(access)),
    }
    path.touch(mode=0o600)
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _connect(kubeconfig: Path, clock: SteppedClock, tracked: Tracked) -> Connect:
    """Connections as in production, by the contexts of one kubeconfig, and counted."""
    ssl_contexts = SslContexts()

    def connect(cluster: Cluster, metrics: Metrics) -> KubeCluster | Reason:
        async def make() -> Transport:
            return await transport_from_kubeconfig(kubeconfig, cluster.credentials, ssl_contexts=ssl_contexts)

        transport = tracked(cluster.name, MeteredTransport(LazyTransport(make), metrics))
        return KubeCluster(cluster.name, transport, now_s=lambda: clock.now().monotonic)

    return connect
