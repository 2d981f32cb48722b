"""What stands in deploy/: manifests that parse, settings that the daemon reads, rights that are exactly those used."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.inventory import NEVER_PRUNED
from reconciler.core.model import Manifest, ObjectKey
from reconciler.core.yaml_kube import load
from reconciler.settings import load_settings
from reconciler.shell import kube_errors as errors
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.transport import Request, Response, Stream, Transport
from tests.control_plane.server import ControlPlane, write_kubeconfig

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ACCESS = DEPLOY / "cluster-access" / "access.yaml"
OWNER = "reconciler.dev/owner"


def documents(path: Path) -> list[Manifest]:
    loaded = load(str(path), path.read_bytes())
    assert loaded.problems == ()
    return [document.value for document in loaded.documents]


def of_kind(path: Path, kind: str) -> Manifest:
    (found,) = [each for each in documents(path) if each["kind"] == kind]
    return found


def granted() -> dict[tuple[str, str], set[str]]:
    """(group, resource) -> the verbs that the role grants."""
    verbs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in of_kind(ACCESS, "ClusterRole")["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs[group, resource] |= set(rule["verbs"])
    return dict(verbs)


def test_every_manifest_parses_as_kubernetes_would_read_it() -> None:
    paths = sorted(DEPLOY.rglob("*.yaml"))
    assert len(paths) > 5
    for path in paths:
        assert documents(path), path


def test_a_kustomization_names_every_file_beside_it() -> None:
    for path in sorted(DEPLOY.rglob("kustomization.yaml")):
        (kustomization,) = documents(path)
        named = set(kustomization["resources"])
        for generator in kustomization.get("configMapGenerator", []):
            named |= set(generator["files"])
        assert named | {"kustomization.yaml"} == {each.name for each in path.parent.iterdir()}


def test_the_settings_in_the_config_map_are_valid() -> None:
    settings, problems = load_settings(DEPLOY / "kubernetes" / "reconciler.yaml", {})
    assert problems == ()
    assert settings is not None
    pod = of_kind(DEPLOY / "kubernetes" / "daemon.yaml", "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(settings.state_dir) == mounts["state"]
    assert settings.listen is not None
    assert settings.listen.port == container["ports"][0]["containerPort"]
    assert settings.token_file is not None
    assert str(settings.token_file.parent) == mounts["api"]
    assert all(str(each.kubeconfig.parent) == mounts["clusters"] for each in settings.clusters.values())
    (repository,) = settings.repositories
    assert str(repository.credentials.token_file).startswith(mounts["git"])
    assert container["args"][-1] == f"{mounts['settings']}/reconciler.yaml"


def test_the_pod_may_do_little() -> None:
    daemon = of_kind(DEPLOY / "kubernetes" / "daemon.yaml", "StatefulSet")
    assert daemon["spec"]["replicas"] == 1
    pod = daemon["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    uid = pod["securityContext"]["runAsUser"]
    assert f"USER {uid}:{pod['securityContext']['runAsGroup']}" in (DEPLOY / "Dockerfile").read_text().splitlines()


def test_the_image_installs_a_subset_of_the_lock() -> None:
    """What runs in the image is what was tested, to the hash."""

    def pins(path: Path) -> dict[str, tuple[str, ...]]:
        entries = re.split(r"\n(?=[a-z])", path.read_text().strip())
        return {re.split(r"[ \\]", entry)[0]: tuple(sorted(re.findall(r"sha256:\w{64}", entry))) for entry in entries}

    tested, shipped = pins(DEPLOY.parent / "requirements.lock"), pins(DEPLOY / "requirements.lock")
    assert {name: hashes for name, hashes in shipped.items() if tested.get(name) != hashes} == {}
    assert all(hashes for hashes in shipped.values())
    assert len(shipped) < len(tested)
    for path in (DEPLOY.parent / "requirements.lock", DEPLOY / "requirements.lock"):
        assert "://" not in path.read_text()


def test_no_right_is_granted_that_could_become_another() -> None:
    role = of_kind(ACCESS, "ClusterRole")
    for rule in role["rules"]:
        assert not {"*", "bind", "escalate", "impersonate", "update", "deletecollection"} & set(rule["verbs"])
        assert "*" not in rule["apiGroups"]
        assert "nonResourceURLs" not in rule
        for resource in rule["resources"]:
            assert "/" not in resource, "a subresource"
            assert resource not in ("*", "secrets", "pods", "roles", "rolebindings", "clusterroles", "nodes")


# ---- on the real authorizer --------------------------------------------------------------------------------------


class Recorded:
    """A transport that notes each request as the authorizer sees it: (group, resource, verb)."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.asked: set[tuple[str, str, str]] = set()

    def _note(self, request: Request, exists: bool) -> None:
        parts = request.path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            rest = rest[2:]
        if not rest:
            return  # discovery: every authenticated user may ask
        verb = {"PATCH": "patch", "DELETE": "delete", "GET": "get" if len(rest) > 1 else "list"}[request.method]
        if ("watch", "1") in request.query:
            verb = "watch"
        self.asked.add((group, rest[0], verb))
        if verb == "patch" and not exists:
            self.asked.add((group, rest[0], "create"))

    async def request(self, request: Request) -> Response:
        answer = await self._inner.request(request)
        self._note(request, exists=answer.status != 201)
        return answer

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        self._note(request, exists=True)
        return self._inner.stream(request)

    async def close(self) -> None:
        await self._inner.close()


def _pod_template() -> Manifest:
    containers = [{"name": "main", "image": "registry.example.com/main:1"}]
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": containers}}


def specimens(namespace: str) -> Iterator[tuple[str, Manifest]]:
    """One object of each kind in the role: its resource and what would be declared."""
    job = {"template": _pod_template()}
    job["template"]["spec"]["restartPolicy"] = "Never"
    workload = {"selector": {"matchLabels": {"app": "x"}}, "template": _pod_template()}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    service = {"port": 80, "protocol": "TCP"}
    backend = {"service": {"name": "x", "port": {"number": 80}}}
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        ("flinkdeployments", "flink.apache.org/v1beta1", "FlinkDeployment", {"spec": {"flinkVersion": "v1_20"}}),
        ("flinksessionjobs", "flink.apache.org/v1beta1", "FlinkSessionJob", {"spec": {"deploymentName": "x"}}),
        ("configmaps", "v1", "ConfigMap", {"data": {"a": "b"}}),
        ("services", "v1", "Service", {"spec": {"ports": [service]}}),
        ("serviceaccounts", "v1", "ServiceAccount", {}),
        ("persistentvolumeclaims", "v1", "PersistentVolumeClaim", {"spec": claim}),
        ("deployments", "apps/v1", "Deployment", {"spec": workload}),
        ("statefulsets", "apps/v1", "StatefulSet", {"spec": {**workload, "serviceName": "x"}}),
        ("jobs", "batch/v1", "Job", {"spec": job}),
        ("cronjobs", "batch/v1", "CronJob", {"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": job}}}),
        ("poddisruptionbudgets", "policy/v1", "PodDisruptionBudget", {"spec": {"maxUnavailable": 1}}),
        ("networkpolicies", "networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}),
        ("ingresses", "networking.k8s.io/v1", "Ingress", {"spec": {"defaultBackend": backend}}),
    ]
    yield "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    for resource, api_version, kind, content in rows:
        metadata = {"name": "x", "namespace": namespace}
        yield resource, {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


async def use(cluster: KubeCluster, manifest: Manifest, *, delete: bool) -> None:
    """All that the daemon does to one object in its life."""
    api_version, key = str(manifest["apiVersion"]), ObjectKey.of(manifest)
    manifest["metadata"]["labels"] = {OWNER: "deploy-test"}
    assert await cluster.get(api_version, key) is None
    created = await cluster.apply(manifest, uid=None, force=False, dry_run=False)
    uid = created["metadata"]["uid"]
    await cluster.apply(manifest, uid=uid, force=True, dry_run=True)
    await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
    selector = f"{OWNER}=deploy-test"
    version, rows = await cluster.list_versions(api_version, key.kind, selector)
    assert key in [row.key for row in rows]
    watch = cluster.watch(api_version, key.kind, selector, version, idle_s=60)
    async with aclosing(watch):
        manifest["metadata"]["labels"]["changed"] = "yes"
        await cluster.apply(manifest, uid=uid, force=True, dry_run=False)
        assert (await anext(watch)).key == key
    if delete:
        await cluster.delete(api_version, key, uid)


async def as_administrator(plane: ControlPlane) -> None:
    """Install deploy/cluster-access, as its README says."""
    admin = KubeCluster("admin", await transport_from_kubeconfig(plane.kubeconfig))
    try:
        for manifest in documents(ACCESS):
            await admin.apply(manifest, uid=None, force=True, dry_run=False)
    finally:
        await admin.close()


async def as_daemon(plane: ControlPlane, path: Path) -> Recorded:
    account = of_kind(ACCESS, "ServiceAccount")["metadata"]
    token = plane.service_account_token(account["namespace"], account["name"])
    authority = json.loads(plane.kubeconfig.read_text())["clusters"][0]["cluster"]["certificate-authority-data"]
    write_kubeconfig(path, plane.url, "reconciler", token, {"certificate-authority-data": authority})
    return Recorded(await transport_from_kubeconfig(path))


@pytest.mark.controlplane
def test_a_real_server_takes_the_manifests(control_plane: ControlPlane) -> None:
    """Strictly validated by a dry-run, so a misspelt field is found here and not at a customer's."""

    async def play() -> list[str]:
        admin = KubeCluster("admin", await transport_from_kubeconfig(control_plane.kubeconfig))
        taken = []
        try:
            for name in ("namespace.yaml", "daemon.yaml", "network-policy.yaml"):
                for manifest in documents(DEPLOY / "kubernetes" / name):
                    resource = await admin.resource(manifest["apiVersion"], manifest["kind"])
                    if resource.namespaced:
                        manifest["metadata"]["namespace"] = "default"  # as the kustomization's `namespace` does
                    await admin.apply(manifest, uid=None, force=True, dry_run=True)
                    taken.append(manifest["kind"])
        finally:
            await admin.close()
        return taken

    kinds = asyncio.run(play())
    assert kinds == ["Namespace", "ServiceAccount", "Service", "StatefulSet", "NetworkPolicy"]


@pytest.mark.controlplane
def test_the_rights_suffice_and_every_one_is_used(control_plane: ControlPlane, tmp_path: Path) -> None:
    async def play() -> set[tuple[str, str, str]]:
        await as_administrator(control_plane)
        transport = await as_daemon(control_plane, tmp_path / "kubeconfig")
        cluster = KubeCluster("managed", transport)
        try:
            kept = {kind for _, kind in NEVER_PRUNED}
            for _, manifest in specimens("deploy-access"):
                await use(cluster, manifest, delete=manifest["kind"] not in kept)
        finally:
            await cluster.close()
        return transport.asked

    asked = asyncio.run(play())
    used: dict[tuple[str, str], set[str]] = defaultdict(set)
    for group, resource, verb in asked:
        used[group, resource].add(verb)
    assert dict(used) == granted()


@pytest.mark.controlplane
def test_everything_else_is_refused(control_plane: ControlPlane, tmp_path: Path) -> None:
    async def play() -> None:
        await as_administrator(control_plane)
        cluster = KubeCluster("managed", await as_daemon(control_plane, tmp_path / "kubeconfig"))
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "mine"}}
        crd = ObjectKey("apiextensions.k8s.io", "CustomResourceDefinition", "", "flinkdeployments.flink.apache.org")
        try:
            for api_version, kind in (("v1", "Secret"), ("v1", "Pod"), ("v1", "Node"), ("apps/v1", "ReplicaSet")):
                with pytest.raises(errors.ForbiddenError) as refused:
                    await cluster.list_versions(api_version, kind)
                assert refused.value.permanent
                assert refused.value.reason.code == "Forbidden"
            with pytest.raises(errors.ForbiddenError):
                await cluster.get("v1", ObjectKey("", "Secret", "kube-system", "any"))
            with pytest.raises(errors.ForbiddenError):
                await cluster.apply(role, uid=None, force=False, dry_run=False)
            with pytest.raises(errors.ForbiddenError):
                await cluster.delete("v1", ObjectKey("", "Namespace", "", "default"), "00000000")
            with pytest.raises(errors.ForbiddenError):
                await cluster.delete("apiextensions.k8s.io/v1", crd, "00000000")
        finally:
            await cluster.close()

    asyncio.run(play())
