"""Schemas of real API servers: unusual CRDs, one that is upgraded, and clusters of different age under one daemon."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell.cluster_schemas import ClusterSchemas, SchemaShelf
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import InvalidError, SchemaMismatchError
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.metrics import Metrics
from tests.contract.test_schemas import changed, changes, is_identity
from tests.control_plane import server
from tests.control_plane.build import Assets
from tests.control_plane.server import CRDS_PATH, ControlPlane, call
from tests.integration.live_fleet import APPLICATION, LiveFleet
from tests.integration.real_operator import GROUP, RealOperator

pytestmark = pytest.mark.controlplane

STRING: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
PRESERVES = {"x-kubernetes-preserve-unknown-fields": True}
EMBEDDED = {"type": "object", "x-kubernetes-embedded-resource": True}

ODD_SPEC: dict[str, Any] = {
    "empty": {"type": "object"},
    "open": {"type": "object", **PRESERVES, "properties": {"known": {"type": "object", "properties": {"a": STRING}}}},
    "any": PRESERVES,
    "embeddedOpen": {**EMBEDDED, **PRESERVES},
    "embedded": {**EMBEDDED, "properties": {"spec": {"type": "object", "properties": {"x": STRING}}}},
    "either": {"x-kubernetes-int-or-string": True},
    "when": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "id": {"type": "string", "format": "uuid"},
    "real": {"type": "number"},
    "flag": {"type": "boolean"},
    "anything": {"type": "object", "additionalProperties": True},
    "maps": {"type": "object", "additionalProperties": {"type": "object", "properties": {"p": NUMBER}}},
    "lists": {"type": "array", "items": {"type": "array", "items": NUMBER}},
    "nullable": {"type": "object", "nullable": True, "properties": {"q": STRING}},
    "oneOf": {
        "type": "object",
        "properties": {"a": STRING, "b": STRING},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
}
EMBEDDED_VALUE = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "labels": {"a": "b"}}}
ODD_VALUE: dict[str, Any] = {
    "empty": {},
    "open": {"known": {"a": "b"}, "unknown": {"x": 1}},
    "any": {"a": 1},
    "embeddedOpen": {**EMBEDDED_VALUE, "spec": {"z": 1}},
    "embedded": {**EMBEDDED_VALUE, "spec": {"x": "y"}},
    "either": 1,
    "when": "2020-01-01T00:00:00Z",
    "bytes": "aGk=",
    "id": "123e4567-e89b-12d3-a456-426614174000",
    "real": 1.5,
    "flag": True,
    "anything": {"a": 1, "b": {"c": 2}},
    "maps": {"m": {"p": 1}},
    "lists": [[1]],
    "nullable": None,
    "oneOf": {"a": "x"},
}


def crd(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A CRD of the tests' own group."""
    plural, group = f"{kind.lower()}s", "schemas.reconciler.dev"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def custom(kind: str, spec: dict[str, Any]) -> Manifest:
    metadata = {"name": "a", "namespace": "default"}
    return {"apiVersion": "schemas.reconciler.dev/v1", "kind": kind, "metadata": metadata, "spec": spec}


def upgrade(plane: ControlPlane, definition: dict[str, Any]) -> None:
    """Replace a CRD by a newer one."""
    path = f"{CRDS_PATH}/{definition['metadata']['name']}"
    live = call(plane, "GET", path)[1]
    live["spec"]["versions"] = definition["spec"]["versions"]
    status, answer = call(plane, "PUT", path, live)
    assert status == 200, answer


async def connected(plane: ControlPlane, shelf: SchemaShelf, name: str = "real") -> tuple[KubeCluster, ClusterSchemas]:
    kube = KubeCluster(name, await transport_from_kubeconfig(plane.kubeconfig))
    return kube, ClusterSchemas(kube, shelf, logging.getLogger("test"), Metrics("test"))


async def reasons(schemas: ClusterSchemas, *manifests: Manifest) -> list[str]:
    found = await schemas.reasons({ObjectKey.of(one): one for one in manifests})
    return [str(reason) for reason in found.values()]


async def taken(kube: KubeCluster, manifest: Manifest) -> bool:
    """True if the server would take it."""
    try:
        await kube.apply(manifest, uid=None, force=False, dry_run=True)
    except (SchemaMismatchError, InvalidError):
        return False
    return True


def test_unusual_schemas_say_no_more_than_the_server(control_plane: ControlPlane) -> None:
    server.install_crd(control_plane, crd("Odd", ODD_SPEC))

    async def compare() -> None:
        kube, schemas = await connected(control_plane, SchemaShelf())
        good = custom("Odd", ODD_VALUE)
        assert await taken(kube, good)
        assert await reasons(schemas, good) == []
        outcomes = set()
        # Which document the index names is settled: none of this asks the server again. It names that of a new
        # definition a moment after the definition is served.
        bad = custom("Odd", {**ODD_VALUE, "nobody-knows": 1})
        until = time.monotonic() + 60
        while not await reasons(schemas, bad):
            assert time.monotonic() < until, "the index does not name the document of the definition"
            await asyncio.sleep(0.2)
            await kube.schema_index(fresh=True)
        index = await kube.schema_index()
        for path, other in changes(good):
            if is_identity(path):
                continue
            body = changed(good, path, other)
            found = bool(await schemas._unfit({ObjectKey.of(body): body}, frozenset(), index))
            took = await taken(kube, body)
            assert not (found and took), (path, other)
            outcomes.add((found, took))
        assert outcomes == {(True, False), (False, True), (False, False)}
        await kube.close()

    asyncio.run(compare())


def test_an_upgraded_definition_is_seen_at_once_where_it_had_held_something_up(control_plane: ControlPlane) -> None:
    before, after = crd("Grown", {"a": STRING}), crd("Grown", {"a": STRING, "b": NUMBER})
    server.install_crd(control_plane, before)
    manifest = custom("Grown", {"a": "x", "b": 1})

    async def look() -> None:
        kube, schemas = await connected(control_plane, SchemaShelf(), "eu-1")
        async with asyncio.timeout(60):
            while not await reasons(schemas, manifest):
                await kube.schema_index(fresh=True)  # a definition that was just made is published a moment later
        (said,) = await reasons(schemas, custom("Grown", {"a": "x"}), manifest)
        assert said == (
            "SchemaMismatch: Grown.schemas.reconciler.dev default/a: spec.b is not a field in "
            f"schemas.reconciler.dev/v1 as cluster eu-1 (Kubernetes {await kube.server_version()}) serves it"
        )
        with pytest.raises(SchemaMismatchError):
            await kube.apply(manifest, uid=None, force=False, dry_run=True)
        missing = custom("Unheard", {})
        assert [one.partition(":")[0] for one in await reasons(schemas, missing)] == ["KindMissing"]
        upgrade(control_plane, after)
        async with asyncio.timeout(60):
            while await reasons(schemas, manifest):  # noqa: ASYNC110 - the server publishes it some time later
                await asyncio.sleep(0.05)
        assert await taken(kube, manifest)
        await kube.close()

    asyncio.run(look())


# ---- a whole daemon and two clusters -------------------------------------------------------------------------------

NAMESPACE = "schemas-real"
CONFIG = """\
  - name: notes
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, data: {image: "IMAGE"}}
"""
NOTES = f"/api/v1/namespaces/{NAMESPACE}/configmaps/notes"
DEPLOYMENT = f"{GROUP}/namespaces/{NAMESPACE}/flinkdeployments/orders"


def flink_crds(assets: Assets) -> dict[str, dict[str, Any]]:
    """The Flink operator's CRDs by kind."""
    found = [yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in assets.crds]
    return {one["spec"]["names"]["kind"]: one for one in found}


def without_arguments(definition: dict[str, Any]) -> dict[str, Any]:
    """The CRD as of a version that lacks a field."""
    older = copy.deepcopy(definition)
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["job"]["properties"]["args"]
    return older


def published(plane: ControlPlane) -> str:
    """Where the schemas of Flink's kinds are: it changes when they do."""
    return str(call(plane, "GET", "/openapi/v3")[1]["paths"]["apis/flink.apache.org/v1beta1"])


def test_two_clusters_of_different_age(control_plane: ControlPlane, assets: Assets, tmp_path: Path) -> None:
    text = APPLICATION.replace("namespace: orders", f"namespace: {NAMESPACE}")
    text = text.replace("  policies:\n", CONFIG + "  policies:\n")
    newer = {"apps/orders/app.yaml": text.replace("parallelism: 2}", "parallelism: 2, args: [fast]}")}
    with server.start(assets, flink_crds=False) as old_plane:
        newest = flink_crds(assets)
        for definition in {**newest, "FlinkDeployment": without_arguments(newest["FlinkDeployment"])}.values():
            server.install_crd(old_plane, definition)
        real = {"c1": control_plane.kubeconfig, "c2": old_plane.kubeconfig}
        with (
            LiveFleet(tmp_path, ["a1", "c1", "c2"], app=text, real=real) as fleet,
            RealOperator(control_plane, NAMESPACE),
            RealOperator(old_plane, NAMESPACE),
            fleet.daemon() as daemon,
        ):
            fleet.commit("orders:1")
            daemon.ready()
            fleet.until(fleet.settled, 90)

            def states() -> dict[str, tuple[str, str]]:
                waves = fleet.ask("rollout", "show", fleet.newest()["id"])["waves"]
                return {row["cluster"]: (row["state"], row["message"]) for wave in waves for row in wave["targets"]}

            version = call(old_plane, "GET", NOTES)[1]["metadata"]["resourceVersion"]
            fleet.commit("orders:2", **{name: body.replace("IMAGE", "orders:2") for name, body in newer.items()})
            fleet.until(lambda: fleet.newest().get("state") == "Active" and states()["c2"][0] == "Blocked", 90)
            fleet.until(lambda: states()["c1"][0] == "Succeeded", 90)
            assert "spec.job.args is not a field" in states()["c2"][1]
            assert call(control_plane, "GET", DEPLOYMENT)[1]["spec"]["job"]["args"] == ["fast"]
            # Nothing of it was written: the ConfigMap, which comes first and would fit, is as it was.
            assert call(old_plane, "GET", NOTES)[1]["metadata"]["resourceVersion"] == version
            before = published(old_plane)
            upgrade(old_plane, newest["FlinkDeployment"])
            fleet.until(lambda: published(old_plane) != before, 90)
            fleet.commit("orders:3", **{name: body.replace("IMAGE", "orders:3") for name, body in newer.items()})
            fleet.until(lambda: call(old_plane, "GET", DEPLOYMENT)[1]["spec"]["image"] == "orders:3", 90)
            fleet.until(fleet.settled, 90)
            assert call(old_plane, "GET", DEPLOYMENT)[1]["spec"]["job"]["args"] == ["fast"]
            assert daemon.stop() == 143
