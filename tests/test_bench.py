"""The benchmarks measure what they say: the counters of small runs, and a result file with its origin."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import compile as compiling
from bench import (
    converge,
    crash,
    drift,
    fleets,
    idle,
    many_clusters,
    measure,
    memory,
    one_change,
    report,
    simulator,
)
from bench.__main__ import main
from bench.measure import Options
from bench.real.clusters import SimulatedClusters, floor_namespace
from bench.real.daemon import UNLIMITED, install
from bench.real.floor import run_floor
from bench.real.plane import AuditLog, Plane
from bench.real.process import usage
from reconciler.core.catalogue import load_catalogue
from reconciler.core.fleet_model import EMPTY_CACHE, FleetSettings
from reconciler.resources import catalogue
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_http import transport_from_kubeconfig
from tests.control_plane.build import Assets
from tests.control_plane.server import call

EVENT = {
    "verb": "patch",
    "requestURI": "/api/v1/namespaces/c0/configmaps/a?dryRun=All&fieldManager=reconciler",
    "userAgent": "reconciler/1.2",
    "objectRef": {"resource": "configmaps", "namespace": "c0", "name": "a"},
    "responseStatus": {"code": 200},
    "requestReceivedTimestamp": "2026-01-01T00:00:00.250000Z",
    "stageTimestamp": "2026-01-01T00:00:00.750000Z",
}


def test_one_changed_application_is_the_only_one_read_and_compiled() -> None:
    found = compiling.measure(60, repeats=1)
    assert (found["targets"], found["releases"]) == (240, 60)
    assert found["counters_cold"]["applications_compiled"] == 60
    assert found["counters_one_changed"] == {
        "blobs_read": 1,
        "documents_parsed": 1,
        "applications_compiled": 1,
        "variants_compiled": 1,
    }
    assert found["cold_over_floor"]["median"] > 1  # it parses, too, so it cannot be faster


def test_the_fleet_to_measure_with_has_no_problem_and_changes_where_told() -> None:
    settings = FleetSettings(catalogue())
    before = compiling.compile_commit(fleets.fleet(5), EMPTY_CACHE, settings).snapshot
    after = compiling.compile_commit(fleets.fleet(5, {2: 7}), EMPTY_CACHE, settings).snapshot
    changed = {name for name, each in after.applications.items() if each.targets != before.applications[name].targets}
    assert changed == {"bench/app-00002"}


def test_the_simulator_benchmark_counts_what_was_proven() -> None:
    found = simulator.wide(5)
    assert found["target_steps"] > found["targets"] * 20
    assert found["transitions"] > 50
    assert found["virtual_s"] > 60


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    goals = [measure.goal("a", 1.5, 2, at_most=True), measure.goal("b", 1.0, 2, at_most=False)]
    path = measure.write("B0-nothing", goals, {"x": 1}, tmp_path)
    written = json.loads(path.read_text())
    assert set(written) == {"benchmark", "measured_at", "commit", "machine", "versions", "goals", "results"}
    assert [goal["met"] for goal in written["goals"]] == [True, False]
    assert written["machine"]["cores"] >= 1
    assert "/" not in json.dumps(written["machine"])
    assert report.table(tmp_path).splitlines()[2:] == [
        "| B0 | a | at most 2 | 1.50 | met |",
        "| B0 | b | at least 2 | 1 | **missed** |",
    ]


def test_an_unknown_benchmark_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["B99"])
    assert ended.value.code == 2
    assert "B99" in capsys.readouterr().err


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [measure.percentile(values, share) for share in (0.0, 0.5, 0.8, 0.95, 1.0)] == [1.0, 3.0, 4.0, 5.0, 5.0]


def test_the_audit_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path)
    assert log.mark() == 0
    whole = json.dumps(EVENT).encode() + b"\n"
    path.write_bytes(whole + whole[:40])
    mark = log.mark()
    assert mark == 1
    with path.open("ab") as file:
        file.write(whole[40:].replace(b"dryRun=All&", b""))
    (rehearsed,), (written,) = log.since(0)[:1], log.since(mark, "reconciler/")
    assert (rehearsed.is_write, written.is_write) == (False, True)
    assert written.place == ("configmaps", "c0", "a")
    assert written.answered_s - written.received_s == pytest.approx(0.5)
    assert log.since(mark, "somebody") == []


def test_usage_counts_sockets_and_processor_time_of_one_process() -> None:
    before = usage(os.getpid())
    with socket.socket():
        after = usage(os.getpid()) - before
    assert after.sockets == before.sockets + 1
    assert after.cpu_s > 0
    assert after.resident_bytes > 2**20


def test_the_measured_installation_is_the_shipped_one_but_for_its_limits(tmp_path: Path) -> None:
    target = install(tmp_path)
    root = target / "reconciler" / "data" / "policies"
    raised = load_catalogue({path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.yaml")})
    assert raised.limits.restarts_per_cluster_hour == raised.limits.changed_targets_per_cluster_hour == UNLIMITED
    assert raised.thresholds == catalogue().thresholds
    shipped = sorted(path.relative_to(measure.ROOT) for path in (measure.ROOT / "reconciler").rglob("*.py"))
    assert shipped == sorted(path.relative_to(target) for path in (target / "reconciler").rglob("*.py"))


# ---- on the real control plane -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plane(assets: Assets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A control plane with an audit log, for all benchmarks of this module."""
    assert assets.apiserver.exists()
    with Plane(tmp_path_factory.mktemp("plane")) as started:
        yield started


def measured(run: Any, plane: Plane) -> tuple[dict[str, bool], dict[str, Any]]:
    """A quick run: which goals about counts were met, and the results."""
    goals, results = run(Options(repeats=1, quick=True, plane=plane))
    json.dumps([goals, results])
    return {goal["what"]: goal["met"] for goal in goals}, results


@pytest.mark.controlplane
def test_a_simulated_cluster_has_what_is_in_its_namespace_and_nothing_else(plane: Plane, tmp_path: Path) -> None:
    names = ["seen-a", "seen-b"]

    async def listed(kubeconfig: Path) -> set[str]:
        cluster = KubeCluster("seen", await transport_from_kubeconfig(kubeconfig))
        try:
            return {row.key.namespace for row in (await cluster.list_versions("v1", "ConfigMap"))[1]}
        finally:
            await cluster.close()

    with SimulatedClusters(plane, tmp_path, names) as clusters:
        for name in names:
            body = {"metadata": {"name": "mine"}, "data": {"a": "b"}}
            assert call(plane.control, "POST", f"/api/v1/namespaces/{name}/configmaps", body)[0] == 201
        assert {name: asyncio.run(listed(clusters.kubeconfigs[name])) for name in names} == {
            name: {name} for name in names
        }


@pytest.mark.controlplane
def test_the_bare_loop_applies_every_object_beside_its_cluster(plane: Plane, tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"a": "b"}}
    with SimulatedClusters(plane, tmp_path, ["loop-a", "loop-b"]) as clusters:
        mark = plane.audit.mark()
        run_floor(clusters, {name: [settings] for name in clusters.names}, at_once=2)
        writes = [each.place for each in plane.audit.since(mark) if each.is_write]
    assert sorted(writes) == [("configmaps", floor_namespace(name), "mine") for name in clusters.names]


@pytest.mark.controlplane
def test_b1_writes_each_changed_object_once_and_asks_nothing_else(plane: Plane) -> None:
    met, results = measured(converge.run, plane)
    assert met["objects written more than once"]
    assert [found["clusters"] for found in results["runs"]] == [1, 2]
    for found in results["runs"]:
        (sample,) = found["changed"]["2"]["samples"]
        assert sample["requests"] == {"patch": 8}
        assert sample["daemon_s"] > sample["first_request_s"] > 0
        assert sample["ratio"] == pytest.approx(sample["daemon_s"] / sample["floor_s"], rel=0.01)


@pytest.mark.controlplane
def test_b2_writes_the_objects_of_the_one_application_that_changed(plane: Plane) -> None:
    _, results = measured(one_change.run, plane)
    for size in ("2", "4"):
        found = results["fleets"][size]
        assert [sample["requests"] for sample in found["samples"]] == [4, 4]
        assert found["p95_s"] >= found["p50_s"] > 0


@pytest.mark.controlplane
def test_b3_an_idle_daemon_polls_and_asks_its_clusters_for_nothing(plane: Plane) -> None:
    met, results = measured(idle.run, plane)
    assert met["requests but watches while idle, 3 applications"]
    assert met["writes while idle, 3 applications"]
    (found,) = results["fleets"]
    assert found["windows"][0]["ticks"] > 0
    assert found["without_polls"]["ticks"] == 0
    assert found["without_polls"]["git_cpu_s"] == 0


@pytest.mark.controlplane
def test_b4_every_disturbed_object_is_detected_and_repaired_once(plane: Plane) -> None:
    met, results = measured(drift.run, plane)
    assert met["objects repaired more than once"]
    assert set(results["disturbed"]) == {"edit of 1", "edit of 2", "delete of 1", "delete of 2"}
    for figures in results["disturbed"].values():
        assert all(sample["repaired_s"] >= sample["detected_s"] > 0 for sample in figures["samples"])


@pytest.mark.controlplane
def test_b5_counts_the_objects_that_are_there(plane: Plane) -> None:
    _, results = measured(memory.run, plane)
    assert [size["objects"] for size in results["sizes"]] == [8, 16]
    assert results["sizes"][1]["json_bytes"] > 1.5 * results["sizes"][0]["json_bytes"]


@pytest.mark.controlplane
def test_b6_silent_clusters_do_not_keep_the_others_from_converging(plane: Plane) -> None:
    met, results = measured(many_clusters.run, plane)
    assert met["sockets a cluster, 2 clusters"]
    assert [found["clusters"] for found in results["numbers"]] == [1, 2]
    assert (results["with_silent"]["clusters"], results["with_silent"]["silent"]) == (2, 1)


@pytest.mark.controlplane
def test_b7_a_killed_daemon_writes_nothing_twice(plane: Plane) -> None:
    met, results = measured(crash.run, plane)
    assert met == {"objects written twice": True, "objects not written": True}
    assert 1 <= results["killed"][0]["killed_after_writes"] <= results["killed"][0]["objects"]
    assert results["undisturbed"][0]["requests"] == {"patch": 16}
