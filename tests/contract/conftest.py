"""The backends of the contract tests: `real`, `http` and `direct`.

Every contract test runs on each of them: on a real kube-apiserver (marker `controlplane`), on the simulated API
server over HTTP and on the same engine called directly. One server per backend and worker is shared by all tests,
which keep apart by namespaces named after themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from reconciler.shell.kube_http import AiohttpTransport, transport_from_kubeconfig
from reconciler.shell.kubeconfig import Connection, FixedCredentials
from reconciler.shell.transport import Transport
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.http import serve
from reconciler.sim.schema import load_catalog
from tests.contract.api import Api
from tests.control_plane.server import ControlPlane

Connected = tuple[str, Transport, asyncio.AbstractEventLoop]


def simulated() -> SimApiServer:
    """A simulated API server that serves the specimen, too."""
    return SimApiServer(catalog=load_catalog("specimen"))


async def connect(name: str, plane: ControlPlane | None, resources: AsyncExitStack) -> Transport:
    """The transport of one backend."""
    if plane is not None:
        transport: Transport = await transport_from_kubeconfig(plane.kubeconfig)
    elif name == "direct":
        transport = simulated().transport()
    else:
        url = await resources.enter_async_context(serve(simulated()))
        transport = AiohttpTransport(Connection(url), FixedCredentials(None))
    resources.push_async_callback(transport.close)
    return transport


BACKENDS = [pytest.param("real", marks=pytest.mark.controlplane), "http", "direct"]


@pytest.fixture(scope="session", params=BACKENDS, name="connected")
def connected_fixture(request: pytest.FixtureRequest) -> Iterator[Connected]:
    """A transport to one backend with the loop it lives on."""
    name: str = request.param
    plane = request.getfixturevalue("control_plane") if name == "real" else None
    loop = asyncio.new_event_loop()
    resources = AsyncExitStack()
    try:
        transport = loop.run_until_complete(connect(name, plane, resources))
        yield name, transport, loop
    finally:
        loop.run_until_complete(resources.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def names_of(node: str) -> tuple[str, str]:
    """Two namespaces of one test: readable, at most 63 characters, distinct."""
    words = re.sub(r"[^a-z0-9]+", "-", node.rpartition("::")[2].partition("[")[0].removeprefix("test_").lower())
    digest = hashlib.sha256(node.encode()).hexdigest()[:8]
    return f"{words[:48].strip('-')}-{digest}", f"{words[:42].strip('-')}-spare-{digest}"


@pytest.fixture
def api(connected: Connected, request: pytest.FixtureRequest) -> Api:
    """Requests on one backend, in a namespace of this test's own."""
    name, transport, loop = connected
    namespace, spare = names_of(request.node.nodeid)
    return prepared(Api(name, transport, loop, namespace, spare))


def prepared(api: Api) -> Api:
    """The same, with its namespaces made."""
    for name in (api.namespace, api.spare_namespace):
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.send("POST", "/api/v1/namespaces", body).expect(201)
    return api
