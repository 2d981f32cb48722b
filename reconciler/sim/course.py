"""The course of one Flink job or session cluster: from the end of the old one to RUNNING, and what comes after.

Each phase ends at a moment of policy time; `advance` then goes on to the next and writes into the draft what the real
operator would have observed. What the job does is decided by its behaviour: a job that crash-loops is RUNNING first.
"""

from __future__ import annotations

from reconciler.sim import flink_spec
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.flink_spec import with_job
from reconciler.sim.machine import (
    DEPLOYMENT,
    DEPLOYMENT_EXCEPTION,
    JOB_EXCEPTION,
    SESSION_JOB,
    Phase,
    Ref,
    error_text,
)
from reconciler.sim.work import Surroundings, Work


class Course:
    """Moves machines from phase to phase."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def advance(self, work: Work) -> None:
        """Go on to the next phase if the present one has ended."""
        machine = work.machine
        if not work.due():
            return
        machine.due_s = None
        if machine.phase is Phase.STOPPING:
            self._stopped(work)
        elif machine.phase is Phase.SUBMITTING:
            self._submit(work)
        elif machine.phase is Phase.DEPLOYING:
            self._deployed(work)
        elif machine.phase is Phase.STARTING:
            self._answers(work)
        elif machine.phase in (Phase.CREATED, Phase.RESTARTING):
            self._started(work)
        elif machine.phase is Phase.RUNNING:
            self._ends(work)
        elif machine.phase is Phase.FINISHED:
            work.draft.job_manager("MISSING")

    def _stopped(self, work: Work) -> None:
        """The old job is gone: record what is to come, as the operator does before each attempt."""
        machine, draft = work.machine, work.draft
        assert machine.spec is not None
        draft.job_manager("MISSING")
        if "job" in machine.spec or work.ref.kind == SESSION_JOB:
            ended = {"savepoint": "FINISHED", "stateless": "CANCELED"}
            self._job_state(work, ended.get(machine.mode, "SUSPENDED"))
        if machine.mode == "savepoint":
            draft.job["upgradeSavepointPath"] = self._savepoint_path(work)
        suspended = (machine.spec.get("job") or {}).get("state") == "suspended"
        if machine.rolling_back:
            draft.reconciliation["state"] = "ROLLING_BACK"
        else:
            target = with_job(machine.spec, state="suspended", upgradeMode=machine.mode)
            state = "DEPLOYED" if suspended else "UPGRADING"
            draft.reconciled(target, state, first=machine.first, at_ms=work.wall_ms)
            draft.status["observedGeneration"] = machine.generation
            draft.status.pop("error", None)
        if suspended:
            machine.deadline_s = None
            machine.enter(Phase.SUSPENDED)
        else:
            machine.enter(Phase.SUBMITTING, self._around.later(work, self._around.timings.submit_s, "submit"))

    def _submit(self, work: Work) -> None:
        """Start the job (or the session cluster) at the recorded spec."""
        machine, draft = work.machine, work.draft
        assert machine.spec is not None
        if work.ref.kind == SESSION_JOB and not self._session_ready(work):
            machine.enter(Phase.SUBMITTING, work.now_s + self._around.timings.session_poll_s)
            return
        machine.deployments += 1
        if machine.rolling_back:
            draft.reconciliation["state"] = "ROLLED_BACK"
        else:
            target = with_job(machine.spec, state="running", upgradeMode=machine.mode)
            draft.reconciled(target, "DEPLOYED", first=machine.first, at_ms=work.wall_ms)
        draft.status.pop("error", None)
        draft.job_manager("DEPLOYING")
        if "job" in machine.spec:
            rotates = machine.mode != "last-state" or work.ref.kind == SESSION_JOB
            if rotates or "jobId" not in draft.job:
                draft.job["jobId"] = self._around.job_id(work)
                draft.job["jobName"] = work.ref.name
            self._job_state(work, "RECONCILING")
        if work.ref.kind == SESSION_JOB:
            machine.enter(Phase.CREATED, self._around.later(work, self._around.timings.start_s, "start"))
            return
        machine.deadline_s = rollback_deadline(work, self._around.timings.readiness_timeout_s)
        machine.enter(Phase.DEPLOYING, self._around.later(work, self._around.timings.deploy_s / 2, "deploy"))

    def _deployed(self, work: Work) -> None:
        """The pods exist, or never will."""
        behaviour = self._around.behaviour(work)
        if behaviour is Behaviour.PULL_ERROR:
            image = (work.machine.spec or {}).get("image", "")
            work.draft.job_manager("ERROR")
            work.draft.status["error"] = error_text(DEPLOYMENT_EXCEPTION, f"ErrImagePull: failed to pull image {image}")
            work.machine.enter(Phase.BROKEN)
        elif behaviour is Behaviour.NEVER_STARTS:
            work.draft.job_manager("DEPLOYED_NOT_READY")
            work.machine.enter(Phase.STUCK)
        else:
            work.draft.job_manager("DEPLOYED_NOT_READY")
            work.machine.enter(Phase.STARTING, self._around.later(work, self._around.timings.deploy_s / 2, "pods"))

    def _answers(self, work: Work) -> None:
        """The JobManager answers: its job is known, and a session cluster is as ready as it gets."""
        work.draft.job_manager("READY")
        if "job" not in (work.machine.spec or {}):
            self._runs(work)
            return
        self._job_state(work, "CREATED")
        work.draft.job["startTime"] = str(work.wall_ms)
        work.machine.enter(Phase.CREATED, self._around.later(work, self._around.timings.start_s, "start"))

    def _started(self, work: Work) -> None:
        behaviour = self._around.behaviour(work)
        if work.machine.phase is Phase.CREATED and behaviour in (Behaviour.FAILS, Behaviour.NEVER_STARTS):
            self._job_state(work, "FAILED")
            work.draft.status["error"] = error_text(JOB_EXCEPTION, "the job failed")
            work.machine.enter(Phase.FAILED)
            return
        self._runs(work)

    def _runs(self, work: Work) -> None:
        """RUNNING. From now on the spec counts as stable, whatever the job does next."""
        machine, draft = work.machine, work.draft
        self._job_state(work, "RUNNING")
        if "job" in (machine.spec or {}):
            draft.job.setdefault("startTime", str(work.wall_ms))
        if draft.reconciliation["state"] == "DEPLOYED" and not machine.rolling_back:
            draft.stable()
        machine.deadline_s = None
        machine.enter(Phase.RUNNING)
        if self._around.behaviour(work) is Behaviour.CRASH_LOOP and "job" in (machine.spec or {}):
            machine.due_s = self._around.later(work, self._around.timings.crash_after_s, "crash")
        elif machine.spec is not None and "job" in machine.spec and flink_spec.bounded(machine.spec):
            machine.due_s = self._around.later(work, self._around.timings.finish_after_s, "finish")

    def _ends(self, work: Work) -> None:
        """A running job crashes, or has done its work."""
        if self._around.behaviour(work) is Behaviour.CRASH_LOOP:
            self._job_state(work, "RESTARTING")
            work.machine.enter(Phase.RESTARTING, self._around.later(work, self._around.timings.restart_s, "restart"))
        elif work.machine.spec is not None and flink_spec.bounded(work.machine.spec):
            self._job_state(work, "FINISHED")
            work.machine.enter(Phase.FINISHED, work.now_s + self._around.timings.finished_ttl_s)

    def _job_state(self, work: Work, state: str) -> None:
        work.draft.job["state"] = state
        work.draft.job["updateTime"] = str(work.wall_ms)

    def _savepoint_path(self, work: Work) -> str:
        directory = flink_spec.setting(work.machine.spec or {}, *flink_spec.SAVEPOINT_DIRECTORY) or "s3://savepoints"
        return (
            f"{directory.rstrip('/')}/savepoint-{work.draft.job.get('jobId', '')[:6]}-{self._around.job_id(work)[:12]}"
        )

    def _session_ready(self, work: Work) -> bool:
        ref = Ref(DEPLOYMENT, work.ref.namespace, str(work.spec.get("deploymentName", "")))
        cluster = self._around.access.get(ref)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            return False
        return bool((cluster.get("status") or {}).get("jobManagerDeploymentStatus") == "READY")


def rollback_deadline(work: Work, timeout_s: float) -> float | None:
    """When this attempt is rolled back if it has not become ready; None if it never is."""
    machine, spec = work.machine, work.spec
    enabled = flink_spec.setting(spec, flink_spec.ROLLBACK_ENABLED).lower() == "true"
    possible = work.draft.last_stable is not None and machine.rollback_allowed and not machine.rolling_back
    if not (enabled and possible and flink_spec.high_availability(spec)):
        return None
    return work.now_s + timeout_s
