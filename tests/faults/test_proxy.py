"""The fault proxy itself: transparent when it is well, honest in its log, the same faults for the same seed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.core.model import ObjectKey
from reconciler.shell import kube_errors as errors
from tests.control_plane.server import ADMINISTRATOR, ControlPlane, call
from tests.faults import faults
from tests.faults.chance import EVENT_FAULTS, RATES, REQUEST_FAULTS, RandomFaults
from tests.faults.exchange import Asked
from tests.faults.parts import config_map, connected, kubeconfig_through, namespace_for, proxied
from tests.faults.proxy import writes


def asked(method: str = "GET", path: str = "/api/v1/configmaps", **query: str) -> Asked:
    """A request as the proxy sees it."""
    return Asked(1, method, path, path, query, (), b"")


def drawn(seed: int, others: int = 0) -> list[str]:
    """What two hundred questions meet, when `others` are asked in between."""
    chance = RandomFaults(seed)
    found = []
    for number in range(200):
        found.append(str(chance.of_request(asked(path=f"/api/v1/namespaces/{number % 7}"))))
        for other in range(others):
            chance.of_request(asked("PATCH", f"/other/{other}"))
    return found


def test_a_seed_plays_the_same_faults_to_the_same_questions() -> None:
    assert drawn(7) == drawn(7) == drawn(7, others=3)
    assert drawn(7) != drawn(8)


def test_rates_are_met_and_a_fault_is_played_only_where_it_fits() -> None:
    chance = RandomFaults(3, {"short-list": 0.5})
    listed = [chance.of_request(asked(limit="500")) for _ in range(400)]
    assert 140 < sum(fault is not None for fault in listed) < 260
    assert all(chance.of_request(asked("PATCH")) is None for _ in range(50))
    always = RandomFaults(3, dict.fromkeys(RATES, 1 / len(REQUEST_FAULTS)))
    of_watches = {str(always.of_request(asked(watch="1"))) for _ in range(300)}
    assert str(faults.CutJson()) not in of_watches
    assert str(faults.EndsAtOnce()) in of_watches
    event = faults.Event(asked(watch="1"), "ADDED", {"metadata": {"name": "a"}})
    assert {always.of_event(event) for _ in range(300)} >= set(EVENT_FAULTS.values())
    with pytest.raises(ValueError, match="no such faults: nonsense"):
        RandomFaults(1, {"nonsense": 0.1})


@pytest.mark.controlplane
def test_a_well_proxy_changes_nothing_and_its_log_says_what_was_sent_on(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    namespace = namespace_for(control_plane, request)
    manifest = config_map(namespace, "a", k="ä" * 3000)
    key = ObjectKey.of(manifest)

    with proxied(control_plane) as proxy:

        async def work() -> None:
            async with (
                connected(kubeconfig_through(proxy, control_plane, tmp_path)) as through,
                connected(control_plane.kubeconfig) as direct,
            ):
                made = await through.apply(manifest, uid=None, force=False, dry_run=False)
                assert made == await direct.get("v1", key) == await through.get("v1", key)
                proxy.play(faults.ResetBefore(), when=writes, times=1)
                with pytest.raises(errors.UnreachableError):
                    await through.delete("v1", key, made["metadata"]["uid"])
                assert await through.get("v1", key) == made
                assert await through.delete("v1", key, made["metadata"]["uid"])

        asyncio.run(work())
        entries = proxy.entries(path=f"/api/v1/namespaces/{namespace}/configmaps/a")
        assert [(entry.method, entry.fault, entry.sent, entry.status) for entry in entries] == [
            ("PATCH", "", True, 201),
            ("GET", "", True, 200),
            ("DELETE", "ResetBefore()", False, 0),
            ("GET", "", True, 200),
            ("DELETE", "", True, 200),
        ]
        assert proxy.summary() == {"ResetBefore()": 1}
        assert control_plane.tokens[ADMINISTRATOR] not in str(proxy.entries())
    assert call(control_plane, "GET", f"/api/v1/namespaces/{namespace}/configmaps/a")[0] == 404
