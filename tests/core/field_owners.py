"""managedFields for tests: what the API server records when a manifest is applied.

A small model of its own, so that the comparison is not tested against itself; test_diff_schemas.py tests it against
the simulator's schemas as well.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from reconciler.core.model import Manifest

#: Lists whose items the server keeps apart by these keys; lists not named here are atomic.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
}
#: Of these the items are atomic.
ATOMIC_ITEMS = frozenset({"imagePullSecrets"})
SETS = frozenset({"finalizers"})
ATOMIC_MAPS = frozenset({"selector", "nodeSelector"})
_IDENTITY = ("apiVersion", "kind")


def fields_of(value: Any, name: str = "") -> dict[str, Any]:
    """The fieldsV1 node of `value`, which stands in a field called `name`."""
    if isinstance(value, dict) and value and name not in ATOMIC_MAPS:
        return {f"f:{key}": fields_of(below, key) for key, below in value.items()}
    if isinstance(value, list) and value and name in LIST_KEYS:
        found: dict[str, Any] = {}
        for item in value:
            key = {field: item[field] for field in LIST_KEYS[name]}
            below = {} if name in ATOMIC_ITEMS else {".": {}, **fields_of(item)}
            found["k:" + json.dumps(key, separators=(",", ":"))] = below
        return found
    if isinstance(value, list) and value and name in SETS:
        return {"v:" + json.dumps(item): {} for item in value}
    return {}


def entry(manifest: Manifest, manager: str = "reconciler", operation: str = "Apply", **more: Any) -> dict[str, Any]:
    """One managedFields entry for what `manifest` declares."""
    declared = {name: value for name, value in manifest.items() if name not in _IDENTITY}
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in ("name", "namespace")}
    if metadata:
        declared["metadata"] = metadata
    else:
        declared.pop("metadata", None)
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": manifest["apiVersion"],
        "time": "2026-03-01T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields_of(declared),
        **more,
    }


def applied(manifest: Manifest, *others: dict[str, Any]) -> Manifest:
    """The live object right after `manifest` was applied; `others` are more managedFields entries."""
    live = copy.deepcopy(manifest)
    live["metadata"].update(uid="0d1f", resourceVersion="7", generation=1, managedFields=[entry(manifest), *others])
    live["status"] = {"observedGeneration": 1}
    return live


def deployment() -> Manifest:
    """A Deployment with everything that makes comparing it interesting."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "labels": {"app": "web", "reconciler.dev/owner": "abc"},
            "annotations": {"reconciler.dev/application": "fleet/web"},
            "finalizers": ["example.com/keep"],
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": "web:1",
                            "args": ["--a", "--b"],
                            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                        },
                        {"name": "side", "image": "side:1"},
                    ],
                    "tolerations": [{"key": "k", "operator": "Exists"}],
                    "hostNetwork": True,
                },
            },
        },
    }


def flink_deployment() -> Manifest:
    """A FlinkDeployment as a component compiles to."""
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": "orders", "namespace": "orders", "labels": {"reconciler.dev/owner": "abc"}},
        "spec": {
            "image": "orders:1",
            "flinkVersion": "v2_0",
            "serviceAccount": "flink",
            "flinkConfiguration": {"taskmanager.numberOfTaskSlots": "2", "execution.checkpointing.interval": "60s"},
            "jobManager": {"resource": {"cpu": 1, "memory": "2048m"}},
            "taskManager": {"resource": {"cpu": 0.5, "memory": "2048m"}, "replicas": 1},
            "job": {"jarURI": "local:///a.jar", "parallelism": 4, "upgradeMode": "savepoint", "args": ["--x", "1"]},
        },
    }
