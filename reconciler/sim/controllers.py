"""Small models of the built-in controllers: what gives Deployments, StatefulSets and Jobs a status.

A workload is first observed and rolling out, and after a while ready. Images can be made to fail with the same markers
as Flink jobs (`behaviour.py`): "pull-error", "never-starts" and "crash-loop" never become ready, "fails-at-start" fails
a Job. The namespace controller's part, emptying namespaces that are being deleted, is the API server engine's own; here
it is only given its turn. Everything else (Services, ConfigMaps, ServiceAccounts) needs no controller to be well.

Nothing is kept but the agenda: how far a workload has come is read from its status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from reconciler.shell.ports import Clock
from reconciler.sim.agenda import Agenda
from reconciler.sim.behaviour import Behaviour, Behaviours, Timings
from reconciler.sim.chance import jitter
from reconciler.sim.machine import Ref
from reconciler.sim.work import Access, identity

DEPLOYMENT = "Deployment"
STATEFUL_SET = "StatefulSet"
JOB = "Job"
NAMESPACE = "Namespace"
KINDS = frozenset({DEPLOYMENT, STATEFUL_SET, JOB, NAMESPACE})
#: Behaviours with which a workload's pods never become ready.
NEVER_READY = frozenset({Behaviour.PULL_ERROR, Behaviour.NEVER_STARTS, Behaviour.CRASH_LOOP})


class BuiltInControllers:
    """The controllers of one cluster. `finish_namespaces` lets the engine empty namespaces that are going."""

    def __init__(
        self,
        access: Access,
        clock: Clock,
        *,
        finish_namespaces: Callable[[], None],
        seed: object = 0,
        timings: Timings | None = None,
        behaviours: Behaviours | None = None,
    ) -> None:
        self._access = access
        self._clock = clock
        self._finish_namespaces = finish_namespaces
        self._seed = seed
        self._timings = timings or Timings()
        self._behaviours = behaviours or Behaviours()
        self.agenda: Agenda[Ref] = Agenda(clock, self._handle)

    def notice(self, ref: Ref, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """An object was written; only another generation, or the beginning of its end, matters."""
        if ref.kind not in KINDS or after is None:
            return
        if before is None or identity(before) != identity(after):
            self._later(ref, after, self._timings.react_s, "react")

    def _later(self, ref: Ref, value: dict[str, Any], value_s: float, what: str) -> None:
        delay_s = jitter(value_s, self._timings.jitter_share, self._seed, *ref, what, *identity(value))
        self.agenda.remove(ref)
        self.agenda.add(ref, self._clock.now().monotonic + delay_s)

    def _handle(self, ref: Ref) -> None:
        value = self._access.get(ref)
        if value is None:
            return
        if ref.kind == NAMESPACE:
            if "deletionTimestamp" in value["metadata"]:
                self._finish_namespaces()
                self._later(ref, value, self._timings.react_s, "again")
            return
        if ref.kind == JOB:
            self._job(ref, value)
        else:
            self._workload(ref, value)

    def _workload(self, ref: Ref, value: dict[str, Any]) -> None:
        """A Deployment or StatefulSet: observed, then ready."""
        observed = (value.get("status") or {}).get("observedGeneration")
        begins = observed != value["metadata"]["generation"]
        if not begins and _behaviour(self._behaviours, ref, value) in NEVER_READY:
            return
        wall_s = self._clock.now().wall
        status = _deployment(value, begins, wall_s) if ref.kind == DEPLOYMENT else _stateful_set(value, begins)
        self._access.patch_status(ref, status)
        if begins:
            self._later(ref, value, self._timings.ready_s, "ready")

    def _job(self, ref: Ref, value: dict[str, Any]) -> None:
        """A Job: active, then complete or failed."""
        status = value.get("status") or {}
        now = rfc3339(self._clock.now().wall)
        behaviour = _behaviour(self._behaviours, ref, value)
        if value["spec"].get("suspend") or status.get("completionTime") or status.get("failed"):
            return
        if "startTime" not in status:
            self._access.patch_status(
                ref, {"active": value["spec"].get("parallelism", 1), "startTime": now, "ready": 0}
            )
            self._later(ref, value, self._timings.complete_s, "complete")
        elif behaviour is Behaviour.FAILS or behaviour in NEVER_READY:
            failed = [_job_condition("FailureTarget", now), _job_condition("Failed", now)]
            self._access.patch_status(ref, {"active": None, "failed": 1, "conditions": failed})
        else:
            complete = [_job_condition("SuccessCriteriaMet", now), _job_condition("Complete", now)]
            succeeded = value["spec"].get("completions", 1)
            patch = {"active": None, "succeeded": succeeded, "completionTime": now, "conditions": complete}
            self._access.patch_status(ref, patch)


def _behaviour(behaviours: Behaviours, ref: Ref, value: dict[str, Any]) -> Behaviour:
    """The first behaviour that any of its containers' images asks for."""
    containers = value["spec"]["template"]["spec"].get("containers") or []
    found = [behaviours.of(ref.kind, ref.name, {"image": container.get("image")}) for container in containers]
    return next((behaviour for behaviour in found if behaviour is not Behaviour.WELL), Behaviour.WELL)


def _deployment(value: dict[str, Any], begins: bool, wall_s: float) -> dict[str, Any]:
    replicas = value["spec"].get("replicas", 1)
    before = value.get("status") or {}
    ready = min(before.get("readyReplicas", 0), replicas) if begins else replicas
    now = rfc3339(wall_s)
    available = _condition("Available", now, "MinimumReplicasAvailable" if ready else "MinimumReplicasUnavailable")
    progress = _condition("Progressing", now, "ReplicaSetUpdated" if begins else "NewReplicaSetAvailable")
    available["status"] = "True" if ready or not replicas else "False"
    for condition in (available, progress):
        condition["lastUpdateTime"] = now  # a Deployment's conditions alone have one
    missing = replicas - ready
    return {
        "observedGeneration": value["metadata"]["generation"],
        "replicas": replicas or None,
        "updatedReplicas": (0 if begins else replicas) or None,
        "readyReplicas": ready or None,
        "availableReplicas": ready or None,
        "unavailableReplicas": missing or None,
        "conditions": [available, progress],
    }


def _stateful_set(value: dict[str, Any], begins: bool) -> dict[str, Any]:
    replicas = value["spec"].get("replicas", 1)
    generation = value["metadata"]["generation"]
    before = value.get("status") or {}
    revision = f"{value['metadata']['name']}-{generation}"
    ready = min(before.get("readyReplicas", 0), replicas) if begins else replicas
    return {
        "observedGeneration": generation,
        "replicas": replicas,
        "readyReplicas": ready or None,
        "availableReplicas": ready,
        "updatedReplicas": (0 if begins else replicas) or None,
        "currentReplicas": replicas or None,
        "currentRevision": before.get("currentRevision", revision) if begins else revision,
        "updateRevision": revision,
    }


def _job_condition(kind: str, now: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}


def _condition(kind: str, now: str, reason: str = "") -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "lastTransitionTime": now}
    return condition | ({"reason": reason} if reason else {})


def rfc3339(wall_s: float) -> str:
    """A moment as Kubernetes writes it."""
    return datetime.fromtimestamp(wall_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
