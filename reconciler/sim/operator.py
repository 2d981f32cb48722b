"""A model of the Flink Kubernetes Operator: a controller on a simulated cluster.

It watches FlinkDeployment, FlinkSessionJob and FlinkStateSnapshot, and writes their status the way the real operator
does, a patch for each step: CREATED, UPGRADING, DEPLOYED, STABLE; the JobManager DEPLOYING, DEPLOYED_NOT_READY, READY;
the job RECONCILING, CREATED, RUNNING. What a gate must not be fooled by is modelled with care:

- between a change of the spec and the end of the old job, the status is the old, green one (observedGeneration lags);
- STABLE means "was RUNNING once" and stays while the job crash-loops;
- a job that was stopped with a savepoint is FINISHED, although it is a streaming job in the middle of an upgrade;
- a refused spec leaves observedGeneration behind and the old job running.

Not modelled: the operator's own Deployments, Services and ConfigMaps; savepointTriggerNonce and periodic snapshots; the
autoscaler. Status is written when something happens, not at the next poll.
"""

from __future__ import annotations

from typing import Any

from reconciler.shell.ports import Clock
from reconciler.sim.agenda import Agenda
from reconciler.sim.behaviour import Behaviours, Timings
from reconciler.sim.course import Course
from reconciler.sim.machine import DEPLOYMENT, SESSION_JOB, SNAPSHOT, Machine, Phase, Ref
from reconciler.sim.snapshots import Snapshots
from reconciler.sim.spec_change import SpecChanges
from reconciler.sim.work import Access, Surroundings, Work, identity

FLINK_GROUP = "flink.apache.org"
FINALIZERS = {
    DEPLOYMENT: "flinkdeployments.flink.apache.org/finalizer",
    SESSION_JOB: "flinksessionjobs.flink.apache.org/finalizer",
    SNAPSHOT: "flinkstatesnapshots.flink.apache.org/finalizer",
}


class FlinkOperator:
    """The controller. `notice` tells it of writes; everything else happens on its agenda."""

    def __init__(
        self,
        access: Access,
        clock: Clock,
        *,
        seed: object = 0,
        timings: Timings | None = None,
        behaviours: Behaviours | None = None,
    ) -> None:
        self._around = Surroundings(access, timings or Timings(), behaviours or Behaviours(), seed)
        self._clock = clock
        self._machines: dict[Ref, Machine] = {}
        self.agenda: Agenda[Ref] = Agenda(clock, self._handle)
        self._course = Course(self._around)
        self._specs = SpecChanges(self._around, self.agenda.add)
        self._snapshots = Snapshots(self._around)

    @property
    def behaviours(self) -> Behaviours:
        """How jobs behave; may be changed."""
        return self._around.behaviours

    def notice(self, ref: Ref, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """An object was written. Its own status writes change neither generation nor deletion: nothing to do."""
        if ref.kind not in FINALIZERS:
            return
        if before is not None and after is not None and identity(before) == identity(after):
            return
        seen = identity(after or before or {"metadata": {}})
        delay_s = self._around.duration(self._around.timings.react_s, ref, "react", seen[:2])
        self.agenda.add(ref, self._clock.now().monotonic + delay_s)

    def snapshot(self) -> dict[str, Any]:
        """A copy of what is not in the objects."""
        machines = {ref: machine.copied() for ref, machine in self._machines.items()}
        return {"machines": machines, "agenda": self.agenda.snapshot()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over a copy; it may be restored again."""
        self._machines = {ref: machine.copied() for ref, machine in saved["machines"].items()}
        self.agenda.restore(saved["agenda"])

    def machine(self, kind: str, namespace: str, name: str) -> Machine | None:
        """What runs for an object, for scenarios and checks."""
        return self._machines.get(Ref(kind, namespace, name))

    def _handle(self, ref: Ref) -> None:
        """One look at one object."""
        value = self._around.access.get(ref)
        if value is None:
            self._machines.pop(ref, None)
            return
        metadata = value["metadata"]
        machine = self._machines.get(ref)
        if machine is None or machine.uid != metadata["uid"]:
            machine = self._machines[ref] = Machine(metadata["uid"])
        now = self._clock.now()
        work = Work(ref, value, machine, now.monotonic, now.wall)
        if "deletionTimestamp" in metadata:
            self._delete(work)
        elif FINALIZERS[ref.kind] not in metadata.get("finalizers", []):
            self._around.access.set_finalizers(ref, [*metadata.get("finalizers", []), FINALIZERS[ref.kind]])
            self.agenda.add(ref, work.now_s)
            return
        elif ref.kind == SNAPSHOT:
            self._snapshots.advance(work)
        else:
            self._course.advance(work)
            self._specs.look(work)
            self._specs.roll_back_if_unready(work)
        patch = work.draft.patch()
        if patch and self._around.access.get(ref) is not None:
            self._around.access.patch_status(ref, patch)
        for due_s in (machine.due_s, machine.deadline_s):
            if due_s is not None:
                self.agenda.add(ref, due_s)

    def _delete(self, work: Work) -> None:
        """Clean up, then let the object go. A session cluster waits for its jobs."""
        machine = work.machine
        mine = FINALIZERS[work.ref.kind]
        finalizers = [name for name in work.value["metadata"].get("finalizers", []) if name != mine]
        if mine not in work.value["metadata"].get("finalizers", []):
            return
        if machine.phase is not Phase.DELETING:
            machine.deadline_s = None
            machine.enter(Phase.DELETING, self._around.later(work, self._around.timings.delete_s, "delete"))
            if work.draft.status and self._around.access.allows(work.ref.kind, "lifecycleState", "DELETING"):
                work.draft.status["lifecycleState"] = "DELETING"
        elif work.due():
            if self._has_session_jobs(work):
                machine.due_s = work.now_s + self._around.timings.session_poll_s
                return
            machine.due_s = None
            self._around.access.set_finalizers(work.ref, finalizers)

    def _has_session_jobs(self, work: Work) -> bool:
        if work.ref.kind != DEPLOYMENT or "job" in work.spec:
            return False
        jobs = self._around.access.objects(SESSION_JOB)
        here = [job for job in jobs if job["metadata"].get("namespace") == work.ref.namespace]
        return any(job.get("spec", {}).get("deploymentName") == work.ref.name for job in here)
