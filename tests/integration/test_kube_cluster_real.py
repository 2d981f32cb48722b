"""The Kubernetes adapter and the observer on a real kube-apiserver, over aiohttp."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from random import Random
from typing import Any

import pytest

from reconciler.bootstrap import WallClock
from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell import kube_errors as errors
from reconciler.shell.follow import Kind
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.live import NOT_SEEN
from reconciler.shell.observe import Observer
from reconciler.shell.scope import Scope
from reconciler.shell.transport import Request
from tests.control_plane.server import ControlPlane

pytestmark = pytest.mark.controlplane

OWNER = "reconciler.dev/owner"
FLINK = "flink.apache.org/v1beta1"


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return wrapper


@asynccontextmanager
async def connected(plane: ControlPlane, user: str | None = None) -> AsyncIterator[KubeCluster]:
    path = plane.kubeconfig_for(user) if user else plane.kubeconfig
    transport = await transport_from_kubeconfig(path)
    cluster = KubeCluster("real", transport)
    try:
        yield cluster
    finally:
        await cluster.close()


async def namespace_for(cluster: KubeCluster, request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:60].strip("-")
    await cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, uid=None, force=False, dry_run=False
    )
    return name


def config_map(namespace: str, name: str, label: str = "x", **data: str) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {OWNER: label}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def create(cluster: KubeCluster, manifest: Manifest) -> Manifest:
    return await cluster.apply(manifest, uid=None, force=False, dry_run=False)


async def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait until `condition` holds; what takes longer than `within_s` counts as never."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - nothing tells when the condition may have changed
            await asyncio.sleep(0.02)


@on_a_loop
async def test_objects_round_trip(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        assert re.match(r"v1\.\d+", await cluster.server_version())
        namespace = await namespace_for(cluster, request)
        manifest = config_map(namespace, "a", k="v")
        key = ObjectKey.of(manifest)
        assert await cluster.get("v1", key) is None
        rehearsed = await cluster.apply(manifest, uid=None, force=False, dry_run=True)
        assert rehearsed["data"] == {"k": "v"}
        assert await cluster.get("v1", key) is None
        created = await create(cluster, manifest)
        live = await cluster.get("v1", key)
        assert live == created
        assert [entry["manager"] for entry in created["metadata"]["managedFields"]] == ["reconciler"]
        uid = created["metadata"]["uid"]
        same = await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
        assert same["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        with pytest.raises(errors.ObjectConflictError):
            await cluster.apply(manifest, uid="00000000", force=True, dry_run=False)
        with pytest.raises(errors.ObjectConflictError):
            await cluster.apply(config_map(namespace, "b"), uid=uid, force=True, dry_run=False)
        with pytest.raises(errors.ObjectConflictError):
            await cluster.apply(manifest, uid=uid, force=True, dry_run=False, resource_version="1")
        with pytest.raises(errors.ObjectConflictError):
            await cluster.delete("v1", key, "00000000")
        assert await cluster.delete("v1", key, uid) is True
        assert await cluster.delete("v1", key, uid) is True
        assert await cluster.get("v1", key) is None


@on_a_loop
async def test_a_finalizer_holds_a_deletion_back(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        manifest = config_map(await namespace_for(cluster, request), "a")
        manifest["metadata"]["finalizers"] = ["reconciler.dev/test"]
        created = await create(cluster, manifest)
        uid, key = created["metadata"]["uid"], ObjectKey.of(manifest)
        assert await cluster.delete("v1", key, uid) is False
        live = await cluster.get("v1", key)
        assert live is not None
        assert live["metadata"]["deletionTimestamp"]
        # Letting go of it: we are the only owner, so an apply without it removes it.
        await cluster.apply(config_map(key.namespace, "a"), uid=uid, force=True, dry_run=False)
        assert await cluster.get("v1", key) is None


@on_a_loop
async def test_refusals_are_told_apart(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        namespace = await namespace_for(cluster, request)
        flink: Manifest = {
            "apiVersion": FLINK,
            "kind": "FlinkDeployment",
            "metadata": {"name": "f", "namespace": namespace},
        }
        cases: list[tuple[Manifest, type[errors.KubeError]]] = [
            (config_map("no-such-namespace", "a"), errors.NamespaceMissingError),
            ({**config_map(namespace, "a"), "kind": "Nothing"}, errors.KindMissingError),
            ({**config_map(namespace, "a"), "apiVersion": "v7"}, errors.KindMissingError),
            ({**config_map(namespace, "a"), "apiVersion": "nope.example.com/v1"}, errors.KindMissingError),
            ({**config_map(namespace, "a"), "surprise": 1}, errors.SchemaMismatchError),
            ({**flink, "spec": {"surprise": 1}}, errors.SchemaMismatchError),
            ({**flink, "spec": {"flinkVersion": "v0_1"}}, errors.InvalidError),
            (config_map(namespace, "Not_A_Name"), errors.InvalidError),
            (config_map("", "a"), errors.InvalidError),
        ]
        for manifest, expected in cases:
            with pytest.raises(errors.KubeError) as caught:
                await create(cluster, manifest)
            assert type(caught.value) is expected, caught.value
            assert caught.value.permanent
        before = await create(cluster, config_map(namespace, "a", k="v"))
        other = KubeCluster("real", cluster._transport, field_manager="kubectl-edit")
        uid = before["metadata"]["uid"]
        await other.apply(config_map(namespace, "a", k="w"), uid=uid, force=True, dry_run=False)
        with pytest.raises(errors.FieldConflictError) as conflict:
            await cluster.apply(config_map(namespace, "a", k="v"), uid=uid, force=False, dry_run=False)
        assert conflict.value.fields == (("kubectl-edit", ".data.k"),)


@on_a_loop
async def test_secrets_stay_secret_in_errors(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        metadata = {"name": "s", "namespace": await namespace_for(cluster, request)}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": "hunter2!!"}}
        with pytest.raises(errors.SchemaMismatchError) as caught:
            await create(cluster, secret)
        assert "hunter2" not in str(caught.value)
        kind = {**secret, "data": {}, "type": "kubernetes.io/tls"}
        with pytest.raises(errors.InvalidError) as invalid:
            await create(cluster, kind)
        assert invalid.value.fields == ("data[tls.crt]", "data[tls.key]")


@on_a_loop
async def test_users_without_rights(control_plane: ControlPlane) -> None:
    key = ObjectKey("", "ConfigMap", "default", "a")
    async with connected(control_plane, "stranger") as cluster:
        with pytest.raises(errors.ForbiddenError):
            await cluster.get("v1", key)
        with pytest.raises(errors.ForbiddenError):
            await cluster.list_versions("v1", "ConfigMap")


@on_a_loop
async def test_lists_in_pages_and_by_versions(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        namespace = await namespace_for(cluster, request)
        made = [await create(cluster, config_map(namespace, f"a{number}", label="pages")) for number in range(7)]
        await create(cluster, config_map(namespace, "other", label="elsewhere"))
        sizes, objects, versions = [], [], set()
        async with aclosing(cluster.list_pages("v1", "ConfigMap", f"{OWNER}=pages", limit=3)) as pages:
            async for page in pages:
                sizes.append(len(page.objects))
                objects += page.objects
                versions.add(page.resource_version)
        assert (sizes, len(versions)) == ([3, 3, 1], 1)
        assert objects == made
        version, rows = await cluster.list_versions("v1", "ConfigMap", f"{OWNER}=pages")
        assert int(version) >= int(made[-1]["metadata"]["resourceVersion"])
        expected = [(ObjectKey.of(each), each["metadata"]["uid"], each["metadata"]["resourceVersion"]) for each in made]
        assert [tuple(row) for row in rows] == expected
        assert await cluster.list_versions("v1", "ConfigMap", f"{OWNER}=nobody") == (version, [])


@on_a_loop
async def test_tables_carry_what_versions_need_only_with_metadata(control_plane: ControlPlane) -> None:
    """The reason for metadata lists: a Table without objects names neither uid nor resourceVersion nor namespace."""
    async with connected(control_plane) as cluster:
        await create(cluster, config_map("default", "table"))
        accept = (("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),)
        for include, names_versions in (("None", False), ("Metadata", True)):
            answer = await cluster._transport.request(
                Request("GET", "/api/v1/configmaps", (("includeObject", include),), accept)
            )
            assert (b'"uid"' in answer.body) is names_versions


@on_a_loop
async def test_watch(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    async with connected(control_plane) as cluster:
        namespace = await namespace_for(cluster, request)
        selector = f"{OWNER}=watch"
        version, _ = await cluster.list_versions("v1", "ConfigMap", selector)
        opened: list[bool] = []
        watch = cluster.watch("v1", "ConfigMap", selector, version, idle_s=60, on_open=lambda: opened.append(True))
        async with aclosing(watch):
            first = await create(cluster, config_map(namespace, "a", label="watch"))
            event = await anext(watch)
            assert opened == [True]
            assert (event.type, event.object) == ("ADDED", first)
            uid = first["metadata"]["uid"]
            second = await cluster.apply(
                config_map(namespace, "a", label="watch", k="v" * 900_000), uid=uid, force=True, dry_run=False
            )
            event = await anext(watch)
            assert (event.type, event.object) == ("MODIFIED", second)
            await cluster.apply(config_map(namespace, "a", label="gone"), uid=uid, force=True, dry_run=False)
            event = await anext(watch)
            assert (event.type, event.key) == ("DELETED", ObjectKey.of(first))


@on_a_loop
async def test_the_observer_follows_a_real_cluster(control_plane: ControlPlane, request: pytest.FixtureRequest) -> None:
    failures: list[BaseException] = []
    changed: list[ObjectKey] = []

    def note(keys: Sequence[ObjectKey]) -> None:
        changed.extend(keys)

    async with connected(control_plane) as cluster:
        namespace = await namespace_for(cluster, request)
        before = await create(cluster, config_map(namespace, "before", label="observed"))
        scope = Scope("test", on_failure=lambda _name, error: failures.append(error))
        observer = Observer(
            cluster,
            clock=WallClock(1, asyncio.get_running_loop()),
            scope=scope,
            selector=f"{OWNER}=observed",
            jitter=Random(3).random,
            on_change=note,
            on_heard=lambda: None,
            check_interval_s=0.2,
        )
        config, flink = Kind("v1", "ConfigMap"), Kind(FLINK, "FlinkDeployment")
        observer.set_kinds([config, flink])
        assert observer.live(ObjectKey.of(before)) is NOT_SEEN
        await eventually(lambda: observer.live(ObjectKey.of(before)) == before)
        created = await create(cluster, config_map(namespace, "after", label="observed"))
        key, uid = ObjectKey.of(created), created["metadata"]["uid"]
        await eventually(lambda: observer.live(key) == created)
        # The label goes: on the watch this is a deletion, but the object is there.
        bare = await cluster.apply(config_map(namespace, "after", label="else"), uid=uid, force=True, dry_run=False)
        await eventually(lambda: observer.live(key) == bare)
        await cluster.delete("v1", key, uid)
        observer.gone(key)
        assert observer.live(key) is None
        await cluster.delete("v1", ObjectKey.of(before), before["metadata"]["uid"])
        await eventually(lambda: observer.live(ObjectKey.of(before)) is None)
        # A quiet cluster is checked by lists, and stays current.
        started = observer.observed_at(flink.group_kind) or 0.0
        await eventually(lambda: (observer.observed_at(flink.group_kind) or 0.0) > started + 0.5)
        assert observer.problem(config.group_kind) is None
        assert set(changed) == {key, ObjectKey.of(before)}
        assert await scope.close(timeout_s=5) == ()
    assert failures == []
