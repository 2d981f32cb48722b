"""A whole world in one process: a repository, clusters, a store and the shipped daemon on virtual time.

The daemon is the real one, on simulated ports. It may die at any call; then its generation is over, what it had not
committed is gone, and the next one boots on the same database and the same clusters. What outlives it (clusters,
repository, database) is kept here and nowhere else.

    async def story(world: World) -> None:
        world.repository.commit(fleet_files())
        await world.until(world.settled, 3600)

    run(play(World(seed=7), story))
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random  # noqa: TID251 - the simulator is one of the places that make a Random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from reconciler.core.documents import Cluster
from reconciler.core.fleet_model import FleetSettings
from reconciler.core.health_cel import answer
from reconciler.core.model import Reason, Target
from reconciler.resources import catalogue
from reconciler.shell.daemon import Daemon, DaemonSettings, Ports, SourceSpec
from reconciler.shell.evaluation import InlineEvaluator
from reconciler.shell.identity import default_identity
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.metrics import Metrics
from reconciler.shell.ports import Tx
from reconciler.shell.schedule import ClockSchedule
from reconciler.shell.store.opening import from_bytes, open_store
from reconciler.shell.store.sqlite import SqlStore
from reconciler.shell.transport import Request, Response, Stream, Transport
from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.cluster import SimCluster
from reconciler.sim.faults import FaultNotifier, FaultSource, FaultStore, FaultTransport, GenerationClock
from reconciler.sim.git import SimRepository, SimSource
from reconciler.sim.loop import SimClock
from reconciler.sim.plan import FaultPlan, Generation, NoFaults

SOURCE = "fleet"
RESTART_S = 5.0


class Recorder:
    """A Notifier that keeps what was delivered."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []

    async def send(self, key: str, kind: str, body: Mapping[str, Any]) -> None:
        """Deliver one message."""
        self.sent.append((key, kind, dict(body)))


class Violation(AssertionError):  # noqa: N818 - the field's word: an invariant does not hold
    """An invariant does not hold. `invariant` is its number in the rules."""

    def __init__(self, invariant: int, message: str) -> None:
        super().__init__(f"invariant {invariant}: {message}")
        self.invariant = invariant
        self.message = message


@dataclass(slots=True)
class World:
    """What outlives the daemon, and the daemon that lives now."""

    seed: int = 0
    clusters: dict[str, SimCluster] = field(default_factory=dict)
    repository: SimRepository = field(default_factory=SimRepository)
    plan: FaultPlan = field(default_factory=NoFaults)
    timings: Timings = field(default_factory=Timings)
    behaviours: Behaviours = field(default_factory=Behaviours)
    settings: DaemonSettings = field(default_factory=DaemonSettings)
    poll_s: float = 30.0
    notifier: Recorder = field(default_factory=Recorder)
    after_commit: list[Callable[[World, str], None]] = field(default_factory=list)
    before_write: Callable[[str, Request], None] | None = None
    trace: list[str] | None = None
    database: bytes | None = None
    store: SqlStore | None = None
    daemon: Daemon | None = None
    generation: Generation | None = None
    clock: SimClock | None = None
    deaths: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    steps: int = 0
    down_since: dict[str, float] = field(default_factory=dict)
    _life: asyncio.Task[None] | None = None
    _asking: Tx | None = None

    def add_cluster(self, name: str) -> SimCluster:
        """A new cluster, empty, on the world's own clock."""
        loop = asyncio.get_running_loop()
        cluster = SimCluster(name, SimClock(loop), seed=self.seed, timings=self.timings, behaviours=self.behaviours)
        self.clusters[name] = cluster
        return cluster

    # ---- the daemon's lives ------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Start the daemon on what is there. It lives until it dies or `shut_down`."""
        loop = asyncio.get_running_loop()
        number = len(self.deaths) + 1
        self.generation = generation = Generation(number)
        if self.database is None:
            self.store = open_store(":memory:", new_id=lambda: f"installation-{self.seed}")
        else:
            self.store = from_bytes(self.database, new_id=lambda: "unused")
        clock = SimClock(loop, boot=self.store.epoch)
        if self.clock is not None:
            clock = self.clock.rebooted(self.store.epoch)
        self.clock = clock
        self.daemon = Daemon(self._ports(generation, clock), self.settings)
        await self.daemon.start()

    def _ports(self, generation: Generation, clock: SimClock) -> Ports:
        assert self.store is not None
        store = FaultStore(_Watched(self.store, self.committed), self.plan, generation)
        lived = GenerationClock(clock, generation)
        source = FaultSource(SimSource(self.repository), "git", self.plan, generation)
        number = random.Random(f"{self.seed}/{generation.number}")  # noqa: S311 - a simulation repeats itself

        def connect(cluster: Cluster) -> KubeCluster | Reason:
            known = self.clusters.get(cluster.name)
            if known is None:
                return Reason("NoCredentials", "the daemon's settings have no credentials for it")
            return KubeCluster(
                cluster.name,
                self._transport(known, generation),
                now_s=lambda: clock.now().monotonic,
                identities=default_identity,
            )

        return Ports(
            store=store,
            clock=lived,
            schedule=ClockSchedule(lived, number),
            sources={SOURCE: SourceSpec(source, self.poll_s, FleetSettings(catalogue()))},
            connect=connect,
            evaluator=InlineEvaluator(answer),
            notifier=FaultNotifier(self.notifier, self.plan, generation),
            random=number,
            metrics=Metrics("simulated"),
            log=logging.getLogger("reconciler.sim"),
            on_failure=self._unit_failed,
        )

    def _transport(self, cluster: SimCluster, generation: Generation) -> FaultTransport:
        """A connection whose writes are looked at when they arrive at the cluster."""
        inner = _Checked(cluster.server.transport(), cluster.name, self)
        return FaultTransport(inner, cluster.name, self.plan, generation, cluster.link)

    def _unit_failed(self, name: str, error: BaseException) -> None:
        """A unit ended with an exception. In production the daemon ends; here it is a finding, unless it died."""
        if self.generation is not None and self.generation.alive:
            self.failures.append(error)
            self.note(f"unit {name} failed: {error!r}")

    def committed(self, point: str) -> None:
        self.note(f"commit {point}")
        for look in self.after_commit:
            try:
                look(self, point)
            except Violation as violation:
                self.failures.append(violation)

    async def bury(self) -> None:
        """The daemon died: roll back, keep the database, discard its tasks."""
        assert self.generation is not None
        assert self.store is not None
        assert self.daemon is not None
        self.generation.kill("buried")
        self.deaths.append(self.generation.death or "")
        self.database = self.store.serialize()
        await self.daemon.discard()
        self.store.close_now()
        self.daemon = None

    async def live(self) -> None:
        """Keep a daemon alive: whenever one dies, the next one boots a little later. Until cancelled."""
        while True:
            assert self.generation is not None
            death = await self.generation.wait()
            self.note(f"died: {death}")
            await self.bury()
            await asyncio.sleep(RESTART_S)
            await self.boot()

    async def start(self) -> None:
        """Boot, and keep a daemon alive from now on."""
        await self.boot()
        self._life = asyncio.get_running_loop().create_task(self.live(), name="life")

    async def shut_down(self) -> None:
        """End everything."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait({self._life})
        if self.daemon is not None and self.store is not None:
            await self.bury()
        for cluster in self.clusters.values():
            cluster.stop()

    def kill(self, why: str = "kill -9") -> None:
        """The daemon's process is killed now."""
        if self.generation is not None:
            self.generation.kill(why)

    # ---- what stories ask --------------------------------------------------------------------------------------

    def note(self, line: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.append(f"{asyncio.get_running_loop().time():.3f} {line}")

    def time(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()

    def reachable_lately(self, cluster: str) -> bool:
        """True if the cluster could be reached within the last while, generously: its staleness limit."""
        link = self.clusters[cluster].link
        down_at = self.down_since.get(cluster)
        return link.up or down_at is None or self.time() - down_at <= 200.0

    def cut(self, cluster: str, *, silent: bool = False) -> None:
        """The cluster cannot be reached from now on."""
        self.down_since.setdefault(cluster, self.time())
        self.clusters[cluster].set_unreachable(True, silent=silent)

    def mend(self, cluster: str) -> None:
        """The cluster can be reached again."""
        self.down_since.pop(cluster, None)
        self.clusters[cluster].set_unreachable(False)

    def trace_digest(self) -> str:
        """A hash over the whole trace."""
        return hashlib.sha256("\n".join(self.trace or ()).encode()).hexdigest()

    def ask(self, work: Callable[[Tx], Any]) -> Any:
        """Read the store, as it is now. A question asked while another is answered is part of it."""
        if self._asking is not None:
            return work(self._asking)
        assert self.store is not None

        def within(tx: Tx) -> Any:
            self._asking = tx
            try:
                return work(tx)
            finally:
                self._asking = None

        return self.store.read_now("ask", within)

    def check(self) -> None:
        """Raise what a unit or checker has found."""
        if self.failures:
            raise self.failures[0]

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)
        self.check()

    async def until(self, condition: Callable[[], bool], within_s: float, every_s: float = 5.0) -> float:
        """Wait until `condition` holds; returns how long that took. Raises TimeoutError after `within_s`."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not (self.store is not None and self.daemon is not None and condition()):
            if loop.time() - start > within_s:
                raise TimeoutError(f"not so within {within_s:.0f} s: {getattr(condition, '__name__', condition)}")
            await self.sleep(every_s)
        return loop.time() - start

    def settled(self) -> bool:
        """No rollout is active, and nothing is pending anywhere."""
        return bool(self.ask(lambda tx: not tx.rollouts(active=True, limit=1) and not tx.intents(pending=True)))

    def assigned(self) -> dict[Target, str]:
        """The assigned release of each target."""
        return {row.target: row.digest for row in self.ask(lambda tx: tx.assignments())}


class _Checked:
    """A Transport that shows each request to the checkers right before it takes effect."""

    def __init__(self, inner: Transport, cluster: str, world: World) -> None:
        self._inner = inner
        self._cluster = cluster
        self._world = world

    async def request(self, request: Request) -> Response:
        """As Transport.request."""
        world = self._world
        if world.before_write is not None:
            try:
                world.before_write(self._cluster, request)
            except Violation as violation:
                world.failures.append(violation)
        whom = dict(request.headers).get("Impersonate-User", "")
        if whom != ("" if request.method == "GET" else default_identity(SOURCE).user):
            world.failures.append(AssertionError(f"{request.method} {request.path} is made as {whom or 'the daemon'}"))
        if request.method != "GET":
            world.note(f"{self._cluster} {request.method} {request.path} {len(request.body)}")
        return await self._inner.request(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """As Transport.stream."""
        return self._inner.stream(request)

    async def close(self) -> None:
        """As Transport.close."""
        await self._inner.close()


class _Watched:
    """A Store that tells of each commit: the moment at which the invariants are checked."""

    def __init__(self, inner: SqlStore, committed: Callable[[str], None]) -> None:
        self._inner = inner
        self._committed = committed

    @property
    def epoch(self) -> int:
        return self._inner.epoch

    def given_up(self, cluster: str) -> int:
        """As Store.given_up."""
        return self._inner.given_up(cluster)

    async def transact(self, point: str, work: Callable[[Any], Any]) -> Any:
        """As Store.transact."""
        result = await self._inner.transact(point, work)
        self._committed(point)
        return result

    async def read(self, point: str, work: Callable[[Any], Any]) -> Any:
        """As Store.read."""
        return await self._inner.read(point, work)

    async def prune_history(self, before_wall: float, keep: int) -> object:
        """As Store.prune_history."""
        return await self._inner.prune_history(before_wall, keep)

    async def close(self) -> None:
        """The driver closes the inner store."""


async def play(world: World, story: Callable[[World], Awaitable[None]]) -> World:
    """Run `story` in `world`, and end everything afterwards."""
    try:
        await story(world)
        world.check()
    finally:
        await world.shut_down()
    return world
