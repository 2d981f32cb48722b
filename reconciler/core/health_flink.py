"""Health of FlinkDeployment and FlinkSessionJob.

The operator's STABLE means "was RUNNING once": it stays while the job crash-loops, so it is never believed alone. The
questions below are asked in this order, and the first that has an answer decides; facts carry durations, restarts and
the job's id from one look to the next.

    ORDER: no status -> generation not taken over -> rolled back -> finished -> suspended -> failed, stopped, coming up
           -> running

An operator too old to report lifecycleState or observedGeneration is read through its reconciliation status.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core.flink_config import FLINK_SESSION_JOB, flatten
from reconciler.core.flink_effect import classified_fields
from reconciler.core.health_common import (
    TRANSITIONS_MAX,
    Judged,
    Thresholds,
    entered,
    last_written_s,
    map_at,
    metadata_of,
    number_at,
    spoken,
    text_at,
    time_s,
    waited_s,
)
from reconciler.core.model import Facts, Health, Manifest, Reason
from reconciler.core.values import clean_text

CANARY_LABEL = "flink.apache.org/canary"
#: Says that a job ends by itself, where its configuration does not (execution.runtime-mode: BATCH).
BOUNDED_ANNOTATION = "reconciler.dev/bounded"
_RESTARTING = frozenset({"RESTARTING", "RECONCILING", "CREATED", "INITIALIZING", "FAILING"})
_STOPPED = frozenset({"SUSPENDED", "CANCELED", "CANCELLING"})
_IMAGE_ERRORS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")


@dataclass(frozen=True, slots=True)
class _Flink:
    """What the status says, read once. Empty strings where it says nothing."""

    manifest: Manifest
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    generation: int
    lifecycle: str
    reconciliation: str
    job_manager: str
    job: str
    job_id: str
    error: str
    raw_error: str
    session_job: bool

    @property
    def refused(self) -> bool:
        """The operator's error is about the spec itself."""
        return "ValidationException" in self.raw_error

    @property
    def has_job(self) -> bool:
        """False for a session cluster."""
        return self.session_job or isinstance(self.spec.get("job"), Mapping)

    @property
    def wanted_suspended(self) -> bool:
        return text_at(map_at(self.spec, "job"), "state") == "suspended"

    @property
    def upgrading(self) -> bool:
        """The operator is at work between two jobs: what the old one is in now says nothing."""
        return self.lifecycle in ("UPGRADING", "CREATED") or self.reconciliation == "UPGRADING"


def flink_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """Health of a FlinkDeployment or FlinkSessionJob that is not being deleted."""
    if CANARY_LABEL in map_at(metadata_of(manifest), "labels"):
        return Health.HEALTHY, Reason("OperatorCanary", "the operator's own canary is not judged"), facts
    flink = _read(manifest)
    look = _Look(flink, facts, now_s, thresholds)
    for question in _ORDER:
        answer = question(look)
        if answer is not None:
            return answer
    return look.says(Health.UNKNOWN, "unknown", "UnknownState", f"lifecycle {flink.lifecycle}, job {flink.job or '-'}")


def _read(manifest: Manifest) -> _Flink:
    status, spec = map_at(manifest, "status"), map_at(manifest, "spec")
    job = map_at(status, "jobStatus")
    return _Flink(
        manifest=manifest,
        spec=spec,
        status=status,
        generation=number_at(metadata_of(manifest), "generation"),
        lifecycle=text_at(status, "lifecycleState") or _derived_lifecycle(status),
        reconciliation=text_at(map_at(status, "reconciliationStatus"), "state"),
        job_manager=text_at(status, "jobManagerDeploymentStatus"),
        job=text_at(job, "state"),
        job_id=text_at(job, "jobId"),
        error=error_text(status.get("error")),
        raw_error=text_at(status, "error"),
        session_job=manifest.get("kind") == FLINK_SESSION_JOB,
    )


class _Look:
    """One look at one object: moves the facts on and words the answer."""

    def __init__(self, flink: _Flink, facts: Facts, now_s: float, thresholds: Thresholds) -> None:
        self.flink = flink
        self.now_s = now_s
        self.thresholds = thresholds
        self._before = facts

    def says(
        self, health: Health, phase: str, code: str, message: str, *, limit_s: float | None = None, late: str = ""
    ) -> Judged:
        """The answer `health`; with `limit_s`, Degraded (code `late`) once the phase has lasted that long. A phase
        belongs to a generation: a new one starts it anew."""
        facts = self._moved(phase)
        if limit_s is not None:
            waited = waited_s(facts, self.now_s)
            if waited >= limit_s:
                return Health.DEGRADED, spoken(late or code, f"{message}, for {waited:.0f} s"), facts
        return health, spoken(code, message), facts

    def _moved(self, phase: str) -> Facts:
        """The facts in `phase`; a job that was up at this generation and is not the same job any more has restarted."""
        generation, before = self.flink.generation, self._before
        facts = entered(before, f"{phase}@{generation}", self.now_s, _own_time_s(self.flink, phase))
        same_generation = before.state.endswith(f"@{generation}")
        if not same_generation and before.transitions_s:
            facts = dataclasses.replace(facts, transitions_s=())
        was_up = same_generation and before.state.partition("@")[0] in ("running", "failed")
        new_job = bool(before.job_id and self.flink.job_id and before.job_id != self.flink.job_id)
        left = before.state.startswith("running@") and phase in ("restarting", "stopped", "coming-up")
        if was_up and (left or new_job):
            transitions = (*facts.transitions_s, self.now_s)[-TRANSITIONS_MAX:]
            facts = dataclasses.replace(facts, transitions_s=transitions, restarts=facts.restarts + 1)
        return dataclasses.replace(facts, job_id=self.flink.job_id) if self.flink.job_id else facts

    def recent_restarts(self, phase: str) -> int:
        """Restarts within the window, this look included if it is one."""
        since_s = self.now_s - self.thresholds.restarts_window_s
        return sum(1 for moment in self._moved(phase).transitions_s if moment > since_s)


def _own_time_s(flink: _Flink, phase: str) -> float | None:
    """Since when the object itself says it has been in `phase`: a spec waits since it was written, a job is in its
    state since its last update."""
    if phase in ("no-status", "pending", "rejected", "coming-up"):
        return last_written_s(flink.manifest)
    return time_s(map_at(flink.status, "jobStatus").get("updateTime"))


# ---- the questions, in order -------------------------------------------------------------------------------------


def _no_status(look: _Look) -> Judged | None:
    if map_at(look.flink.status, "reconciliationStatus") or look.flink.lifecycle or look.flink.error:
        return None
    if look.flink.wanted_suspended:
        return look.says(Health.SUSPENDED, "no-status", "Suspended", "suspended from the start; it gets no status")
    message = "no status: the operator is not reconciling it, or does not support its flinkVersion"
    limit_s = look.thresholds.no_status_s
    return look.says(Health.PROGRESSING, "no-status", "NotReconciled", message, limit_s=limit_s)


def _not_taken_over(look: _Look) -> Judged | None:
    flink = look.flink
    observed = observed_generation(flink.manifest)
    if observed is None or observed >= flink.generation:
        return None
    if flink.refused:
        message = f"generation {flink.generation} is refused: {flink.error}"
        limit_s = look.thresholds.rejected_s
        return look.says(Health.PROGRESSING, "rejected", "MaybeRejected", message, limit_s=limit_s, late="Rejected")
    message = f"generation {flink.generation} is not taken over yet, the operator is at {observed}"
    answer = look.says(Health.PROGRESSING, "pending", "GenerationPending", message)
    if waited_s(answer[2], look.now_s) >= look.thresholds.operator_silent_s:
        return look.says(Health.PROGRESSING, "pending", "OperatorSilent", f"{message}: stuck, or it gave up")
    return answer


def _rolled_back(look: _Look) -> Judged | None:
    states = (look.flink.lifecycle, look.flink.reconciliation)
    if "ROLLING_BACK" in states:
        return look.says(Health.PROGRESSING, "rolling-back", "RollingBack", "the operator is rolling it back")
    if "ROLLED_BACK" in states:
        message = f"the operator rolled it back{': ' + look.flink.error if look.flink.error else ''}"
        return look.says(Health.DEGRADED, "rolled-back", "RolledBack", message)
    return None


def _finished(look: _Look) -> Judged | None:
    """A stop with savepoint, for an upgrade or a suspension, also ends FINISHED: that is not the source's end."""
    flink = look.flink
    if flink.job != "FINISHED" or flink.upgrading:
        return None
    if is_bounded(flink.manifest):
        return look.says(Health.HEALTHY, "finished", "JobFinished", "the bounded job has finished")
    if flink.wanted_suspended:
        return None
    return look.says(Health.DEGRADED, "finished", "SourceEnded", "the streaming job has finished: its source ended")


def _suspended(look: _Look) -> Judged | None:
    if not look.flink.wanted_suspended:
        return None
    if look.flink.lifecycle == "SUSPENDED":
        return look.says(Health.SUSPENDED, "suspended", "Suspended", "suspended as declared")
    return look.says(Health.PROGRESSING, "suspending", "Suspending", f"being suspended, {_where(look.flink)}")


def _failed(look: _Look) -> Judged | None:
    flink, error = look.flink, look.flink.error
    if "Manual restore required" in flink.raw_error:
        return look.says(Health.DEGRADED, "failed", "ManualRestoreRequired", error)
    if flink.lifecycle == "FAILED" or (flink.job == "FAILED" and not flink.upgrading):
        return look.says(Health.DEGRADED, "failed", "JobFailed", f"the job has failed{': ' + error if error else ''}")
    if flink.job_manager == "ERROR" and not flink.upgrading:
        if any(name in flink.raw_error for name in _IMAGE_ERRORS):
            limit_s = look.thresholds.image_pull_s
            return look.says(Health.PROGRESSING, "image-pull", "ImagePull", error, limit_s=limit_s)
        if error:
            return look.says(Health.DEGRADED, "failed", "JobManagerError", error)
    return None


def _stopped(look: _Look) -> Judged | None:
    """Down although it should run: the operator redeploys it, so it gets a moment."""
    flink = look.flink
    gone = flink.job_manager in ("ERROR", "MISSING") and not flink.session_job
    if flink.upgrading or not (gone or flink.job in _STOPPED):
        return None
    message = f"JobManager {flink.job_manager}" if gone else f"the job is {flink.job}"
    limit_s = look.thresholds.stopped_s
    return look.says(Health.PROGRESSING, "stopped", "Stopped", f"{message} and should run", limit_s=limit_s)


def _coming_up(look: _Look) -> Judged | None:
    flink = look.flink
    ready = flink.job_manager in ("", "READY") or flink.session_job
    if flink.lifecycle == "STABLE":
        up = ready if not flink.has_job else ready and flink.job == "RUNNING"
        return None if up else _restarting(look)
    if flink.lifecycle in ("UPGRADING", "CREATED", "DEPLOYED") or flink.job in _RESTARTING or flink.upgrading:
        limit_s = look.thresholds.progress_deadline_s
        message = f"coming up, {_where(flink)}"
        return look.says(Health.PROGRESSING, "coming-up", "ComingUp", message, limit_s=limit_s, late="DeadlineExceeded")
    return None


def _restarting(look: _Look) -> Judged:
    thresholds = look.thresholds
    looping = _crash_loop(look, "restarting")
    if looping is not None:
        return looping
    message = f"was stable and is not running, {_where(look.flink)}"
    return look.says(Health.PROGRESSING, "restarting", "Restarting", message, limit_s=thresholds.restarting_s)


def _running(look: _Look) -> Judged | None:
    flink = look.flink
    if flink.lifecycle != "STABLE":
        return None
    looping = _crash_loop(look, "running")
    if looping is not None:
        return looping
    if flink.error and (flink.refused or not flink.session_job):
        limit_s = look.thresholds.progress_deadline_s
        return look.says(Health.PROGRESSING, "error", "OperatorError", flink.error, limit_s=limit_s)
    if flink.error:
        message = f"the job is running; the operator still shows an old error: {flink.error}"
        return look.says(Health.HEALTHY, "running", "RunningWithOldError", message)
    what = "the job is running" if flink.has_job else "the session cluster's JobManager is ready"
    return look.says(Health.HEALTHY, "running", "Running", what)


def _crash_loop(look: _Look, phase: str) -> Judged | None:
    """Too many restarts in the window are a crash loop, also at a moment when the job happens to run."""
    count = look.recent_restarts(phase)
    if count < look.thresholds.restarts_max:
        return None
    window_s = look.thresholds.restarts_window_s
    return look.says(Health.DEGRADED, phase, "CrashLoop", f"{count} restarts within {window_s:.0f} s")


_ORDER = (_no_status, _not_taken_over, _rolled_back, _finished, _suspended, _failed, _stopped, _coming_up, _running)


def _where(flink: _Flink) -> str:
    """Where it stands, in the operator's words."""
    parts = [("lifecycle", flink.lifecycle), ("JobManager", flink.job_manager), ("job", flink.job)]
    shown = ", ".join(f"{name} {value}" for name, value in parts if value)
    return f"{shown}{': ' + flink.error if flink.error else ''}" or "no state yet"


# ---- reading the status ------------------------------------------------------------------------------------------


def is_bounded(manifest: Mapping[str, Any]) -> bool:
    """True if the job is declared to end by itself."""
    if map_at(metadata_of(manifest), "annotations").get(BOUNDED_ANNOTATION) == "true":
        return True
    configuration = flatten(map_at(manifest, "spec").get("flinkConfiguration"))
    return configuration.get("execution.runtime-mode", "").upper() == "BATCH"


def error_text(error: Any) -> str:
    """The operator's error as one clean line: it may be JSON of an exception with its causes, or plain text."""
    if not isinstance(error, str) or not error.strip():
        return ""
    parsed = _json_map(error)
    if not parsed:
        return clean_text(error)
    causes = parsed.get("throwableList")
    chain = [parsed, *(causes if isinstance(causes, list) else [])]
    said = [_exception_text(part) for part in chain[:5] if isinstance(part, Mapping)]
    return clean_text(": ".join(dict.fromkeys(part for part in said if part)) or error)


def _exception_text(part: Mapping[str, Any]) -> str:
    kind, message = text_at(part, "type").rpartition(".")[2], text_at(part, "message")
    return f"{kind} {message}".strip()


def observed_generation(manifest: Mapping[str, Any]) -> int | None:
    """The generation the operator has taken over, from the status or from the spec it last reconciled; None if it does
    not tell."""
    status = map_at(manifest, "status")
    if "observedGeneration" in status:
        return number_at(status, "observedGeneration")
    generation = number_at(metadata_of(manifest), "generation")
    last = _json_map(text_at(map_at(status, "reconciliationStatus"), "lastReconciledSpec"))
    if not last:
        return generation - 1 if "ValidationException" in text_at(status, "error") else None
    recorded = map_at(last, "resource_metadata", "metadata")
    if "generation" in recorded:
        return number_at(recorded, "generation")
    reconciled = last.get("spec") if isinstance(last.get("spec"), Mapping) else last
    if reconciled and classified_fields(reconciled, map_at(manifest, "spec")):
        return generation - 1
    return None


def _derived_lifecycle(status: Mapping[str, Any]) -> str:
    """lifecycleState as newer operators derive it; "" if there is nothing to derive it from."""
    reconciliation = map_at(status, "reconciliationStatus")
    state, job = text_at(reconciliation, "state"), text_at(map_at(status, "jobStatus"), "state")
    last = text_at(reconciliation, "lastReconciledSpec")
    if not last:
        return _lifecycle_of_job(status, state, job)
    if state in ("UPGRADING", "ROLLING_BACK"):
        return state
    parsed = _json_map(last)
    if text_at(map_at(parsed, "spec", "job") or map_at(parsed, "job"), "state") == "suspended":
        return "SUSPENDED"
    if job == "FAILED":
        return "FAILED"
    if state == "ROLLED_BACK":
        return state
    return "STABLE" if last == text_at(reconciliation, "lastStableSpec") else "DEPLOYED"


def _lifecycle_of_job(status: Mapping[str, Any], state: str, job: str) -> str:
    """The same where the operator does not say what it last reconciled: what its job does is all there is."""
    if job == "FAILED" or (status.get("error") and job != "RUNNING"):
        return "FAILED"
    if state in ("UPGRADING", "ROLLING_BACK", "ROLLED_BACK"):
        return state
    job_manager = text_at(status, "jobManagerDeploymentStatus")
    if job == "RUNNING" or (not job and job_manager == "READY"):
        return "STABLE"
    if job or job_manager or state == "DEPLOYED":
        return "DEPLOYED"
    return "CREATED" if state or map_at(status, "reconciliationStatus") else ""


def _json_map(text: str) -> Mapping[str, Any]:
    """A JSON object from text; {} for anything else."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
