"""A cluster of the stage that is a real control plane: etcd and kube-apiserver, and nobody else behind them.

What a cluster has besides, controllers, is played by the simulator's models on the policy clock. The daemon comes in by
a line that can be cut; operator and hands stand in the same room and use none. All of them write through one wire,
which knows what is still on its way.

    cluster = RealCluster("eu-west-1a", plane, clock)
    await cluster.start(scope, seed=1)
    cluster.access()                           # address, certificate and token, for the daemon's kubeconfig
    await cluster.stop()
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from reconciler.core.model import Manifest, ObjectKey
from reconciler.demo.cluster import Change, JobLog, JobState
from reconciler.demo.control_plane.plane import ADMINISTRATOR, ControlPlane
from reconciler.demo.line import Line
from reconciler.demo.wire import Wire
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_connect import LazyTransport
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.ports import Clock
from reconciler.shell.scope import Scope
from reconciler.shell.transport import Request, Response, Transport
from reconciler.sim.cluster import EDITOR
from reconciler.sim.machine import Ref
from reconciler.sim.operator import FINALIZERS, FLINK_GROUP
from reconciler.sim.remote import RemoteControllers
from reconciler.sim.remote_access import Object, merge_request

#: The models watch six kinds, and write and read beside that.
CONNECTIONS_MAX = 16
MESSAGE_LENGTH_MAX = 400


class HandRefusedError(Exception):
    """A real control plane refused what a step did by hand: the step is wrong, and the message says about what."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server: what a kubeconfig says of it."""

    server: str
    certificate_authority: str
    token: str


class RealCluster:
    """A StageCluster over a control plane that runs."""

    def __init__(self, name: str, plane: ControlPlane, clock: Clock) -> None:
        self._name = name
        self._plane = plane
        self._clock = clock
        self._log = JobLog()
        address = urlsplit(plane.url)
        assert address.hostname is not None
        assert address.port is not None
        self._line = Line(address.hostname, address.port)
        self._wire = Wire(lambda: clock.now().wall)
        self._transport = self._wire.other(LazyTransport(self._connect))
        self._hands = KubeCluster(name, self._transport)
        self._controllers: RemoteControllers | None = None

    async def _connect(self) -> Transport:
        return await transport_from_kubeconfig(self._plane.kubeconfig, max_connections=CONNECTIONS_MAX)

    async def start(self, scope: Scope, seed: int) -> None:
        """Let the controllers begin, and the daemon in. Raises KubeError and TransportError."""
        self._controllers = RemoteControllers(
            self._name, self._transport, self._clock, scope, on_change=self._changed, seed=seed
        )
        await self._controllers.start()
        await self._line.mend()

    async def stop(self) -> None:
        """Close everything but the control plane. The controllers' tasks end with their scope, before this."""
        if self._controllers is not None:
            self._controllers.stop()
        await self._line.cut()
        await self._transport.close()

    def access(self) -> Access:
        """By the line, as the administrator."""
        authority = base64.b64encode(self._plane.ca_file.read_bytes()).decode()
        return Access(f"https://127.0.0.1:{self._line.port}", authority, self._plane.tokens[ADMINISTRATOR])

    def wired(self, transport: Transport) -> Transport:
        """A transport of the daemon's, whose exchanges the wire knows of."""
        return self._wire.daemon(transport)

    def _changed(self, ref: Ref, _before: Object | None, after: Object | None) -> None:
        if after is not None and ref.kind in FINALIZERS:
            self._log.note(ObjectKey(FLINK_GROUP, *ref), after, self._clock.now().wall)

    # ---- StageCluster --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """See StageCluster."""
        return self._name

    @property
    def changes(self) -> Sequence[Change]:
        """See StageCluster."""
        return self._wire.changes

    @property
    def jobs(self) -> Sequence[JobState]:
        """See StageCluster."""
        return self._log.states

    @property
    def idle(self) -> bool:
        """See StageCluster."""
        return self._wire.still and (self._controllers is None or self._controllers.idle())

    async def read(self, api_version: str, key: ObjectKey) -> Manifest | None:
        """See StageCluster."""
        return await self._hands.get(api_version, key)

    async def edit(self, api_version: str, key: ObjectKey, patch: dict[str, Any], manager: str = EDITOR) -> None:
        """See StageCluster."""
        await self._by_hand(merge_request(await self._path(api_version, key), patch, manager))

    async def delete(self, api_version: str, key: ObjectKey) -> None:
        """See StageCluster."""
        headers = (("accept", "application/json"),)
        await self._by_hand(Request("DELETE", await self._path(api_version, key), headers=headers))

    async def cut(self) -> None:
        """See StageCluster."""
        await self._line.cut()

    async def mend(self) -> None:
        """See StageCluster."""
        await self._line.mend()

    async def _by_hand(self, request: Request) -> Response:
        answer = await self._transport.request(request)
        if answer.status >= 300:
            said = answer.body.decode("utf-8", "replace")[:MESSAGE_LENGTH_MAX]
            raise HandRefusedError(f"{request.method} {request.path} on {self._name}: {answer.status} {said}")
        return answer

    async def _path(self, api_version: str, key: ObjectKey) -> str:
        resource = await self._hands.resource(api_version, key.kind)
        root = f"/apis/{api_version}" if resource.group else f"/api/{api_version}"
        place = f"/namespaces/{key.namespace}" if resource.namespaced else ""
        return f"{root}{place}/{resource.plural}/{key.name}"
