"""FlinkStateSnapshot: a savepoint somebody asked for, TRIGGER_PENDING, IN_PROGRESS, then COMPLETED with its path.

It is ABANDONED when the job does not run, and FAILED when it has failed more often than its backoffLimit allows.
"""

from __future__ import annotations

from typing import Any

from reconciler.sim import flink_spec
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.machine import DEPLOYMENT, Phase, Ref
from reconciler.sim.work import Surroundings, Work

RETRY_S = 10.0


class Snapshots:
    """Moves snapshots from state to state."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def advance(self, work: Work) -> None:
        """TRIGGER_PENDING, IN_PROGRESS, then COMPLETED, FAILED after its retries, or ABANDONED without a job."""
        machine, status = work.machine, work.draft.status
        if machine.phase is Phase.DONE or (machine.due_s is not None and not work.due()):
            return
        machine.due_s = None
        if machine.phase is Phase.NEW:
            status.update(state="TRIGGER_PENDING", failures=0)
            machine.enter(Phase.SUBMITTING, work.now_s + self._around.timings.react_s)
            return
        job = self._job_of(work)
        if job is None or (job.get("status") or {}).get("jobStatus", {}).get("state") != "RUNNING":
            status.update(state="ABANDONED", error="the job is not running", resultTimestamp=work.stamp())
            machine.enter(Phase.DONE)
        elif machine.phase is Phase.SUBMITTING:
            trigger = self._around.job_id(work)
            status.update(state="IN_PROGRESS", triggerId=trigger, triggerTimestamp=work.stamp())
            machine.enter(Phase.RUNNING, self._around.later(work, self._around.timings.snapshot_s, "snapshot"))
        else:
            self._end_snapshot(work, job)

    def _end_snapshot(self, work: Work, job: dict[str, Any]) -> None:
        machine, status = work.machine, work.draft.status
        spec = flink_spec.effective(job["spec"])
        if self._around.behaviours.of(job["kind"], job["metadata"]["name"], spec) is Behaviour.SNAPSHOT_FAILS:
            machine.attempts += 1
            status["failures"] = machine.attempts
            status["error"] = "the snapshot failed: checkpoint storage does not answer"
            if machine.attempts > work.spec.get("backoffLimit", -1) >= 0:
                status.update(state="FAILED", resultTimestamp=work.stamp())
                machine.enter(Phase.DONE)
            else:
                status["state"] = "TRIGGER_PENDING"
                machine.enter(Phase.SUBMITTING, work.now_s + RETRY_S * machine.attempts)
            return
        directory = flink_spec.setting(spec, *flink_spec.SAVEPOINT_DIRECTORY) or "s3://savepoints"
        path = (work.spec.get("savepoint") or {}).get("path") or directory
        status.update(
            state="COMPLETED",
            path=f"{path.rstrip('/')}/savepoint-{status['triggerId'][:12]}",
            resultTimestamp=work.stamp(),
        )
        status.pop("error", None)
        machine.enter(Phase.DONE)

    def _job_of(self, work: Work) -> dict[str, Any] | None:
        reference = work.spec.get("jobReference") or {}
        kind = str(reference.get("kind", DEPLOYMENT))
        return self._around.access.get(Ref(kind, work.ref.namespace, str(reference.get("name", ""))))
