"""The daemon against a real kube-apiserver beside simulated clusters: what it writes is taken, and seen again.
It has the rights that deploy/ gives it, and no others."""

from __future__ import annotations

from pathlib import Path

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
