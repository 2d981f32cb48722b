"""Wiring: the one place that makes production adapters, and may name time, randomness, ids and threads.

`build` puts a daemon together from a state directory, repositories and a way to connect to clusters; the demo calls it
with simulated clusters and a clock that it steps. `run_daemon` is `reconciler run`: build, serve the API, wait for a
signal or for a unit that failed, stop.

    assembly = build(Parts(state_dir, repositories, connect), DaemonSettings(), on_failure)
    await assembly.daemon.start()
    ...
    await assembly.close()

A unit that ends with an exception nobody expected ends the process (exit status 3): whatever it was doing is recorded
as intents, and the next start goes on from there. That is safer than going on with a part that is missing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random  # noqa: TID251 - this is the place
import resource
import signal
import threading  # noqa: TID251 - this is the place
import time  # noqa: TID251 - this is the place
import uuid  # noqa: TID251 - this is the place
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from reconciler import __version__
from reconciler.core.actions import Limits
from reconciler.core.catalogue import Catalogue
from reconciler.core.documents import Cluster
from reconciler.core.fleet_model import FleetSettings
from reconciler.core.health_policy import thresholds
from reconciler.core.model import Now, Reason
from reconciler.core.objects import Scope as ObjectScope
from reconciler.core.problems import Problem
from reconciler.resources import catalogue
from reconciler.settings import Allow, ClusterAccess, Repository, Settings
from reconciler.shell.daemon import Daemon, DaemonSettings, Ports, SourceSpec
from reconciler.shell.git_credentials import GitCredentials
from reconciler.shell.git_source import GitSource
from reconciler.shell.identity import Identities, Identity, default_identity
from reconciler.shell.kube_cluster import KubeCluster
from reconciler.shell.kube_connect import LazyTransport, MeteredTransport
from reconciler.shell.kube_http import transport_from_kubeconfig
from reconciler.shell.kubeconfig import KubeconfigFiles, SslContexts
from reconciler.shell.logs import configure, event
from reconciler.shell.metrics import Metrics
from reconciler.shell.notify import LogNotifier
from reconciler.shell.ports import Clock, Notifier, Timer
from reconciler.shell.schedule import Schedule, WallSchedule
from reconciler.shell.store.opening import open_store
from reconciler.shell.store.sqlite import SqlStore
from reconciler.shell.store.timed import TimedStore
from reconciler.shell.transport import Transport
from reconciler.shell.worker import Worker, Workers

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

DATABASE = "reconciler.db"
GIT_DIRECTORY = "git"
READER_THREADS = 2
#: Processes that run expressions from Git, and the function that they run.
EVALUATORS = 2
HEALTH_RULES = "reconciler.core.health_cel:answer"
#: Sockets and pipes of a thousand clusters and a hundred repositories, with room to spare.
FILES_WANTED = 65_536
#: How long after `shutdownTimeout` the process is ended whatever still runs (a name lookup cannot be interrupted).
LAST_RESORT_S = 0.7

EXIT_FAILED = 3
EXIT_BY_SIGNAL = 128

OnFailure = Callable[[str, BaseException], None]
Connect = Callable[[Cluster, Metrics], KubeCluster | Reason]


class WallClock:
    """The Clock of production: seconds of the machine, counted from the start of this boot."""

    def __init__(self, boot: int, loop: asyncio.AbstractEventLoop) -> None:
        self._boot = boot
        self._loop = loop
        self._started_s = time.monotonic()

    def now(self) -> Now:
        """The time."""
        return Now(time.time(), time.monotonic() - self._started_s, self._boot)

    def call_at(self, monotonic_s: float, callback: Callable[[], None]) -> Timer:
        """See Clock. The loop may round down to its own resolution: a call never comes before its moment."""
        return _LoopTimer(self, monotonic_s, callback)


class _LoopTimer:
    """One call of a WallClock, put off again when the loop's clock was ahead of the machine's."""

    def __init__(self, clock: WallClock, at_s: float, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._at_s = at_s
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._plan()

    def _plan(self) -> None:
        delay_s = max(0.0, self._at_s - self._clock.now().monotonic)
        self._handle = self._clock._loop.call_later(delay_s, self._run)

    def _run(self) -> None:
        if self._clock.now().monotonic < self._at_s:
            self._plan()
            return
        self._handle = None
        self._callback()

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class ThreadPerCall(Executor):
    """An Executor with a thread for each call, which ends with it: for calls that block for long and cannot be
    interrupted. The process does not wait for them at its end. The caller bounds how many run at once."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """See Executor.submit."""
        future: Future[R] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - as every executor, it hands all of them to the future
                future.set_exception(error)

        threading.Thread(target=run, name="name-lookup", daemon=True).start()
        return future


# ---- what is shipped, as the daemon's numbers ----------------------------------------------------------------------


def limits_of(shipped: Catalogue) -> Limits:
    """The blast-radius limits of `policies/limits.yaml`."""
    return Limits(
        restarts_per_cluster=shipped.limits.restarts_per_cluster_hour,
        restarts_per_region=shipped.limits.restarts_per_region_hour,
        changed_per_cluster=shipped.limits.changed_targets_per_cluster_hour,
        deletes_per_commit=shipped.limits.deletes_per_commit,
    )


def daemon_settings(settings: Settings) -> DaemonSettings:
    """The daemon's numbers from its settings and from what is shipped."""
    shipped = catalogue()
    return DaemonSettings(
        check_interval_s=settings.check_interval_s,
        resync_interval_s=settings.resync_interval_s,
        writes_per_second=settings.limits.writes_per_second,
        writes_per_second_and_cluster=settings.limits.per_cluster,
        limits=limits_of(shipped),
        thresholds=thresholds(shipped.thresholds),
    )


# ---- putting a daemon together -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of. What is None is production's own: the machine's clock, APScheduler, notifications in
    the log, a random source seeded by the system. `make_clock` gets the boot's number."""

    state_dir: Path
    repositories: Sequence[Repository]
    connect: Connect
    protocols: tuple[str, ...] = ("https", "ssh")
    make_clock: Callable[[int], Clock] | None = None
    make_schedule: Callable[[Clock, OnFailure], Schedule] | None = None
    notifier: Notifier | None = None
    seed: int | None = None


@dataclass(slots=True)
class Assembly:
    """A daemon with what it was made of; `close` ends all of it."""

    daemon: Daemon
    store: SqlStore
    clock: Clock
    metrics: Metrics
    _executors: list[ThreadPoolExecutor] = field(default_factory=list)

    async def close(self, timeout_s: float = 4.0) -> tuple[str, ...]:
        """Stop the daemon and end the threads. Returns the names of units that did not end in time."""
        left = await self.daemon.stop(timeout_s)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)
        return left


def build(parts: Parts, settings: DaemonSettings, on_failure: OnFailure) -> Assembly:
    """Open the store and make a daemon, not yet started. Called on the loop that is to run it. Raises StoreError."""
    writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
    readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="store-reader")
    evaluators = [ThreadPoolExecutor(1, thread_name_prefix=f"evaluator-{number}") for number in range(EVALUATORS)]
    schemas = ThreadPoolExecutor(1, thread_name_prefix="schemas")
    executors = [writer, readers, schemas, *evaluators]
    try:
        store = open_store(
            parts.state_dir / DATABASE, new_id=lambda: uuid.uuid4().hex, executor=writer, readers=readers
        )
    except BaseException:
        for executor in executors:
            executor.shutdown(wait=False)
        raise
    number = random.Random(parts.seed)  # noqa: S311 - it spreads polls and retries
    clock = parts.make_clock(store.epoch) if parts.make_clock else WallClock(store.epoch, asyncio.get_running_loop())
    schedule: Schedule
    if parts.make_schedule is not None:
        schedule = parts.make_schedule(clock, on_failure)
    else:
        schedule = WallSchedule(number, time.time, on_failure)
    metrics = Metrics(__version__)
    sources: dict[str, SourceSpec] = {}
    for repository in parts.repositories:
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"git-{repository.name}")
        executors.append(executor)
        sources[repository.name] = _source(repository, parts, executor)
    ports = Ports(
        store=TimedStore(store, metrics),
        clock=clock,
        schedule=schedule,
        sources=sources,
        connect=lambda cluster: parts.connect(cluster, metrics),
        evaluator=evaluator(evaluators),
        notifier=parts.notifier or LogNotifier(),
        random=number,
        metrics=metrics,
        log=logging.getLogger("reconciler.daemon"),
        on_failure=on_failure,
        executor=schemas,
    )
    return Assembly(Daemon(ports, settings), store, clock, metrics, executors)


def evaluator(executors: Sequence[Executor]) -> Workers:
    """What runs the rules of health policies: one process for each executor, started when the first rule is to run."""
    return Workers(HEALTH_RULES, executors, monotonic=time.monotonic)


def evaluate_once(items: Sequence[bytes]) -> list[bytes | Reason]:
    """The same for a command that has some items to evaluate and then ends. Blocks."""
    worker = Worker(HEALTH_RULES, time.monotonic)
    try:
        return worker.run(items)
    finally:
        worker.kill()


def _source(repository: Repository, parts: Parts, executor: ThreadPoolExecutor) -> SourceSpec:
    given = repository.credentials
    source = GitSource(
        repository.name,
        repository.url,
        repository.ref,
        directory=parts.state_dir / GIT_DIRECTORY,
        executor=executor,
        monotonic=time.monotonic,
        protocols=parts.protocols,
        credentials=GitCredentials(given.token_file, given.username, given.ssh_key_file, given.known_hosts_file),
    )
    scope = ObjectScope(cluster_scoped=frozenset(repository.cluster_scoped))
    return SourceSpec(source, repository.poll_s, FleetSettings(catalogue(), scope))


def identities_of(repositories: Sequence[Repository]) -> Identities:
    """Whom a source's writes are made as. A source that the settings name no more, though something of its is still
    assigned, has the identity it would have by default: never the daemon's own."""
    tenants = {repository.name: repository.tenant for repository in repositories}

    def identity(source: str) -> Identity | None:
        return tenants[source] if source in tenants else default_identity(source)

    return identity


def connect_by_kubeconfig(
    clusters: Mapping[str, ClusterAccess], allow: Allow, identities: Identities = default_identity
) -> Connect:
    """How `Cluster.spec.credentials` becomes a connection: by its name in the daemon's settings, never by anything that
    stands in Git."""
    ssl_contexts, files, threads = SslContexts(), KubeconfigFiles(), ThreadPerCall()

    def connect(cluster: Cluster, metrics: Metrics) -> KubeCluster | Reason:
        access = clusters.get(cluster.credentials)
        if access is None:
            message = f"the daemon's settings have no clusters.{cluster.credentials} (its Cluster's spec.credentials)"
            return Reason("NoCredentials", message)

        async def make() -> Transport:
            return await transport_from_kubeconfig(
                access.kubeconfig,
                access.context or None,
                allow_exec=allow.kubeconfig_exec,
                allow_files=allow.kubeconfig_files,
                allow_insecure=allow.kubeconfig_insecure,
                ssl_contexts=ssl_contexts,
                files=files,
                threads=threads,
            )

        return KubeCluster(cluster.name, MeteredTransport(LazyTransport(make), metrics), identities=identities)

    return connect


# ---- reconciler run ------------------------------------------------------------------------------------------------


def run_daemon(settings: Settings, warnings: Sequence[Problem] = ()) -> int:
    """Run until a signal or a failure; the exit status. Raises StoreError, or OSError where the API cannot listen."""
    configure(log_format=settings.log_format, level=settings.log_level)
    for problem in warnings:
        event(_LOG, logging.WARNING, "settings.warning", problem=str(problem))
    raise_file_limit()
    return asyncio.run(_run(settings))


def raise_file_limit() -> None:
    """As many open files as the system lets us have; it is said in the log when they may be too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        event(_LOG, logging.WARNING, "process.files.limited", limit=soft, error=str(error))


async def _run(settings: Settings) -> int:
    from reconciler.web.server import serve  # noqa: PLC0415 - the web layer stands above this one

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    def unit_failed(name: str, error: BaseException) -> None:
        event(_LOG, logging.CRITICAL, "daemon.failed", unit=name, error=f"{type(error).__name__}: {error}")
        end(EXIT_FAILED)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, EXIT_BY_SIGNAL + number)
    parts = Parts(
        settings.state_dir,
        settings.repositories,
        connect_by_kubeconfig(settings.clusters, settings.allow, identities_of(settings.repositories)),
        settings.allow.protocols,
    )
    assembly = build(parts, daemon_settings(settings), unit_failed)
    status = EXIT_FAILED
    try:
        await assembly.daemon.start()
        server = await serve(assembly.daemon, settings, unit_failed)
        try:
            status = await ended
        finally:
            # Nobody is told "done" by a process that is about to be ended by force.
            _end_by_force(settings.shutdown_timeout_s + LAST_RESORT_S, status)
            event(_LOG, logging.INFO, "daemon.stopping", status=status)
            await server.stop()
    finally:
        left = await assembly.close(settings.shutdown_timeout_s)
        if left:
            event(_LOG, logging.ERROR, "daemon.stuck", units=left)
    return status


def _end_by_force(after_s: float, status: int) -> None:
    """End the process after a while, should anything still hold it: what was decided is recorded, and the next start
    reads again what was ambiguous."""

    def end() -> None:
        event(_LOG, logging.ERROR, "daemon.killed", after_s=after_s)
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()
