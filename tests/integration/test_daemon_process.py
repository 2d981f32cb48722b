"""`reconciler run` as people run it: a process, a Git repository, clusters over HTTP, commands, signals and kill -9."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from reconciler.socket_path import socket_path
from tests.integration.live_fleet import LiveFleet, environment, run_command

CLUSTERS = ["a1", "b1", "c1"]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LiveFleet]:
    with LiveFleet(tmp_path, CLUSTERS) as made:
        yield made


def started(fleet: LiveFleet, epoch: int) -> bool:
    """The daemon of this epoch has said so."""
    return f"epoch={epoch}" in fleet.log()


def written(fleet: LiveFleet, objects: int) -> bool:
    """So many writes have reached the clusters."""
    return len(fleet.writes) >= objects


def tcp_address(fleet: LiveFleet) -> str:
    """Where the newest daemon says it listens."""
    return "http://" + fleet.log().rsplit('"http://', 1)[1].split('"', 1)[0]


def fetch(fleet: LiveFleet, path: str, **headers: str) -> tuple[int, str]:
    """GET over TCP."""
    request = urllib.request.Request(tcp_address(fleet) + path, headers=headers)  # noqa: S310 - http to this machine
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http to this machine
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_commit_converges_wave_by_wave_and_a_bad_one_goes_back(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        assert [fleet.image(name) for name in CLUSTERS] == ["orders:1"] * 3
        rows = [row for wave in fleet.ask("rollout", "show", fleet.newest()["id"])["waves"] for row in wave["targets"]]
        # The second wave starts once the canary has baked, and nobody starts before.
        assert rows[0]["cluster"] == "a1"
        assert all(row["started_at"] >= rows[0]["baked_at"] for row in rows[1:])
        fleet.commit("orders:2-crash-loop")
        fleet.until(lambda: fleet.newest().get("state") == "RolledBack")
        assert [fleet.image(name) for name in CLUSTERS] == ["orders:1"] * 3
        found = fleet.ask("explain", "orders", "--cluster", "a1")
        assert (found["blocked_by"], found["reason"]) == ("quarantine", "Quarantined")
        fleet.until(lambda: "notification.sent" in fleet.log())  # the alert, at once and not at the next re-sync
        assert daemon.stop() == 143
    # Nobody but the canary was touched by the bad change.
    changed = [name for name, kind, what in fleet.writes if kind == "FlinkDeployment" and what == "changed"]
    assert changed == ["a1", "a1"]


def test_kill_in_the_middle_goes_on_and_does_nothing_twice(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    for number, objects in enumerate((1, 2, 3, 5), 1):
        # It dies right after a write that it may not even have heard of, in each wave.
        with fleet.daemon() as daemon:
            fleet.until(partial(started, fleet, number))
            fleet.until(partial(written, fleet, objects))
            daemon.kill()
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        assert daemon.stop() == 143
    # Each object was created once and never changed again, though several daemons wrote it.
    assert sorted(fleet.writes) == sorted((n, k, "created") for n in CLUSTERS for k in ("FlinkDeployment", "Namespace"))
    assert "epoch=5" in fleet.log()


def test_a_halted_rollout_stays_halted_until_somebody_acts(tmp_path: Path) -> None:
    with LiveFleet(tmp_path, CLUSTERS, on_failure="halt") as fleet:
        fleet.commit("orders:1")
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(fleet.settled)
            fleet.commit("orders:2-crash-loop")
            fleet.until(lambda: fleet.newest().get("state") == "Halted")
            daemon.kill()
        before = list(fleet.writes)
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(lambda: fleet.ask("status")["clusters"].get("Reachable") == 3)
            halted = fleet.newest()
            assert halted["state"] == "Halted"
            refused = fleet.command("rollout", "resume", halted["id"])
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "rollout retry" in refused.stderr
            assert fleet.ask("explain", "orders", "--cluster", "b1")["blocked_by"] == "rollout"
            assert fleet.writes == before
            # Somebody tries it again: the canary is the first again, fails again, and nobody else is touched.
            assert fleet.ask("rollout", "retry", halted["id"], "--reason", "was it the network?")["state"] == "Active"
            fleet.until(lambda: fleet.newest().get("state") == "Halted")
            assert fleet.newest()["waves"][0]["states"] == {"Failed": 1}
            assert [fleet.image(name) for name in CLUSTERS] == ["orders:2-crash-loop", "orders:1", "orders:1"]
            # A fix is another release: it takes the fleet over, canary first.
            fleet.commit("orders:3")
            fleet.until(fleet.settled)
            assert [fleet.image(name) for name in CLUSTERS] == ["orders:3"] * 3
            assert daemon.stop(signal.SIGINT) == 130


def test_steering_is_audited(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(lambda: fleet.newest().get("state") == "Active")
        name = fleet.newest()["id"]
        assert fleet.ask("rollout", "pause", name, "--reason", "lunch")["state"] == "Paused"
        assert fleet.command("rollout", "pause", name).returncode == 2
        assert fleet.ask("rollout", "resume", name)["state"] == "Active"
        fleet.ask("rollout", "pause", name)
        assert fleet.ask("rollout", "abort", name, "--reason", "wrong release")["state"] == "Aborted"
        quarantined = "Quarantined"
        fleet.until(lambda: fleet.ask("explain", "orders", "--cluster", "c1")["reason"] == quarantined)
        ordered = [event for event in fleet.ask("events")["events"] if event["reason"] == "Ordered"]
        assert [event["data"]["verb"] for event in reversed(ordered)] == ["pause", "resume", "pause", "abort"]
        assert all("@" in event["actor"] for event in ordered)
        assert ordered[0]["data"]["reason"] == "wrong release"
        fleet.ask("rollout", "retry", name, "--reason", "it was right after all")
        fleet.until(fleet.settled)
        assert fleet.command("rollout", "retry", name).returncode == 2
        assert fleet.command("rollout", "abort", name).returncode == 2
        assert daemon.stop() == 143


def test_drift_is_shown_and_repaired(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        same = fleet.command("diff", "orders")
        assert same.returncode == 0, same.stdout
        fleet.on_loop(fleet.clusters["b1"].set_unreachable, True)
        fleet.until(lambda: fleet.ask("status")["clusters"].get("Unreachable") == 1)
        assert fleet.ask("explain", "orders", "--cluster", "b1")["reason"] == "ClusterUnreachable"
        assert fleet.command("health", "orders").returncode == 1  # out of reach is Unknown
        patch = {"spec": {"image": "by/hand:1"}, "metadata": {"annotations": {"by": "hand"}}}
        fleet.on_loop(fleet.clusters["b1"].edit, "flink.apache.org", "FlinkDeployment", "orders", "orders", patch)
        fleet.on_loop(fleet.clusters["b1"].set_unreachable, False)
        fleet.until(lambda: fleet.image("b1") == "orders:1")
        live = fleet.live("b1")
        assert live is not None
        assert live["metadata"]["annotations"]["by"] == "hand"  # what others own stays
        fleet.until(fleet.settled)
        assert any(event["reason"] == "Healing" for event in fleet.ask("events", "--app", "orders")["events"])
        assert daemon.stop() == 143


def test_probes_metrics_and_who_may_ask(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        assert fetch(fleet, "/healthz")[0] == 200
        status, body = fetch(fleet, "/readyz")
        assert status == 200, body
        status, metrics = fetch(fleet, "/metrics")
        assert status == 200
        for line in (
            'reconciler_cluster_reachable{cluster="a1"} 1.0',
            'reconciler_targets_health{health="Healthy"} 3.0',
            'reconciler_targets_sync{sync="in-sync"} 3.0',
            'reconciler_problems{severity="error",source="fleet"} 0.0',
            'reconciler_rollouts_ended_total{state="Succeeded"} 1.0',
            "reconciler_outbox_backlog 0.0",
        ):
            assert line in metrics, metrics
        over_tcp = run_command("status", "--server", tcp_address(fleet), "-o", "json")
        assert json.loads(over_tcp.stdout)["targets"]["synced"] == 3
        # A page of another site, and a name that somebody made resolve to this machine, are refused.
        assert fetch(fleet, "/api/v1/status", Host="evil.example.com")[0] == 403
        assert fetch(fleet, "/api/v1/status", Origin="https://evil.example.com")[0] == 403
        assert fetch(fleet, "/api/v1/nothing")[0] == 404
        socket = socket_path(fleet.state_dir)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        # One daemon at a time: the second says so in one line and leaves the first alone.
        second = subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", "run", "--config", str(fleet.config)],
            capture_output=True, text=True, env=environment(), timeout=20,
        )  # fmt: skip
        assert second.returncode == 3
        assert second.stderr.count("\n") == 1
        assert "in use by process" in second.stderr
        assert fleet.command("status").returncode == 0
        # Nor do two share an address: the one that comes later ends, and says with what.
        taken = tcp_address(fleet).removeprefix("http://")
        third = fleet.directory / "third.yaml"
        third.write_text(f"stateDir: {fleet.directory / 'third'}\nlisten: {taken}\n")
        ended = subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", "run", "--config", str(third)],
            capture_output=True, text=True, env=environment(), timeout=20,
        )  # fmt: skip
        assert ended.returncode == 3
        assert ended.stderr.splitlines()[-1].startswith(f"reconciler: cannot listen on {taken}")
        # A cluster that swallows every packet holds nobody up, the end of the daemon neither.
        fleet.on_loop(partial(fleet.clusters["b1"].set_unreachable, True, silent=True))
        assert daemon.stop() == 143  # within five seconds, or it raises
        assert not socket.exists()
        assert fleet.command("status").returncode == 3


def test_a_bad_commit_leaves_the_rest_alone(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        fleet.commit("orders:2", **{"apps/broken/app.yaml": "kind: [Application\n"})
        fleet.until(lambda: fleet.image("a1") == "orders:2")
        fleet.until(fleet.settled)
        assert fleet.ask("status")["sources"][0]["errors"] >= 1
        assert daemon.stop() == 143


def test_a_cluster_without_credentials_is_named(tmp_path: Path) -> None:
    with LiveFleet(tmp_path, ["a1", "c1"]) as fleet:
        text = fleet.config.read_text().replace("  c1:\n", "  other:\n")
        fleet.config.write_text(text)
        fleet.commit("orders:1")
        with fleet.daemon() as daemon:
            daemon.ready()
            fleet.until(lambda: fleet.image("a1") == "orders:1")
            states = {cluster["cluster"]: cluster for cluster in fleet.ask("clusters")["clusters"]}
            assert states["c1"]["state"] == "NoCredentials"
            assert "clusters.c1" in states["c1"]["reason"]["message"]
            assert daemon.stop() == 143


def test_a_plan_against_what_is_live(fleet: LiveFleet) -> None:
    fleet.commit("orders:1")
    with fleet.daemon() as daemon:
        daemon.ready()
        fleet.until(fleet.settled)
        # Two commits that the daemon never sees: between them nothing is what it has.
        base = fleet.files("orders:7")
        first = fleet.repository.commit(base, branch="feature")
        second = fleet.repository.commit(fleet.files("orders:8"), branch="feature")
        path = str(fleet.repository.path)
        for live, old in ((True, "orders:1"), (False, "orders:7")):
            arguments = ["plan", path, "--from", first, "--to", second, *(["--live"] if live else [])]
            found = fleet.ask(*arguments)
            (group,) = found["groups"]
            assert len(group["targets"]) == 3
            assert [change["old"] for change in group["diff"][0]["changes"]] == [old]
            assert found["live"] is live
        # A commit that asks for what is live already is no change at all.
        third = fleet.repository.commit(fleet.files("orders:1"), branch="feature")
        assert fleet.ask("plan", path, "--from", first, "--to", third, "--live")["applications"] == []
        assert daemon.stop() == 143
