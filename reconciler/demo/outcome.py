"""What became of a step: read from the store and from the clusters' own write logs, never from what was wished for.

mark = await Mark.of(stage)                    # before the step
waves = await waves_since(stage, mark)         # after it: one entry per application and wave
touched = await touched_since(stage, mark)     # targets that the daemon has really written
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.core.model import Rollout, RolloutKind, RolloutTarget, Target, TargetState
from reconciler.core.ownership import OWNER_LABEL, owner_hash
from reconciler.demo.stage import SOURCE, Stage
from reconciler.shell.asking import rfc3339
from reconciler.shell.ports import AuditRow, Tx

#: More rollouts, or lines of the audit log, than any step of a fleet of the largest size makes.
ROWS_MAX = 100_000
#: Rows in these states are, or were, healthy at the new release.
HEALTHY_STATES = frozenset({TargetState.BAKING, TargetState.SUCCEEDED})
#: Levels at which somebody has to act.
ALERTING = frozenset({"alert", "anomaly", "fault"})


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the stage, to tell later what happened since."""

    rollouts: frozenset[str]
    audit: int
    changes: dict[str, int]

    @classmethod
    async def of(cls, stage: Stage) -> Mark:
        """The present moment."""

        def read(tx: Tx) -> tuple[frozenset[str], int]:
            newest = tx.audit_log(limit=1)
            known = frozenset(rollout.id for rollout in tx.rollouts(limit=ROWS_MAX))
            return known, newest[0].id if newest else 0

        rollouts, audit = await stage.read(read)
        return cls(rollouts, audit, {name: len(cluster.changes) for name, cluster in stage.clusters.items()})


@dataclass(frozen=True, slots=True)
class WaveOutcome:
    """One wave of one application. Times are the policy clock's, in seconds since the epoch; None if the wave as a
    whole did not get there."""

    application: str
    name: str
    targets: int
    started_at: float | None
    healthy_at: float | None
    baked_at: float | None

    def as_json(self) -> dict[str, Any]:
        """The shape of interfaces.md."""
        return {
            "application": self.application,
            "name": self.name,
            "targets": self.targets,
            "started_at": rfc3339(self.started_at),
            "healthy_at": rfc3339(self.healthy_at),
            "baked_at": rfc3339(self.baked_at),
        }


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One step. `result` is what it ended as; `wanted` says that this is what it was to end as."""

    name: str
    revision: str
    result: str
    wanted: bool
    targets_touched: int
    waves: tuple[WaveOutcome, ...]
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        """The shape of interfaces.md."""
        return {
            "name": self.name,
            "revision": self.revision,
            "result": self.result,
            "targets_touched": self.targets_touched,
            "waves": [wave.as_json() for wave in self.waves],
            "wall_s": round(self.wall_s, 2),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole performance. `control_plane` says of which kind the clusters were: simulated or real."""

    control_plane: str
    clusters: int
    applications: int
    targets: int
    steps: tuple[StepOutcome, ...]

    @property
    def succeeded(self) -> bool:
        """True if every step ended as it was to end."""
        return all(step.wanted for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The shape of interfaces.md."""
        return {
            "control_plane": self.control_plane,
            "clusters": self.clusters,
            "applications": self.applications,
            "targets": self.targets,
            "steps": [step.as_json() for step in self.steps],
        }


Played = list[tuple[Rollout, list[RolloutTarget]]]


async def rollouts_since(stage: Stage, mark: Mark) -> Played:
    """The rollouts opened since, oldest first, with their rows."""

    def read(tx: Tx) -> Played:
        opened = [rollout for rollout in tx.rollouts(limit=ROWS_MAX) if rollout.id not in mark.rollouts]
        return [(rollout, tx.rollout_targets(rollout.id)) for rollout in reversed(opened)]

    return await stage.read(read)


async def waves_since(stage: Stage, mark: Mark) -> tuple[WaveOutcome, ...]:
    """The waves of the rollouts opened since. A target that its wave had to leave out, because its cluster did not
    answer, counts where it was to be, with the times at which it has caught up."""
    played = await rollouts_since(stage, mark)
    caught_up = {
        (row.target, row.to_digest): row
        for rollout, rows in played
        if rollout.kind is RolloutKind.CATCH_UP
        for row in rows
    }
    waves = []
    for rollout, rows in sorted(played, key=lambda pair: (pair[0].application, pair[0].created_wall)):
        if rollout.kind is not RolloutKind.CHANGE:
            continue
        final = [_final(row, caught_up) for row in rows]
        for number, wave in enumerate(rollout.plan.waves):
            of_wave = [row for row in final if row.wave == number]
            if of_wave:
                waves.append(_wave(rollout.application, wave.name, of_wave))
    return tuple(waves)


def _final(row: RolloutTarget, caught_up: dict[tuple[Target, str], RolloutTarget]) -> RolloutTarget:
    later = caught_up.get((row.target, row.to_digest))
    if row.state is not TargetState.UNREACHABLE or later is None:
        return row
    # It keeps its place; only what happened is the catch-up's.
    return RolloutTarget(
        row.target,
        row.wave,
        row.to_digest,
        row.from_digest,
        row.baked_digest,
        later.state,
        started_wall=later.started_wall,
        healthy_wall=later.healthy_wall,
        baked_wall=later.baked_wall,
    )


def _wave(application: str, name: str, rows: Sequence[RolloutTarget]) -> WaveOutcome:
    started = [row.started_wall for row in rows if row.started_wall is not None]
    healthy = _all(rows, lambda row: row.healthy_wall if row.state in HEALTHY_STATES else None)
    baked = _all(rows, lambda row: row.baked_wall if row.state is TargetState.SUCCEEDED else None)
    return WaveOutcome(application, name, len(rows), min(started, default=None), healthy, baked)


def _all(rows: Sequence[RolloutTarget], moment: Callable[[RolloutTarget], float | None]) -> float | None:
    """The last of the moments, if every row has one."""
    moments = [found for row in rows if (found := moment(row)) is not None]
    return max(moments) if len(moments) == len(rows) else None


async def touched_since(stage: Stage, mark: Mark) -> dict[Target, float]:
    """The targets whose objects the daemon has changed since, each with the moment of the first write: by the owner
    label of what was written."""
    owners = await owners_of(stage)
    touched: dict[Target, float] = {}
    for name, cluster in sorted(stage.clusters.items()):
        for change in cluster.changes[mark.changes[name] :]:
            application = owners.get(change.labels.get(OWNER_LABEL, ""))
            if application is not None:
                touched.setdefault(Target(application, name), change.wall)
    return touched


async def owners_of(stage: Stage) -> dict[str, str]:
    """The application of each owner label."""
    installation = await stage.read(lambda tx: tx.installation())
    snapshot = stage.daemon.sources[SOURCE].snapshot
    assert snapshot is not None
    return {owner_hash(installation, SOURCE, name): name for name in snapshot.applications}


async def alerts_since(stage: Stage, mark: Mark) -> list[AuditRow]:
    """What people were told to act on, oldest first."""
    rows = await stage.read(lambda tx: tx.audit_log(after_id=mark.audit, limit=ROWS_MAX))
    return [row for row in reversed(rows) if row.level in ALERTING]
