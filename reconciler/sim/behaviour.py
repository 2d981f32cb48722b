"""How simulated jobs behave, and how long simulated things take.

A job behaves as the marker in its image's tag (for a session job: in its jar's address) says, or as a predicate of the
scenario chooses; without either it is well. All times are seconds of policy time.

    Behaviours().of("FlinkDeployment", "orders", {"image": "shop/orders:1.5.0-crash-loop"})    # CRASH_LOOP
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Behaviour(enum.StrEnum):
    """What becomes of a job once it is deployed. The values are the default markers."""

    WELL = "well"
    CRASH_LOOP = "crash-loop"  # RUNNING, so STABLE; then RESTARTING and RUNNING for ever
    NEVER_STARTS = "never-starts"  # the JobManager's pods exist and never become ready
    FAILS = "fails-at-start"  # the job ends FAILED, without restart
    REJECTED = "rejected-spec"  # the operator's validation refuses the spec
    SLOW_START = "slow-start"  # everything takes `slow_factor` times as long
    PULL_ERROR = "pull-error"  # the image cannot be pulled
    SNAPSHOT_FAILS = "snapshot-fails"  # well, but every snapshot of it fails


#: (kind, name, effective spec) -> behaviour, or None to go by the marker.
Chooser = Callable[[str, str, Mapping[str, Any]], Behaviour | None]


def _default_markers() -> dict[str, Behaviour]:
    return {str(behaviour): behaviour for behaviour in Behaviour if behaviour is not Behaviour.WELL}


@dataclass(slots=True)
class Behaviours:
    """Which job behaves how. May be changed while the simulation runs: what is deployed from then on follows it."""

    markers: Mapping[str, Behaviour] = field(default_factory=_default_markers)
    chooser: Chooser | None = None

    def of(self, kind: str, name: str, spec: Mapping[str, Any]) -> Behaviour:
        """The behaviour of a job with this (effective) spec."""
        chosen = self.chooser(kind, name, spec) if self.chooser is not None else None
        if chosen is not None:
            return chosen
        tag = str(spec.get("image") or "").rpartition(":")[2]
        marked = f"{tag} {(spec.get('job') or {}).get('jarURI', '')}" if "deploymentName" in spec else tag
        return next((behaviour for marker, behaviour in self.markers.items() if marker in marked), Behaviour.WELL)


@dataclass(frozen=True, slots=True)
class Timings:
    """How long things take on a simulated cluster, in seconds of policy time, moved by `jitter_share` either way."""

    react_s: float = 1.0  # from a write to the controller looking at it
    stop_s: float = 5.0  # cancelling a job
    savepoint_s: float = 8.0  # stopping a job with a savepoint
    submit_s: float = 2.0  # from a stopped job to the request that starts the next one
    deploy_s: float = 20.0  # from that request to a JobManager that answers
    start_s: float = 15.0  # from there to RUNNING
    crash_after_s: float = 25.0  # a crash-looping job runs this long
    restart_s: float = 10.0  # and restarts this long
    finish_after_s: float = 120.0  # a bounded job runs this long
    session_poll_s: float = 10.0  # how often a waiting session job looks at its cluster
    snapshot_s: float = 6.0  # from trigger to completion
    delete_s: float = 4.0  # from deletionTimestamp to the finalizer's removal
    readiness_timeout_s: float = 300.0  # the operator's rollback begins after this
    finished_ttl_s: float = 86_400.0  # the JobManager of a finished job goes after this
    ready_s: float = 8.0  # a Deployment's or StatefulSet's pods
    complete_s: float = 12.0  # a Job's pods
    slow_factor: float = 8.0
    jitter_share: float = 0.2
