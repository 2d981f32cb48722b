"""B3: what it costs when nothing happens. `git ls-remote` alone stands beside it.

A large fleet is up and in sync and its daemon polls often; nothing is committed and nothing drifts. Counted are the
CPU of the daemon per poll without its git children, and everything that it asked the API server, by verb. Then the
same without polls, for what passes by itself: watches, timers, proofs that clusters live.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections import Counter
from typing import Any

from bench.measure import Options, goal, summary
from bench.real.stage import Setup, Stage

CPU_MS_MAX = 20.0
CLUSTERS = 16
POLL = "500ms"
WINDOW_S = 60.0
#: Until the start is digested: first lists, first looks, the garbage of both.
REST_S = 10.0


def window(setup: Setup, seconds: float) -> dict[str, Any]:
    """What the daemon uses and asks while nothing happens."""
    audit, daemon = setup.plane.audit, setup.daemon
    mark, before, polls = audit.mark(), daemon.usage(), daemon.metric("reconciler_polls_total")
    began_s = time.monotonic()
    time.sleep(seconds)
    used, took_s = daemon.usage() - before, time.monotonic() - began_s
    ticks = daemon.metric("reconciler_polls_total") - polls
    asked = setup.asked(mark)
    return {
        "seconds": round(took_s, 3),
        "ticks": ticks,
        "cpu_s": round(used.cpu_s, 6),
        "git_cpu_s": round(used.children_cpu_s, 3),
        "cpu_ms_a_tick": round(1000 * used.cpu_s / ticks, 4) if ticks else None,
        "requests": dict(sorted(Counter(f"{each.verb} {each.resource}" for each in asked).items())),
        "not_watches": sum(each.verb != "watch" for each in asked),
        "writes": sum(each.is_write for each in asked),
    }


def ls_remote(url: str) -> dict[str, float]:
    """`git ls-remote` of one ref, by itself."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["git", "ls-remote", "--quiet", "--", url, "refs/heads/main"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_ms": round(1000 * (time.perf_counter() - began_s), 3), "cpu_ms": round(1000 * used_s, 3)}


def measure(stage: Stage, size: int, clusters: int, repeats: int, window_s: float, rest_s: float) -> dict[str, Any]:
    """One fleet: windows with polls, then one without."""
    setup = stage.set_up(size, clusters)
    installed = setup.install()
    setup.daemon.stop()
    started_s = setup.daemon.start(poll=POLL)
    setup.daemon.ready(clusters)
    setup.daemon.until(lambda: setup.daemon.ask("/api/v1/status")["targets"]["synced"] >= size, 600, every_s=1.0)
    synced_s = time.time() - started_s
    time.sleep(rest_s)
    windows = [{**window(setup, window_s), "ls_remote": ls_remote(setup.fleet.url)} for _ in range(repeats)]
    resident_bytes = setup.daemon.usage().resident_bytes
    setup.daemon.stop()
    setup.daemon.start(poll="1h")
    setup.daemon.ready(clusters)
    setup.daemon.until(lambda: setup.daemon.ask("/api/v1/status")["targets"]["synced"] >= size, 600, every_s=1.0)
    time.sleep(rest_s)
    quiet = window(setup, window_s)
    setup.daemon.stop()
    return {
        "applications": size,
        "clusters": clusters,
        "install": installed,
        "start_until_synced_s": round(synced_s, 3),
        "resident_mb": round(resident_bytes / 2**20, 1),
        "cpu_ms_a_tick": summary([each["cpu_ms_a_tick"] for each in windows]),
        "ls_remote_cpu_ms": summary([each["ls_remote"]["cpu_ms"] for each in windows]),
        "windows": windows,
        "without_polls": quiet,
    }


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One large fleet; goals and results."""
    clusters = options.over((CLUSTERS,), (2,))[0]
    results, goals = [], []
    for size in options.sized((10_000,), (3,)):
        with Stage(options.plane) as stage:
            window_s, rest_s = (2.0, 1.0) if options.quick else (WINDOW_S, REST_S)
            found = measure(stage, size, clusters, options.repeats, window_s, rest_s)
        results.append(found)
        windows = [*found["windows"], found["without_polls"]]
        ticks = found["cpu_ms_a_tick"]["median"]
        goals.append(goal(f"CPU of an idle tick, {size} applications, ms", ticks, CPU_MS_MAX, at_most=True))
        for what, name in (("not_watches", "requests but watches"), ("writes", "writes")):
            value = sum(each[what] for each in windows)
            goals.append(goal(f"{name} while idle, {size} applications", value, 0, at_most=True))
    return goals, {"fleets": results}
