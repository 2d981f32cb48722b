"""The rights that are shipped in deploy/, on a real API server: installed as its README says, used as the daemon does.

install(plane, CLUSTER_ACCESS, FLEET)
path = daemon_kubeconfig(plane, tmp_path / "kubeconfig")
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from pathlib import Path
from typing import Any

from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.yaml_kube import load
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.transport import Request, Response, Stream, Transport
from tests.control_plane.server import ControlPlane, call, write_kubeconfig

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CLUSTER_ACCESS = DEPLOY / "cluster-access"
SECRETS = CLUSTER_ACCESS / "secrets"
FLEET = DEPLOY / "tenants" / "fleet"
PAYMENTS = DEPLOY / "tenants" / "payments"
EVERYTHING = (CLUSTER_ACCESS, SECRETS, FLEET, PAYMENTS)
OWNER = "reconciler.dev/owner"
DAEMON = "system:serviceaccount:reconciler-system:reconciler"

#: (who was impersonated or "", group, resource, verb) of a request, as an authorizer sees it.
Used = tuple[str, str, str, str]
#: (group, resource) -> verbs.
Verbs = dict[tuple[str, str], set[str]]


def documents(path: Path) -> list[Manifest]:
    """The objects in one file."""
    loaded = load(str(path), path.read_bytes())
    assert loaded.problems == ()
    return [document.value for document in loaded.documents]


def shipped(*directories: Path) -> list[Manifest]:
    """The objects of kustomizations, in order."""
    found = []
    for directory in directories:
        (kustomization,) = documents(directory / "kustomization.yaml")
        for name in kustomization["resources"]:
            found += documents(directory / name)
    return found


def granted(*roles: str) -> Verbs:
    """What the named ClusterRoles grant together."""
    verbs: Verbs = defaultdict(set)
    everything = shipped(*EVERYTHING)
    found = [each for each in everything if each["kind"] == "ClusterRole" and each["metadata"]["name"] in roles]
    assert len(found) == len(roles)
    for role in found:
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    verbs[group, resource] |= set(rule["verbs"])
    return dict(verbs)


def by_resource(used: Iterable[Used], who: str) -> Verbs:
    """What `who` used."""
    verbs: Verbs = defaultdict(set)
    for user, group, resource, verb in used:
        if user == who:
            verbs[group, resource].add(verb)
    return dict(verbs)


async def apply_as_a_person(admin: KubeCluster, manifest: Manifest, *, dry_run: bool = False) -> None:
    """Apply `manifest` whether it is there or not, whoever made it."""
    there = await admin.get(manifest["apiVersion"], ObjectKey.of(manifest))
    uid = there["metadata"]["uid"] if there is not None else None
    await admin.apply(manifest, uid=uid, force=uid is not None, dry_run=dry_run)


def install(plane: ControlPlane, *directories: Path, change: Callable[[Manifest], None] | None = None) -> None:
    """Apply kustomizations as an administrator would; `change` may change each object before."""

    async def play() -> None:
        admin = KubeCluster("admin", await transport_from_kubeconfig(plane.kubeconfig))
        try:
            for manifest in manifests:
                await apply_as_a_person(admin, manifest)
        finally:
            await admin.close()

    manifests = shipped(*directories)
    for manifest in manifests:
        if change is not None:
            change(manifest)
    asyncio.run(play())
    wait_until_decided_by(plane, manifests)


def wait_until_decided_by(plane: ControlPlane, manifests: list[Manifest]) -> None:
    """The authorizer hears of a binding a moment after it was made: wait until it allows what the first rule says."""
    everything = [*shipped(*EVERYTHING), *manifests]
    roles = {each["metadata"]["name"]: each for each in everything if each["kind"] == "ClusterRole"}
    for binding in manifests:
        for subject in binding.get("subjects", ()):
            user = DAEMON if subject["kind"] == "ServiceAccount" else subject["name"]
            rule = roles[binding["roleRef"]["name"]]["rules"][0]
            asked = {
                "group": rule["apiGroups"][0],
                "resource": rule["resources"][0],
                "verb": rule["verbs"][0],
                "namespace": binding["metadata"].get("namespace", ""),
                "name": rule.get("resourceNames", [""])[0],
            }
            wait_until(partial(is_allowed, plane, user, asked))


def is_allowed(plane: ControlPlane, user: str, attributes: dict[str, str]) -> bool:
    """What the real authorizer says."""
    body = {"spec": {"user": user, "resourceAttributes": attributes}}
    status, answer = call(plane, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    assert status == 201, answer
    return bool(answer["status"]["allowed"])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; what takes longer than a minute counts as never."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def daemon_token(plane: ControlPlane) -> str:
    """A token of the daemon's service account."""
    return plane.service_account_token(*DAEMON.split(":")[2:])


def daemon_kubeconfig(plane: ControlPlane, path: Path) -> Path:
    """A kubeconfig of the daemon's service account, written to `path`."""
    authority = json.loads(plane.kubeconfig.read_text())["clusters"][0]["cluster"]["certificate-authority-data"]
    write_kubeconfig(path, plane.url, "reconciler", daemon_token(plane), {"certificate-authority-data": authority})
    return path


class Recorded:
    """A transport that notes each request as the authorizer sees it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.used: set[Used] = set()

    def _note(self, request: Request, created: bool = False) -> None:
        parts = request.path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            rest = rest[2:]
        if not rest:
            return  # discovery: every authenticated user may ask
        verb = {"PATCH": "patch", "DELETE": "delete", "GET": "get" if len(rest) > 1 else "list"}[request.method]
        if ("watch", "1") in request.query:
            verb = "watch"
        who = dict(request.headers).get("Impersonate-User", "")
        self.used.add((who, group, rest[0], verb))
        if created:
            self.used.add((who, group, rest[0], "create"))

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        answer = await self._inner.request(request)
        self._note(request, created=answer.status == 201)
        return answer

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        self._note(request)
        return self._inner.stream(request)

    async def close(self) -> None:
        """As Transport.close."""
        await self._inner.close()


def _pod_template() -> Manifest:
    containers = [{"name": "main", "image": "registry.example.com/main:1"}]
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers}}


def specimens(namespace: str) -> Iterator[Manifest]:
    """One object of each kind in the roles, as it would be declared: the namespace first."""
    job = {"template": _pod_template()}
    job["template"]["spec"]["restartPolicy"] = "Never"
    workload = {"selector": {"matchLabels": {"app": "x"}}, "template": _pod_template()}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    service = {"port": 80, "protocol": "TCP"}
    backend = {"service": {"name": "x", "port": {"number": 80}}}
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("flink.apache.org/v1beta1", "FlinkDeployment", {"spec": {"flinkVersion": "v1_20"}}),
        ("flink.apache.org/v1beta1", "FlinkSessionJob", {"spec": {"deploymentName": "x"}}),
        ("v1", "ConfigMap", {"data": {"a": "b"}}),
        ("v1", "Service", {"spec": {"ports": [service]}}),
        ("v1", "ServiceAccount", {}),
        ("v1", "PersistentVolumeClaim", {"spec": claim}),
        ("apps/v1", "Deployment", {"spec": workload}),
        ("apps/v1", "StatefulSet", {"spec": {**workload, "serviceName": "x"}}),
        ("apps/v1", "DaemonSet", {"spec": workload}),
        ("batch/v1", "Job", {"spec": job}),
        ("batch/v1", "CronJob", {"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": job}}}),
        ("autoscaling/v2", "HorizontalPodAutoscaler", {"spec": {"maxReplicas": 2, "scaleTargetRef": scaled}}),
        ("policy/v1", "PodDisruptionBudget", {"spec": {"maxUnavailable": 1}}),
        ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}),
        ("networking.k8s.io/v1", "Ingress", {"spec": {"defaultBackend": backend}}),
    ]
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    for api_version, kind, content in rows:
        yield {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": namespace}, **content}


async def use(cluster: KubeCluster, source: str, manifest: Manifest, *, delete: bool) -> None:
    """All that the daemon does to one object in its life."""
    api_version, key = str(manifest["apiVersion"]), ObjectKey.of(manifest)
    acting = cluster.acting_for(source)
    selector = f"{OWNER}={source}-test"
    manifest["metadata"]["labels"] = {OWNER: f"{source}-test"}
    assert await acting.get(api_version, key) is None
    created = await acting.apply(manifest, uid=None, force=False, dry_run=False)
    uid = created["metadata"]["uid"]
    await acting.apply(manifest, uid=uid, force=True, dry_run=True)
    await acting.apply(manifest, uid=uid, force=True, dry_run=False)
    version, rows = await cluster.list_versions(api_version, key.kind, selector)
    assert key in [row.key for row in rows]
    watch = cluster.watch(api_version, key.kind, selector, version, idle_s=60)
    async with aclosing(watch):
        manifest["metadata"]["labels"]["changed"] = "yes"
        await acting.apply(manifest, uid=uid, force=True, dry_run=False)
        assert (await anext(watch)).key == key
    if delete:
        await acting.delete(api_version, key, uid)
