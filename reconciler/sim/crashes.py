"""Every crash point of a three-wave rollout, one after the other.

One base run is told to its end, and at each point where the shell meets the world the world is copied: database,
clusters, repository, time. Then each copy is resumed on its own, as if the process had died right there, before the
call's effect; what follows the effect of a call is the moment before the next one. Each must come to the same end with
every invariant held: the crash may cost time and nothing else.

    points = base_run()
    resume(points[17])        # raises what went wrong
"""

from __future__ import annotations

import asyncio
import copy
import logging
from dataclasses import dataclass

from reconciler.core.model import RolloutState
from reconciler.sim.checkers import Checkers
from reconciler.sim.cluster import ClusterSnapshot, SimCluster
from reconciler.sim.git import SimRepository
from reconciler.sim.loop import SimClock, run
from reconciler.sim.plan import CrashAt
from reconciler.sim.scenarios import FLEET_FILE, QUICK, application_file, cluster_file, policy_file
from reconciler.sim.world import World, play

CLUSTERS = ("c0", "c1", "c2", "c3")
APPLICATION = "app0"


@dataclass(frozen=True, slots=True)
class Copy:
    """The world right before point number `number`, whose name is `point`, at virtual time `time_s`."""

    number: int
    point: str
    time_s: float
    wall_offset_s: float
    database: bytes
    clusters: tuple[ClusterSnapshot, ...]
    repository: SimRepository
    checkers: Checkers
    sent: int


def files(tag: str) -> dict[str, str]:
    """A fleet of four clusters in three waves, with one application at `tag`."""
    found = {"fleet.yaml": FLEET_FILE, "policies/quick.yaml": policy_file("rollback")}
    for name in CLUSTERS:
        found[f"clusters/{name}.yaml"] = cluster_file(name, "eu", "canary" if name == "c0" else "rest")
    found[f"apps/{APPLICATION}/app.yaml"] = application_file(APPLICATION, tag)
    return found


def new_world() -> World:
    """The base run's world."""
    return World(seed=1, timings=QUICK, plan=CrashAt(None))


def base_run(tag: str, *, keep: tuple[int, int] = (0, 1)) -> list[Copy]:
    """Install 1.0, then roll out `tag`; copies of every point of that second rollout. With `keep` (k, n) only those
    whose number modulo n is k are kept."""
    logging.getLogger("reconciler").setLevel(logging.CRITICAL + 1)
    world = new_world()
    copies: list[Copy] = []

    async def story(world: World) -> None:
        for name in CLUSTERS:
            world.add_cluster(name)
        checkers = Checkers(world)
        world.repository.commit(files("1.0"))
        await world.start()
        await world.sleep(35)
        await world.until(world.settled, 3600)
        world.repository.commit(files(tag))
        assert isinstance(world.plan, CrashAt)

        def watch(number: int, point: str) -> None:
            if number % keep[1] == keep[0] and world.generation is not None and world.generation.alive:
                copies.append(_copy(world, checkers, number, point))

        world.plan.watcher = watch
        await world.sleep(35)
        await world.until(world.settled, 3600)
        world.plan.watcher = None
        checkers.at_rest()

    run(play(world, story))
    return copies


def _copy(world: World, checkers: Checkers, number: int, point: str) -> Copy:
    assert world.store is not None
    assert world.clock is not None
    return Copy(
        number,
        point,
        world.time(),
        world.clock.now().wall - world.time(),
        world.store.serialize(),
        tuple(cluster.snapshot() for _, cluster in sorted(world.clusters.items())),
        copy.deepcopy(world.repository),
        checkers.copied(),
        len(world.notifier.sent),
    )


def resume(saved: Copy, expected: RolloutState) -> World:
    """Boot on the copy and go on to the end; the second rollout must end `expected`."""
    world = World(seed=1, timings=QUICK, repository=copy.deepcopy(saved.repository), database=saved.database)

    async def story(world: World) -> None:
        loop_clock = SimClock(asyncio.get_running_loop(), wall_start_s=saved.wall_offset_s, boot_at_s=0.0)
        for snapshot in saved.clusters:
            world.clusters[snapshot.name] = SimCluster.restore(snapshot, loop_clock, timings=world.timings)
        checkers = saved.checkers.copied()
        checkers.join(world)
        world.clock = SimClock(asyncio.get_running_loop(), wall_start_s=saved.wall_offset_s)
        await world.start()
        await world.sleep(60)
        await world.until(world.settled, 3600)
        newest = world.ask(lambda tx: tx.rollouts(limit=1))[0]
        if newest.state is not expected:
            raise AssertionError(f"the rollout ended {newest.state} and not {expected}: {newest.reason}")
        checkers.at_rest()
        before = checkers.writes()
        await world.sleep(300)
        checkers.quiet(before)

    return run(play(world, story), start_s=saved.time_s)
