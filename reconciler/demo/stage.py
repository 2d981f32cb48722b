"""The stage: repository, clusters, the shipped daemon, its API, and the clock that all of them go by.

The policy clock is stepped: to the next timer that anybody waits for, at most one check interval at a time, and only
when everything has come to rest: no unit has work, no request or watch line is on its way, no cluster has anything due.
So nothing is ever late because this machine is slow, and an hour of observation passes in seconds. What is real stays
real: Git, HTTP, the store and their timeouts go by the machine's own time.

    async with open_stage(fleet, directory) as stage:              # or with assets=find(), on real control planes
        await stage.drained()
        stage.advance()
"""

from __future__ import annotations

import asyncio
import math
import random  # noqa: TID251 - the demo makes the Random that spreads its polls: the same one every time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from reconciler.bootstrap import Assembly, Parts, build, limits_of
from reconciler.core.health_policy import thresholds
from reconciler.demo.cluster import StageCluster
from reconciler.demo.control_plane.assets import Assets
from reconciler.demo.fleet import DemoFleet
from reconciler.demo.ground import REAL, STOP_TIMEOUT_S, Ground, real_ground, simulated_ground
from reconciler.demo.repository import BRANCH, LocalRepository
from reconciler.resources import catalogue
from reconciler.settings import Repository, RepositoryCredentials
from reconciler.settings_values import Listen
from reconciler.shell.daemon import Daemon, DaemonSettings
from reconciler.shell.ports import Tx
from reconciler.shell.schedule import ClockSchedule
from reconciler.sim.loop import SteppedClock
from reconciler.web.server import Server, serve

#: The daemon's name for the repository, and who commits to it.
SOURCE = "fleet"
AUTHOR = "Mia Keller"
POLL_S = 30.0
#: Timers closer together than this fire in one step: a cluster takes longer to answer.
RESOLUTION_S = 1.0
#: Rounds of the event loop in which nothing may happen before all counts as drained.
QUIET_ROUNDS = 4
#: How long to leave the processor to the store's and git's threads before looking again.
LOOK_AGAIN_S = 0.0005

T = TypeVar("T")


class StageFailedError(Exception):
    """A part of the stage ended with an exception: a defect of it, or a control plane that is gone."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """Where the API listens: the socket, and any free port of 127.0.0.1."""

    state_dir: Path
    listen: Listen | None = field(default_factory=lambda: Listen("127.0.0.1", 0))
    token_file: Path | None = None


@dataclass(slots=True)
class Stage:
    """Everything that plays."""

    clock: SteppedClock
    ground: Ground
    repository: LocalRepository
    assembly: Assembly
    server: Server
    failures: list[tuple[str, BaseException]]
    check_interval_s: float

    @property
    def clusters(self) -> Mapping[str, StageCluster]:
        """The clusters, by name."""
        return self.ground.clusters

    @property
    def real(self) -> bool:
        """True on real control planes."""
        return self.ground.control_plane == REAL

    @property
    def daemon(self) -> Daemon:
        """The shipped daemon."""
        return self.assembly.daemon

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Ask the store."""
        return await self.assembly.store.read("demo", work)

    async def commit(self, files: dict[str, bytes], subject: str) -> str:
        """Somebody pushes a commit; its SHA."""
        return await self.repository.commit(files, subject, AUTHOR, self.clock.now().wall)

    # ---- time ----------------------------------------------------------------------------------------------------

    async def drained(self) -> None:
        """Wait until nothing moves any more at the present moment. Raises StageFailedError."""
        quiet = 0
        while quiet < QUIET_ROUNDS:
            if self.failures:
                name, error = self.failures[0]
                raise StageFailedError(f"{name} failed: {error!r}") from error
            if self.still():
                quiet += 1
                await asyncio.sleep(0)
            else:
                quiet = 0
                await asyncio.sleep(LOOK_AGAIN_S)

    def still(self) -> bool:
        """True if no unit has work, nothing is on its way to or from a cluster, and no cluster has anything due."""
        daemon = self.daemon
        return (
            daemon.hub.idle
            and self.ground.still()
            and not any(lane.observer.busy for lane in daemon.lanes.values())
            and all(cluster.idle for cluster in self.clusters.values())
        )

    def advance(self) -> float:
        """Let time go on to the next timer, at most one check interval; the seconds that passed."""
        now_s = self.clock.now().monotonic
        limit_s = now_s + self.check_interval_s
        due_s = self.clock.next_timer()
        next_s = limit_s if due_s is None else min(limit_s, math.ceil(due_s / RESOLUTION_S) * RESOLUTION_S)
        next_s = max(now_s, next_s)
        self.clock.advance_to(next_s)
        return next_s - now_s


@asynccontextmanager
async def open_stage(
    fleet: DemoFleet, directory: Path, seed: int = 1, assets: Assets | None = None
) -> AsyncIterator[Stage]:
    """Set everything up below `directory`, and end all of it afterwards; the directory is the caller's. With `assets`
    the clusters are real control planes. Raises GitFailedError, ControlPlaneError."""
    async with AsyncExitStack() as stack:
        clock = SteppedClock()
        failures: list[tuple[str, BaseException]] = []

        def failed(whose: str, name: str, error: BaseException) -> None:
            failures.append((f"{whose} {name}", error))

        repository = await LocalRepository.create(directory / "fleet", fleet.files, AUTHOR, clock.now().wall)
        if assets is None:
            setting = simulated_ground(fleet, directory, clock, seed=seed)
        else:
            controller_failed = partial(failed, "the controllers' model on")
            setting = real_ground(fleet, directory, clock, seed=seed, assets=assets, failed=controller_failed)
        ground = await stack.enter_async_context(setting)
        daemon_failed = partial(failed, "the daemon's unit")
        settings = _daemon_settings()
        numbers = random.Random(seed)  # noqa: S311 - it spreads polls
        state_dir = directory / "state"
        state_dir.mkdir()
        parts = Parts(
            state_dir=state_dir,
            repositories=(_repository(repository),),
            connect=ground.connect,
            protocols=("file",),
            make_clock=lambda boot: _booted(clock, boot),
            make_schedule=lambda policy_clock, _: ClockSchedule(policy_clock, numbers),
            seed=seed,
        )
        assembly = build(parts, settings, daemon_failed)
        stack.push_async_callback(assembly.close, STOP_TIMEOUT_S)
        await assembly.daemon.start()
        server = await serve(assembly.daemon, _Serving(state_dir), daemon_failed)
        stack.push_async_callback(server.stop)
        yield Stage(clock, ground, repository, assembly, server, failures, settings.check_interval_s)


def _booted(clock: SteppedClock, boot: int) -> SteppedClock:
    clock.boot = boot
    return clock


def _daemon_settings() -> DaemonSettings:
    """As shipped."""
    shipped = catalogue()
    return DaemonSettings(limits=limits_of(shipped), thresholds=thresholds(shipped.thresholds))


def _repository(repository: LocalRepository) -> Repository:
    nobody = RepositoryCredentials(None, "", None, None)
    return Repository(SOURCE, repository.url, BRANCH, POLL_S, (), nobody)
