"""The comparison against managedFields made from the real server's schemas, as the simulator knows them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.core.diff import compare
from reconciler.core.model import Manifest, Sync
from reconciler.sim.merge import field_set
from reconciler.sim.schema import load_catalog
from tests.core.field_owners import deployment, flink_deployment

_SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}]},
}
_CONFIG_MAP: Manifest = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "shop"},
    "data": {"a.properties": "x=1"},
}

CASES = {
    "deployment": (deployment(), "apps", "v1", "deployments"),
    "flink": (flink_deployment(), "flink.apache.org", "v1beta1", "flinkdeployments"),
    "service": (_SERVICE, "", "v1", "services"),
    "config map": (_CONFIG_MAP, "", "v1", "configmaps"),
}


def _applied(manifest: Manifest, group: str, version: str, plural: str) -> Manifest:
    resource = load_catalog().resource(group, version, plural)
    assert resource is not None
    node = resource.node
    declared = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in ("name", "namespace")}
    declared = {**declared, "metadata": metadata} if metadata else _without_metadata(declared)
    live = copy.deepcopy(manifest)
    live["metadata"]["managedFields"] = [
        {
            "manager": "reconciler",
            "operation": "Apply",
            "apiVersion": manifest["apiVersion"],
            "fieldsV1": field_set(node, declared),
        }
    ]
    return live


def _without_metadata(manifest: Manifest) -> Manifest:
    return {name: value for name, value in manifest.items() if name != "metadata"}


@pytest.mark.parametrize("name", CASES)
def test_what_was_just_applied_is_in_sync(name: str) -> None:
    manifest, group, version, plural = CASES[name]
    assert compare(manifest, _applied(manifest, group, version, plural)).sync is Sync.IN_SYNC


@pytest.mark.parametrize("name", CASES)
def test_every_leaf_counts(name: str) -> None:
    manifest, group, version, plural = CASES[name]
    live = _applied(manifest, group, version, plural)
    places = [
        path
        for path in _leaves(manifest)
        if path[0] not in ("apiVersion", "kind") and path[:2] not in (("metadata", "name"), ("metadata", "namespace"))
    ]
    assert places
    for path in places:
        changed = copy.deepcopy(live)
        holder: Any = changed
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = "changed"
        assert compare(manifest, changed).sync in (Sync.DIFFERS, Sync.ASK), path


def test_a_port_without_protocol_is_the_one_that_was_defaulted() -> None:
    """The server keys the item by the defaulted protocol, which the manifest does not have."""
    manifest = deployment()
    ports = manifest["spec"]["template"]["spec"]["containers"][0]["ports"]
    del ports[0]["protocol"]
    live = _applied(manifest, "apps", "v1", "deployments")
    live["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    assert compare(manifest, live).sync is Sync.IN_SYNC


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for name, below in value.items() for leaf in _leaves(below, (*path, name))]
    if isinstance(value, list):
        return [leaf for index, below in enumerate(value) for leaf in _leaves(below, (*path, index))]
    return [path]
