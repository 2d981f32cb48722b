"""B1: from a commit to the last object applied. The floor is a bare loop that applies the same objects.

A fleet is up; a commit changes N of its applications, four objects each, with gates off. The daemon's time runs from
the moment the ref had moved to the last answer that the API server gave it; the floor is the bare loop's time for the
same objects in namespaces beside, right after it, with the same client and as many requests under way for a cluster as
a lane has.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.measure import Options, goal, summary
from bench.real.floor import run_floor
from bench.real.stage import Setup, Stage
from reconciler.shell.performing import AT_ONCE

RATIO_MAX = 1.25


def once(setup: Setup, numbers: range) -> dict[str, Any]:
    """Change these applications and wait for everything; then the floors."""
    fleet, daemon = setup.fleet, setup.daemon
    before = daemon.usage()
    committed_s, mark = setup.change(numbers)
    objects = fleet.object_count(numbers)
    writes = setup.writes_until(objects, mark)
    used = daemon.usage() - before
    asked = setup.asked(mark)
    targets = fleet.applications
    daemon.until_settled(targets, setup.within_s(objects))
    whole = daemon.usage() - before
    work = setup.work_of(numbers)
    floor_s = run_floor(setup.clusters, work, AT_ONCE)
    daemon_s = writes[-1].answered_s - committed_s
    return {
        "objects": objects,
        "daemon_s": round(daemon_s, 4),
        "first_request_s": round(min(each.received_s for each in writes) - committed_s, 4),
        "floor_s": round(floor_s, 4),
        "ratio": round(daemon_s / floor_s, 4),
        "cpu_s": round(used.cpu_s, 4),
        "cpu_until_settled_s": round(whole.cpu_s, 4),
        "requests": dict(sorted(Counter(each.verb for each in asked).items())),
        "writes_of_same_object": len(writes) - len({each.place for each in writes}),
    }


def measure(stage: Stage, applications: int, sizes: tuple[int, ...], clusters: int, repeats: int) -> dict[str, Any]:
    """One number of clusters: the fleet comes up once, then each size is changed again and again."""
    setup = stage.set_up(applications, clusters)
    installed = setup.install()
    # The floor's objects are made, so that the floor changes objects as the daemon does.
    floor_install_s = run_floor(setup.clusters, setup.work_of(range(applications)), AT_ONCE)
    found: dict[str, Any] = {
        "clusters": clusters,
        "applications": applications,
        "install": {**installed, "floor_s": round(floor_install_s, 3)},
        "changed": {},
    }
    for size in sizes:
        samples = [once(setup, range(size)) for _ in range(repeats + 1)][1:]
        # What a lane gains from several requests under way: the same objects again, changed once more.
        setup.fleet.commit({number: setup.fleet.tags[number] + 1 for number in range(size)})
        one_by_one_s = run_floor(setup.clusters, setup.work_of(range(size)), 1)
        found["changed"][str(size)] = {
            "ratio": summary([sample["ratio"] for sample in samples]),
            "objects_per_second": summary([sample["objects"] / sample["daemon_s"] for sample in samples]),
            "floor_objects_per_second": summary([sample["objects"] / sample["floor_s"] for sample in samples]),
            "cpu_ms_an_object": summary([1000 * sample["cpu_s"] / sample["objects"] for sample in samples]),
            "floor_one_by_one_s": round(one_by_one_s, 4),
            "samples": samples,
        }
    setup.daemon.stop()
    return found


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All sizes on all numbers of clusters; goals and results."""
    sizes = options.sized((100, 500, 1_000), (2,))
    goals, results = [], []
    for clusters in options.over((1, 16), (1, 2)):
        with Stage(options.plane) as stage:
            found = measure(stage, max(sizes), sizes, clusters, options.repeats)
        results.append(found)
        for size, changed in found["changed"].items():
            name = f"commit to last object over bare loop, {size} applications, {_named(clusters)}"
            goals.append(goal(name, changed["ratio"]["median"], RATIO_MAX, at_most=True))
        twice = sum(
            each["writes_of_same_object"]
            for found in results
            for size in found["changed"].values()
            for each in size["samples"]
        )
    goals.append(goal("objects written more than once", twice, 0, at_most=True))
    return goals, {"runs": results}


def _named(clusters: int) -> str:
    return "1 cluster" if clusters == 1 else f"{clusters} clusters"
