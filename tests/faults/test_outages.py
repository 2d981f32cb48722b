"""A real API server that is stopped, killed and started again, and its etcd paused, killed and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from reconciler.core.model import Manifest, ObjectKey
from reconciler.shell import follow
from reconciler.shell import kube_errors as errors
from reconciler.shell.kube_errors import Outcome
from reconciler.shell.observe import Observer
from tests.control_plane import server
from tests.control_plane.build import Assets
from tests.control_plane.server import ControlPlane
from tests.faults.fleet import faulty_fleet
from tests.faults.parts import CONFIG_MAP, config_map, connected, eventually, impatient, observing, put, truth

pytestmark = pytest.mark.controlplane

API, ETCD = "kube-apiserver", "etcd"


@pytest.fixture
def own_plane(assets: Assets) -> Iterator[ControlPlane]:
    """A control plane that this test may break."""
    with server.start(assets) as plane:
        yield plane


@pytest.fixture
def impatient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts and pauses of the client that a test can wait for."""
    impatient(monkeypatch, 3.0)
    monkeypatch.setattr(follow, "BACKOFF_START_S", 0.05)
    monkeypatch.setattr(follow, "BACKOFF_MAX_S", 0.5)


def orders(plane: ControlPlane, *words: str) -> None:
    """Several orders in turn: "stop etcd", "start etcd"."""
    for one in words:
        plane.order(*one.split(" "))


def heard_since(observer: Observer, moment_s: float) -> bool:
    """True if the cluster is heard from again."""
    return observer.reason is None and (observer.heard_at or 0.0) > moment_s


def knows(observer: Observer, made: Manifest) -> bool:
    """True if the observer has exactly this."""
    return observer.live(ObjectKey.of(made)) == made


@pytest.mark.usefixtures("impatient_client")
def test_the_observer_lives_through_outages(own_plane: ControlPlane) -> None:
    """Directly, without the proxy: the errors are those of the real thing."""
    namespace = "default"
    before = put(own_plane, config_map(namespace, "before", label=namespace))
    key = ObjectKey.of(before)
    outages = [
        ((f"kill {API}",), (f"start {API}",)),
        ((f"stop {API}",), (f"start {API}",)),
        ((f"pause {API}",), (f"resume {API}",)),
        ((f"pause {ETCD}",), (f"resume {ETCD}",)),
        ((f"kill {ETCD}",), (f"start {ETCD}",)),
    ]

    async def work() -> None:
        async with (
            connected(own_plane.kubeconfig) as cluster,
            observing(cluster, namespace, watch_idle_s=5) as observer,
        ):
            await eventually(lambda: observer.live(key) == before)
            for number, (begin, end) in enumerate(outages):
                await asyncio.to_thread(orders, own_plane, *begin)
                # Out of reach, and not for a moment empty.
                await eventually(
                    lambda: observer.problem(CONFIG_MAP.group_kind) is not None and observer.reason is not None
                )
                heard_at = observer.heard_at
                with pytest.raises(errors.KubeError) as read:
                    await cluster.get("v1", key)
                with pytest.raises(errors.KubeError) as write:
                    await cluster.apply(config_map(namespace, f"n{number}"), uid=None, force=False, dry_run=False)
                assert read.value.outcome in (Outcome.TEMPORARY, Outcome.NOT_SENT), begin
                assert write.value.outcome in (Outcome.AMBIGUOUS, Outcome.NOT_SENT), (begin, write.value)
                assert observer.live(key) == before, begin
                # Without etcd the API server still answers watches, from memory: that is to be heard from.
                assert observer.heard_at == heard_at or ETCD in begin[0], begin
                await asyncio.to_thread(orders, own_plane, *end)
                await eventually(partial(heard_since, observer, heard_at or 0.0))
                made = await asyncio.to_thread(put, own_plane, config_map(namespace, f"a{number}", label=namespace))
                await eventually(partial(knows, observer, made))
            now = await asyncio.to_thread(truth, own_plane, namespace)
            for made in now.values():
                await eventually(partial(knows, observer, made))

    asyncio.run(work())


def test_a_daemon_lives_through_outages(own_plane: ControlPlane, tmp_path: Path) -> None:
    with faulty_fleet(own_plane, tmp_path, "outages", jobs=False) as faulty:
        fleet, uid = faulty.fleet, (faulty.live(faulty.notes_path) or {})["metadata"]["uid"]
        for number, (begin, end) in enumerate((("kill", API), ("kill", ETCD), ("pause", ETCD)), 2):
            own_plane.order(begin, end)
            # Bookmarks may come from the API server's memory, and for a moment the cluster counts as heard again.
            faulty.until(lambda: faulty.cluster("a1")["state"] == "Unreachable")
            faulty.until(lambda: faulty.states() == {"Synced": 1, "Unreachable": 1})
            faulty.until(lambda: faulty.explained("a1")["reason"] == "ClusterUnreachable")
            assert faulty.cluster("c1")["state"] == "Reachable"
            fleet.commit(f"orders:{number}")
            own_plane.order("resume" if begin == "pause" else "start", end)
            faulty.until(partial(faulty.has, f"orders:{number}"))
            faulty.settle()
        after = faulty.live(faulty.notes_path)
        assert after is not None
        assert after["metadata"]["uid"] == uid
