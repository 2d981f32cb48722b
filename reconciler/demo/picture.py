"""The picture: what the audience is shown of one moment, as values.

One line for each application that moves, with its waves and the one gate that it waits for; where only one application
moves, a line for each of its targets. Everything is asked of the same places that the API and `explain` ask.

    picture = await picture_of(stage, mark)
    picture.applications[0].waits_for          # "wave early: eu-west-1b: healthy; baked 3 min of 10 min"
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.model import (
    ENDED_STATES,
    Reason,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
)
from reconciler.demo.fleet import APPLICATION
from reconciler.demo.outcome import Mark, Played, alerts_since, rollouts_since
from reconciler.demo.stage import Stage
from reconciler.shell.explain import gate_of
from reconciler.shell.looks import SYNCED, Look, all_looks
from reconciler.shell.ports import AuditRow

#: What goes without saying in a column of waits.
_PREFIX = re.compile(r"^((waiting for it to be healthy|wave \S+ opens after it|[A-Z]\w+ [a-z0-9.-]+): )+")
#: A wait of these says less than any other: it is somebody else's turn.
_OTHERS_TURN = ("wave:", "slot")


@dataclass(frozen=True, slots=True)
class TargetLine:
    """One target. `done` is the share of its bake that is behind it, 1 once it baked; `flink` is what the operator
    says of its job."""

    cluster: str
    wave: str
    state: str
    done: float
    note: str
    flink: str = ""


@dataclass(frozen=True, slots=True)
class WaveLine:
    """One wave: how many of its targets baked, and how much of all their bakes is done."""

    name: str
    baked: int
    targets: int
    done: float
    open: bool


@dataclass(frozen=True, slots=True)
class ApplicationLine:
    """One application that moves, or moved in this step."""

    application: str
    state: str
    kind: str
    waves: tuple[WaveLine, ...]
    targets: tuple[TargetLine, ...]
    waits_for: str

    @property
    def ended(self) -> bool:
        """Nothing more happens to it in this step."""
        return self.state in ENDED_STATES


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment. `astray` are targets in no rollout that are not as they should be; `away` clusters out of reach."""

    wall: float
    clusters: int
    away: tuple[str, ...]
    targets: int
    settled: int
    applications: tuple[ApplicationLine, ...]
    astray: tuple[TargetLine, ...]
    alerts: tuple[AuditRow, ...]


async def picture_of(stage: Stage, mark: Mark) -> Picture:
    """The present moment of the step that began at `mark`."""
    daemon = stage.daemon
    now = daemon.ports.clock.now()
    found = {look.target: look for look in await all_looks(daemon)}
    played = await rollouts_since(stage, mark)
    notes = {target: _note(stage, look) for target, look in found.items() if look.state != SYNCED}
    astray = [
        _astray(stage, look)
        for target, look in sorted(found.items())
        if look.moving is None and look.state not in (SYNCED, "Outdated", "Unreachable", "Waiting")
    ]
    away = [name for name, entry in sorted(daemon.board.clusters.items()) if entry.view().unreachable(now)]
    lines = tuple(_application(stage, rollout, rows, notes) for rollout, rows in _newest_first(played))
    return Picture(
        now.wall,
        len(stage.clusters),
        tuple(away),
        len(found),
        sum(look.state == SYNCED for look in found.values()),
        lines,
        tuple(astray),
        tuple(await alerts_since(stage, mark)),
    )


def _newest_first(played: Played) -> Played:
    """By application; a catch-up after the change it completes."""
    return sorted(played, key=lambda pair: (pair[0].application, pair[0].created_wall))


def _note(stage: Stage, look: Look) -> tuple[str, str]:
    """What a target waits for: the gate's name and its sentence, as `explain` says it, for a narrow column."""
    gate = gate_of(stage.daemon, look, stage.daemon.ports.clock.now())
    if (
        look.moving is not None
        and look.moving.rollout.state is RolloutState.ROLLING_BACK
        and not look.moving.row.changed
    ):
        return gate.by, "was not touched, and will not be: the rollout has stopped"
    return gate.by, _PREFIX.sub("", gate.reason.message)


def _astray(stage: Stage, look: Look) -> TargetLine:
    """A target in no rollout that is not as it was left."""
    verdict = look.current
    note = verdict.reason.message if verdict is not None else "its objects are looked at"
    application = _short(look.target.application)
    flink = _flink(stage, look.target) if application == APPLICATION else ""
    return TargetLine(look.target.cluster, application, look.state, 0.0, note, flink)


def _flink(stage: Stage, target: Target) -> str:
    """What the operator wrote last of the target's job."""
    cluster = stage.clusters.get(target.cluster)
    if cluster is None or not cluster.jobs:
        return ""
    last = cluster.jobs[-1]
    return f"{last.lifecycle or '-'}/{last.job or '-'}"


def _application(
    stage: Stage, rollout: Rollout, rows: Sequence[RolloutTarget], notes: Mapping[Target, tuple[str, str]]
) -> ApplicationLine:
    plan = rollout.plan
    waves = []
    for number, wave in enumerate(plan.waves):
        of_wave = [row for row in rows if row.wave == number]
        if of_wave:
            done = sum(_done(row, wave.bake_s) for row in of_wave) / len(of_wave)
            baked = sum(row.state is TargetState.SUCCEEDED for row in of_wave)
            opened = any(row.state is not TargetState.WAITING for row in of_wave)
            waves.append(WaveLine(wave.name, baked, len(of_wave), done, opened))
    targets = tuple(
        TargetLine(
            row.target.cluster,
            plan.waves[row.wave].name,
            str(row.state),
            _done(row, plan.waves[row.wave].bake_s),
            _note_of(row, rollout, notes),
            _flink(stage, row.target),
        )
        for row in rows
    )
    waits_for = "" if rollout.state in ENDED_STATES else _waits_for(rollout, rows, notes)
    name = _short(rollout.application)
    kind = " (catching up)" if rollout.kind is RolloutKind.CATCH_UP else ""
    return ApplicationLine(name, str(rollout.state), kind, tuple(waves), targets, waits_for)


def _note_of(row: RolloutTarget, rollout: Rollout, notes: Mapping[Target, tuple[str, str]]) -> str:
    if row.state is TargetState.SUCCEEDED:
        return ""
    if rollout.state in ENDED_STATES:
        return row.reason.message if row.reason is not None else ""
    return notes.get(row.target, ("", ""))[1]


def _waits_for(rollout: Rollout, rows: Sequence[RolloutTarget], notes: Mapping[Target, tuple[str, str]]) -> str:
    """The gate that says most, with its cluster."""
    if rollout.state is not RolloutState.ACTIVE:
        return (rollout.reason or Reason("", str(rollout.state))).message
    told = [(notes[row.target], row) for row in rows if row.target in notes and row.state is not TargetState.SUCCEEDED]
    if not told:
        return ""
    (_, message), row = min(told, key=lambda pair: pair[0][0].startswith(_OTHERS_TURN))
    return f"{row.target.cluster}: {message}"


def _done(row: RolloutTarget, bake_s: float) -> float:
    if row.state is TargetState.SUCCEEDED:
        return 1.0
    if row.state is TargetState.BAKING and bake_s > 0:
        return min(1.0, row.bake_s / bake_s)
    return 0.0


def _short(application: str) -> str:
    return application.rpartition("/")[2]
