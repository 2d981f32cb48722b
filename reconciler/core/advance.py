"""Advance: one target's next row from what was seen of it. It starts nothing; `decide` does that.

    Applying -> Progressing -> Baking -> Succeeded
        |            |           |
        +-> Failed, TimedOut, Blocked, Unreachable

Health counts only where the verdict was judged against the digest that this rollout assigned, at the uid and generation
that our own apply returned (`TargetVerdict.applied`). Time is accrued from one observation to the next, at most twice
the check interval at a time: time unobserved, or down, adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.actions import Abandon, Baked, Step
from reconciler.core.heal import RESTARTING_KINDS, is_ownership_only
from reconciler.core.model import (
    Health,
    Now,
    Reason,
    RolloutTarget,
    Sync,
    TargetState,
    TargetVerdict,
)
from reconciler.core.observation import Observation

BAKE_RESETS_MAX = 3
#: A blocked target is tried again after its cluster was heard from for so long.
BLOCKED_RETRY_S = 600.0
#: Failures of a write that say the cluster cannot take this release yet: nothing of it is wrong elsewhere, and what it
#: needs may come, with another application for one.
BLOCKING_CODES = frozenset({"SchemaMismatch", "KindMissing", "NamespaceMissing"})
#: A healthy target whose reason says this has nothing left to bake: its gates are not applicable.
FINISHED_CODES = frozenset({"JobFinished", "Complete"})
#: Kinds that run something: whether they are healthy shows only while they do.
RUNNING_KINDS = RESTARTING_KINDS | {"Job", "CronJob", "Pod"}


@dataclass(frozen=True, slots=True)
class Timing:
    """The frozen numbers a target is judged by, in seconds."""

    bake_s: float
    progress_deadline_s: float
    check_interval_s: float


def is_well(verdict: TargetVerdict) -> bool:
    """Nothing of the target is worse than wanted: Suspended is only where Git wants it."""
    return verdict.health in (Health.HEALTHY, Health.SUSPENDED)


def has_nothing_to_bake(verdict: TargetVerdict) -> bool:
    """True if everything that could run is suspended, or has finished, as it should. One job that runs has to bake
    whatever its neighbours do."""
    runnable = [part for part in verdict.objects if part.key.kind in RUNNING_KINDS]
    return bool(runnable) and all(
        part.health is Health.SUSPENDED or (part.health is Health.HEALTHY and part.reason.code in FINISHED_CODES)
        for part in runnable
    )


def assigned_digest(row: RolloutTarget) -> str:
    """The release the target is to have while its row is as it is."""
    return row.baked_digest if row.rolling and row.baked_digest is not None else row.to_digest


def accrue(
    row: RolloutTarget, observed_at: float, now: Now, timing: Timing, *, intervals_max: int = 2
) -> tuple[RolloutTarget, float]:
    """The row with its observation mark moved to `observed_at` (Now.monotonic), and the seconds that this adds: at most
    so many check intervals. Where there is no mark it is set now: what was proven before a doubt ended counts for
    nothing."""
    if row.observed_at is None or row.observed_boot != now.boot:
        return replace(row, observed_at=max(observed_at, now.monotonic), observed_boot=now.boot), 0.0
    added = min(max(observed_at - row.observed_at, 0.0), intervals_max * timing.check_interval_s)
    return replace(row, observed_at=max(observed_at, row.observed_at)), added


def advance(row: RolloutTarget, seen: Observation, now: Now, timing: Timing) -> Step | None:
    """The step that `row` takes by itself, None if it stays as it is."""
    state = row.state
    if state is TargetState.UNREACHABLE:
        return None if seen.unreachable(row.target, now) else _returned(row)
    if state is TargetState.BLOCKED:
        return _blocked(row, seen, now, timing)
    if state not in (TargetState.APPLYING, TargetState.PROGRESSING, TargetState.BAKING, TargetState.ROLLING_BACK):
        return None
    if seen.unreachable(row.target, now):
        return _lost(row)
    verdict = seen.verdict(row.target, assigned_digest(row))
    if state is TargetState.BAKING:
        return _bake(row, verdict, now, timing)
    row, failure = _deadline(row, seen, now, timing)
    intents = seen.intents.get(row.target)
    if intents is not None and intents.failed is not None:
        return _refused(row, intents.failed)
    if failure is not None:
        return Step(row.target, failure, (Abandon(row.target, Reason("TimedOut", "progress deadline passed")),))
    if intents is not None and intents.pending:
        return Step(row.target, row)
    if state is TargetState.APPLYING:
        row = replace(row, state=TargetState.PROGRESSING, reason=None)
    if state is TargetState.ROLLING_BACK:
        return _rolling_back(row, verdict, now)
    return _progress(row, verdict, now, timing)


def _returned(row: RolloutTarget) -> Step:
    reason = Reason("Returned", "the cluster answers again")
    return Step(row.target, replace(row, state=TargetState.WAITING, reason=reason, observed_at=None))


def _blocked(row: RolloutTarget, seen: Observation, now: Now, timing: Timing) -> Step | None:
    """A cluster that cannot take the release may be upgraded: it is asked again every now and then."""
    cluster = seen.clusters.get(row.target.cluster)
    if cluster is None or cluster.heard_at is None or cluster.unreachable(now):
        return None
    # A rollout that only waits looks every five intervals.
    row, added = accrue(row, cluster.heard_at, now, timing, intervals_max=2 * 5)
    row = replace(row, progress_s=row.progress_s + added)
    if row.progress_s >= BLOCKED_RETRY_S:
        return Step(row.target, replace(row, state=TargetState.WAITING, observed_at=None))
    return Step(row.target, row)


def _lost(row: RolloutTarget) -> Step:
    """In flight and out of reach: the slot is free, what was not sent is given up, and nothing counts as a failure."""
    reason = Reason("ClusterUnreachable", f"cluster {row.target.cluster} does not answer")
    lost = replace(row, state=TargetState.UNREACHABLE, reason=reason, observed_at=None)
    return Step(row.target, lost, (Abandon(row.target, reason),))


def _deadline(
    row: RolloutTarget, seen: Observation, now: Now, timing: Timing
) -> tuple[RolloutTarget, RolloutTarget | None]:
    """Accrue progress time while the cluster is heard from; the second value is the row TimedOut, if it is."""
    cluster = seen.clusters[row.target.cluster]
    if cluster.heard_at is None:
        return row, None
    row, added = accrue(row, cluster.heard_at, now, timing)
    intents = seen.intents.get(row.target)
    if cluster.suspended and intents is not None and intents.pending:
        return row, None  # A person keeps us from writing there: that is no failure of the release.
    row = replace(row, progress_s=row.progress_s + added)
    if row.progress_s <= timing.progress_deadline_s:
        return row, None
    verdict = seen.verdict(row.target, assigned_digest(row))
    phase = "being written" if row.state is TargetState.APPLYING else "getting healthy"
    detail = f": {verdict.reason.message}" if verdict is not None else ""
    reason = Reason("ProgressDeadline", f"still {phase} after {timing.progress_deadline_s:.0f} s{detail}")
    return row, replace(row, state=TargetState.TIMED_OUT, reason=reason)


def _refused(row: RolloutTarget, failure: Reason) -> Step:
    """A write was refused for good."""
    if failure.code in BLOCKING_CODES and row.state is not TargetState.ROLLING_BACK:
        blocked = replace(row, state=TargetState.BLOCKED, reason=failure, progress_s=0.0, observed_at=None)
        return Step(row.target, blocked)
    return Step(row.target, replace(row, state=TargetState.FAILED, reason=failure))


def _progress(row: RolloutTarget, verdict: TargetVerdict | None, now: Now, timing: Timing) -> Step:
    if verdict is None or not verdict.applied:
        return Step(row.target, replace(row, reason=Reason("NotObserved", "the new release is not observed yet")))
    if verdict.sync in (Sync.DIFFERS, Sync.MISSING):
        # What runs is not the release: its health says nothing about the release, not even that it failed.
        return Step(row.target, replace(row, reason=Reason("OutOfSync", "live differs from the new release")))
    if verdict.health is Health.DEGRADED:
        # One that had been healthy at this release may recover: it fails when it stays so.
        if row.bake_resets and row.progress_s < 2 * timing.check_interval_s:
            return Step(row.target, replace(row, reason=verdict.reason))
        return Step(row.target, replace(row, state=TargetState.FAILED, reason=verdict.reason))
    if verdict.sync is not Sync.IN_SYNC:
        return Step(
            row.target, replace(row, reason=Reason("InDoubt", "only the server can tell if live is the release"))
        )
    if has_nothing_to_bake(verdict) and is_well(verdict):
        done = replace(row, bake_s=0.0, healthy_wall=row.healthy_wall or now.wall)
        return _succeeded(done, now, verdict.reason)
    if not is_well(verdict):
        return Step(row.target, replace(row, reason=verdict.reason))
    same_job = row.job_ids == verdict.job_ids and row.restarts == verdict.restarts
    baking = replace(
        row,
        state=TargetState.BAKING,
        reason=None,
        bake_s=row.bake_s if same_job else 0.0,
        progress_s=0.0,
        job_ids=verdict.job_ids,
        restarts=verdict.restarts,
        observed_at=now.monotonic,  # not when it was seen: what was healthy before counts for nothing
        observed_boot=now.boot,
        healthy_wall=now.wall,
    )
    if baking.bake_s >= timing.bake_s:
        return _succeeded(baking, now, None)
    return Step(row.target, baking)


def _bake(row: RolloutTarget, verdict: TargetVerdict | None, now: Now, timing: Timing) -> Step | None:
    doubtful = verdict is None or verdict.health is Health.UNKNOWN or verdict.sync is Sync.ASK
    if verdict is None or doubtful or not verdict.applied:
        # Unknown pauses: nothing is lost, and the time until the next good look is not added either.
        return Step(row.target, replace(row, observed_at=None)) if row.observed_at is not None else None
    if row.observed_boot == now.boot and row.observed_at is not None and verdict.observed_at <= row.observed_at:
        return None  # Nothing new was seen.
    row, added = accrue(row, verdict.observed_at, now, timing)
    # First: a restart that somebody's edit explains is no flapping.
    if verdict.sync is not Sync.IN_SYNC and not is_ownership_only(verdict):
        reason = Reason("OutOfSync", "live was changed while it baked; the bake starts again")
        return Step(row.target, replace(row, bake_s=0.0, state=TargetState.PROGRESSING, reason=reason))
    if verdict.job_ids != row.job_ids or verdict.restarts != row.restarts:
        reason = Reason("BakeReset", "the job restarted while it baked; the bake starts again")
        again = replace(row, job_ids=verdict.job_ids, restarts=verdict.restarts)
        # Time counts between two healthy looks only: one that finds it restarting does not begin a bake.
        return _reset(again, reason, verdict, TargetState.BAKING if is_well(verdict) else TargetState.PROGRESSING)
    if not is_well(verdict):
        return _reset(row, verdict.reason, verdict, TargetState.PROGRESSING)
    if has_nothing_to_bake(verdict):
        return _succeeded(row, now, verdict.reason)  # it ran to its end while it baked
    row = replace(row, bake_s=row.bake_s + added, reason=None)
    # Where only the record of owners differs, the bake goes on; it ends once that is repaired.
    done = row.bake_s >= timing.bake_s and verdict.sync is Sync.IN_SYNC
    return _succeeded(row, now, None) if done else Step(row.target, row)


def _reset(row: RolloutTarget, reason: Reason, verdict: TargetVerdict, state: TargetState) -> Step:
    """The bake starts again; too often is flapping."""
    resets = row.bake_resets + 1
    if resets > BAKE_RESETS_MAX:
        why = Reason("Flapping", f"health was lost {resets} times while baking; last: {verdict.reason.message}")
        return Step(row.target, replace(row, state=TargetState.FAILED, reason=why, bake_resets=resets))
    return Step(row.target, replace(row, state=state, reason=reason, bake_s=0.0, bake_resets=resets))


def _succeeded(row: RolloutTarget, now: Now, reason: Reason | None) -> Step:
    done = replace(row, state=TargetState.SUCCEEDED, reason=reason, baked_wall=now.wall)
    return Step(row.target, done, (Baked(row.target, row.to_digest),))


def _rolling_back(row: RolloutTarget, verdict: TargetVerdict | None, now: Now) -> Step:
    """Back means in sync and healthy once at the release that had baked."""
    if verdict is None or not verdict.applied:
        return Step(row.target, row)
    if is_well(verdict) and verdict.sync is Sync.IN_SYNC:
        back = replace(row, state=TargetState.ROLLED_BACK, reason=row.reason, healthy_wall=now.wall)
        return Step(row.target, back)
    return Step(row.target, row)
