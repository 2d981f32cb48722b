"""A whole daemon behind the fault proxy: it converges, does nothing twice, and says what is the matter meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.control_plane.server import ADMINISTRATOR, ControlPlane, call
from tests.faults import faults
from tests.faults.certificates import Certificate
from tests.faults.exchange import Asked
from tests.faults.faults import Fault
from tests.faults.fleet import FaultyFleet, faulty_fleet
from tests.faults.proxy import Rule, lists, reads
from tests.integration.live_fleet import POLICY

pytestmark = pytest.mark.controlplane


def writes_to(path: str, method: str) -> Callable[[Asked], bool]:
    """Writes of this method to this object."""
    return lambda asked: asked.writes and asked.method == method and asked.path == path


#: Faults of a write, and whether it was carried out under them.
AMBIGUOUS: list[tuple[Fault, bool]] = [
    (faults.ResetAfter(), True),
    (faults.GatewayAfter(504), True),
    (faults.ResetInBody(), True),
    (faults.CutJson(), True),
    (faults.Garbage(), True),
    (faults.ResetBefore(), False),
    (faults.INTERNAL, False),
    (faults.Gateway(502), False),
    (faults.CONFLICT, False),
    (faults.FORBIDDEN, False),  # as an API server says that has just started, and has read no role binding yet
    (faults.Says(429, "TooManyRequests", retry_after_s=1), False),
]


def test_ambiguous_writes_are_read_again_and_never_happen_twice(control_plane: ControlPlane, tmp_path: Path) -> None:
    with faulty_fleet(control_plane, tmp_path, "faults-ambiguous") as faulty:
        fleet = faulty.fleet
        before = faulty.live(faulty.job_path)
        assert before is not None
        for number, (fault, carried_out) in enumerate(AMBIGUOUS, 2):
            path = faulty.notes_path if number % 2 else faulty.job_path
            since = faulty.proxy.last_number
            rule = faulty.proxy.play(fault, when=writes_to(path, "PATCH"), times=1)
            fleet.commit(f"orders:{number}")
            faulty.until(partial(faulty.has, f"orders:{number}"))
            faulty.settle()
            assert rule.played == 1
            entries = faulty.entries(path, since)
            first = next(place for place, entry in enumerate(entries) if entry.fault)
            # The next question about this object is a read, and what was carried out is not asked for again.
            assert entries[first + 1].method == "GET", (fault, entries)
            assert sum(entry.writes for entry in entries) == 1, (fault, entries)
            assert [entry.sent for entry in entries if entry.fault] == [carried_out]
        after = faulty.live(faulty.job_path)
        assert after is not None
        # One generation a release: no effect twice, on the API server's own count.
        assert after["metadata"]["generation"] - before["metadata"]["generation"] == len(AMBIGUOUS)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_creations_and_deletions_in_doubt_are_read_again(control_plane: ControlPlane, tmp_path: Path) -> None:
    with faulty_fleet(control_plane, tmp_path, "faults-doubt") as faulty:
        fleet, path = faulty.fleet, faulty.notes_path
        in_doubt: list[Fault] = [faults.ResetAfter(), faults.ResetBefore()]
        for number, fault in enumerate(in_doubt, 2):
            since = faulty.proxy.last_number
            rule = faulty.proxy.play(fault, when=writes_to(path, "DELETE"), times=1)
            faulty.without_notes(f"orders:{number}0")
            faulty.until(lambda: faulty.live(faulty.notes_path) is None)
            faulty.settle()
            faulty.until(partial(confirmed_gone, faulty, path, since))
            entries = faulty.entries(path, since)
            deleted = [place for place, entry in enumerate(entries) if entry.method == "DELETE"]
            assert rule.played == 1
            assert entries[deleted[0] + 1].method == "GET"
            assert sum(entry.writes for entry in entries) == 1
            since = faulty.proxy.last_number
            rule = faulty.proxy.play(fault, when=writes_to(path, "PATCH"), times=1)
            fleet.commit(f"orders:{number}1")
            faulty.until(partial(faulty.has, f"orders:{number}1"))
            faulty.settle()
            entries = faulty.entries(path, since)
            first = next(place for place, entry in enumerate(entries) if entry.fault)
            assert entries[first + 1].method == "GET"
            assert sum(entry.writes for entry in entries) == 1


def confirmed_gone(faulty: FaultyFleet, path: str, since: int) -> bool:
    """True once the daemon was told that what was at `path` is gone: by a look after its deletion, or by the answer to
    a deletion that no fault took away."""
    entries = faulty.entries(path, since)
    deleted = next((place for place, entry in enumerate(entries) if entry.method == "DELETE"), len(entries))
    return any(
        (entry.method == "GET" and entry.status == 404)
        or (entry.method == "DELETE" and entry.status == 200 and not entry.fault)
        for entry in entries[deleted:]
    )


WORDS: list[tuple[Fault | Certificate, str]] = [
    (faults.Gateway(503), "HTTP status 503 and no Kubernetes status in it"),
    (faults.Gateway(403), "HTTP status 403 that is not the API server's"),
    (faults.UNAUTHORIZED, "Unauthorized"),
    (faults.INTERNAL, "etcdserver: request timed out"),
    (faults.TOO_MANY, "Too many requests"),
    (faults.ResetBefore(), "the connection was closed"),
    (faults.CutJson(), "was answered without JSON"),
    (faults.BlackHole(), "does not answer"),
    (Certificate.EXPIRED, "its certificate has expired"),
    (Certificate.WRONG_NAME, "its certificate is for another name"),
    (Certificate.UNKNOWN_AUTHORITY, "its certificate is not from the authority"),
]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_cluster_that_cannot_be_known_is_unknown_everywhere(
    control_plane: ControlPlane, tmp_path: Path, part: int
) -> None:
    with faulty_fleet(control_plane, tmp_path, f"faults-words-{part}") as faulty:
        fleet, proxy = faulty.fleet, faulty.proxy
        for fault, words in WORDS[part::3]:
            if isinstance(fault, Certificate):
                proxy.present(fault)
            else:
                proxy.play(fault)
                proxy.cut()
            faulty.until(lambda: faulty.cluster("a1")["state"] == "Unreachable")
            faulty.until(partial(faulty.says, words))
            explained = faulty.explained("a1")
            assert (explained["state"], explained["blocked_by"], explained["reason"]) == (
                "Unreachable",
                "cluster",
                "ClusterUnreachable",
            ), fault
            assert "last heard" in explained["message"]
            assert faulty.cluster("a1")["healthy"] == 0
            assert faulty.states() == {"Synced": 1, "Unreachable": 1}
            status = fleet.ask("status")["targets"]
            assert (status["synced"], status["healthy"]) == (1, 1), fault
            health = faulty.health("a1")
            assert (health["health"], health["reason"]) == ("Unknown", "ClusterUnreachable")
            diff = fleet.command("diff", "orders", "--cluster", "a1", "-o", "json")
            assert '"not-judgeable"' in diff.stdout
            assert '"equal"' not in diff.stdout
            # The other one is what it was.
            assert faulty.cluster("c1")["state"] == "Reachable"
            proxy.well()
            proxy.cut()
            faulty.settle()


def test_a_kind_that_can_no_longer_be_read_is_unknown(control_plane: ControlPlane, tmp_path: Path) -> None:
    """The cluster answers, and says truly that we may not know: what was known before does not stay green."""
    with faulty_fleet(control_plane, tmp_path, "faults-blind") as faulty:
        proxy = faulty.proxy
        proxy.play(faults.FORBIDDEN, when=lambda asked: not asked.writes and "/configmaps" in asked.path)
        proxy.cut()
        faulty.until(lambda: faulty.states() == {"Synced": 1, "Unknown": 1})
        explained = faulty.explained("a1")
        assert (explained["blocked_by"], explained["reason"]) == ("observation", "Forbidden")
        assert explained["message"].startswith("ConfigMap cannot be observed: configmaps is forbidden")
        assert (faulty.cluster("a1")["state"], faulty.cluster("a1")["healthy"]) == ("Reachable", 0)
        health = faulty.health("a1")
        assert (health["health"], health["reason"]) == ("Unknown", "Forbidden")
        proxy.well()
        faulty.settle()


BAD_LISTS: list[Fault] = [
    faults.ShortList(),
    faults.CutJson(),
    faults.EndInBody(),
    faults.EXPIRED,
    faults.Garbage(b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{},"items":[]}'),
    faults.Garbage(b'{"kind":"List","items":null}'),
]


def played(rule: Rule, times: int) -> bool:
    """True once the fault was met so often."""
    return rule.played >= times


def test_nothing_is_deleted_or_made_again_on_lists_that_are_not_whole(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with faulty_fleet(control_plane, tmp_path, "faults-lists") as faulty:
        proxy = faulty.proxy
        before = faulty.live(faulty.notes_path), faulty.live(faulty.job_path)
        since = proxy.last_number
        for fault in BAD_LISTS:
            rule = proxy.play(fault, when=lists)
            proxy.cut()
            faulty.until(partial(played, rule, 6))
            rule.end()
        faulty.settle()
        # Not a single write, and everything is what it was (its status apart, which is the operator's).
        assert [entry for entry in proxy.entries(since=since) if entry.writes] == []
        after = faulty.live(faulty.notes_path), faulty.live(faulty.job_path)
        for one, other in zip(before, after, strict=True):
            assert one is not None
            assert other is not None
            assert (one["metadata"]["uid"], one.get("spec"), one.get("data")) == (
                other["metadata"]["uid"],
                other.get("spec"),
                other.get("data"),
            )


def test_a_faulty_cluster_delays_only_itself(control_plane: ControlPlane, tmp_path: Path) -> None:
    names = ("a1", "c1", "c2")
    with faulty_fleet(control_plane, tmp_path, "faults-itself", names, real="c1") as faulty:
        fleet, proxy = faulty.fleet, faulty.proxy
        proxy.play(faults.BlackHole())
        proxy.cut()
        # Of two targets in the wave one may be away.
        policy = POLICY.replace("ON_FAILURE", "rollback").replace(
            "maxUnreachable: 0}\n  pro", "maxUnreachable: 50%}\n  pro"
        )
        fleet.commit("orders:2", **{"policies/rollout.yaml": policy})
        faulty.until(lambda: faulty.simulated_image("a1") == faulty.simulated_image("c2") == "orders:2")
        assert faulty.image() == "orders:1"
        faulty.until(lambda: faulty.cluster("c1")["state"] == "Unreachable")
        assert [faulty.cluster(name)["state"] for name in ("a1", "c2")] == ["Reachable", "Reachable"]
        proxy.well()
        proxy.cut()
        faulty.until(lambda: faulty.image() == "orders:2")
        faulty.settle()


def test_a_drip_and_lost_events_only_take_longer(control_plane: ControlPlane, tmp_path: Path) -> None:
    with faulty_fleet(control_plane, tmp_path, "faults-slow") as faulty:
        fleet, proxy = faulty.fleet, faulty.proxy
        drip = proxy.play(faults.Drip(pause_s=0.01, pieces=20), when=lambda asked: reads(asked) and not asked.watches)
        lost = proxy.play_events(faults.Lost(), when=lambda event: event.type == "MODIFIED")
        fleet.commit("orders:2")
        faulty.until(lambda: faulty.image() == "orders:2")
        faulty.settle()
        assert drip.played > 0
        assert lost.played > 0


def test_a_token_that_is_revoked_and_replaced(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Really revoked: the API server itself refuses it. The kubeconfig with the new one is read without a restart."""
    binding = {
        "metadata": {"name": "faults-token"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "faults-token", "namespace": "default"}],
    }
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert call(control_plane, "POST", bindings, binding)[0] == 201
    token = control_plane.service_account_token("default", "faults-token")
    with faulty_fleet(control_plane, tmp_path, "faults-token", token=token) as faulty:
        fleet, proxy = faulty.fleet, faulty.proxy
        assert call(control_plane, "DELETE", "/api/v1/namespaces/default/serviceaccounts/faults-token")[0] == 200
        faulty.until(lambda: faulty.cluster("a1")["state"] == "Unreachable")
        assert faulty.cluster("a1")["reason"]["code"] == "Unauthorized"
        assert "Unauthorized" in faulty.explained("a1")["message"]
        again = control_plane.service_account_token("default", "faults-token")
        proxy.write_kubeconfig(tmp_path / "through-proxy.yaml", token=again)
        fleet.commit("orders:2")
        faulty.until(lambda: faulty.image() == "orders:2")
        faulty.settle()
        log = fleet.log()
        for secret in (token, again, control_plane.tokens[ADMINISTRATOR]):
            assert secret not in log
