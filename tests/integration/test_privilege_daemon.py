"""The daemon with the rights that deploy/ gives, on a real authorizer that writes down every request.

One story uses exactly what is granted: first sync with a new namespace, a change, two repairs, a prune. The other has
tenants that want more than they have, and a daemon that lacks a right: each of that fails by itself, says who may not
do what, and harms nothing else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.model import Manifest
from tests.control_plane.build import Assets
from tests.control_plane.server import ControlPlane, call, start
from tests.integration.git_repository import GitRepository
from tests.integration.live_fleet import APPLICATION, POLICY, LiveFleet, cluster_document
from tests.integration.live_fleet import FLEET as FLEET_DOCUMENT
from tests.integration.real_operator import GROUP, RealOperator
from tests.integration.shipped_access import (
    CLUSTER_ACCESS,
    DAEMON,
    FLEET,
    PAYMENTS,
    Verbs,
    daemon_kubeconfig,
    granted,
    install,
)

NAMESPACE = "orders"
TENANT = "reconciler:tenant:fleet"
#: Resources that the story's application has before its prune, besides its job, its namespace and one ConfigMap.
DROPPED = {
    ("", "services"),
    ("", "serviceaccounts"),
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "networkpolicies"),
}
KEPT = {("", "namespaces"), ("", "configmaps"), ("flink.apache.org", "flinkdeployments")}
OBJECTS = """\
  - name: others
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, data: {image: "IMAGE"}}
"""
DROPPED_OBJECTS = """\
      - {apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 80, protocol: TCP}]}}
      - {apiVersion: v1, kind: ServiceAccount, metadata: {name: x}}
      - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {}}}
      - apiVersion: apps/v1
        kind: Deployment
        metadata: {name: x}
        spec:
          replicas: 0
          selector: {matchLabels: {app: x}}
          template: &pods
            metadata: {labels: {app: x}}
            spec: {containers: [{name: main, image: "registry.example.com/main:1"}]}
      - apiVersion: apps/v1
        kind: StatefulSet
        metadata: {name: x}
        spec: {replicas: 0, serviceName: x, selector: {matchLabels: {app: x}}, template: *pods}
      - apiVersion: batch/v1
        kind: Job
        metadata: {name: x}
        spec: &job {suspend: true, template: {spec: {restartPolicy: Never, containers: [
          {name: main, image: "registry.example.com/main:1"}]}}}
      - apiVersion: batch/v1
        kind: CronJob
        metadata: {name: x}
        spec: {schedule: "0 0 * * *", suspend: true, jobTemplate: {spec: *job}}
"""


class Audit:
    """What the API server wrote down of the daemon's requests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = 0

    def begin(self) -> None:
        """Forget what was written so far."""
        self._from = len(self._path.read_bytes()) if self._path.exists() else 0

    def events(self) -> list[dict[str, Any]]:
        """The daemon's requests for resources since `begin`, each once; the last line may still be half written."""
        lines = self._path.read_bytes()[self._from :].rpartition(b"\n")[0].splitlines()
        found = [json.loads(line) for line in lines]
        asked = [each for each in found if each["user"]["username"] == DAEMON and "objectRef" in each]
        return list({each["auditID"]: each for each in asked}.values())


def verbs(events: list[dict[str, Any]], who: str) -> Verbs:
    """(group, resource) -> the verbs that the authorizer was asked about for `who`."""
    found: Verbs = defaultdict(set)
    for event in events:
        if event.get("impersonatedUser", event["user"])["username"] != who:
            continue
        where = event["objectRef"]
        assert "subresource" not in where, event
        place = (where.get("apiGroup", ""), where["resource"])
        found[place].add(event["verb"])
        if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
            found[place].add("create")
    return dict(found)


@pytest.fixture(scope="module")
def audited(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Audit]]:
    """A control plane of this module's own, with controllers, and its audit log. Nobody else's roles are in it."""
    directory = tmp_path_factory.mktemp("audit")
    policy, log = directory / "policy.yaml", directory / "audit.log"
    rules = [{"level": "Metadata"}]
    policy.write_text(
        json.dumps(
            {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules, "omitStages": ["RequestReceived"]}
        )
    )
    flags = (f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-mode=blocking")
    with start(assets, controller_manager=True, apiserver_flags=flags) as plane:
        yield plane, Audit(log)


@pytest.mark.controlplane
def test_a_whole_life_uses_exactly_the_shipped_rights(audited: tuple[ControlPlane, Audit], tmp_path: Path) -> None:
    plane, audit = audited
    install(plane, CLUSTER_ACCESS, FLEET)
    kubeconfig = daemon_kubeconfig(plane, tmp_path / "daemon.kubeconfig")
    audit.begin()
    small = APPLICATION.replace("  policies:\n", OBJECTS + "  policies:\n")
    whole = APPLICATION.replace("  policies:\n", OBJECTS + DROPPED_OBJECTS + "  policies:\n")
    policy = POLICY.replace("ON_FAILURE", "halt") + "  maxDeletes: 100%\n"
    job = f"{GROUP}/namespaces/{NAMESPACE}/flinkdeployments/orders"
    notes = f"/api/v1/namespaces/{NAMESPACE}/configmaps/notes"
    deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/x"

    def image_of(path: str) -> str:
        status, found = call(plane, "GET", path)
        return str(found["spec"]["image"] if path == job else found["data"]["image"]) if status == 200 else ""

    def pruned_kinds() -> set[tuple[str, str]]:
        return {place for place, used in verbs(audit.events(), TENANT).items() if "delete" in used}

    with (
        LiveFleet(tmp_path, ["a1"], app=whole, real={"a1": kubeconfig}, impersonate={}) as fleet,
        RealOperator(plane, NAMESPACE),
    ):
        fleet.commit("orders:1", **{"policies/rollout.yaml": policy})
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(fleet.settled, 90)
            assert image_of(job) == "orders:1"
            # A change, and two repairs: of what is gone, and of what is other.
            fleet.commit("orders:2", **{"policies/rollout.yaml": policy})
            fleet.until(lambda: image_of(job) == "orders:2", 90)
            fleet.until(fleet.settled, 90)
            assert call(plane, "DELETE", notes)[0] == 200
            fleet.until(lambda: image_of(notes) == "orders:2", 90)
            found = call(plane, "GET", notes)[1]
            assert call(plane, "PUT", notes, {**found, "data": {"image": "by hand"}})[0] == 200
            fleet.until(lambda: image_of(notes) == "orders:2", 90)
            fleet.until(fleet.settled, 90)
            # What the release drops is pruned.
            pruned = {"apps/orders/app.yaml": small.replace("IMAGE", "orders:2"), "policies/rollout.yaml": policy}
            assert call(plane, "GET", deployment)[0] == 200
            fleet.commit("orders:2", **pruned)
            fleet.until(lambda: call(plane, "GET", deployment)[0] == 404, 90)
            fleet.until(
                lambda: {key for key, used in verbs(audit.events(), TENANT).items() if "delete" in used} >= DROPPED
            )
            fleet.until(fleet.settled, 90)
            assert daemon.stop() == 143
    events = audit.events()
    assert [event for event in events if event["responseStatus"]["code"] in (401, 403)] == []
    assert {event.get("impersonatedUser", event["user"])["username"] for event in events} == {DAEMON, TENANT}

    reads, reader = verbs(events, DAEMON), granted("reconciler-reader")
    watched = {place for place, used in reads.items() if "watch" in used}
    assert {place: used - {"watch"} for place, used in reads.items()} == {
        place: reader[place] - {"watch"} for place in DROPPED | KEPT
    }
    # Three at a time, in the order of what matters most; once those are pruned, what was behind them.
    assert {("flink.apache.org", "flinkdeployments"), ("apps", "deployments"), ("apps", "statefulsets")} <= watched
    assert {("", "configmaps"), ("", "namespaces")} <= watched

    writer = granted("reconciler-writer", "reconciler-namespace-creator")
    assert verbs(events, TENANT) == {
        **{place: writer[place] for place in DROPPED},
        **{place: writer[place] - {"delete"} for place in KEPT},
    }


# ---- what is refused ---------------------------------------------------------------------------------------------

WITHIN = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: NAME}
spec:
  components:
  - name: objects
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: NAME}, data: {version: "VERSION"}}
MORE
  policies:
  - {type: topology, properties: {clusterLabelSelector: {}, namespace: NAMESPACE}}
"""
HIDDEN = "      - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {}}}"


def application(name: str, namespace: str, version: str, more: str = "") -> str:
    """An application of one ConfigMap of its name."""
    text = WITHIN.replace("NAMESPACE", namespace).replace("NAME", name).replace("VERSION", version)
    return text.replace("MORE\n", more and more + "\n")


def files(name: str, applications: dict[str, str]) -> dict[str, bytes]:
    """The repository of fleet `name` with these applications."""
    found = {
        "fleet.yaml": FLEET_DOCUMENT.replace("{name: test}", f"{{name: {name}}}"),
        "policies/rollout.yaml": POLICY.replace("ON_FAILURE", "halt"),
        "clusters/a1.yaml": cluster_document("a1"),
        **{f"apps/{app}/app.yaml": text for app, text in applications.items()},
    }
    return {path: text.encode() for path, text in found.items()}


def cannot_list_network_policies(manifest: Manifest) -> None:
    """The reader's role without one right."""
    if manifest["kind"] == "ClusterRole" and manifest["metadata"]["name"] == "reconciler-reader":
        for rule in manifest["rules"]:
            if "networkpolicies" in rule["resources"]:
                rule["verbs"] = ["get"]


@pytest.mark.controlplane
def test_who_lacks_a_right_is_told_and_harms_nobody_else(audited: tuple[ControlPlane, Audit], tmp_path: Path) -> None:
    plane, audit = audited
    install(plane, CLUSTER_ACCESS, PAYMENTS, change=cannot_list_network_policies)
    kubeconfig = daemon_kubeconfig(plane, tmp_path / "daemon.kubeconfig")
    audit.begin()
    strangers = GitRepository(tmp_path / "strangers.git")

    def version_of(name: str, namespace: str = "payments") -> str:
        status, found = call(plane, "GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return str(found["data"]["version"]) if status == 200 else ""

    def payments(version: str) -> dict[str, bytes]:
        hidden = application("hidden", "payments", version, HIDDEN)
        intruder = application("intruder", "default", version)
        own = application("own", "payments", version)
        return files("payments", {"own": own, "intruder": intruder, "hidden": hidden})

    with LiveFleet(tmp_path, ["a1"], real={"a1": kubeconfig}) as fleet:
        settings = yaml.safe_load(fleet.config.read_text())
        settings["repositories"] = [
            {"name": "payments", "url": fleet.repository.url, "poll": "200ms"},
            {"name": "strangers", "url": strangers.url, "poll": "200ms"},
        ]
        fleet.config.write_text(yaml.safe_dump(settings))
        fleet.repository.commit(payments("1"))
        strangers.commit(files("strangers", {"stranger": application("stranger", "payments", "1")}))

        def explained(name: str) -> dict[str, Any]:
            found: dict[str, Any] = fleet.ask("explain", name, "--cluster", "a1")
            return found

        def failed(name: str) -> bool:
            return bool(explained(name)["state"] in ("Failed", "Halted"))

        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(lambda: failed("intruder") and failed("stranger"), 90)
            found = explained("intruder")
            assert found["reason"] == "Forbidden"
            assert 'User "reconciler:tenant:payments" cannot patch resource "configmaps"' in found["message"]
            assert 'in the namespace "default"' in found["message"]
            found = explained("stranger")
            assert found["reason"] == "ImpersonationForbidden"
            assert "the daemon may not write as user reconciler:tenant:strangers" in found["message"]
            assert "deploy/README.md" in found["message"]
            # What cannot be listed is written, and then nobody can say how it is: the right that is missing is named.
            fleet.until(lambda: explained("hidden")["reason"] == "Forbidden", 90)
            found = explained("hidden")
            assert 'cannot list resource "networkpolicies"' in found["message"]
            assert "NetworkPolicy objects cannot be observed" in found["message"]
            assert found["blocked_by"] == "cluster"
            # All the while others go on, of the same repository and on the same cluster.
            fleet.until(lambda: explained("own")["blocked_by"] is None, 90)
            fleet.repository.commit(payments("2"))
            fleet.until(lambda: version_of("own") == "2", 90)
            fleet.until(lambda: explained("own")["blocked_by"] is None, 90)
            assert fleet.ask("clusters")["clusters"][0]["state"] == "Reachable"
            assert daemon.stop() == 143
    assert version_of("intruder", "default") == version_of("stranger") == ""
    written = [event for event in audit.events() if event["verb"] not in ("get", "list", "watch")]
    done = [event for event in written if event["responseStatus"]["code"] < 400]
    assert {event["objectRef"]["namespace"] for event in done} == {"payments"}
    assert all("impersonatedUser" in event or event["responseStatus"]["code"] == 403 for event in written)


# ---- a kubeconfig that is refused --------------------------------------------------------------------------------


def test_a_refused_kubeconfig_is_one_cluster_out_of_reach_until_it_is_mended(tmp_path: Path) -> None:
    with LiveFleet(tmp_path, ["a1", "c1"]) as fleet:
        settings = yaml.safe_load(fleet.config.read_text())
        settings["clusters"]["c1"]["kubeconfig"] = "strange.kubeconfig"
        fleet.config.write_text(yaml.safe_dump(settings))
        good = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        strange = tmp_path / "strange.kubeconfig"
        (context,) = (each["context"] for each in good["contexts"] if each["name"] == "c1")
        users = [{"name": "somebody", "user": {"exec": {"command": str(tmp_path / "never-started")}}}]
        contexts = [{"name": "c1", "context": {**context, "user": "somebody"}}]
        strange.write_text(yaml.safe_dump({**good, "users": users, "contexts": contexts}))
        fleet.commit("orders:1")

        def row() -> dict[str, Any]:
            (found,) = (each for each in fleet.ask("clusters")["clusters"] if each["cluster"] == "c1")
            return dict(found)

        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(lambda: fleet.image("a1") == "orders:1")
            fleet.until(lambda: row()["reason"] is not None)
            found = row()
            assert found["state"] == "NoCredentials"
            assert found["reason"]["code"] == "KubeconfigRefused"
            message = f"{strange}: users['somebody'].user.exec runs a program: give a token, "
            assert found["reason"]["message"] == message + "or set allow.kubeconfigExec: true"
            assert fleet.image("c1") == ""
            # The file is read again: nothing has to be started anew.
            strange.write_text(yaml.safe_dump(good))
            fleet.until(lambda: fleet.image("c1") == "orders:1", 60)
            fleet.until(fleet.settled, 60)
            assert row()["state"] == "Reachable"
