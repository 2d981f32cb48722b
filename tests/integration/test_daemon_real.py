"""The daemon against a real kube-apiserver beside simulated clusters: what it writes is taken, and seen again.
It has the rights that deploy/ gives it, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.control_plane.server import ControlPlane, call
from tests.integration.live_fleet import APPLICATION, LiveFleet
from tests.integration.real_operator import GROUP, RealOperator
from tests.integration.shipped_access import CLUSTER_ACCESS, FLEET, daemon_kubeconfig, install

pytestmark = pytest.mark.controlplane

NAMESPACE = "daemon-real"
REAL = "a1"
CONFIG = """\
  - name: notes
    type: manifests
    properties:
      objects:
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: notes}, data: {image: "IMAGE"}}
"""


def test_initial_sync_change_and_repair(control_plane: ControlPlane, tmp_path: Path) -> None:
    text = APPLICATION.replace("namespace: orders", f"namespace: {NAMESPACE}")
    text = text.replace("  policies:\n", CONFIG + "  policies:\n")
    deployment = f"{GROUP}/namespaces/{NAMESPACE}/flinkdeployments/orders"
    notes = f"/api/v1/namespaces/{NAMESPACE}/configmaps/notes"
    install(control_plane, CLUSTER_ACCESS, FLEET)
    real = {REAL: daemon_kubeconfig(control_plane, tmp_path / "real.kubeconfig")}
    with (
        LiveFleet(tmp_path, [REAL, "c1"], app=text, real=real, impersonate={}) as fleet,
        RealOperator(control_plane, NAMESPACE),
    ):
        fleet.commit("orders:1")
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(fleet.settled)
            assert call(control_plane, "GET", deployment)[1]["spec"]["image"] == "orders:1"
            fleet.commit("orders:2")
            fleet.until(lambda: call(control_plane, "GET", deployment)[1]["spec"]["image"] == "orders:2")
            fleet.until(fleet.settled)
            assert call(control_plane, "GET", notes)[1]["data"] == {"image": "orders:2"}
            # It is in sync to the last field: looking again writes nothing.
            before = call(control_plane, "GET", deployment)[1]["metadata"]["generation"]
            assert fleet.command("diff", "orders").returncode == 0
            assert call(control_plane, "DELETE", notes)[0] == 200
            fleet.until(lambda: call(control_plane, "GET", notes)[0] == 200)
            fleet.until(fleet.settled)
            assert call(control_plane, "GET", deployment)[1]["metadata"]["generation"] == before
            waves = fleet.ask("rollout", "show", fleet.newest()["id"])["waves"]
            assert [row["cluster"] for row in waves[0]["targets"]] == [REAL]
            assert daemon.stop() == 143


POLICY_APPLY = "  - {type: apply, properties: {adopt: ifUnowned, selfHeal: HEAL}}\n"


def test_what_was_there_is_adopted_and_drift_says_who_it_was(control_plane: ControlPlane, tmp_path: Path) -> None:
    namespace = "daemon-real-adopted"
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    text = APPLICATION.replace("namespace: orders", f"namespace: {namespace}").replace(
        "  policies:\n", CONFIG + "  policies:\n"
    )
    call(control_plane, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    by_kubectl = {"metadata": {"name": "notes"}, "data": {"image": "old", "left": "over"}}
    assert call(control_plane, "POST", f"{path}?fieldManager=kubectl-client-side-apply", by_kubectl)[0] == 201

    def policy(heal: str) -> str:
        return text + POLICY_APPLY.replace("HEAL", heal)

    def notes() -> dict[str, Any]:
        found: dict[str, Any] = call(control_plane, "GET", f"{path}/notes")[1]
        return found

    real = {REAL: control_plane.kubeconfig}
    with (
        LiveFleet(tmp_path, [REAL], app=policy("false").replace(", createNamespace: true", ""), real=real) as fleet,
        RealOperator(control_plane, namespace),
    ):
        fleet.commit("orders:1")
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(fleet.settled)
            assert notes()["data"] == {"image": "orders:1"}
            assert [entry["manager"] for entry in notes()["metadata"]["managedFields"]] == ["reconciler"]
            edited = {**notes(), "data": {"image": "by-hand"}}
            assert call(control_plane, "PUT", f"{path}/notes?fieldManager=kubectl-edit", edited)[0] == 200
            fleet.until(lambda: not fleet.settled())
            (drift,) = [event for event in fleet.ask("events")["events"] if event["reason"] == "Drift"]
            assert "was changed by kubectl-edit at" in drift["message"]
            assert "data.image is by-hand, declared orders:1" in drift["message"]
            shown = fleet.command("diff", "orders")
            assert shown.returncode == 1
            assert "takes fields from kubectl-edit" in shown.stdout
            assert fleet.ask("explain", "orders")["reason"] == "SelfHealOff"
            assert notes()["data"] == {"image": "by-hand"}
            # The policy counts as soon as it is read, without a rollout.
            rollouts = len(fleet.ask("rollouts")["rollouts"])
            files = {"apps/orders/app.yaml": policy("true").replace(", createNamespace: true", "")}
            fleet.commit("orders:1", **{path: file.replace("IMAGE", "orders:1") for path, file in files.items()})
            fleet.until(lambda: notes()["data"] == {"image": "orders:1"})
            fleet.until(fleet.settled)
            assert len(fleet.ask("rollouts")["rollouts"]) == rollouts
            assert daemon.stop() == 143
