"""B2: one application of many changes: from the tick to the last object applied. The floor is a fleet of ten.

All fleets run at the same time, each with a daemon of its own, and are changed in turn, so that they meet the same
machine. The tick is what a webhook would do: the daemon is told to look at Git. What is waited for is the last of the
application's four objects, as the API server answered it. The goals are for directories of teams; a fleet whose files
all lie in one directory stands beside.
"""

from __future__ import annotations

from typing import Any

from bench.measure import Options, goal, percentile
from bench.real.stage import Setup, Stage

RATIO_MAX = 1.5
LATENCY_MAX_S = 1.0
COMMITS_MIN = 20
CLUSTERS = 16


def once(setup: Setup, number: int) -> dict[str, float]:
    """Change one application; seconds from the tick to the first request and to the last answer."""
    before = setup.daemon.usage()
    mark = setup.plane.audit.mark()
    setup.fleet.commit({number: setup.fleet.tags[number] + 1})
    asked_s = setup.daemon.sync(setup.fleet.name_of(number))
    writes = setup.writes_until(setup.fleet.object_count([number]), mark)
    setup.daemon.until_settled(setup.fleet.applications, setup.within_s(1))
    used = setup.daemon.usage() - before
    return {
        "applied_s": round(writes[-1].answered_s - asked_s, 4),
        "first_request_s": round(min(each.received_s for each in writes) - asked_s, 4),
        "cpu_s": round(used.cpu_s, 4),
        "git_cpu_s": round(used.children_cpu_s, 4),
        "requests": len(setup.asked(mark)),
    }


def measure(stage: Stage, sizes: tuple[int, ...], clusters: int, commits: int) -> dict[str, Any]:
    """All fleets, changed in turn; results by size, and of the largest in one directory."""
    setups = {str(size): stage.set_up(size, min(size, clusters)) for size in sizes}
    setups[f"{sizes[-1]} in one directory"] = stage.set_up(sizes[-1], clusters, team=sizes[-1])
    installed = {name: setup.install() for name, setup in setups.items()}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in setups}
    for commit in range(commits + 1):
        for name, setup in setups.items():
            # Spread over the applications that have all four objects.
            sample = once(setup, (commit * 7) % min(setup.fleet.applications, setup.fleet.full_max))
            if commit > 0:
                samples[name].append(sample)
    for setup in setups.values():
        setup.daemon.stop()
    found: dict[str, Any] = {}
    for name, values in samples.items():
        times = [sample["applied_s"] for sample in values]
        found[name] = {
            "install": installed[name],
            "p50_s": percentile(times, 0.5),
            "p95_s": percentile(times, 0.95),
            "cpu_s_median": percentile([sample["cpu_s"] for sample in values], 0.5),
            "samples": values,
        }
    return found


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The floor's fleet and the others; goals and results."""
    sizes = options.sized((10, 1_000, 10_000), (2, 4))
    clusters = options.over((CLUSTERS,), (2,))[0]
    commits = 2 if options.quick else max(COMMITS_MIN, 4 * options.repeats)
    with Stage(options.plane) as stage:
        found = measure(stage, sizes, clusters, commits)
    floor = found[str(sizes[0])]
    goals = []
    for size in sizes[1:]:
        here = found[str(size)]
        for what in ("p50", "p95"):
            ratio = here[f"{what}_s"] / floor[f"{what}_s"]
            goals.append(goal(f"{what} with {size} applications over {sizes[0]}", ratio, RATIO_MAX, at_most=True))
        goals.append(goal(f"p95 with {size} applications, s", here["p95_s"], LATENCY_MAX_S, at_most=True))
    return goals, {"clusters": clusters, "commits": commits, "fleets": found}
