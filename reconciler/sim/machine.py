"""What the operator knows of one Flink resource: the object's status, and the little that happens outside it.

The status is the operator's memory, as in the real one: what was last reconciled, what was last stable, and what state
the upgrade is in are read from the object. A `Machine` holds what lives in pods and jobs: the phase of the deployment
under way and when it ends. `Draft` is a status being changed; its difference becomes one merge patch.
"""

from __future__ import annotations

import copy
import enum
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.sim.flink_spec import Spec, stored, unstored

DEPLOYMENT = "FlinkDeployment"
SESSION_JOB = "FlinkSessionJob"
SNAPSHOT = "FlinkStateSnapshot"
VALIDATION_EXCEPTION = "org.apache.flink.kubernetes.operator.exception.ValidationException"
JOB_EXCEPTION = "org.apache.flink.util.SerializedThrowable"
DEPLOYMENT_EXCEPTION = "org.apache.flink.kubernetes.operator.exception.DeploymentFailedException"


class Ref(NamedTuple):
    """One object that a controller looks after."""

    kind: str
    namespace: str
    name: str


class Phase(enum.StrEnum):
    """What a Flink resource's deployment is doing."""

    NEW = "new"
    STOPPING = "stopping"  # cancelling, or taking a savepoint: the status still shows the job as it was
    SUBMITTING = "submitting"  # stopped, and about to be started
    DEPLOYING = "deploying"  # pods are being made
    STARTING = "starting"  # pods exist, the JobManager does not answer
    CREATED = "created"  # the JobManager answers, the job is not running yet
    RUNNING = "running"
    RESTARTING = "restarting"
    STUCK = "stuck"  # the JobManager will never answer
    BROKEN = "broken"  # its pods cannot be made
    FAILED = "failed"
    FINISHED = "finished"
    SUSPENDED = "suspended"
    DELETING = "deleting"
    DONE = "done"


#: Phases in which the operator is in the middle of something and looks at the spec only afterwards.
BUSY = frozenset({Phase.STOPPING, Phase.SUBMITTING, Phase.DELETING})
#: Phases that the operator's rollback ends when they last too long.
UNREADY = frozenset({Phase.DEPLOYING, Phase.STARTING, Phase.CREATED, Phase.STUCK, Phase.BROKEN, Phase.FAILED})


@dataclass(slots=True)
class Machine:
    """What happens outside the object. Times are monotonic seconds of the cluster's clock."""

    uid: str
    phase: Phase = Phase.NEW
    due_s: float | None = None  # when the phase ends
    deadline_s: float | None = None  # when an unready deployment is rolled back
    spec: Spec | None = None  # the effective spec being deployed
    generation: int = 0  # the generation it came from
    refused_generation: int = 0  # the generation that was refused and reported
    mode: str = "stateless"  # the upgrade mode in use
    first: bool = False
    rolling_back: bool = False
    rollback_allowed: bool = True
    deployments: int = 0
    attempts: int = 0  # of a snapshot

    def enter(self, phase: Phase, due_s: float | None = None) -> None:
        """Go to `phase`, which ends at `due_s`."""
        self.phase = phase
        self.due_s = due_s

    def copied(self) -> Machine:
        """A copy; the spec is shared, for nobody modifies it."""
        return copy.copy(self)


def error_text(exception: str, message: str) -> str:
    """An error as newer operators write it."""
    return json.dumps({"type": exception, "message": message, "additionalMetadata": {}, "throwableList": []})


class Draft:
    """A status being changed."""

    def __init__(self, value: dict[str, Any]) -> None:
        self._before: dict[str, Any] = value.get("status") or {}
        self.status: dict[str, Any] = copy.deepcopy(self._before)
        self._kind: str = value["kind"]

    @property
    def job(self) -> dict[str, Any]:
        """status.jobStatus."""
        job: dict[str, Any] = self.status.setdefault("jobStatus", {})
        return job

    @property
    def reconciliation(self) -> dict[str, Any]:
        """status.reconciliationStatus."""
        reconciliation: dict[str, Any] = self.status.setdefault("reconciliationStatus", {})
        return reconciliation

    @property
    def last_reconciled(self) -> Spec | None:
        """The spec last reconciled, or None."""
        text = (self.status.get("reconciliationStatus") or {}).get("lastReconciledSpec")
        return unstored(text) if text else None

    @property
    def last_stable(self) -> Spec | None:
        """The spec that last became RUNNING, or None."""
        text = (self.status.get("reconciliationStatus") or {}).get("lastStableSpec")
        return unstored(text) if text else None

    @property
    def rejected(self) -> bool:
        """Is the present error one of validation?"""
        return VALIDATION_EXCEPTION in self.status.get("error", "")

    def reconciled(self, spec: Spec, state: str, *, first: bool, at_ms: int) -> None:
        """Record `spec` as the one last reconciled."""
        self.reconciliation.update(
            state=state, lastReconciledSpec=stored(spec, first=first), reconciliationTimestamp=at_ms
        )

    def stable(self) -> None:
        """What was last reconciled has become stable."""
        self.reconciliation["lastStableSpec"] = self.reconciliation["lastReconciledSpec"]

    def job_manager(self, state: str) -> None:
        """Set jobManagerDeploymentStatus, which session jobs do not have."""
        if self._kind == DEPLOYMENT:
            self.status["jobManagerDeploymentStatus"] = state

    def patch(self) -> dict[str, Any]:
        """The merge patch from what was to what is; {} if nothing changed. Also derives lifecycleState."""
        if self.status and self._kind != SNAPSHOT and self.status.get("lifecycleState") != "DELETING":
            self.status["lifecycleState"] = lifecycle_state(self)
        return merge_patch(self._before, self.status)


def lifecycle_state(draft: Draft) -> str:
    """lifecycleState, which the operator derives from the rest. STABLE means only: was RUNNING once at this spec."""
    reconciliation = draft.status.get("reconciliationStatus") or {}
    text = reconciliation.get("lastReconciledSpec")
    state = reconciliation.get("state")
    if not text or (state != "DEPLOYED" and json.loads(text)["resource_metadata"]["firstDeployment"]):
        return "FAILED" if draft.status.get("error") else "CREATED"
    if state in ("UPGRADING", "ROLLING_BACK"):
        return str(state)
    spec = unstored(text)
    if (spec.get("job") or {}).get("state") == "suspended":
        return "SUSPENDED"
    if draft.job.get("state") == "FAILED":
        return "FAILED"
    if state == "ROLLED_BACK":
        return "ROLLED_BACK"
    return "STABLE" if reconciliation.get("lastStableSpec") == text else "DEPLOYED"


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes `after` of `before`."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            inner = merge_patch(old, value)
            if inner:
                patch[key] = inner
        elif old != value or key not in before:
            patch[key] = value
    return patch
