"""What stands in deploy/: manifests that parse, settings that the daemon reads, rights that are exactly those used."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable
from pathlib import Path

import pytest

from reconciler.core.inventory import NEVER_PRUNED
from reconciler.core.model import Manifest, ObjectKey, Reason
from reconciler.settings import load_settings
from reconciler.shell import kube_errors as errors
from reconciler.shell.identity import Identities, Identity, default_identity
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.transport import Request, Response
from tests.control_plane.server import ControlPlane, call
from tests.integration.shipped_access import (
    CLUSTER_ACCESS,
    DAEMON,
    DEPLOY,
    EVERYTHING,
    FLEET,
    PAYMENTS,
    SECRETS,
    Recorded,
    Used,
    apply_as_a_person,
    by_resource,
    daemon_kubeconfig,
    documents,
    granted,
    install,
    shipped,
    specimens,
    use,
    wait_until_decided_by,
)


def of_kind(path: Path, kind: str) -> Manifest:
    (found,) = [each for each in documents(path) if each["kind"] == kind]
    return found


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
        files = {each.name for each in path.parent.iterdir() if each.is_file()}
        assert named | {"kustomization.yaml"} == files, path


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
    everything = shipped(*EVERYTHING)
    roles = [each for each in everything if each["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == 7
    for role in roles:
        for rule in role["rules"]:
            # Reading, writing and acting for somebody are never in one role.
            assert any(
                set(rule["verbs"]) <= verbs
                for verbs in ({"get", "list", "watch"}, {"create", "patch", "delete"}, {"impersonate"})
            )
            assert "nonResourceURLs" not in rule
            assert "*" not in rule["apiGroups"]
            for resource in rule["resources"]:
                assert "/" not in resource, "a subresource"
                assert resource not in ("*", "pods", "roles", "rolebindings", "clusterroles", "groups", "nodes")
                assert resource != "secrets" or role["metadata"]["name"].startswith("reconciler-secrets-")
            if "impersonate" in rule["verbs"]:
                assert rule["resources"] == ["users"]
                (user,) = rule["resourceNames"]
                Identity(user)


@pytest.mark.parametrize("directory", [FLEET, PAYMENTS], ids=lambda directory: directory.name)
def test_a_tenant_is_the_repository_of_its_directory_s_name(directory: Path) -> None:
    """A copy with another name in it is another tenant: everything that names it says the name."""
    user = default_identity(directory.name).user
    for manifest in shipped(directory):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind == "ClusterRole":
            assert [rule["resourceNames"] for rule in manifest["rules"]] == [[user]]
        assert directory.name in name
        for subject in manifest.get("subjects", ()):
            assert subject["name"] == (user if subject["kind"] == "User" else "reconciler")


# ---- on the real authorizer --------------------------------------------------------------------------------------


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
                    await apply_as_a_person(admin, manifest, dry_run=True)
                    taken.append(manifest["kind"])
        finally:
            await admin.close()
        return taken

    kinds = asyncio.run(play())
    assert kinds == ["Namespace", "ServiceAccount", "Service", "StatefulSet", "NetworkPolicy"]


async def connected(plane: ControlPlane, path: Path, identities: Identities) -> tuple[KubeCluster, Recorded]:
    transport = Recorded(await transport_from_kubeconfig(daemon_kubeconfig(plane, path)))
    return KubeCluster("managed", transport, identities=identities), transport


async def refusal_of(request: Awaitable[object]) -> Reason:
    """Why it is refused: for good, as a missing right."""
    with pytest.raises(errors.ForbiddenError) as refused:
        await request
    assert refused.value.permanent
    return refused.value.reason


@pytest.mark.controlplane
def test_the_rights_suffice_and_every_one_is_used(control_plane: ControlPlane, tmp_path: Path) -> None:
    """With one object of each kind: what the daemon and its tenant do is what the roles grant, no more and no less."""
    install(control_plane, CLUSTER_ACCESS, FLEET)

    async def play() -> set[Used]:
        cluster, transport = await connected(control_plane, tmp_path / "kubeconfig", default_identity)
        try:
            kept = {kind for _, kind in NEVER_PRUNED}
            for manifest in specimens("deploy-access"):
                await use(cluster, "fleet", manifest, delete=manifest["kind"] not in kept)
        finally:
            await cluster.close()
        return transport.used

    used = asyncio.run(play())
    assert by_resource(used, "") == granted("reconciler-reader")
    tenant = granted("reconciler-writer", "reconciler-namespace-creator")
    assert by_resource(used, "reconciler:tenant:fleet") == tenant
    assert {who for who, *_ in used} == {"", "reconciler:tenant:fleet"}


@pytest.mark.controlplane
def test_by_itself_the_daemon_writes_nothing(control_plane: ControlPlane, tmp_path: Path) -> None:
    install(control_plane, CLUSTER_ACCESS, FLEET)

    async def play() -> None:
        cluster, _ = await connected(control_plane, tmp_path / "kubeconfig", lambda _: None)
        acting = cluster.acting_for("fleet")
        try:
            for manifest in specimens("default"):
                key = ObjectKey.of(manifest)
                for dry_run in (False, True):
                    reason = await refusal_of(acting.apply(manifest, uid=None, force=False, dry_run=dry_run))
                    assert reason.code == "Forbidden"
                    assert f'User "{DAEMON}" cannot patch' in reason.message
                reason = await refusal_of(acting.delete(str(manifest["apiVersion"]), key, "00000000"))
                assert f'User "{DAEMON}" cannot delete' in reason.message
        finally:
            await cluster.close()

    asyncio.run(play())


SECRETS_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "reconciler-payments-secrets", "namespace": "payments"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reconciler-secrets-writer"},
    "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reconciler:tenant:payments"}],
}


@pytest.mark.controlplane
def test_everything_else_is_refused_and_secrets_are_a_choice(control_plane: ControlPlane, tmp_path: Path) -> None:
    """With the kustomization for Secrets, and its writing role bound, exactly what that grants comes to be used."""
    install(control_plane, CLUSTER_ACCESS, PAYMENTS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "payments"}}

    async def refused() -> None:
        cluster, _ = await connected(control_plane, tmp_path / "kubeconfig", default_identity)
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "mine"}}
        crd = ObjectKey("apiextensions.k8s.io", "CustomResourceDefinition", "", "flinkdeployments.flink.apache.org")
        payments = cluster.acting_for("payments")
        try:
            for api_version, kind in (("v1", "Secret"), ("v1", "Pod"), ("v1", "Node"), ("apps/v1", "ReplicaSet")):
                reason = await refusal_of(cluster.list_versions(api_version, kind))
                assert f'User "{DAEMON}" cannot list' in reason.message
            await refusal_of(cluster.get("v1", ObjectKey("", "Secret", "kube-system", "any")))
            await refusal_of(payments.apply(role, uid=None, force=False, dry_run=False))
            await refusal_of(payments.delete("v1", ObjectKey("", "Namespace", "", "default"), "00000000"))
            await refusal_of(payments.delete("apiextensions.k8s.io/v1", crd, "00000000"))
            reason = await refusal_of(payments.apply(secret, uid=None, force=False, dry_run=False))
            assert 'User "reconciler:tenant:payments" cannot patch resource "secrets"' in reason.message
        finally:
            await cluster.close()

    async def chosen() -> set[Used]:
        cluster, transport = await connected(control_plane, tmp_path / "kubeconfig", default_identity)
        try:
            await use(cluster, "payments", secret, delete=True)
        finally:
            await cluster.close()
        return transport.used

    asyncio.run(refused())
    bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/payments/rolebindings"
    assert call(control_plane, "POST", bindings, SECRETS_BINDING)[0] == 201
    install(control_plane, SECRETS)
    wait_until_decided_by(control_plane, [SECRETS_BINDING])
    used = asyncio.run(chosen())
    assert by_resource(used, "") == granted("reconciler-secrets-reader")
    assert by_resource(used, "reconciler:tenant:payments") == granted("reconciler-secrets-writer")


@pytest.mark.controlplane
def test_a_tenant_stays_in_its_namespace(control_plane: ControlPlane, tmp_path: Path) -> None:
    install(control_plane, CLUSTER_ACCESS, PAYMENTS)
    kept = ("Namespace",)

    async def play() -> None:
        cluster, _ = await connected(control_plane, tmp_path / "kubeconfig", default_identity)
        acting = cluster.acting_for("payments")
        try:
            for manifest in specimens("payments"):
                if manifest["kind"] not in kept:
                    await use(cluster, "payments", manifest, delete=manifest["kind"] != "PersistentVolumeClaim")
            for manifest in specimens("default"):
                reason = await refusal_of(acting.apply(manifest, uid=None, force=False, dry_run=False))
                assert 'User "reconciler:tenant:payments" cannot patch' in reason.message
            # Its own namespace as an object is not its own to change either.
            (namespace, *_) = specimens("payments")
            await refusal_of(acting.apply(namespace, uid=None, force=True, dry_run=False))
        finally:
            await cluster.close()

    asyncio.run(play())


@pytest.mark.controlplane
@pytest.mark.parametrize(
    ("identity", "resource"),
    [
        (Identity("reconciler:tenant:nobody-granted"), 'resource "users"'),
        (Identity("reconciler:tenant:payments", ("team-a",)), 'resource "groups"'),
        (Identity("system:serviceaccount:kube-system:anyone"), 'resource "serviceaccounts"'),
        (Identity("administrator"), 'resource "users"'),
    ],
    ids=["user", "group", "service account", "administrator"],
)
def test_the_daemon_may_act_for_granted_tenants_only(
    control_plane: ControlPlane, tmp_path: Path, identity: Identity, resource: str
) -> None:
    install(control_plane, CLUSTER_ACCESS, PAYMENTS)

    async def play() -> Reason:
        cluster, _ = await connected(control_plane, tmp_path / "kubeconfig", lambda _: identity)
        notes = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "payments"}}
        try:
            return await refusal_of(cluster.acting_for("a").apply(notes, uid=None, force=False, dry_run=False))
        finally:
            await cluster.close()

    reason = asyncio.run(play())
    assert reason.code == "ImpersonationForbidden"
    assert str(identity) in reason.message
    assert f'User "{DAEMON}" cannot impersonate {resource}' in reason.message


@pytest.mark.controlplane
@pytest.mark.parametrize("group", ["system:masters", "team-a"])
def test_no_group_comes_in_beside_a_granted_user(control_plane: ControlPlane, tmp_path: Path, group: str) -> None:
    """Should somebody get a header of their own through, which no Identity does, the server refuses it."""
    install(control_plane, CLUSTER_ACCESS, PAYMENTS)

    async def play() -> Response:
        transport = await transport_from_kubeconfig(daemon_kubeconfig(control_plane, tmp_path / "kubeconfig"))
        headers = (("Impersonate-User", "reconciler:tenant:payments"), ("Impersonate-Group", group))
        try:
            return await transport.request(Request("GET", "/api/v1/namespaces/kube-system/secrets", headers=headers))
        finally:
            await transport.close()

    answer = asyncio.run(play())
    assert answer.status == 403
    assert 'cannot impersonate resource "groups"' in json.loads(answer.body)["message"]
