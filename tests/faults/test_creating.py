"""Somebody makes the object that we are about to create, and the way to the API server fails: whose is it in the end?

The shipped `perform` on a real API server, through the proxy. Each step is one of a new process: nothing is known but
the inventory's row, which says that the object is intended.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from reconciler.core.model import (
    Intent,
    IntentResult,
    IntentState,
    InventoryItem,
    InventoryPhase,
    Manifest,
    ObjectKey,
    Target,
    Verb,
)
from reconciler.core.ownership import stamp
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.perform import Later, Wanted, perform
from tests.control_plane.server import ControlPlane, call
from tests.faults import faults
from tests.faults.exchange import Asked
from tests.faults.faults import Fault
from tests.faults.parts import connected, impatient, kubeconfig_through, namespace_for, path_of, proxied, put
from tests.races import NotThereYet

pytestmark = pytest.mark.controlplane

OWNER = "0123456789abcdef0123456789abcdef"
TARGET = Target("sample/orders", "real")
#: What may become of the request that creates: not sent, refused on the way, carried out and the answer lost.
LOST: tuple[Fault, ...] = (
    faults.ResetBefore(),
    faults.ResetAfter(),
    faults.INTERNAL,
    faults.GatewayAfter(504),
    faults.Garbage(),
    faults.BlackHole(carry_out=True),
)


class Nobody:
    """Remembers nothing of what was read or written."""

    def observed(self, manifest: Manifest) -> None: ...

    def gone(self, key: ObjectKey) -> None: ...

    def failed(self, error: KubeError) -> None: ...


async def permit() -> Later | None:
    """Nothing stands in the way."""
    return None


async def carry_out(verb: Verb, manifest: Manifest, cluster: Any, uid: str = "") -> IntentResult | Later:
    """One intent for the object of `manifest`, which the inventory knows as intended, or by `uid` as owned."""
    key = ObjectKey.of(manifest)
    phase = InventoryPhase.OWNED if uid else InventoryPhase.INTENDED
    intent = Intent("i1", "rollout:r1", "start", TARGET, verb, key, "v1", "d1", 1, 0)
    wanted = Wanted(manifest if verb is Verb.APPLY else None, InventoryItem(TARGET, key, "v1", phase, uid), OWNER)
    return await perform(intent, wanted, cast(KubeCluster, cluster), Nobody(), permit, 0.0)


def creates(asked: Asked) -> bool:
    """True for the request that creates."""
    return asked.method == "PATCH"


def declared(namespace: str, name: str, **data: str) -> Manifest:
    """A ConfigMap as we send it."""
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
    return stamp({**plain, "data": data}, OWNER, TARGET.application)


@pytest.mark.parametrize("ours", [{"mine": "1"}, {"a": "1"}, {"a": "2"}], ids=["beside", "equal", "conflict"])
def test_what_somebody_made_at_the_same_moment_is_never_ours(
    control_plane: ControlPlane,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ours: dict[str, str],
) -> None:
    namespace = namespace_for(control_plane, request)
    impatient(monkeypatch, 2.0)
    with proxied(control_plane) as proxy:

        async def work() -> None:
            async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
                for number, fault in enumerate(LOST):
                    manifest = declared(namespace, f"a{number}", **ours)
                    plain = {
                        name: value for name, value in manifest["metadata"].items() if name in ("name", "namespace")
                    }
                    theirs = put(control_plane, {**manifest, "metadata": plain, "data": {"a": "1"}})
                    rule = proxy.play(fault, when=creates, times=1)
                    assert isinstance(await carry_out(Verb.APPLY, manifest, NotThereYet(cluster)), Later), fault
                    assert rule.played == 1
                    for verb in (Verb.APPLY, Verb.DELETE):
                        refused = await carry_out(verb, manifest, cluster)
                        assert isinstance(refused, IntentResult)
                        assert refused.reason is not None
                        assert (refused.state, refused.reason.code) == (IntentState.FAILED, "NotOwned"), fault
                    status, live = call(control_plane, "GET", path_of(namespace, f"a{number}"))
                    assert (status, {**live, "apiVersion": "v1", "kind": "ConfigMap"}) == (200, theirs), fault

        asyncio.run(work())


def test_what_we_created_is_ours_whatever_was_lost(
    control_plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if somebody has changed it before we looked again."""
    namespace = namespace_for(control_plane, request)
    impatient(monkeypatch, 2.0)
    with proxied(control_plane) as proxy:

        async def work() -> None:
            async with connected(kubeconfig_through(proxy, control_plane, tmp_path)) as cluster:
                for number, fault in enumerate(LOST):
                    manifest, path = declared(namespace, f"a{number}", a="1"), path_of(namespace, f"a{number}")
                    proxy.play(fault, when=creates, times=1)
                    assert isinstance(await carry_out(Verb.APPLY, manifest, cluster), Later), fault
                    there, made = call(control_plane, "GET", path)
                    if there == 200:
                        put(control_plane, {**made, "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "9"}})
                    done = await carry_out(Verb.APPLY, manifest, cluster)
                    assert isinstance(done, IntentResult)
                    assert done.state is IntentState.DONE, fault
                    live = call(control_plane, "GET", path)[1]
                    assert (live["data"], live["metadata"]["uid"]) == ({"a": "1"}, done.uid), fault
                    assert there == 404 or made["metadata"]["uid"] == done.uid, fault
                    gone = await carry_out(Verb.DELETE, manifest, cluster, done.uid)
                    assert isinstance(gone, IntentResult)
                    assert gone.gone

        asyncio.run(work())
