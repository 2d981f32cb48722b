"""B5: resident memory by live objects. The floor is the objects' own JSON, as the API server sends it.

One fleet grows; at each size the daemon is started anew, so that it holds what it needs and nothing that an
installation left behind, and its resident memory is read once it has compared everything. The slope between the
smallest and the largest size leaves out what every Python program has.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import orjson

from bench.measure import Options, goal
from bench.real.fleet import FULL_OBJECTS, name_of
from bench.real.stage import LIVE_PATHS, Setup, Stage
from tests.control_plane.server import call

RATIO_MAX = 3.0
REST_S = 5.0


def live_bytes(setup: Setup) -> tuple[int, int]:
    """How many objects the fleet's clusters have, and their size as JSON."""
    count = size = 0
    for cluster in setup.fleet.clusters:
        for path in LIVE_PATHS:
            answer = call(setup.plane.control, "GET", path.format(cluster))[1]
            ours = [item for item in answer["items"] if item["metadata"]["name"].startswith("app-")]
            count += len(ours)
            size += sum(len(orjson.dumps(item)) for item in ours)
    return count, size


def measure(setup: Setup, objects: int, repeats: int, rest_s: float) -> dict[str, Any]:
    """Let the fleet grow to so many objects, then read the memory of daemons that were started anew."""
    daemon, fleet = setup.daemon, setup.fleet
    wanted = objects // FULL_OBJECTS
    fleet.commit({number: 0 for number in range(wanted) if number not in fleet.tags})
    daemon.start()
    daemon.until_settled(wanted, setup.within_s(objects))
    grown_bytes = daemon.usage().resident_bytes
    samples = []
    for _ in range(repeats):
        daemon.stop()
        daemon.start()
        daemon.ready(len(fleet.clusters))
        daemon.until(lambda: daemon.ask("/api/v1/status")["targets"]["synced"] >= wanted, 600, every_s=1.0)
        time.sleep(rest_s)
        samples.append(daemon.usage().resident_bytes)
    daemon.stop()
    count, size = live_bytes(setup)
    assert count == wanted * FULL_OBJECTS, f"{count} objects, {name_of(wanted)} is the first that is not there"
    return {
        "objects": count,
        "json_bytes": size,
        "resident_bytes": statistics.median(samples),
        "resident_bytes_after_install": grown_bytes,
        "samples": samples,
    }


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All sizes of one fleet; goals and results."""
    sizes = options.sized((1_000, 5_000, 10_000), (8, 16))
    clusters = options.over((1,), (1,))[0]
    rest_s = 0.5 if options.quick else REST_S
    with Stage(options.plane) as stage:
        applications = sizes[-1] // FULL_OBJECTS
        setup = stage.set_up(applications, clusters, full_max=applications)
        found = [measure(setup, size, options.repeats, rest_s) for size in sizes]
    first, last = found[0], found[-1]
    more = last["objects"] - first["objects"]
    slope = {what: 10_000 * (last[what] - first[what]) / more for what in ("resident_bytes", "json_bytes")}
    ratio = slope["resident_bytes"] / slope["json_bytes"]
    goals = [goal("resident bytes per byte of JSON, slope", ratio, RATIO_MAX, at_most=True)]
    per = {what: round(value / 2**20, 2) for what, value in slope.items()}
    return goals, {"clusters": clusters, "mb_per_10000_objects": per, "sizes": found}
