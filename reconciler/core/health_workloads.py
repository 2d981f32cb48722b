"""Health of the built-in workloads: Deployment, ReplicaSet, StatefulSet, DaemonSet, Pod, Job, CronJob.

Each asks its own controller's status, in the order of the lines below. `observedGeneration` and `deletionTimestamp`
were settled for every kind before (health.py).

    Deployment: paused -> deadline exceeded -> pods updated? -> old pods gone? -> pods available?
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reconciler.core.health_common import (
    Judged,
    Thresholds,
    condition,
    is_true,
    items_at,
    last_written_s,
    map_at,
    number_at,
    progressing,
    settled,
    spoken,
    text_at,
    time_s,
)
from reconciler.core.model import Facts, Health, Manifest, Reason

#: Why a container waits, when waiting longer does not help.
_BROKEN = frozenset(
    {"CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "InvalidImageName"}
)
_IMAGE_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"})


# ---- Deployment --------------------------------------------------------------------------------------------------


def deployment_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A Deployment: all replicas updated and available, no old ones left."""
    spec, status = map_at(manifest, "spec"), map_at(manifest, "status")
    if spec.get("paused") is True:
        return settled(facts, now_s, Health.SUSPENDED, Reason("Paused", "the Deployment is paused"))
    progress = condition(status, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        reason = spoken("ProgressDeadlineExceeded", text_at(progress, "message") or "the rollout of pods is stuck")
        return settled(facts, now_s, Health.DEGRADED, reason)
    wanted = number_at(spec, "replicas", 1)
    updated, total = number_at(status, "updatedReplicas"), number_at(status, "replicas")
    available = number_at(status, "availableReplicas")
    failure = condition(status, "ReplicaFailure")
    because = f": {text_at(failure, 'message')}" if failure.get("status") == "True" else ""
    if updated < wanted:
        message = f"{updated} of {wanted} replicas are updated{because}"
    elif total > updated:
        message = f"{total - updated} old replicas are still there"
    elif available < wanted:
        message = f"{available} of {wanted} replicas are available{because}"
    else:
        reason = Reason("Available", f"{available} of {wanted} replicas are available")
        return settled(facts, now_s, Health.HEALTHY, reason)
    if progress.get("reason") == "NewReplicaSetAvailable":
        # It was rolled out once and lost its pods: its own deadline does not run any more.
        reason = spoken("Unavailable", message)
        return progressing(manifest, facts, now_s, "unavailable", reason, thresholds.unavailable_s)
    return progressing(manifest, facts, now_s, "rolling", spoken("RollingOut", message))


# ---- ReplicaSet, ReplicationController ---------------------------------------------------------------------------


def replica_set_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A ReplicaSet or ReplicationController: as many pods as declared, all of them available. What keeps pods from
    being made (a quota, a webhook) may pass, so that it is Degraded only when it lasts."""
    status = map_at(manifest, "status")
    wanted, total = number_at(map_at(manifest, "spec"), "replicas", 1), number_at(status, "replicas")
    available = number_at(status, "availableReplicas")
    failure = condition(status, "ReplicaFailure")
    because = f": {text_at(failure, 'message')}" if failure.get("status") == "True" else ""
    if available >= wanted and total <= wanted:
        reason = Reason("Available", f"{available} of {wanted} replicas are available")
        return settled(facts, now_s, Health.HEALTHY, reason)
    message = f"{available} of {wanted} replicas are available{because}"
    if total > wanted:
        message = f"{total - wanted} replicas too many are still there"
    reason = spoken("RollingOut", message)
    return progressing(manifest, facts, now_s, "rolling", reason, thresholds.workload_deadline_s)


# ---- StatefulSet, DaemonSet --------------------------------------------------------------------------------------


def stateful_set_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A StatefulSet: all replicas ready and, unless they are updated by hand, at the new revision."""
    spec, status = map_at(manifest, "spec"), map_at(manifest, "status")
    wanted, ready = number_at(spec, "replicas", 1), number_at(status, "readyReplicas")
    strategy = map_at(spec, "updateStrategy")
    if ready < wanted:
        message = f"{ready} of {wanted} replicas are ready"
    elif strategy.get("type") != "OnDelete" and not _at_new_revision(strategy, status, wanted):
        message = f"{number_at(status, 'updatedReplicas')} of {wanted} replicas are at the new revision"
    else:
        return settled(facts, now_s, Health.HEALTHY, Reason("Ready", f"{ready} of {wanted} replicas are ready"))
    reason, limit_s = Reason("RollingOut", message), thresholds.workload_deadline_s
    return progressing(manifest, facts, now_s, "rolling", reason, limit_s)


def _at_new_revision(strategy: Mapping[str, Any], status: Mapping[str, Any], wanted: int) -> bool:
    update = text_at(status, "updateRevision")
    if not update or update == text_at(status, "currentRevision"):
        return True
    partition = number_at(map_at(strategy, "rollingUpdate"), "partition")
    return partition > 0 and number_at(status, "updatedReplicas") >= wanted - partition


def daemon_set_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A DaemonSet: a ready, updated pod on every node that should have one."""
    status = map_at(manifest, "status")
    wanted, ready = number_at(status, "desiredNumberScheduled"), number_at(status, "numberAvailable")
    by_hand = map_at(manifest, "spec", "updateStrategy").get("type") == "OnDelete"
    updated = wanted if by_hand else number_at(status, "updatedNumberScheduled")
    if "desiredNumberScheduled" in status and updated >= wanted and ready >= wanted:
        return settled(facts, now_s, Health.HEALTHY, Reason("Available", f"{ready} of {wanted} pods are available"))
    message = f"{updated} of {wanted} pods are updated, {ready} available"
    reason, limit_s = Reason("RollingOut", message), thresholds.workload_deadline_s
    return progressing(manifest, facts, now_s, "rolling", reason, limit_s)


# ---- Pod, Job, CronJob -------------------------------------------------------------------------------------------


def pod_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A Pod: ready, or done; a container that cannot start is worse than one that has not yet."""
    status = map_at(manifest, "status")
    containers = [*items_at(status, "initContainerStatuses"), *items_at(status, "containerStatuses")]
    facts = dataclasses.replace(facts, restarts=sum(number_at(each, "restartCount") for each in containers))
    phase, message = text_at(status, "phase"), text_at(status, "message")
    if phase == "Succeeded":
        return settled(facts, now_s, Health.HEALTHY, Reason("Succeeded", "all containers have ended well"))
    if phase == "Failed":
        reason = spoken(text_at(status, "reason") or "Failed", message or _exit(containers) or "the pod has failed")
        return settled(facts, now_s, Health.DEGRADED, reason)
    if phase == "Unknown":
        return settled(facts, now_s, Health.UNKNOWN, Reason("NodeLost", "its node does not answer"))
    waiting = [(each, map_at(each, "state", "waiting")) for each in containers]
    for container, state in waiting:
        name, why = text_at(container, "name"), text_at(state, "reason")
        if why in _BROKEN:
            reason = spoken(why, f"container {name}: {text_at(state, 'message') or why}")
            return settled(facts, now_s, Health.DEGRADED, reason)
        if why in _IMAGE_PULL:
            reason = spoken(why, f"container {name}: {text_at(state, 'message') or why}")
            return progressing(manifest, facts, now_s, "image-pull", reason, thresholds.image_pull_s)
    if phase == "Running" and is_true(status, "Ready"):
        return settled(facts, now_s, Health.HEALTHY, Reason("Ready", "all containers are ready"))
    scheduled = condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        reason = spoken(text_at(scheduled, "reason") or "Unscheduled", text_at(scheduled, "message") or "no node yet")
    else:
        reason = spoken("NotReady", text_at(condition(status, "Ready"), "message") or f"phase {phase or 'Pending'}")
    return progressing(manifest, facts, now_s, "starting", reason, thresholds.workload_deadline_s)


def _exit(containers: list[Mapping[str, Any]]) -> str:
    """The first container that ended badly, in words."""
    for container in containers:
        ended = map_at(container, "state", "terminated")
        if number_at(ended, "exitCode"):
            why = text_at(ended, "reason") or "Error"
            return f"container {text_at(container, 'name')} ended with {number_at(ended, 'exitCode')} ({why})"
    return ""


def job_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:  # noqa: ARG001 - one signature for all kinds; a Job has its own deadline
    """A Job: complete, failed, suspended, or at work as long as its own deadline lets it."""
    status = map_at(manifest, "status")
    for kind in ("Failed", "FailureTarget"):
        if is_true(status, kind):
            found = condition(status, kind)
            message = text_at(found, "message") or "the job has failed"
            reason = spoken(text_at(found, "reason") or "Failed", message)
            return settled(facts, now_s, Health.DEGRADED, reason)
    if is_true(status, "Complete"):
        return settled(facts, now_s, Health.HEALTHY, Reason("Complete", "the job is complete"))
    if map_at(manifest, "spec").get("suspend") is True:
        return settled(facts, now_s, Health.SUSPENDED, Reason("Suspended", "suspended as declared"))
    counts = f"{number_at(status, 'active')} active, {number_at(status, 'succeeded')} succeeded"
    return progressing(manifest, facts, now_s, "working", Reason("Running", counts))


def cron_job_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:  # noqa: ARG001 - one signature for all kinds; when it runs next is its schedule's
    """A CronJob: suspended, at work, waiting for its time, or with a last run that did not succeed. A run that began
    before the CronJob was last written says nothing of what is declared now."""
    status = map_at(manifest, "status")
    if map_at(manifest, "spec").get("suspend") is True:
        return settled(facts, now_s, Health.SUSPENDED, Reason("Suspended", "suspended as declared"))
    active = len(items_at(status, "active"))
    began_s, succeeded_s = time_s(status.get("lastScheduleTime")), time_s(status.get("lastSuccessfulTime"))
    if active:
        message = f"{active} job{'s are' if active > 1 else ' is'} running"
        return settled(facts, now_s, Health.HEALTHY, Reason("Running", message))
    if began_s is None:
        return settled(facts, now_s, Health.HEALTHY, Reason("Scheduled", "it has not run yet"))
    if succeeded_s is not None and succeeded_s >= began_s:
        message = f"the run of {status['lastScheduleTime']} succeeded"
        return settled(facts, now_s, Health.HEALTHY, spoken("LastRunSucceeded", message))
    written_s = last_written_s(manifest)
    if written_s is not None and written_s > began_s:
        return settled(facts, now_s, Health.HEALTHY, Reason("Scheduled", "it has not run since it was changed"))
    message = f"the run of {status['lastScheduleTime']} did not succeed: see its jobs"
    return settled(facts, now_s, Health.DEGRADED, spoken("LastRunFailed", message))
