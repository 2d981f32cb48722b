"""B9: how much the simulator proves in a minute of one core.

*Stories*: whole seeds, with commits good and bad, edits by hand, partitions, crashes and clock jumps, the shipped shell
and every invariant. *Wide*: one application on many clusters moves through three waves without faults, so that a step
of its rollout evaluates many targets. A target-step is one target evaluated by a decision of its rollout, with the
invariants checked after the commit; a transition is a commit of the whole shell with its I/O.
"""

from __future__ import annotations

import logging
from typing import Any

from bench.measure import Options, goal, summary, timed
from reconciler.sim.checkers import Checkers
from reconciler.sim.loop import run as run_on_virtual_time
from reconciler.sim.scenarios import FLEET_FILE, QUICK, SLACK_S, application_file, cluster_file, policy_file, run_seed
from reconciler.sim.world import World, play

FIRST_SEED = 1000
STORIES = 8
WIDE_CLUSTERS = 40

TARGET_STEPS_A_MINUTE = 1_000_000.0
TRANSITIONS_A_MINUTE = 60_000.0


def stories(count: int) -> dict[str, Any]:
    """Tell `count` stories, always the same ones."""
    counted = {"seeds": 0, "transitions": 0, "target_steps": 0, "deaths": 0, "virtual_s": 0.0}
    violations: list[str] = []

    def work() -> None:
        for seed in range(FIRST_SEED, FIRST_SEED + count):
            try:
                outcome = run_seed(seed)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's finding, and is reported
                violations.append(f"seed {seed}: {type(error).__name__}: {error}")
                continue
            counted["seeds"] += 1
            counted["transitions"] += outcome.transitions
            counted["target_steps"] += outcome.target_steps
            counted["deaths"] += outcome.deaths
            counted["virtual_s"] += outcome.virtual_s

    sample = timed(work)
    return {**counted, "virtual_s": round(counted["virtual_s"]), "violations": violations, **sample.as_json()}


def wide(clusters: int) -> dict[str, Any]:
    """One application on `clusters` clusters comes up and is changed once, through three waves each time."""
    counted = {"targets": clusters, "transitions": 0, "target_steps": 0, "virtual_s": 0.0}

    async def story(world: World) -> None:
        files = {"fleet.yaml": FLEET_FILE, "policies/quick.yaml": policy_file()}
        for number in range(clusters):
            name = f"c{number:03d}"
            world.add_cluster(name)
            ring = "canary" if number < 2 else "rest"
            files[f"clusters/{name}.yaml"] = cluster_file(name, ("eu", "us", "ap")[number % 3], ring)
        checkers = Checkers(world, slack_s=SLACK_S)
        for tag in ("1.0", "2.0"):
            world.repository.commit({**files, "apps/app/app.yaml": application_file("app", tag)}, tag)
            if world.daemon is None:
                await world.start()
            await world.sleep(2 * world.poll_s)
            await world.until(world.settled, 4 * 3600, every_s=60.0)
        checkers.at_rest()
        baked = [row for row in world.ask(lambda tx: tx.assignments()) if row.digest and row.baked == row.digest]
        if len(baked) != clusters:
            raise RuntimeError(f"{len(baked)} of {clusters} targets baked")
        assert world.trace is not None
        counted["transitions"] = sum(" commit " in line for line in world.trace)
        counted["target_steps"] = checkers.steps
        counted["virtual_s"] = round(world.time())

    logging.getLogger("reconciler").setLevel(logging.CRITICAL + 1)
    sample = timed(lambda: run_on_virtual_time(play(World(seed=1, timings=QUICK, trace=[]), story)))
    return {**counted, **sample.as_json()}


def _a_minute(samples: list[dict[str, Any]], what: str) -> dict[str, float]:
    return summary([60.0 * sample[what] / sample["cpu_s"] for sample in samples])


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Stories and the wide rollout; goals and results, all per minute of one core."""
    count, targets = (5, 5) if options.quick else (STORIES, WIDE_CLUSTERS)
    told = [stories(count) for _ in range(options.repeats + 1)][1:]
    moved = [wide(targets) for _ in range(options.repeats + 1)][1:]
    rates = {f"{what}_a_minute": _a_minute(told, what) for what in ("seeds", "transitions", "target_steps")}
    wide_rates = {f"{what}_a_minute": _a_minute(moved, what) for what in ("transitions", "target_steps")}
    goals = []
    for where, found in (("stories", rates), ("wide", wide_rates)):
        steps, transitions = found["target_steps_a_minute"]["median"], found["transitions_a_minute"]["median"]
        goals.append(goal(f"target-steps a minute, {where}", steps, TARGET_STEPS_A_MINUTE, at_most=False))
        goals.append(goal(f"transitions a minute, {where}", transitions, TRANSITIONS_A_MINUTE, at_most=False))
    violations = sum(len(sample["violations"]) for sample in told)
    goals.append(goal("violations", violations, 0, at_most=True))
    results = {
        "stories": {"seeds": count, "first_seed": FIRST_SEED, **rates, "samples": told},
        "wide": {"targets": targets, **wide_rates, "samples": moved},
    }
    return goals, results
