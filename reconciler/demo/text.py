"""Words for the audience: what is said before, between and after the steps, on a terminal and elsewhere.

opening(stage, program)      # the first lines, which say whose clock this is
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from reconciler.core.formats import rough_duration
from reconciler.demo.fleet import RINGS
from reconciler.demo.outcome import StepOutcome, Summary, WaveOutcome
from reconciler.demo.stage import SOURCE, Stage

#: More waves than this are counted instead of listed.
WAVES_LISTED_MAX = 6


def opening(stage: Stage) -> list[str]:
    """What this is, and by which clock it goes."""
    count = len(stage.clusters)
    interval = f"{stage.check_interval_s:.0f} s"
    if stage.real:
        here = [
            f"themselves. Here: {count} real Kubernetes control planes on 127.0.0.1 (etcd and kube-apiserver, with the",
            "simulator's model in the place of Flink's operator), a local repository, the real daemon.",
        ]
    else:
        clusters = f"{count} simulated Kubernetes clusters on 127.0.0.1"
        here = [f"themselves. Here: {clusters}, a local repository, the real daemon."]
    return [
        "Reconciler moves a fleet of Flink applications from one Git commit to the next, in waves that have to prove",
        *here,
        "The policy clock is stepped: bakes, deadlines, backoff and the simulated Flink operator go by it. It jumps",
        f"from timer to timer, at most {interval} at a time, and only when everything has come to rest; Git, HTTP and",
        "the store take the time they take. So an hour of observation passes in seconds, and none of it is skipped.",
    ]


def addresses(stage: Stage) -> list[str]:
    """Where the API is, and how to point the commands at it."""
    listening = " and ".join(stage.server.addresses)
    return [
        f"API: {listening}",
        "For `reconciler status`, `reconciler explain orders`, `reconciler rollouts` in another terminal:",
        f"  export RECONCILER_SERVER={stage.server.addresses[0]}",
    ]


def clock(wall: float) -> str:
    """A moment of the policy clock, for people."""
    return dt.datetime.fromtimestamp(wall, dt.UTC).strftime("%H:%M:%S")


def result_of(outcome: StepOutcome, policy_s: float) -> str:
    """One line: what a step ended as."""
    targets = f"{outcome.targets_touched} target{'s' if outcome.targets_touched != 1 else ''} written"
    return f"{outcome.result} · {targets} · {rough_duration(policy_s)} of policy time in {outcome.wall_s:.1f} s"


def waves_of(outcome: StepOutcome) -> list[str]:
    """The waves with their times; of many applications only how many waves of each name there were."""
    if len(outcome.waves) <= WAVES_LISTED_MAX:
        return [_wave(wave) for wave in outcome.waves]
    names = in_wave_order(wave.name for wave in outcome.waves)
    return [_waves(name, [wave for wave in outcome.waves if wave.name == name]) for name in names]


def in_wave_order(names: Iterable[str]) -> list[str]:
    """Each name once: the sample's waves in their order, then any others as they come."""
    return sorted(dict.fromkeys(names), key=lambda name: RINGS.index(name) if name in RINGS else len(RINGS))


def _wave(wave: WaveOutcome) -> str:
    if wave.started_at is None:
        return f"{wave.name:<8} {wave.targets} targets  never started"
    parts = [f"started {clock(wave.started_at)}"]
    parts.append(f"healthy {clock(wave.healthy_at)}" if wave.healthy_at is not None else "stopped before it had baked")
    if wave.baked_at is not None:
        parts.append(f"baked {clock(wave.baked_at)}")
    return f"{wave.name:<8} {wave.targets} targets  " + "  ".join(parts)


def _waves(name: str, waves: Sequence[WaveOutcome]) -> str:
    started = [wave.started_at for wave in waves if wave.started_at is not None]
    baked = [wave.baked_at for wave in waves if wave.baked_at is not None]
    targets = sum(wave.targets for wave in waves)
    line = f"{name:<8} {targets} targets of {len(waves)} applications"
    if started and len(baked) == len(waves):
        line += f"  started from {clock(min(started))}  baked by {clock(max(baked))}"
    return line


def closing(summary: Summary) -> str:
    """The last word."""
    if summary.succeeded:
        return "All steps ended as they were to end."
    failed = next(step for step in summary.steps if not step.wanted)
    return f"Step {failed.name} did not end as it was to: {failed.result}"


def commit_of(stage: Stage) -> str:
    """The newest commit that the daemon has looked at, shortened, with its subject."""
    commit = stage.daemon.sources[SOURCE].commit
    return f"{commit.sha[:7]} {commit.subject}" if commit is not None else ""
