"""Wiring: what is shipped becomes the daemon's numbers, clocks and connections do what their ports say."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.bootstrap import Parts, WallClock, build, connect_by_kubeconfig, limits_of
from reconciler.core.documents import Cluster
from reconciler.core.health_policy import thresholds
from reconciler.core.model import Reason
from reconciler.resources import catalogue
from reconciler.settings import Allow, ClusterAccess
from reconciler.settings_values import Listen
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import UnreachableError
from reconciler.shell.metrics import Metrics
from reconciler.shell.store.errors import StoreError
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.http import HttpFace
from reconciler.web.server import serve
from tests.integration.live_fleet import LiveFleet


def test_the_shipped_numbers_reach_the_daemon() -> None:
    shipped = catalogue()
    limits, found = limits_of(shipped), thresholds(shipped.thresholds)
    assert limits.restarts_per_cluster == 60
    assert limits.restarts_per_region == 300
    assert limits.changed_per_cluster == 200
    assert limits.deletes_per_commit == 20
    assert (found.rejected_s, found.restarts_max, found.workload_deadline_s) == (120, 3, 600)


def test_the_clock_goes_from_the_start_of_the_boot_and_never_calls_early() -> None:
    async def main() -> None:
        clock = WallClock(7, asyncio.get_running_loop())
        now = clock.now()
        assert now.boot == 7
        assert 0 <= now.monotonic < 60
        called: list[float] = []
        done = asyncio.Event()

        def note() -> None:
            called.append(clock.now().monotonic)
            done.set()

        cancelled = clock.call_at(now.monotonic + 0.01, lambda: called.append(-1.0))
        clock.call_at(now.monotonic + 0.02, note)
        clock.call_at(0.0, lambda: called.append(0.0))
        cancelled.cancel()
        await done.wait()
        assert called[0] == 0.0
        assert len(called) == 2
        assert called[1] >= now.monotonic + 0.02

    asyncio.run(main())


#: Settings that allow a kubeconfig nothing of what is refused by default.
NOTHING = Allow(("https", "ssh"), kubeconfig_exec=False)


def test_a_cluster_without_credentials_is_a_reason() -> None:
    connect = connect_by_kubeconfig({}, NOTHING)
    found = connect(Cluster("eu", {}, "eu-credentials"), Metrics("0"))
    assert isinstance(found, Reason)
    assert found.code == "NoCredentials"
    assert "clusters.eu-credentials" in found.message


def test_a_kubeconfig_may_come_later(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "kubeconfig"
        metrics = Metrics("0")
        connect = connect_by_kubeconfig({"eu": ClusterAccess("eu", path, "")}, NOTHING)
        cluster = connect(Cluster("eu", {}, "eu"), metrics)
        assert isinstance(cluster, KubeCluster)
        with pytest.raises(UnreachableError) as refused:
            await cluster.server_version()
        assert "No such file" in str(refused.value)
        face = HttpFace({"eu": SimApiServer(now=lambda: 0.0, seed="1")})
        await face.start()
        face.write_kubeconfig(path)
        try:
            assert await cluster.server_version()
            assert metrics.value("kube_requests", verb="GET", code="2xx") == 1
        finally:
            await cluster.close()
            await face.stop()
        with pytest.raises(UnreachableError):
            await cluster.server_version()

    asyncio.run(main())


def nowhere(_cluster: Cluster, _metrics: Metrics) -> Reason:
    return Reason("NoCredentials", "none")


def failed(name: str, error: BaseException) -> None:
    raise AssertionError(f"unit {name} failed: {error!r}")


def test_a_second_daemon_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        first = build(Parts(tmp_path, (), nowhere), DaemonSettings(), failed)
        await first.daemon.start()
        try:
            with pytest.raises(StoreError, match="in use by process"):
                build(Parts(tmp_path, (), nowhere), DaemonSettings(), failed)
        finally:
            assert await first.close() == ()

    asyncio.run(main())


def test_a_daemon_whose_store_was_taken_over_ends_at_once(tmp_path: Path) -> None:
    with LiveFleet(tmp_path, ["a1"]) as fleet:
        fleet.commit("orders:1")
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(fleet.settled)
            # Somebody opened the store elsewhere (a volume mounted twice): this one must not write any more.
            with sqlite3.connect(fleet.state_dir / "reconciler.db") as other:
                other.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE name = 'epoch'")
            other.close()
            fleet.commit("orders:2")
            assert daemon.process.wait(20) == 3
        assert "daemon.failed" in fleet.log()
        assert "FencedError" in fleet.log()
        assert fleet.image("a1") == "orders:1"


@dataclass(frozen=True)
class _Listening:
    """What the API's server needs of the settings."""

    state_dir: Path
    listen: Listen | None
    token_file: Path | None


@pytest.mark.parametrize("rounds", range(6))
def test_a_server_that_is_cancelled_while_it_starts_leaves_no_socket(tmp_path: Path, rounds: int) -> None:
    async def story() -> None:
        assembly = build(Parts(tmp_path, (), nowhere), DaemonSettings(), failed)
        await assembly.daemon.start()
        listening = _Listening(tmp_path, Listen("127.0.0.1", 0), None)
        starting = asyncio.get_running_loop().create_task(serve(assembly.daemon, listening, failed))
        for _ in range(rounds):
            await asyncio.sleep(0)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await starting).stop()
        await assembly.close(5.0)

    asyncio.run(story())
    assert not list(tmp_path.glob("*.sock"))
    gc.collect()  # a socket that nobody closed warns here, and a warning is a failure
