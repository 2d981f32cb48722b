"""What the operator does about a spec: validate it, compare it with what it last reconciled, and begin the upgrade.

Also the operator's own rollback: off by default, it needs high availability, leaves `.spec` alone, and ends ROLLED_BACK
with the old code running. Asking for exactly the stable spec then adopts what runs, without a second restart.
"""

from __future__ import annotations

from collections.abc import Callable

from reconciler.sim import flink_spec
from reconciler.sim.agenda import EPSILON_S
from reconciler.sim.behaviour import Behaviour
from reconciler.sim.flink_spec import Change, Spec, with_job
from reconciler.sim.machine import BUSY, UNREADY, VALIDATION_EXCEPTION, Phase, Ref, error_text
from reconciler.sim.work import Surroundings, Work


class SpecChanges:
    """Looks at specs. `ask_again` has an object looked at once more at a later moment."""

    def __init__(self, around: Surroundings, ask_again: Callable[[Ref, float], None]) -> None:
        self._around = around
        self._ask_again = ask_again

    def look(self, work: Work) -> None:
        """Compare the spec with what was last reconciled, and begin what the difference calls for."""
        machine, draft = work.machine, work.draft
        last = draft.last_reconciled
        if machine.phase in BUSY:
            return
        if not self._accepted(work, last):
            return
        if last is None:
            if (work.spec.get("job") or {}).get("state") == "suspended":
                return  # wanted suspended from the start: it never gets a status
            machine.spec, machine.generation = work.spec, work.generation
            machine.mode, machine.first = "stateless", True
            target = with_job(work.spec, state="suspended", upgradeMode="stateless")
            draft.reconciled(target, "UPGRADING", first=True, at_ms=work.wall_ms)
            draft.status["observedGeneration"] = work.generation
            draft.job_manager("MISSING")
            machine.enter(Phase.SUBMITTING, self._around.later(work, self._around.timings.submit_s, "submit"))
            return
        if draft.reconciliation["state"] == "ROLLED_BACK" and self._settled_rollback(work):
            return
        found = flink_spec.change(last, work.spec, work.mode)
        if found in (Change.NONE, Change.IGNORE):
            draft.status["observedGeneration"] = work.generation
        else:
            self._change(work, last, found)

    def _accepted(self, work: Work, last: Spec | None) -> bool:
        """Validation. A refused generation is reported once; what runs goes on as it is."""
        message = flink_spec.refusal(work.ref.name, work.spec, last)
        if (
            message is None
            and self._around.behaviours.of(work.ref.kind, work.ref.name, work.spec) is Behaviour.REJECTED
        ):
            message = "the specification was refused"
        if message is None:
            if work.draft.rejected:
                work.draft.status.pop("error")
            return True
        work.draft.status["error"] = error_text(VALIDATION_EXCEPTION, message)
        if work.machine.refused_generation != work.generation:
            work.machine.refused_generation = work.generation
            self._around.access.event(work.ref, work.value, "Warning", "ValidationError", message)
        return False

    def _settled_rollback(self, work: Work) -> bool:
        """After a rollback of the operator's own: is there nothing new in the spec? The stable spec, once it is asked
        for, is adopted as it runs."""
        if work.generation == work.machine.generation:
            return True
        stable = work.draft.last_stable
        unchanged = (Change.NONE, Change.IGNORE)
        if stable is None or flink_spec.change(stable, work.spec, work.mode) not in unchanged:
            work.machine.rolling_back = False
            return False
        work.machine.rolling_back = False
        work.machine.generation = work.generation
        work.draft.reconciled(stable, "DEPLOYED", first=False, at_ms=work.wall_ms)
        work.draft.status["observedGeneration"] = work.generation
        work.draft.stable()
        return True

    def _change(self, work: Work, last: Spec, found: Change) -> None:
        machine = work.machine
        running = machine.phase is Phase.RUNNING
        if found is Change.SCALE and running and flink_spec.scales_in_place(last, work.spec, work.mode):
            self._scale(work, last)
            return
        mode = self._upgrade_mode(work, last, found)
        if mode is None:
            self._ask_again(work.ref, work.now_s + self._around.timings.session_poll_s)
            return
        self._spec_changed(work, found)
        machine.spec, machine.generation = work.spec, work.generation
        machine.mode, machine.first, machine.rolling_back = mode, False, False
        machine.rollback_allowed = found is not Change.SAVEPOINT_REDEPLOY
        machine.deadline_s = None
        if machine.phase is Phase.SUSPENDED:
            self._resume(work, last)
            return
        self._around.access.event(work.ref, work.value, "Normal", "Suspended", "Suspending existing deployment.")
        stop_s = self._around.timings.savepoint_s if mode == "savepoint" else self._around.timings.stop_s
        machine.enter(Phase.STOPPING, self._around.later(work, stop_s, "stop"))

    def _scale(self, work: Work, last: Spec) -> None:
        """Another parallelism, without a restart."""
        machine, draft = work.machine, work.draft
        machine.spec, machine.generation = work.spec, work.generation
        mode = (last.get("job") or {}).get("upgradeMode", "stateless")
        draft.reconciled(with_job(work.spec, upgradeMode=mode), "DEPLOYED", first=False, at_ms=work.wall_ms)
        draft.stable()
        draft.status["observedGeneration"] = work.generation
        self._spec_changed(work, Change.SCALE)

    def _resume(self, work: Work, last: Spec) -> None:
        """A change of a suspended job: start it, or just take note. It inherits the way it was suspended."""
        machine, draft = work.machine, work.draft
        if (work.spec.get("job") or {}).get("state") == "suspended":
            draft.reconciled(work.spec, "DEPLOYED", first=False, at_ms=work.wall_ms)
            draft.status["observedGeneration"] = work.generation
            return
        if machine.mode != "stateless":
            machine.mode = last["job"]["upgradeMode"]
        target = with_job(work.spec, state="suspended", upgradeMode=machine.mode)
        draft.reconciled(target, "UPGRADING", first=False, at_ms=work.wall_ms)
        draft.status["observedGeneration"] = work.generation
        machine.enter(Phase.SUBMITTING, self._around.later(work, self._around.timings.submit_s, "submit"))

    def _upgrade_mode(self, work: Work, last: Spec, found: Change) -> str | None:
        """How the running job's state is carried over; None: not possible now, try again later."""
        job = work.spec.get("job")
        if job is None or found is Change.SAVEPOINT_REDEPLOY or job["upgradeMode"] == "stateless":
            return "stateless"
        wanted = str(job["upgradeMode"])
        if work.machine.phase is Phase.RUNNING:
            return "savepoint" if last.get("flinkVersion") != work.spec.get("flinkVersion") else wanted
        if wanted == "savepoint" and work.machine.phase is Phase.SUSPENDED:
            return wanted
        fallback = flink_spec.setting(work.spec, flink_spec.LAST_STATE_FALLBACK).lower() != "false"
        return "last-state" if wanted == "last-state" or fallback else None

    def _spec_changed(self, work: Work, found: Change) -> None:
        message = f"{found.value} change(s) detected, starting reconciliation."
        self._around.access.event(work.ref, work.value, "Normal", "SpecChanged", message)

    def roll_back_if_unready(self, work: Work) -> None:
        machine = work.machine
        if machine.deadline_s is None or machine.deadline_s > work.now_s + EPSILON_S:
            return
        machine.deadline_s = None
        stable = work.draft.last_stable
        if machine.phase not in UNREADY or stable is None:
            return
        self._around.access.event(work.ref, work.value, "Normal", "Rollback", "Rolling back failed deployment.")
        work.draft.reconciliation["state"] = "ROLLING_BACK"
        machine.spec, machine.mode, machine.rolling_back = stable, "last-state", True
        machine.enter(Phase.STOPPING, self._around.later(work, self._around.timings.stop_s, "stop"))
