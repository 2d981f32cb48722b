"""The backends of the contract tests: `real`, `http` and `direct`.

Every contract test runs on each of them: on a real kube-apiserver (marker `controlplane`), on the simulated API
server over HTTP and on the same engine called directly. One server per backend and worker is shared by all tests,
which keep apart by namespaces named after themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from reconciler.shell.kube_http import AiohttpTransport, transport_from_kubeconfig
from reconciler.shell.kubeconfig import Connection, FixedCredentials
from reconciler.shell.transport import Transport
from reconciler.sim.admission import Webhook
from reconciler.sim.apiserver import SimApiServer
from reconciler.sim.http import serve
from reconciler.sim.schema import load_catalog
from tests.contract.api import Api
from tests.control_plane import webhooks
from tests.control_plane.server import ControlPlane
from tests.control_plane.webhooks import WebhookServer

Admission = Callable[[Webhook], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Connected:
    """One backend: the way to it, the loop that lives on, and how a webhook is put in force there."""

    name: str
    transport: Transport
    loop: asyncio.AbstractEventLoop
    admission: Admission


def simulated() -> SimApiServer:
    """A simulated API server that serves the specimen, too."""
    return SimApiServer(catalog=load_catalog("specimen"))


def admission_of(plane: ControlPlane, resources: ExitStack) -> Admission:
    """Webhooks on a real control plane; their server starts with the first one."""
    servers: list[WebhookServer] = []

    def admission(webhook: Webhook) -> AbstractContextManager[None]:
        if not servers:
            servers.append(resources.enter_context(webhooks.serve()))
        return webhooks.registered(plane, servers[0], webhook)

    return admission


def simulated_admission(server: SimApiServer) -> Admission:
    """Webhooks on a simulated API server: called in its process."""

    @contextmanager
    def admission(webhook: Webhook) -> Iterator[None]:
        server.webhooks.append(webhook)
        yield
        server.webhooks.remove(webhook)

    return admission


async def connect(server: SimApiServer, name: str, resources: AsyncExitStack) -> Transport:
    """The transport of a simulated backend."""
    if name == "direct":
        return server.transport()
    url = await resources.enter_async_context(serve(server))
    return AiohttpTransport(Connection(url), FixedCredentials(None))


BACKENDS = [pytest.param("real", marks=pytest.mark.controlplane), "http", "direct"]


@pytest.fixture(scope="session", params=BACKENDS, name="connected")
def connected_fixture(request: pytest.FixtureRequest) -> Iterator[Connected]:
    """A transport to one backend with the loop it lives on."""
    name: str = request.param
    loop = asyncio.new_event_loop()
    servers, resources = ExitStack(), AsyncExitStack()
    try:
        if name == "real":
            plane: ControlPlane = request.getfixturevalue("control_plane")
            transport: Transport = loop.run_until_complete(transport_from_kubeconfig(plane.kubeconfig))
            admission = admission_of(plane, servers)
        else:
            server = simulated()
            transport = loop.run_until_complete(connect(server, name, resources))
            admission = simulated_admission(server)
        resources.push_async_callback(transport.close)
        yield Connected(name, transport, loop, admission)
    finally:
        loop.run_until_complete(resources.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        servers.close()


def names_of(node: str) -> tuple[str, str]:
    """Two namespaces of one test: readable, at most 63 characters, distinct."""
    words = re.sub(r"[^a-z0-9]+", "-", node.rpartition("::")[2].partition("[")[0].removeprefix("test_").lower())
    digest = hashlib.sha256(node.encode()).hexdigest()[:8]
    return f"{words[:48].strip('-')}-{digest}", f"{words[:42].strip('-')}-spare-{digest}"


@pytest.fixture
def api(connected: Connected, request: pytest.FixtureRequest) -> Api:
    """Requests on one backend, in a namespace of this test's own."""
    namespace, spare = names_of(request.node.nodeid)
    backend = connected
    return prepared(Api(backend.name, backend.transport, backend.loop, namespace, spare, backend.admission))


def prepared(api: Api) -> Api:
    """The same, with its namespaces made."""
    for name in (api.namespace, api.spare_namespace):
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.send("POST", "/api/v1/namespaces", body).expect(201)
    return api
