"""The shipped parts, connected through the proxy to a real API server: what the tests of this package start with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import pytest

from reconciler.bootstrap import WallClock
from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell import kube_cluster, kube_exchange
from reconciler.shell.follow import Kind
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.observe import Observer
from reconciler.shell.scope import Scope
from tests.control_plane.server import ADMINISTRATOR, ControlPlane, call
from tests.faults.proxy import FaultProxy

OWNER = "reconciler.dev/owner"
CONFIG_MAP = Kind("v1", "ConfigMap")
#: Waits in tests end with the condition; this is only how long "never" takes.
NEVER_S = 60.0


@contextmanager
def proxied(plane: ControlPlane) -> Iterator[FaultProxy]:
    """A proxy in front of the control plane, well at first."""
    with FaultProxy(plane.url, plane.ca_file) as proxy:
        yield proxy


def kubeconfig_through(proxy: FaultProxy, plane: ControlPlane, directory: Path) -> Path:
    """The administrator's kubeconfig that leads through the proxy."""
    return proxy.write_kubeconfig(directory / "through-proxy.yaml", token=plane.tokens[ADMINISTRATOR])


@asynccontextmanager
async def connected(path: Path, *, allow_files: bool = False) -> AsyncIterator[KubeCluster]:
    """The shipped client at the end of a kubeconfig."""
    cluster = KubeCluster("real", await transport_from_kubeconfig(path, allow_files=allow_files))
    try:
        yield cluster
    finally:
        await cluster.close()
        await asyncio.sleep(0.01)  # aborted connections are closed by callbacks of the loop


def namespace_for(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, made directly and not through the proxy."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:60].strip("-")
    status, answer = call(plane, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert status in (201, 409), answer
    return name


def config_map(namespace: str, name: str, label: str = "x", **data: str) -> Manifest:
    """A ConfigMap that carries our label."""
    metadata = {"name": name, "namespace": namespace, "labels": {OWNER: label}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def path_of(namespace: str, name: str) -> str:
    """Where a ConfigMap is."""
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}"


def put(plane: ControlPlane, manifest: Manifest) -> Manifest:
    """Create or replace a ConfigMap directly, behind everybody's back."""
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    status, answer = call(plane, "PUT", path_of(namespace, name), manifest)
    if status == 404:
        status, answer = call(plane, "POST", path_of(namespace, "").rstrip("/"), manifest)
    assert status in (200, 201), answer
    return {**answer, "apiVersion": "v1", "kind": "ConfigMap"}


def remove(plane: ControlPlane, namespace: str, name: str) -> None:
    """Delete a ConfigMap directly."""
    assert call(plane, "DELETE", path_of(namespace, name))[0] == 200


def truth(plane: ControlPlane, namespace: str) -> dict[ObjectKey, Manifest]:
    """What the API server holds, asked directly."""
    status, answer = call(plane, "GET", path_of(namespace, "").rstrip("/"))
    assert status == 200, answer
    found = [{**item, "apiVersion": "v1", "kind": "ConfigMap"} for item in answer["items"]]
    return {ObjectKey.of(item): item for item in found if OWNER in (item["metadata"].get("labels") or {})}


@asynccontextmanager
async def observing(
    cluster: KubeCluster, label: str, *, check_interval_s: float = 0.3, watch_idle_s: float = 60.0
) -> AsyncIterator[Observer]:
    """The shipped observer, following ConfigMaps of one label. It fails the test if one of its tasks does."""
    failures: list[BaseException] = []
    scope = Scope("test", on_failure=lambda _name, error: failures.append(error))

    def ignore(keys: Sequence[ObjectKey]) -> None:
        del keys

    observer = Observer(
        cluster,
        clock=WallClock(1, asyncio.get_running_loop()),
        scope=scope,
        selector=f"{OWNER}={label}",
        jitter=Random(3).random,
        on_change=ignore,
        on_heard=lambda: None,
        check_interval_s=check_interval_s,
        watch_idle_s=watch_idle_s,
    )
    observer.set_kinds([CONFIG_MAP])
    try:
        yield observer
    finally:
        observer.stop()
        left = await scope.close(timeout_s=10)
    assert (failures, left) == ([], ())


async def eventually(condition: Callable[[], bool], within_s: float = NEVER_S) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - nothing tells when the condition may have changed
            await asyncio.sleep(0.02)


def impatient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have requests wait no longer than this: a test cannot wait for production's patience."""
    for name in ("READ_TIMEOUT_S", "WRITE_TIMEOUT_S"):
        monkeypatch.setattr(kube_exchange, name, seconds)
    for name in ("LIST_PAGE_TIMEOUT_S", "WATCH_CONNECT_TIMEOUT_S"):
        monkeypatch.setattr(kube_cluster, name, seconds)
