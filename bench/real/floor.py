"""The bare loop: the same objects through the shipped Kubernetes adapter, without anything that decides.

One task for each cluster applies its objects one after the other, as a lane does: what is slower than that is the
daemon's own. It writes into a namespace beside the cluster's, on the same API server and through the same proxy.

    seconds = run_floor(clusters, [("c0000", manifests), ("c0001", manifests)])
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.real.clusters import SimulatedClusters, floor_namespace
from reconciler.core.model import ObjectKey
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig

AGENT = "bench-floor"


def placed(manifest: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """A manifest in the floor's namespace of `cluster`, with as many labels and annotations as the daemon stamps."""
    found = copy.deepcopy(dict(manifest))
    metadata = found["metadata"]
    metadata["namespace"] = floor_namespace(cluster)
    metadata.setdefault("labels", {})["bench.example.com/owner"] = "0123456789abcdef0123456789abcdef"
    metadata.setdefault("annotations", {})["bench.example.com/application"] = f"bench/{metadata['name']}"
    return found


def run_floor(clusters: SimulatedClusters, work: Mapping[str, Sequence[Mapping[str, Any]]], at_once: int = 1) -> float:
    """Apply the objects of each cluster, `at_once` of one cluster at a time; the wall-clock seconds it took."""
    return asyncio.run(_run(clusters, work, at_once))


async def _run(clusters: SimulatedClusters, work: Mapping[str, Sequence[Mapping[str, Any]]], at_once: int) -> float:
    queues = {name: [placed(each, name) for each in found] for name, found in work.items()}
    connected: dict[str, KubeCluster] = {}
    waiting: dict[str, list[tuple[dict[str, Any], str | None]]] = {}
    try:
        for name, queue in queues.items():
            transport = await transport_from_kubeconfig(clusters.kubeconfigs[name])
            connected[name] = KubeCluster(name, transport, user_agent=AGENT)
            # Discovery, handshakes and which objects are there are no part of it: the daemon has them behind it, too.
            for api_version, kind in sorted({(each["apiVersion"], each["kind"]) for each in queue}):
                await connected[name].resource(api_version, kind)
            waiting[name] = [(each, await _uid_of(connected[name], each)) for each in reversed(queue)]
        started_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for name in queues:
                for _ in range(at_once):
                    tasks.create_task(_apply_all(connected[name], waiting[name]))
        return time.perf_counter() - started_s
    finally:
        for cluster in connected.values():
            await cluster.close()


async def _uid_of(cluster: KubeCluster, manifest: Mapping[str, Any]) -> str | None:
    live = await cluster.get(str(manifest["apiVersion"]), ObjectKey.of(manifest))
    return None if live is None else str(live["metadata"]["uid"])


async def _apply_all(cluster: KubeCluster, waiting: list[tuple[dict[str, Any], str | None]]) -> None:
    while waiting:
        manifest, uid = waiting.pop()
        await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
