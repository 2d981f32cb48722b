"""One simulated cluster: the API server's engine, the Flink operator, the built-in controllers, and people.

    cluster = SimCluster("eu-west-1a", clock, seed=7)
    transport = cluster.transport("eu-west-1a", plan, generation)     # for the shipped Kubernetes adapter
    cluster.edit("flink.apache.org", "FlinkDeployment", "orders", "orders", {"spec": {"image": "by/hand:1"}})
    cluster.set_unreachable(True)

The cluster outlives the daemon's crashes; it has a clock of its own (the same one where only one daemon lives).
Over HTTP it is served by `HttpFace({name: cluster.server}, intercept=intercept_all(clusters, plan))`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.shell.ports import Clock
from reconciler.shell.transport import Request, Response
from reconciler.sim.apiserver import ServerSnapshot, SimApiServer
from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.controllers import BuiltInControllers
from reconciler.sim.events import event_document
from reconciler.sim.faults import FaultTransport
from reconciler.sim.link import Dropped, Link, LinkState, exchange
from reconciler.sim.machine import Ref
from reconciler.sim.operator import FINALIZERS, FLINK_GROUP, FlinkOperator
from reconciler.sim.plan import FaultPlan, Generation, NoFaults
from reconciler.sim.problems import ApiError
from reconciler.sim.schema import Catalog
from reconciler.sim.store import Event, Key

GROUPS = {"Deployment": "apps", "StatefulSet": "apps", "Job": "batch"}
#: What people's edits are recorded as.
EDITOR = "kubectl-edit"
CONTROLLERS = "kube-controller-manager"
OPERATOR = "flink-kubernetes-operator"


def key_of(ref: Ref) -> Key:
    """The engine's key of an object a controller looks after."""
    group = FLINK_GROUP if ref.kind in FINALIZERS else GROUPS.get(ref.kind, "")
    return Key(group, ref.kind, ref.namespace, ref.name)


class EngineAccess:
    """The controllers' client: the engine itself, under the name of `manager`."""

    def __init__(self, server: SimApiServer, manager: str) -> None:
        self._server = server
        self._manager = manager

    def get(self, ref: Ref) -> dict[str, Any] | None:
        return self._server.read(key_of(ref))

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return self._server.objects(kind)

    def patch_status(self, ref: Ref, status: Mapping[str, Any]) -> None:
        self._server.apply_status(key_of(ref), dict(status), manager=self._manager)

    def set_finalizers(self, ref: Ref, finalizers: list[str]) -> None:
        patch = {"metadata": {"finalizers": finalizers or None}}
        self._server.merge(key_of(ref), patch, manager=self._manager)

    def event(self, ref: Ref, value: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        name, document = event_document(ref, value, (kind, reason, message), self._manager, self._server.now())
        known = self._server.read(Key("", "Event", ref.namespace, name))
        if known is not None:
            again = {"count": known.get("count", 1) + 1, "lastTimestamp": document["lastTimestamp"]}
            self._server.merge(Key("", "Event", ref.namespace, name), again, manager=self._manager)
            return
        try:
            self._server.create(document, manager=self._manager)
        except ApiError as error:
            if error.code != 403:  # a namespace that is going takes no new objects, and nobody needs the event
                raise

    def allows(self, kind: str, field: str, value: str) -> bool:
        status = self._server.catalog.kind(FLINK_GROUP, kind).node.fields.get("status")
        values = status.enums.get(field) if status is not None else None
        return values is None or value in values


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """A copy of a cluster. `taken_s` is the monotonic time of its clock, at which a restored one must go on."""

    name: str
    seed: object
    taken_s: float
    server: ServerSnapshot
    operator: dict[str, Any]
    controllers: dict[Ref, float]
    link: LinkState


class SimCluster:
    """A simulated cluster. `behaviours`, and the `webhooks` of its `server`, may be changed at any time."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        seed: object = 0,
        timings: Timings | None = None,
        behaviours: Behaviours | None = None,
        catalog: Catalog | None = None,
        users: Mapping[str, str] | None = None,
        server: SimApiServer | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.link = Link()
        self.behaviours = behaviours or Behaviours()
        self._seed = seed
        here = f"{seed}/{name}"
        self.server = server or SimApiServer(now=lambda: clock.now().wall, seed=here, catalog=catalog, users=users)
        self.operator = FlinkOperator(
            EngineAccess(self.server, OPERATOR), clock, seed=here, timings=timings, behaviours=self.behaviours
        )
        self.controllers = BuiltInControllers(
            EngineAccess(self.server, CONTROLLERS),
            clock,
            finish_namespaces=self.server.tick,
            seed=here,
            timings=timings,
            behaviours=self.behaviours,
        )
        self.server.observe(self._observe)

    def _observe(self, key: Key, event: Event) -> None:
        ref = Ref(key.kind, key.namespace, key.name)
        before = None if event.before is None else event.before.value
        after = None if event.type == "DELETED" else event.after.value
        if key.group == FLINK_GROUP:
            self.operator.notice(ref, before, after)
        elif key.group == GROUPS.get(key.kind, ""):
            self.controllers.notice(ref, before, after)

    # ---- the way in ----------------------------------------------------------------------------------------------

    def transport(
        self,
        point_prefix: str | None = None,
        plan: FaultPlan | None = None,
        generation: Generation | None = None,
        *,
        token: str | None = None,
    ) -> FaultTransport:
        """A connection of one daemon's life, with what `plan` makes go wrong."""
        return FaultTransport(self.server.transport(token), point_prefix or self.name, plan, generation, self.link)

    def set_unreachable(self, unreachable: bool, *, silent: bool = False) -> None:
        """Cut the cluster off, or bring it back. `silent`: packets vanish; else connections are refused."""
        down = LinkState.SILENT if silent else LinkState.REFUSED
        self.link.set(down if unreachable else LinkState.UP)
        if unreachable and not silent:
            self.server.end_watches()

    # ---- what people do ------------------------------------------------------------------------------------------

    def create(self, value: dict[str, Any], *, manager: str = "kubectl-create") -> dict[str, Any]:
        """Create an object by hand."""
        return self.server.create(value, manager=manager)

    def edit(
        self, group: str, kind: str, namespace: str, name: str, patch: dict[str, Any], *, manager: str = EDITOR
    ) -> dict[str, Any]:
        """Change an object by hand (a merge patch)."""
        return self.server.merge(Key(group, kind, namespace, name), patch, manager=manager)

    def delete(self, group: str, kind: str, namespace: str, name: str, *, manager: str = "kubectl") -> None:
        """Delete an object by hand."""
        self.server.delete(Key(group, kind, namespace, name), manager=manager)

    def read(self, group: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object, or None. It must not be modified."""
        return self.server.read(Key(group, kind, namespace, name))

    # ---- time and copies -----------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """True if no watch event is queued and no controller has anything due at the present policy time."""
        return self.server.pending_events() == 0 and self.operator.agenda.idle() and self.controllers.agenda.idle()

    def next_due(self) -> float | None:
        """When the next controller has something to do (monotonic seconds of the cluster's clock), or None."""
        due = [agenda.next_due() for agenda in (self.operator.agenda, self.controllers.agenda)]
        return min((due_s for due_s in due if due_s is not None), default=None)

    def stop(self) -> None:
        """The cluster is switched off: no timer of it fires any more, and open watches end."""
        self.operator.agenda.stop()
        self.controllers.agenda.stop()
        self.server.end_watches()

    def snapshot(self) -> ClusterSnapshot:
        """A copy of everything but open connections."""
        return ClusterSnapshot(
            self.name,
            self._seed,
            self.clock.now().monotonic,
            self.server.snapshot(),
            self.operator.snapshot(),
            self.controllers.agenda.snapshot(),
            self.link.state,
        )

    @classmethod
    def restore(
        cls,
        saved: ClusterSnapshot,
        clock: Clock,
        *,
        timings: Timings | None = None,
        behaviours: Behaviours | None = None,
    ) -> SimCluster:
        """A cluster as it was, on a clock that stands at `saved.taken_s`; the copy may be restored again."""
        server = SimApiServer.restore(saved.server, now=lambda: clock.now().wall)
        cluster = cls(saved.name, clock, seed=saved.seed, timings=timings, behaviours=behaviours, server=server)
        cluster.operator.restore(saved.operator)
        cluster.controllers.agenda.restore(saved.controllers)
        cluster.link.set(saved.link)
        return cluster


Intercept = Callable[[str, Request], Awaitable[Response | None]]
#: Stands for "let the HTTP face answer": never sent.
_GO_ON = Response(100)


def intercept_all(
    clusters: Mapping[str, SimCluster], dropped: Callable[[], Exception], plan: FaultPlan | None = None
) -> Intercept:
    """The `intercept` of an HTTP face over `clusters`: links that are down and the plan's faults, on real connections.

    `dropped` makes the exception with which that face cuts a connection. Without a plan the face answers by itself;
    with one, answers are made here, for an answer has to exist before it can be lost (the face's own token is then not
    asked for). Silence reaches new requests only: a watch that is open already goes on."""
    fate = plan or NoFaults()
    alive = Generation()

    async def intercept(name: str, request: Request) -> Response | None:
        cluster = clusters[name]
        watch = any(query == ("watch", value) for query in request.query for value in ("1", "true"))

        async def effect() -> Response:
            answer = _GO_ON if plan is None or watch else cluster.server.handle(request)
            assert isinstance(answer, Response)
            return answer

        try:
            point = f"{name} {request.method} {request.path}"
            response = await exchange(point, fate, cluster.link, alive, effect)
        except Dropped as drop:
            if drop.silent and cluster.link.up:
                await asyncio.sleep(request.timeout_s)
            elif drop.silent:
                await cluster.link.until_up()
            raise dropped() from drop
        return None if response is _GO_ON else response

    return intercept
