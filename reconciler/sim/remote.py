"""The models of the Flink operator and of the built-in controllers, as controllers of a real API server.

They are the ones of the simulated cluster (`cluster.py`), with their agendas on the same policy clock; only their way
to the objects differs. Each kind is listed and watched by the shipped adapter, what they write goes out by
`remote_access.py`. There is no Flink and no kubelet behind it: statuses are written, pods are not made.

    controllers = RemoteControllers("eu-west-1a", transport, clock, scope, seed=7, on_change=seen)
    await controllers.start()
    controllers.idle()            # nothing is due, nothing unsent, nothing being listed
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson

from reconciler.core.model import ObjectKey
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_errors import KubeError
from reconciler.shell.ports import Clock
from reconciler.shell.scope import Scope
from reconciler.shell.transport import Request, Transport
from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.cluster import CONTROLLERS, OPERATOR
from reconciler.sim.controllers import BuiltInControllers
from reconciler.sim.machine import Ref
from reconciler.sim.operator import FINALIZERS, FLINK_GROUP, FlinkOperator
from reconciler.sim.remote_access import PATHS, Object, ObjectCache, OnChange, Outbox, RemoteAccess

#: API servers send a bookmark about once a minute.
WATCH_IDLE_S = 130.0
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class RemoteControllers:
    """The controllers of one cluster. Their tasks belong to `scope`, whose owner hears of failures. `on_change` is told
    of every object that they look after, as the API server shows it."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        clock: Clock,
        scope: Scope,
        *,
        on_change: OnChange,
        seed: object = 0,
        timings: Timings | None = None,
        behaviours: Behaviours | None = None,
    ) -> None:
        self._name = name
        self._transport = transport
        self._clock = clock
        self._scope = scope
        self._told = on_change
        self._seed = f"{seed}/{name}"
        self._timings = timings
        self._behaviours = behaviours or Behaviours()
        self._cluster = KubeCluster(name, transport, user_agent="reconciler-model-controllers")
        self._cache = ObjectCache(self._changed)
        self._outbox = Outbox(transport, self._cache)
        self._operator: FlinkOperator | None = None
        self._built_in: BuiltInControllers | None = None
        self._listing = 0

    async def start(self) -> None:
        """Begin to look after the cluster. Raises KubeError, TransportError."""
        found = {kind: await self._lifecycle_states(PATHS[kind][1]) for kind in sorted(FINALIZERS)}
        states = {kind: values for kind, values in found.items() if values}
        operator, built_in = (
            RemoteAccess(self._cache, self._outbox, manager, self._clock, states) for manager in (OPERATOR, CONTROLLERS)
        )
        self._operator = FlinkOperator(
            operator, self._clock, seed=self._seed, timings=self._timings, behaviours=self._behaviours
        )
        self._built_in = BuiltInControllers(
            built_in,
            self._clock,
            finish_namespaces=lambda: None,
            seed=self._seed,
            timings=self._timings,
            behaviours=self._behaviours,
        )
        self._scope.start(f"{self._name}/writes", self._outbox.run())
        for kind in sorted(PATHS):
            version = await self._list(kind)
            self._scope.start(f"{self._name}/{kind}", self._watch_for_ever(kind, version))

    def idle(self) -> bool:
        """True if everything written is answered, nothing is being listed, and nothing is due at the present time."""
        agendas = [controller.agenda for controller in (self._operator, self._built_in) if controller is not None]
        return self._outbox.empty and not self._listing and all(agenda.idle() for agenda in agendas)

    def stop(self) -> None:
        """No timer fires any more; the tasks end with their scope."""
        for controller in (self._operator, self._built_in):
            if controller is not None:
                controller.agenda.stop()

    # ---- taking in -----------------------------------------------------------------------------------------------

    def _changed(self, ref: Ref, before: Object | None, after: Object | None) -> None:
        self._told(ref, before, after)
        controller = self._operator if ref.kind in FINALIZERS else self._built_in
        assert controller is not None
        controller.notice(ref, before, after)

    async def _watch_for_ever(self, kind: str, version: str) -> None:
        """Watch from `version` on, and go on from where each watch ended. Raises KubeError when not even a list is
        answered any more."""
        api_version, _ = PATHS[kind]
        while True:
            try:
                events = self._cluster.watch(api_version, kind, "", version, idle_s=WATCH_IDLE_S)
                async with aclosing(events):
                    async for event in events:
                        if event.key is not None and event.object is not None:
                            self._take(event.type, event.key, api_version, event.object)
                        version = event.resource_version
            except KubeError:
                # Whatever it was: a list tells what there is now, and if it cannot, that is the end.
                version = await self._list(kind)

    def _take(self, event: str, key: ObjectKey, api_version: str, value: Object) -> None:
        ref = Ref(key.kind, key.namespace, key.name)
        if event == "DELETED":
            self._cache.gone(ref, str(value["metadata"]["resourceVersion"]))
        else:
            self._cache.offer(ref, {**value, "apiVersion": api_version, "kind": key.kind})

    async def _list(self, kind: str) -> str:
        """Take in all objects of a kind; the version from which a watch misses nothing."""
        api_version, _ = PATHS[kind]
        self._listing += 1
        try:
            version, present = "", set()
            async with aclosing(self._cluster.list_pages(api_version, kind)) as pages:
                async for page in pages:
                    version = page.resource_version
                    for value in page.objects:
                        key = ObjectKey.of(value)
                        present.add(Ref(key.kind, key.namespace, key.name))
                        self._take("ADDED", key, api_version, value)
            for ref in self._cache.refs(kind):
                if ref not in present:
                    self._cache.gone(ref, version)
            return version
        finally:
            self._listing -= 1

    async def _lifecycle_states(self, plural: str) -> frozenset[str]:
        """The values that the cluster's CRD admits in status.lifecycleState; none if it does not say."""
        path = f"{CRDS}/{plural}.{FLINK_GROUP}"
        answer = await self._transport.request(Request("GET", path, headers=(("accept", "application/json"),)))
        crd: Mapping[str, Any] = orjson.loads(answer.body)
        (version,) = [one for one in crd["spec"]["versions"] if one["storage"]]
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
        return frozenset(status.get("lifecycleState", {}).get("enum", ()))
