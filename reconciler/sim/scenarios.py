"""Stories drawn from a seed: a small fleet, a few dozen things that happen to it, and faults all along.

Commits (good, bad, broken, empty, reverted), edits and deletes by hand, clusters that vanish and return, pauses, kills,
clock jumps; meanwhile every call may be slow, lost, refused or the last one. In the end the faults stop, and what was
asked for last must become true and stay so.

    outcome = run_seed(7)         # raises Violation, TimeoutError or whatever a unit raised
    outcome.trace_digest
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler.core.decide import pause, resume
from reconciler.core.model import FAILURE_STATES, Reason, Rollout, RolloutState, Target, TargetState
from reconciler.shell.daemon import DaemonSettings
from reconciler.shell.ports import Tx
from reconciler.shell.rollout_unit import owner_of
from reconciler.sim.behaviour import Timings
from reconciler.sim.chance import between, fraction
from reconciler.sim.checkers import Checkers
from reconciler.sim.loop import run
from reconciler.sim.plan import FaultRates, SeededPlan
from reconciler.sim.world import World, play

FLINK = "flink.apache.org"
#: How much health may be taken for granted. Less than every bake, or the check of it could not fail.
SLACK_S = 1.0

FLEET_FILE = """\
apiVersion: reconciler.dev/v1alpha1
kind: Fleet
metadata: {name: sim}
spec: {clusters: [clusters/], applications: [apps/], policies: [policies/], defaults: {rollout: quick}}
"""
POLICY_FILE = """\
apiVersion: reconciler.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  waves:
  - {name: canary, select: {clusters: {ring: canary}}, bake: 20s, maxConcurrent: 1, maxFailures: 0}
  - {name: early, size: 25%, bake: 10s, maxConcurrent: 1, maxFailures: 0}
  - {name: rest, size: 100%, bake: 10s, maxConcurrent: 50%, maxFailures: 0}
  progressDeadline: 5m
  onFailure: ON_FAILURE
"""
CLUSTER_FILE = """\
apiVersion: reconciler.dev/v1alpha1
kind: Cluster
metadata: {name: NAME, labels: {env: prod, region: REGION, ring: RING}}
spec: {credentials: NAME, staleAfter: 1m}
"""
APPLICATION_FILE = """\
apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: NAME}
spec:
  components:
  - name: NAME
    type: flink-application
    properties:
      image: "registry.example.com/NAME:TAG"
      flinkVersion: v1_20
      job: {jarURI: "local:///opt/flink/usrlib/job.jar", parallelism: 2}
  - name: config
    type: manifests
    properties:
      objects:
OBJECTS
  policies:
  - {type: topology, properties: {clusterLabelSelector: {env: prod}, namespace: NAME, createNamespace: true}}
"""
OBJECT = """\
      - {apiVersion: v1, kind: ConfigMap, metadata: {name: NAME-INDEX}, data: {tag: "TAG"}}
"""
#: Tags that say how the job behaves; every tag is a release of its own.
BAD = ("crash-loop", "rejected-spec", "fails-at-start", "never-starts")
QUICK = Timings(
    stop_s=1.0, savepoint_s=2.0, submit_s=0.5, deploy_s=3.0, start_s=2.0, crash_after_s=6.0, restart_s=3.0, ready_s=2.0
)


def cluster_file(name: str, region: str, ring: str) -> str:
    """The document of one cluster."""
    return CLUSTER_FILE.replace("NAME", name).replace("REGION", region).replace("RING", ring)


def application_file(name: str, tag: str, objects: int = 1) -> str:
    """The document of one application with `objects` ConfigMaps beside its job."""
    listed = "".join(OBJECT.replace("INDEX", str(number)) for number in range(objects)).rstrip("\n")
    text = APPLICATION_FILE.replace("OBJECTS", listed)
    return text.replace("NAME", name).replace("TAG", tag)


def policy_file(on_failure: str = "rollback") -> str:
    """The rollout policy of the fleet."""
    return POLICY_FILE.replace("ON_FAILURE", on_failure)


def fault_rates(seed: int) -> dict[str, FaultRates]:
    """How much goes wrong, and where, in this seed: some are calm, some are storms."""
    storm = fraction(seed, "storm")
    network = FaultRates(
        crash_before=0.0005 * storm,
        crash_after=0.001 * storm,
        crash_hanging=0.0003 * storm,
        lost_before=0.02 * storm,
        lost_after=0.02 * storm,
        black_hole=0.002 * storm,
        server_error=0.02 * storm,
        throttled=0.02 * storm,
        stale=0.02 * storm,
        watch_gone=0.02 * storm,
        watch_cut=0.02 * storm,
        watch_doubled=0.05 * storm,
        watch_delayed=0.05 * storm,
        latency_s=(0.001, 0.2),
    )
    store = FaultRates(crash_before=0.001 * storm, crash_after=0.002 * storm)
    git = FaultRates(lost_before=0.1 * storm, latency_s=(0.01, 0.5))
    return {"": network, "store": store, "git": git, "notify": FaultRates(lost_before=0.1 * storm)}


@dataclass(slots=True)
class Story:
    """One seed's story while it is told."""

    world: World
    checkers: Checkers
    seed: int
    applications: tuple[str, ...]
    tags: dict[str, str]
    number: int = 0
    broken: bool = False

    def chance(self, *what: object) -> float:
        """A number in [0, 1) for this step of this seed."""
        return fraction(self.seed, self.number, *what)

    def pick(self, choices: list[str], *what: object) -> str:
        """One of `choices`."""
        return choices[int(self.chance("pick", *what) * len(choices))]

    # ---- what may happen ---------------------------------------------------------------------------------------

    def push(self, bad: bool) -> None:
        """A commit changes one application's image."""
        name = self.pick(list(self.applications), "application")
        marker = "-" + self.pick(list(BAD), "bad") if bad else ""
        self.tags[name] = f"1.{self.number}{marker}"
        objects = 1 + int(self.chance("objects") * 3)
        content = application_file(name, self.tags[name], objects)
        self.world.repository.commit({f"apps/{name}/app.yaml": content}, f"{name} {self.tags[name]}")

    def break_something(self) -> None:
        """A commit that must not be obeyed: broken YAML, a broken fleet, or everything deleted."""
        repository = self.world.repository
        if self.broken:
            return
        self.broken = True
        kind = self.pick(["application", "fleet", "everything", "policy"], "broken")
        good = repository.refs["main"]
        if kind == "application":
            repository.commit({f"apps/{self.applications[0]}/app.yaml": "kind: [\n"}, "broken application")
        elif kind == "fleet":
            repository.commit({"fleet.yaml": "kind: Fleet\nspec: {}\n"}, "broken fleet")
        elif kind == "policy":
            repository.commit({"policies/quick.yaml": "kind: RolloutPolicy\n"}, "broken policy")
        else:
            repository.delete_everything()
        # Somebody notices and puts the branch back: a force push, over whatever was pushed meanwhile.
        asyncio.get_running_loop().call_later(between(40, 200, self.seed, self.number), self.put_back, good)

    def put_back(self, sha: str) -> None:
        """The branch is moved back to a commit that was good."""
        self.world.repository.force_push(sha)
        self.broken = False

    def edit(self) -> None:
        """Somebody edits or deletes an object by hand."""
        cluster = self.world.clusters[self.pick(sorted(self.world.clusters), "cluster")]
        name = self.pick(list(self.applications), "application")
        live = cluster.read(FLINK, "FlinkDeployment", name, name)
        if live is None or "deletionTimestamp" in live["metadata"]:
            return
        if self.chance("delete") < 0.3:
            cluster.delete(FLINK, "FlinkDeployment", name, name)
        elif self.chance("foreign") < 0.3:
            cluster.edit(FLINK, "FlinkDeployment", name, name, {"metadata": {"labels": {"team": "theirs"}}})
        else:
            cluster.edit(FLINK, "FlinkDeployment", name, name, {"spec": {"image": "by/hand:1"}})

    def cut_off(self) -> None:
        """A cluster cannot be reached for a while."""
        name = self.pick(sorted(self.world.clusters), "cluster")
        self.world.cut(name, silent=self.chance("silent") < 0.5)
        asyncio.get_running_loop().call_later(between(20, 300, self.seed, self.number), self.world.mend, name)

    def join(self) -> None:
        """One more cluster joins the fleet."""
        name = f"c{len(self.world.clusters)}"
        self.world.add_cluster(name)
        self.checkers.watch_cluster(name)
        self.world.repository.commit({f"clusters/{name}.yaml": cluster_file(name, "eu", "rest")}, f"{name} joins")

    def pause_one(self) -> None:
        """A person pauses a rollout, and resumes it later."""
        if self.world.daemon is None:
            return
        active = self.world.ask(lambda tx: tx.rollouts(active=True))
        found = next((each for each in active if each.state is RolloutState.ACTIVE), None)
        if found is None:
            return
        self.steer(found.id, lambda rollout: pause(rollout, Reason("PausedByPerson", "looking at it")))
        delay_s = between(30, 200, self.seed, self.number)
        asyncio.get_running_loop().call_later(delay_s, self.resume_one, found.id)

    def resume_one(self, rollout_id: str) -> None:
        """The person resumes it, if it is still paused."""
        if self.world.daemon is None:
            asyncio.get_running_loop().call_later(10.0, self.resume_one, rollout_id)
            return
        self.steer(rollout_id, lambda rollout: resume(rollout) if rollout.state is RolloutState.PAUSED else rollout)

    def steer(self, rollout_id: str, change: Callable[[Rollout], Rollout]) -> None:
        """Change a rollout's state as the API does."""
        world = self.world
        if world.store is None or world.daemon is None:
            return

        def work(tx: Tx) -> None:
            rollout = tx.rollout(rollout_id)
            assert rollout is not None
            after = change(rollout)
            if after != rollout:
                tx.update_rollout(after)

        world.store.transact_now("steer", work)
        world.committed(f"steer:{rollout_id}")
        world.daemon.hub.wake(owner_of(rollout_id))

    def jump(self) -> None:
        """Somebody sets the wall clock."""
        if self.world.clock is not None:
            self.world.clock.jump_wall(between(-7200, 7200, self.seed, self.number, "jump"))

    def something(self) -> None:
        """One thing happens."""
        self.number += 1
        drawn = self.chance("what")
        if drawn < 0.30:
            self.push(bad=False)
        elif drawn < 0.42:
            self.push(bad=True)
        elif drawn < 0.50:
            self.break_something()
        elif drawn < 0.64:
            self.edit()
        elif drawn < 0.76:
            self.cut_off()
        elif drawn < 0.80 and len(self.world.clusters) < 8:
            self.join()
        elif drawn < 0.88:
            self.pause_one()
        elif drawn < 0.94:
            self.world.kill()
        else:
            self.jump()

    # ---- the end -----------------------------------------------------------------------------------------------

    def stopped(self) -> frozenset[Target]:
        """Targets that a halted rollout left as they are, for people to look at."""
        left = FAILURE_STATES | {TargetState.BLOCKED}

        def find(tx: Tx) -> frozenset[Target]:
            return frozenset(
                row.target
                for rollout in tx.rollouts(active=True)
                for row in tx.rollout_targets(rollout.id)
                if row.state in left
            )

        found: frozenset[Target] = self.world.ask(find)
        return found

    def at_rest(self) -> bool:
        """Nothing is on its way: rollouts have ended or are halted, and nothing is pending."""
        active: list[Rollout] = self.world.ask(lambda tx: tx.rollouts(active=True))
        return (
            all(rollout.state is RolloutState.HALTED for rollout in active)
            and not self.world.ask(lambda tx: tx.intents(pending=True))
            and all(cluster.idle() for cluster in self.world.clusters.values())
        )

    async def end(self) -> None:
        """The faults stop, a last good commit is made, and everything becomes what it asks for."""
        world = self.world
        assert isinstance(world.plan, SeededPlan)
        world.plan.stop()
        await world.sleep(320)  # whatever was to come back has come back by now
        for name in sorted(world.clusters):
            world.mend(name)
        for name in self.applications:
            self.tags[name] = "2.0"
        files = fleet_files(self.seed, sorted(world.clusters))
        files |= {f"apps/{name}/app.yaml": application_file(name, "2.0", 2) for name in self.applications}
        world.repository.commit(files, "all good", replace=True)
        await world.sleep(40)
        await world.until(self.at_rest, 6 * 3600)
        await world.sleep(150)
        await world.until(self.at_rest, 3600)
        self.checkers.at_rest(but=self.stopped())
        self.everything_is_new()
        before = self.checkers.writes()
        await world.sleep(300)
        self.checkers.quiet(before)

    def everything_is_new(self) -> None:
        """The last commit is what every cluster runs: nothing may be stuck for ever."""
        for cluster in self.world.clusters.values():
            for name in self.applications:
                live = cluster.read(FLINK, "FlinkDeployment", name, name)
                if live is None or not live["spec"]["image"].endswith(":2.0"):
                    image = live["spec"]["image"] if live is not None else "nothing"
                    raise AssertionError(f"{name} on {cluster.name} runs {image} and not the last commit")


def fleet_files(seed: int, clusters: list[str]) -> dict[str, str]:
    """Everything of the fleet but its applications. The first cluster is the canary."""
    files = {"fleet.yaml": FLEET_FILE}
    files["policies/quick.yaml"] = policy_file("halt" if fraction(seed, "halt") < 0.25 else "rollback")
    for number, name in enumerate(clusters):
        ring = "rest" if number else "canary"
        files[f"clusters/{name}.yaml"] = cluster_file(name, "eu" if number % 2 else "us", ring)
    return files


async def tell(world: World, seed: int) -> None:
    """The whole story of one seed."""
    clusters = 3 + int(fraction(seed, "clusters") * 3)
    applications = tuple(f"app{number}" for number in range(1 + int(fraction(seed, "applications") * 2)))
    files = fleet_files(seed, [world.add_cluster(f"c{number}").name for number in range(clusters)])
    checkers = Checkers(world, slack_s=SLACK_S)
    story = Story(world, checkers, seed, applications, dict.fromkeys(applications, "1.0"))
    for name in applications:
        files[f"apps/{name}/app.yaml"] = application_file(name, "1.0")
    world.repository.commit(files, "first")
    await world.start()
    for number in range(10):
        await world.sleep(between(5, 240, seed, number, "pause"))
        story.something()
    await story.end()
    world.steps = checkers.steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed came to. `transitions` counts commits of the whole shell, `target_steps` targets evaluated by a
    decision with the invariants checked after it, `trace_digest` is over all calls and commits."""

    seed: int
    trace_digest: str
    transitions: int
    target_steps: int
    deaths: int
    virtual_s: float


def world_of(seed: int) -> World:
    """The world of one seed, before anything happens in it."""
    plan = SeededPlan(seed, fault_rates(seed), crashes_max=8)
    settings = replace(DaemonSettings(), resync_interval_s=120.0)
    return World(seed=seed, plan=plan, timings=QUICK, settings=settings, trace=[])


def run_seed(seed: int) -> Outcome:
    """Tell the story of `seed` to its end."""
    logging.getLogger("reconciler").setLevel(logging.CRITICAL + 1)
    world = world_of(seed)
    virtual_s = 0.0

    async def story(world: World) -> None:
        nonlocal virtual_s
        try:
            await tell(world, seed)
        finally:
            virtual_s = world.time()

    run(play(world, story))
    assert world.trace is not None
    commits = sum(" commit " in line for line in world.trace)
    return Outcome(seed, world.trace_digest(), commits, world.steps, len(world.deaths), virtual_s)
