"""Verdicts on what the real kube-controller-manager makes of objects: no fixture knows better than it does.

One control plane of this module's own, for the shared one has no controllers. No kubelet runs there, so that no pod
ever starts; everything is created at once, and each test waits until its verdict is there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core.health import evaluate
from reconciler.core.model import Facts, Manifest
from tests.control_plane import build, server
from tests.control_plane.server import CRDS_PATH, ControlPlane, call

pytestmark = pytest.mark.controlplane

NAMESPACE = "controllers"
APPS, BATCH, SCALING = "/apis/apps/v1", "/apis/batch/v1", "/apis/autoscaling"


def _pods(app: str) -> dict[str, Any]:
    containers = [{"name": "main", "image": "registry.example.com/none:1"}]
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers}}


def _workload(kind: str, name: str, **spec: Any) -> Manifest:
    selector = {"matchLabels": {"app": name}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": selector, "template": _pods(name), **spec},
    }


def _claim(name: str, storage_class: str) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"storageClassName": storage_class, **spec},
    }


def _volume(name: str, storage_class: str) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/srv"}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"storageClassName": storage_class, **spec},
    }


def _autoscaler(name: str, target: str) -> Manifest:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": reference, "metrics": [metric]},
    }


def _cron_job(name: str, *, suspend: bool) -> Manifest:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example.com/none:1"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": "0 3 1 1 *", "suspend": suspend, "jobTemplate": {"spec": {"template": {"spec": pod}}}},
    }


def _budget(name: str, app: str) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}},
    }


def _definition(plural: str, kind: str) -> Manifest:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": plural[:-1], "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.health.example.org"},
        "spec": {"group": "health.example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }


API_SERVICE: Manifest = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1.absent.example.org"},
    "spec": {
        "group": "absent.example.org",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 1,
        "insecureSkipTLSVerify": True,
        "service": {"namespace": NAMESPACE, "name": "absent"},
    },
}
INGRESS: Manifest = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "web"},
    "spec": {"ingressClassName": "none", "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
}
SERVICE: Manifest = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
}
CONTROLLER: Manifest = {
    "apiVersion": "v1",
    "kind": "ReplicationController",
    "metadata": {"name": "old"},
    "spec": {"replicas": 1, "selector": {"app": "old"}, "template": _pods("old")},
}

_IN = f"/namespaces/{NAMESPACE}"
#: What is created, by a name of its own, in this order.
OBJECTS: dict[str, tuple[str, Manifest]] = {
    "replica-set": (f"{APPS}{_IN}/replicasets", _workload("ReplicaSet", "rs", replicas=2)),
    "no-replicas": (f"{APPS}{_IN}/replicasets", _workload("ReplicaSet", "none", replicas=0)),
    "replication-controller": (f"/api/v1{_IN}/replicationcontrollers", CONTROLLER),
    "stateful-set": (f"{APPS}{_IN}/statefulsets", _workload("StatefulSet", "db", serviceName="db", replicas=1)),
    "daemon-set": (f"{APPS}{_IN}/daemonsets", _workload("DaemonSet", "agent")),
    "deployment": (f"{APPS}{_IN}/deployments", _workload("Deployment", "slow", progressDeadlineSeconds=1)),
    "unbound": (f"/api/v1{_IN}/persistentvolumeclaims", _claim("unbound", "none")),
    "volume": ("/api/v1/persistentvolumes", _volume("health-disk", "by-hand")),
    "spare": ("/api/v1/persistentvolumes", _volume("health-spare", "spare")),
    "bound": (f"/api/v1{_IN}/persistentvolumeclaims", _claim("bound", "by-hand")),
    "autoscaler": (f"{SCALING}/v2{_IN}/horizontalpodautoscalers", _autoscaler("slow", "slow")),
    "no-target": (f"{SCALING}/v2{_IN}/horizontalpodautoscalers", _autoscaler("absent", "absent")),
    "cron-job": (f"{BATCH}{_IN}/cronjobs", _cron_job("yearly", suspend=False)),
    "suspended-cron-job": (f"{BATCH}{_IN}/cronjobs", _cron_job("never", suspend=True)),
    "budget": (f"/apis/policy/v1{_IN}/poddisruptionbudgets", _budget("rs", "rs")),
    "budget-of-nothing": (f"/apis/policy/v1{_IN}/poddisruptionbudgets", _budget("nothing", "nothing")),
    "definition": (CRDS_PATH, _definition("gadgets", "Gadget")),
    "definition-refused": (CRDS_PATH, _definition("gizmos", "Gadget")),
    "api-service": ("/apis/apiregistration.k8s.io/v1/apiservices", API_SERVICE),
    "ingress": (f"/apis/networking.k8s.io/v1{_IN}/ingresses", INGRESS),
    "service": (f"/api/v1{_IN}/services", SERVICE),
    "node": ("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "health-node"}}),
}
#: Health and reason of each once its controller has done what it can.
VERDICTS: dict[str, tuple[str, str]] = {
    "replica-set": ("Progressing", "RollingOut"),
    "no-replicas": ("Healthy", "Available"),
    "replication-controller": ("Progressing", "RollingOut"),
    "stateful-set": ("Progressing", "RollingOut"),
    "daemon-set": ("Progressing", "RollingOut"),
    "deployment": ("Degraded", "ProgressDeadlineExceeded"),
    "unbound": ("Progressing", "NotBound"),
    "volume": ("Healthy", "Bound"),
    "spare": ("Healthy", "Available"),
    "bound": ("Healthy", "Bound"),
    "autoscaler": ("Progressing", "FailedGetResourceMetric"),
    "no-target": ("Progressing", "FailedGetScale"),
    "cron-job": ("Healthy", "Scheduled"),
    "suspended-cron-job": ("Suspended", "Suspended"),
    "budget": ("Progressing", "TooFewPods"),
    "budget-of-nothing": ("Healthy", "EnoughPods"),
    "definition": ("Healthy", "Established"),
    "definition-refused": ("Degraded", "ListKindConflict"),
    "api-service": ("Progressing", "ServiceNotFound"),
    "ingress": ("Progressing", "NoAddress"),
    "service": ("Progressing", "NoAddress"),
    "node": ("Progressing", "NotReady"),
}
#: What its controller writes once it has looked: no verdict counts before.
LOOKED_AT: dict[str, str] = {
    "replica-set": "replicas",
    "replication-controller": "replicas",
    "stateful-set": "replicas",
    "daemon-set": "desiredNumberScheduled",
    "budget": "expectedPods",
    "budget-of-nothing": "expectedPods",
}
WAIT_S = 120.0


@pytest.fixture(scope="module")
def plane(assets: build.Assets) -> Iterator[ControlPlane]:
    """A control plane with controllers, in which everything was created."""
    if assets.controller_manager is None:
        pytest.skip("this control plane has no kube-controller-manager")
    with server.start(assets, controller_manager=True, flink_crds=False) as started:
        status, _ = call(started, "POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        assert status == 201
        for name, (path, manifest) in OBJECTS.items():
            status, answer = call(started, "POST", path, copy.deepcopy(manifest))
            assert status == 201, (name, answer)
        yield started


def read(plane: ControlPlane, path: str, manifest: Manifest) -> Manifest:
    """The object as it is live."""
    status, found = call(plane, "GET", f"{path}/{manifest['metadata']['name']}")
    assert status == 200, found
    assert isinstance(found, dict)
    return found


def verdict(live: Manifest) -> tuple[str, str]:
    """Health and reason of a first look."""
    found, reason, _ = evaluate(live, Facts(), time.time())
    return str(found), reason.code


def awaited(plane: ControlPlane, path: str, manifest: Manifest, wanted: tuple[str, str], looked: str = "") -> Manifest:
    """The object once it is judged like this, `looked` being a field of its status that has to be there."""
    until_s = time.monotonic() + WAIT_S
    while True:
        live = read(plane, path, manifest)
        found = verdict(live)
        if found == wanted and (not looked or looked in (live.get("status") or {})):
            return live
        if time.monotonic() > until_s:
            pytest.fail(f"it is {found}, not {wanted}: {live.get('status')}")
        time.sleep(0.1)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_verdict_on_what_a_controller_made(plane: ControlPlane, name: str) -> None:
    path, manifest = OBJECTS[name]
    awaited(plane, path, manifest, VERDICTS[name], LOOKED_AT.get(name, ""))


def test_an_autoscaler_says_the_same_at_version_1(plane: ControlPlane) -> None:
    path, manifest = OBJECTS["autoscaler"]
    awaited(plane, path, manifest, VERDICTS["autoscaler"])
    old = read(plane, path.replace("/v2/", "/v1/"), manifest)
    assert old["apiVersion"] == "autoscaling/v1"
    assert "conditions" not in old["status"]
    assert verdict(old) == VERDICTS["autoscaler"]


def test_what_waits_too_long_is_degraded(plane: ControlPlane) -> None:
    for name in ("unbound", "autoscaler", "budget", "ingress", "api-service"):
        path, manifest = OBJECTS[name]
        live = awaited(plane, path, manifest, VERDICTS[name], LOOKED_AT.get(name, ""))
        _, _, facts = evaluate(live, Facts(), 1000.0)
        found, reason, _ = evaluate(live, facts, 1000.0 + 600)
        assert (str(found), reason.code) == ("Degraded", VERDICTS[name][1])


def test_a_run_of_a_cron_job_that_fails(plane: ControlPlane) -> None:
    """There is no kubelet: the test plays its part and says that the pod has failed."""
    manifest = _cron_job("each-minute", suspend=False)
    manifest["spec"]["schedule"] = "* * * * *"
    manifest["spec"]["jobTemplate"]["spec"]["backoffLimit"] = 0
    path = f"{BATCH}{_IN}/cronjobs"
    assert call(plane, "POST", path, manifest)[0] == 201
    live = awaited(plane, path, manifest, ("Healthy", "Running"))
    # One run is enough: what it came to is what stays.
    while True:
        now = read(plane, path, manifest)
        status, _ = call(plane, "PUT", f"{path}/each-minute", {**now, "spec": {**now["spec"], "suspend": True}})
        assert status in (200, 409)
        if status == 200:
            break
    job = live["status"]["active"][0]["name"]
    pods: list[Manifest] = []
    while not pods:
        pods = call(plane, "GET", f"/api/v1{_IN}/pods?labelSelector=job-name={job}")[1]["items"]
    for pod in pods:
        pod["status"]["phase"] = "Failed"
        assert call(plane, "PUT", f"/api/v1{_IN}/pods/{pod['metadata']['name']}/status", pod)[0] == 200
    awaited(plane, path, manifest, ("Suspended", "Suspended"))
    until_s = time.monotonic() + WAIT_S
    while (ended := read(plane, path, manifest))["status"].get("active"):
        assert time.monotonic() < until_s
        time.sleep(0.1)
    # As it would look had nobody written it since.
    ended["spec"]["suspend"] = False
    ended["metadata"]["managedFields"] = live["metadata"]["managedFields"]
    assert verdict(ended) == ("Degraded", "LastRunFailed")
    assert "lastSuccessfulTime" not in ended["status"]


def test_what_is_being_deleted_is_progressing(plane: ControlPlane) -> None:
    body = {"metadata": {"name": "health-leaving"}}
    assert call(plane, "POST", "/api/v1/namespaces", body)[0] == 201
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/hold"]}}
    path = "/api/v1/namespaces/health-leaving/configmaps"
    assert call(plane, "POST", path, held)[0] == 201
    assert call(plane, "DELETE", "/api/v1/namespaces/health-leaving")[0] == 200
    namespace: Manifest = {"metadata": {"name": "health-leaving"}}
    awaited(plane, "/api/v1/namespaces", namespace, ("Progressing", "Deleting"))
    awaited(plane, path, held, ("Progressing", "Deleting"))
    live = read(plane, path, held)
    live["metadata"]["finalizers"] = []
    assert call(plane, "PUT", f"{path}/held", live)[0] in (200, 404)
