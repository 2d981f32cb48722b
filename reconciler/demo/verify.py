"""Verifying: what the clusters themselves hold and have written down, compared with what a step claims.

Nothing here asks the daemon what it believes. Objects are read from the clusters, the order of events is that of their
answers; only what was *decided* (which release, which wave) comes from the store.

    problem = await verify.runs(stage, target, release)     # None, or what is wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.core.model import Manifest, ObjectKey, Release, Rollout, RolloutTarget, Target, TargetState
from reconciler.core.ownership import APPLICATION_ANNOTATION, OWNER_LABEL
from reconciler.demo.stage import Stage
from reconciler.sim.operator import FLINK_GROUP


def first_difference(declared: Any, found: Any, path: str = "") -> str | None:
    """Where `found` lacks what is declared, None if it has all of it. What is there besides is not our business."""
    if isinstance(declared, Mapping):
        if not isinstance(found, Mapping):
            return path or "."
        for name, value in declared.items():
            difference = first_difference(value, found.get(name), f"{path}.{name}")
            if difference is not None:
                return difference
        return None
    if isinstance(declared, list) and isinstance(found, list) and len(declared) == len(found):
        differences = (
            first_difference(one, other, f"{path}[{number}]")
            for number, (one, other) in enumerate(zip(declared, found, strict=True))
        )
        return next((difference for difference in differences if difference is not None), None)
    return None if declared == found else path or "."


async def runs(stage: Stage, target: Target, release: Release) -> str | None:
    """None if every object of `release` is on the target's cluster as declared and marked as ours, and its Flink jobs
    are RUNNING; else what is wrong."""
    for manifest in release.objects:
        key = ObjectKey.of(manifest)
        found = await stage.clusters[target.cluster].read(str(manifest["apiVersion"]), key)
        if found is None:
            return f"{key} is missing on {target.cluster}"
        difference = first_difference(manifest, found)
        if difference is not None:
            return f"{key} on {target.cluster} differs at {difference}"
        metadata = found["metadata"]
        if OWNER_LABEL not in metadata.get("labels", {}):
            return f"{key} on {target.cluster} has no owner label"
        if metadata.get("annotations", {}).get(APPLICATION_ANNOTATION) != target.application:
            return f"{key} on {target.cluster} is not marked as {target.application}'s"
        if key.group == FLINK_GROUP and job_of(found) != ("STABLE", "RUNNING"):
            return f"{key} on {target.cluster} is {'/'.join(job_of(found))}, not STABLE/RUNNING"
    return None


def job_of(manifest: Manifest) -> tuple[str, str]:
    """lifecycleState and the job's state, as the operator wrote them."""
    status = manifest.get("status") or {}
    return str(status.get("lifecycleState", "")), str((status.get("jobStatus") or {}).get("state", ""))


def in_order(rollout: Rollout, rows: Sequence[RolloutTarget], first_writes: Mapping[Target, float]) -> str | None:
    """None if no target of a wave was written before every target of the earlier waves had baked, by the clusters'
    own answers; targets that a wave was allowed to leave out are none of its business."""
    baked_at = float("-inf")
    for number, wave in enumerate(rollout.plan.waves):
        of_wave = [row for row in rows if row.wave == number]
        for row in of_wave:
            written_at = first_writes.get(row.target)
            if written_at is None and row.state is TargetState.SUCCEEDED:
                return f"{row.target} succeeded and was never written"
            if written_at is not None and written_at < baked_at:
                return f"{row.target} of wave {wave.name} was written before the wave before it had baked"
        moments = [row.baked_wall for row in of_wave if row.state is TargetState.SUCCEEDED]
        baked_at = max([baked_at, *(moment for moment in moments if moment is not None)])
    return None


def crash_looped(stage: Stage, cluster: str, image: str) -> str | None:
    """None if the job ran with `image` and then fell over while the operator's lifecycle state stayed STABLE."""
    states = stage.clusters[cluster].jobs
    seen = [(state.lifecycle, state.job) for state in states if state.image == image]
    if ("STABLE", "RUNNING") not in seen:
        return f"the job on {cluster} was never RUNNING with {image}"
    after = seen[seen.index(("STABLE", "RUNNING")) + 1 :]
    if not any(lifecycle == "STABLE" and job != "RUNNING" for lifecycle, job in after):
        return f"the job on {cluster} did not fall over under STABLE with {image}"
    return None
