"""B8: from documents to releases. The floor is libyaml parsing the same bytes.

Cold: a fleet is compiled from nothing, as after a start. Changed: one application of the fleet has another image and
everything else is as it was; the counters say that nothing else was read or compiled.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import yaml

from bench import fleets
from bench.measure import Options, Sample, goal, summary, timed
from reconciler.core.fleet import Result, compile_fleet, wanted
from reconciler.core.fleet_model import EMPTY_CACHE, FleetCache, FleetSettings
from reconciler.resources import catalogue

COLD_RATIO_MAX = 3.0


def compile_commit(commit: fleets.Repository, cache: FleetCache, settings: FleetSettings) -> Result:
    """Read what is wanted and compile, as a source does. Raises ValueError if the fleet has a problem."""
    read: dict[str, bytes] = {}
    while blobs := wanted(commit.listing, read, cache):
        read.update({blob: commit.contents[blob] for blob in blobs})
    result = compile_fleet(commit.listing, read, cache, settings)
    if result.snapshot.problems:
        raise ValueError(f"the fleet to measure with has a problem: {result.snapshot.problems[0]}")
    return result


def parse_only(commit: fleets.Repository) -> int:
    """The floor: the same documents through libyaml's safe loader; how many there were."""
    loader = yaml.CSafeLoader
    return sum(1 for data in commit.contents.values() for _ in yaml.load_all(data, Loader=loader))


def measure(applications: int, repeats: int) -> dict[str, Any]:
    """One fleet size: every repeat measures the floor, a cold compilation and one change after it."""
    settings = FleetSettings(catalogue())
    first = fleets.fleet(applications)
    floor: list[Sample] = []
    cold: list[Sample] = []
    one: list[Sample] = []
    ratios: list[float] = []
    held: list[Result] = []
    for repeat in range(repeats + 1):
        held.clear()  # what the repeat before compiled is not garbage of this one
        floor_sample = timed(lambda: parse_only(first))
        cold_sample = timed(lambda: held.append(compile_commit(first, EMPTY_CACHE, settings)))
        second = fleets.fleet(applications, {applications // 2: repeat + 1})
        one_sample = timed(partial(_again, second, held[0], held, settings))
        if repeat == 0:
            continue  # warm-up
        floor.append(floor_sample)
        cold.append(cold_sample)
        one.append(one_sample)
        ratios.append(cold_sample.cpu_s / floor_sample.cpu_s)
    cold_result, one_result = held
    releases = sum(len(each.releases) for each in cold_result.snapshot.applications.values())
    return {
        "applications": applications,
        "targets": cold_result.snapshot.target_count,
        "releases": releases,
        "bytes": sum(len(data) for data in first.contents.values()),
        "cold_releases_per_second": summary([releases / sample.cpu_s for sample in cold]),
        "cold_over_floor": summary(ratios),
        "one_changed_s": summary([sample.cpu_s for sample in one]),
        "counters_cold": _counters(cold_result),
        "counters_one_changed": _counters(one_result),
        "samples": {
            "floor": [sample.as_json() for sample in floor],
            "cold": [sample.as_json() for sample in cold],
            "one_changed": [sample.as_json() for sample in one],
        },
    }


def _again(commit: fleets.Repository, before: Result, held: list[Result], settings: FleetSettings) -> None:
    held.append(compile_commit(commit, before.cache, settings))


def _counters(result: Result) -> dict[str, int]:
    counters = result.counters
    return {
        "blobs_read": counters.blobs_read,
        "documents_parsed": counters.documents_parsed,
        "applications_compiled": counters.applications_compiled,
        "variants_compiled": counters.variants_compiled,
    }


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All sizes; goals and results."""
    sizes = {str(size): measure(size, options.repeats) for size in options.sized((1_000, 10_000), (60,))}
    goals = []
    for size, found in sizes.items():
        ratio = found["cold_over_floor"]["median"]
        goals.append(goal(f"cold over floor, {size} applications", ratio, COLD_RATIO_MAX, at_most=True))
        for name in ("blobs_read", "applications_compiled"):
            value = found["counters_one_changed"][name]
            goals.append(goal(f"{name} when 1 of {size} changed", value, 1, at_most=True))
    return goals, {"fleets": sizes}
