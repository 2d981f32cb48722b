"""B4: somebody edits or deletes objects: how soon it is known, and how soon repaired. The floor is a bare watcher.

Detected is the line `Drift` of the daemon's audit log, at the time it carries; repaired is the API server's answer to
the daemon's write. Both are counted from the moment the API server received the edit or the delete; so is the arrival
of the event at the bare watcher. Every disturbance takes applications that were not disturbed before, for repeated
drift of one object is repaired slower and slower on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.measure import Options, goal, percentile
from bench.real.daemon import AGENT
from bench.real.editor import AGENT as EDITOR
from bench.real.editor import Editor, Watcher
from bench.real.fleet import name_of
from bench.real.stage import Setup, Stage

RATIO_MAX = 2.0
CLUSTERS = 16
SHARE = 0.05
SINGLE_MIN = 20


def disturb(setup: Setup, watcher: Watcher, editor: Editor, numbers: Sequence[int], how: str) -> list[dict[str, float]]:
    """Edit or delete the ConfigMaps of these applications at once; what became of each."""
    audit, daemon, fleet = setup.plane.audit, setup.daemon, setup.fleet
    mark = audit.mark()
    places = {("configmaps", fleet.cluster_of(number), name_of(number)): number for number in numbers}
    for _, namespace, name in places:
        if how == "edit":
            editor.edit(namespace, name, 1)
        else:
            editor.delete(namespace, name)
    setup.writes_until(len(numbers), mark)
    rows: dict[str, list[float]] = {}

    def told() -> bool:
        rows.clear()
        for application, wall in daemon.read("SELECT application, wall FROM audit WHERE code = 'Drift'"):
            rows.setdefault(application, []).append(wall)
        return all(f"bench/{name_of(number)}" in rows for number in numbers)

    daemon.until(told, setup.within_s(len(numbers)))
    daemon.until_settled(fleet.applications, setup.within_s(len(numbers)))
    exchanges = audit.since(mark)
    received_s = {each.place: each.received_s for each in exchanges if each.is_write and each.agent == EDITOR}
    repaired = [each for each in exchanges if each.is_write and each.agent == AGENT]
    found = []
    for place, number in places.items():
        began_s = received_s[place]
        ours = [each.answered_s for each in repaired if each.place == place]
        seen = min(at for at in watcher.seen(place[1], place[2]) if at >= began_s)
        found.append(
            {
                "watched_s": round(seen - began_s, 5),
                "detected_s": round(min(at for at in rows[f"bench/{name_of(number)}"] if at >= began_s) - began_s, 5),
                "repaired_s": round(min(ours) - began_s, 5),
                "writes": len(ours),
            }
        )
    return found


def measure(setup: Setup, options: Options, single: int, share: int) -> dict[str, Any]:
    """One object at a time, then a share of them at once; edits and deletes."""
    unused = iter(range(setup.fleet.applications))

    def take(count: int) -> list[int]:
        return [next(unused) for _ in range(count)]

    found: dict[str, Any] = {}
    with Watcher(setup.plane.control) as watcher, Editor(setup.plane.control) as editor:
        for how in ("edit", "delete"):
            disturb(setup, watcher, editor, take(1), how)  # warm-up
            one = [disturb(setup, watcher, editor, take(1), how)[0] for _ in range(single)]
            many = [disturb(setup, watcher, editor, take(share), how) for _ in range(options.repeats)]
            found[f"{how} of 1"] = _summed(one)
            found[f"{how} of {share}"] = _summed([each for batch in many for each in batch])
    return found


def _summed(samples: list[dict[str, float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for what in ("watched_s", "detected_s", "repaired_s"):
        values = [sample[what] for sample in samples]
        figures[what] = {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": max(values)}
    ratio = figures["detected_s"]["p95"] / figures["watched_s"]["p95"]
    return {**figures, "p95_over_watcher": round(ratio, 4), "samples": samples}


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One fleet; goals and results."""
    size = options.sized((1_000,), (12,))[0]
    clusters = options.over((CLUSTERS,), (2,))[0]
    share = max(2, int(size * SHARE))
    single = 2 if options.quick else max(SINGLE_MIN, 4 * options.repeats)
    with Stage(options.plane) as stage:
        setup = stage.set_up(size, clusters)
        installed = setup.install()
        found = measure(setup, options, single, share)
        setup.daemon.stop()
    goals = [
        goal(f"{name}: p95 of detection over the bare watcher's", figures["p95_over_watcher"], RATIO_MAX, at_most=True)
        for name, figures in found.items()
    ]
    twice = sum(sample["writes"] - 1 for figures in found.values() for sample in figures["samples"])
    goals.append(goal("objects repaired more than once", twice, 0, at_most=True))
    return goals, {"applications": size, "clusters": clusters, "install": installed, "disturbed": found}
