"""History ends: what was compacted can no longer be listed, nor a list continued.

A real API server forgets after five minutes; here its etcd is compacted at once, on a control plane of this module's
own, because that takes away the history of everybody else's tests, too.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reconciler.shell.kube_http import transport_from_kubeconfig
from tests.contract.api import Api
from tests.contract.conftest import BACKENDS, prepared, simulated
from tests.control_plane import server

Expiring = tuple[Api, Callable[[str], None]]


def compact_etcd(plane: server.ControlPlane, revision: str) -> None:
    """Forget everything before this revision."""
    body = json.dumps({"revision": revision, "physical": True}).encode()
    request = urllib.request.Request(  # noqa: S310 - an address of our own on 127.0.0.1
        f"{plane.etcd_url}/v3/kv/compaction", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
        assert response.status == 200


@pytest.fixture(params=[param for param in BACKENDS if param != "http"])
def expiring(request: pytest.FixtureRequest) -> Iterator[Expiring]:
    """Requests on a server whose history can be cut off at a revision."""
    loop = asyncio.new_event_loop()
    with ExitStack() as resources:
        resources.callback(loop.close)
        if request.param == "direct":
            engine = simulated()
            api = Api("direct", engine.transport(), loop, "expiry", "expiry-spare")

            def cut(revision: str) -> None:
                assert int(revision) == engine.revision
                engine.compact()
        else:
            # Recent versions are served from the API server's memory unless this is off.
            flags = ("--feature-gates=ListFromCacheSnapshot=false",)
            assets = request.getfixturevalue("assets")
            plane = resources.enter_context(server.start(assets, flink_crds=False, apiserver_flags=flags))
            transport = loop.run_until_complete(transport_from_kubeconfig(plane.kubeconfig))
            resources.callback(lambda: loop.run_until_complete(transport.close()))
            api = Api("real", transport, loop, "expiry", "expiry-spare")

            def cut(revision: str) -> None:
                compact_etcd(plane, revision)

        yield prepared(api), cut


def test_lists_of_a_compacted_version_are_gone(expiring: Expiring) -> None:
    api, cut = expiring
    for number in range(4):
        api.create("configmaps", f"c{number}", {}).expect(201)
    first = api.list("configmaps", limit="2").expect(200)
    for number in range(4, 6):
        api.create("configmaps", f"c{number}", {}).expect(201)
    cut(api.list("configmaps").expect(200)["metadata"]["resourceVersion"])

    version = first["metadata"]["resourceVersion"]
    api.list("configmaps", resourceVersion=version, resourceVersionMatch="Exact").expect_error(410, "Expired")

    answer = api.list("configmaps", limit="2", **{"continue": first["metadata"]["continue"]})
    error = answer.expect(410)
    assert (error["kind"], error["reason"], error["code"]) == ("Status", "Expired", 410)
    # The answer carries a token that goes on from the same name in the newest version: pages of two versions.
    rest = api.list("configmaps", **{"continue": error["metadata"]["continue"]}).expect(200)
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2", "c3", "c4", "c5"]
    assert int(rest["metadata"]["resourceVersion"]) > int(version)
