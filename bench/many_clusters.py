"""B6: the same applications over more and more clusters: CPU, memory, sockets, and B1's time. The floor is one cluster.

Then with more clusters beside the others that accept connections and answer nothing, each with its share of further
applications: those cannot be helped, and nobody else is to notice.
"""

from __future__ import annotations

from typing import Any

from bench.measure import Options, goal, summary
from bench.real.stage import Setup, Stage

RATIO_MAX = 1.3
MB_A_CLUSTER_MAX = 1.0
SOCKETS_A_CLUSTER_MAX = 12
SLOWED_MAX = 1.1
SILENT_SHARE = 0.1
APPLICATIONS = 1_000


def once(setup: Setup) -> dict[str, float]:
    """Change all applications, those of silent clusters too, and wait for all that can be done."""
    fleet, daemon = setup.fleet, setup.daemon
    before = daemon.usage()
    committed_s, mark = setup.change(range(fleet.applications + fleet.out_of_reach))
    objects = fleet.object_count(range(fleet.applications))
    writes = setup.writes_until(objects, mark)
    used = daemon.usage() - before
    daemon.until_settled(fleet.applications, setup.within_s(objects), active_max=fleet.out_of_reach)
    whole = daemon.usage() - before
    return {
        "daemon_s": round(writes[-1].answered_s - committed_s, 4),
        "cpu_s": round(used.cpu_s, 4),
        "cpu_until_settled_s": round(whole.cpu_s, 4),
        "resident_bytes": whole.resident_bytes,
        "sockets": whole.sockets,
    }


def measure(options: Options, applications: int, clusters: int, silent: int = 0) -> dict[str, Any]:
    """One number of clusters on a control plane of its own."""
    with Stage(options.plane) as stage:
        setup = stage.set_up(applications, clusters, silent=silent)
        installed = setup.install()
        samples = [once(setup) for _ in range(options.repeats + 1)][1:]
        setup.daemon.stop()
    figures = {what: summary([sample[what] for sample in samples]) for what in samples[0]}
    return {
        "clusters": clusters,
        "silent": silent,
        "install": installed,
        **figures,
        "sockets_a_cluster": round(figures["sockets"]["median"] / (clusters + silent), 3),
        "samples": samples,
    }


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All numbers of clusters, then one of them again with silent ones; goals and results."""
    applications = options.sized((APPLICATIONS,), (4,))[0]
    numbers = options.over((1, 10, 100, 1_000), (1, 2))
    found = {clusters: measure(options, applications, clusters) for clusters in numbers}
    first = found[numbers[0]]
    goals = []
    for clusters in numbers[1:]:
        here = found[clusters]
        for what, name in (("cpu_until_settled_s", "CPU"), ("daemon_s", "commit to last object")):
            ratio = here[what]["median"] / first[what]["median"]
            goals.append(goal(f"{name}, {clusters} clusters over {numbers[0]}", ratio, RATIO_MAX, at_most=True))
        more_bytes = here["resident_bytes"]["median"] - first["resident_bytes"]["median"]
        more_mb = more_bytes / 2**20 / (clusters - numbers[0])
        goals.append(goal(f"MB a cluster, {clusters} clusters", more_mb, MB_A_CLUSTER_MAX, at_most=True))
        sockets = here["sockets_a_cluster"]
        goals.append(goal(f"sockets a cluster, {clusters} clusters", sockets, SOCKETS_A_CLUSTER_MAX, at_most=True))
    many = 100 if 100 in numbers else numbers[-1]
    silent = measure(options, applications, many, max(1, int(many * SILENT_SHARE)))
    slowed = silent["daemon_s"]["median"] / found[many]["daemon_s"]["median"]
    goals.append(
        goal(f"{silent['silent']} silent beside {many} clusters, time over without", slowed, SLOWED_MAX, at_most=True)
    )
    return goals, {"applications": applications, "numbers": list(found.values()), "with_silent": silent}
