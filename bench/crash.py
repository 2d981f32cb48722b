"""B7: the daemon is killed in the middle of a change. Beside it the same change undisturbed.

After so many writes as the repeat says it is killed (SIGKILL) and started again at once. Every object has to be written
exactly once for the change: a second write of it is a duplicate, whichever of the two processes made it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.measure import Options, goal, summary
from bench.real.stage import LOOK_S, Setup, Stage

CLUSTERS = 4


def once(setup: Setup, share: float) -> dict[str, Any]:
    """Change everything; kill the daemon after `share` of the writes (0: not at all)."""
    fleet, daemon = setup.fleet, setup.daemon
    numbers = range(fleet.applications)
    objects = fleet.object_count(numbers)
    committed_s, mark = setup.change(numbers)
    killed_at = 0
    restarted_s = committed_s
    if share > 0:
        killed_at = len(setup.writes_until(max(1, int(share * objects)), mark))
        daemon.kill()
        restarted_s = daemon.start()
    # The API server notes a write as failed (504) whose client died, though it may have been carried out.
    daemon.until(lambda: setup.unwritten() == 0, setup.within_s(objects), LOOK_S)
    daemon.until_settled(fleet.applications, setup.within_s(objects))
    asked = setup.asked(mark)
    writes = [each for each in asked if each.is_write]
    last_s = max(each.answered_s for each in writes)
    return {
        "killed_after_writes": killed_at,
        "objects": objects,
        "commit_to_last_s": round(last_s - committed_s, 4),
        "restart_to_last_s": round(last_s - restarted_s, 4),
        "requests": dict(sorted(Counter(each.verb for each in asked).items())),
        "dry_runs": sum(each.dry_run for each in asked),
        "duplicates": len(writes) - len({each.place for each in writes}),
        "unwritten": setup.unwritten(),
    }


def run(options: Options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Undisturbed and killed in turn; goals and results."""
    size = options.sized((250,), (4,))[0]
    clusters = options.over((CLUSTERS,), (2,))[0]
    undisturbed, killed = [], []
    with Stage(options.plane) as stage:
        setup = stage.set_up(size, clusters)
        installed = setup.install()
        once(setup, 0)  # warm-up
        for repeat in range(options.repeats):
            undisturbed.append(once(setup, 0))
            killed.append(once(setup, (repeat + 1) / (options.repeats + 1)))
        setup.daemon.stop()
    goals = [
        goal("objects written twice", sum(each["duplicates"] for each in killed), 0, at_most=True),
        goal("objects not written", sum(each["unwritten"] for each in killed), 0, at_most=True),
    ]
    return goals, {
        "applications": size,
        "clusters": clusters,
        "install": installed,
        "undisturbed_s": summary([each["commit_to_last_s"] for each in undisturbed]),
        "killed_s": summary([each["commit_to_last_s"] for each in killed]),
        "restart_to_last_s": summary([each["restart_to_last_s"] for each in killed]),
        "undisturbed": undisturbed,
        "killed": killed,
    }
