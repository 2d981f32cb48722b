"""Health of one live object: the table of kinds, and what holds for all of them.

    evaluate(live, facts, now_s)  ->  (Health.DEGRADED, Reason("CrashLoop", "4 restarts within 600 s"), facts)

Before a kind's own function is asked: an object being deleted is Progressing, and so is one whose controller has not
seen its newest generation. Then a fleet's own health policy is asked where one takes the object, else the kind's
function, else the standard conditions. After it: what stands still counts as Suspended only where the desired manifest
says so; an object that somebody suspended by hand has to go on first. A function that fails is Unknown with the
reason, never healthy and never an exception: one strange status must not stop the lane that reads it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from reconciler.core.flink_config import FLINK_DEPLOYMENT, FLINK_GROUP, FLINK_SESSION_JOB
from reconciler.core.health_common import (
    FROM_FILE,
    HealthFunction,
    Judged,
    Thresholds,
    entered,
    map_at,
    metadata_of,
    newest_time_s,
    number_at,
    spoken,
    waited_s,
)
from reconciler.core.health_conditions import health_by_conditions
from reconciler.core.health_flink import flink_health
from reconciler.core.health_resources import (
    api_service_health,
    autoscaler_health,
    claim_health,
    definition_health,
    disruption_budget_health,
    ingress_health,
    namespace_health,
    node_health,
    service_health,
    volume_health,
)
from reconciler.core.health_rules import HealthPolicy, Outcome, by_rules
from reconciler.core.health_workloads import (
    cron_job_health,
    daemon_set_health,
    deployment_health,
    job_health,
    pod_health,
    replica_set_health,
    stateful_set_health,
)
from reconciler.core.model import Facts, Health, Manifest, ObjectKey, Reason
from reconciler.core.values import strictly_equal
from reconciler.core.waits import finalizers_hold

#: (group, kind) -> its function. Whoever is not listed is judged by standard conditions (health_conditions.py).
HEALTH_FUNCTIONS: dict[tuple[str, str], HealthFunction] = {
    (FLINK_GROUP, FLINK_DEPLOYMENT): flink_health,
    (FLINK_GROUP, FLINK_SESSION_JOB): flink_health,
    ("apps", "Deployment"): deployment_health,
    ("apps", "ReplicaSet"): replica_set_health,
    ("apps", "StatefulSet"): stateful_set_health,
    ("apps", "DaemonSet"): daemon_set_health,
    ("", "ReplicationController"): replica_set_health,
    ("", "Pod"): pod_health,
    ("batch", "Job"): job_health,
    ("batch", "CronJob"): cron_job_health,
    ("", "PersistentVolumeClaim"): claim_health,
    ("", "PersistentVolume"): volume_health,
    ("", "Service"): service_health,
    ("networking.k8s.io", "Ingress"): ingress_health,
    ("autoscaling", "HorizontalPodAutoscaler"): autoscaler_health,
    ("policy", "PodDisruptionBudget"): disruption_budget_health,
    ("apiregistration.k8s.io", "APIService"): api_service_health,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): definition_health,
    ("", "Namespace"): namespace_health,
    ("", "Node"): node_health,
}
#: Kinds that judge their own observedGeneration: a refused spec is more than a pending one.
_OWN_GENERATION = frozenset({(FLINK_GROUP, FLINK_DEPLOYMENT), (FLINK_GROUP, FLINK_SESSION_JOB)})

#: A field, and the value in it that makes an object stand still on purpose.
Suspension = tuple[tuple[str, ...], Any]
NO_SUSPENSION: Suspension = (("spec",), "suspended")
#: (group, kind) -> the field that makes the kind's controller stand still, and the value that does.
SUSPENSIONS: dict[tuple[str, str], Suspension] = {
    (FLINK_GROUP, FLINK_DEPLOYMENT): (("spec", "job", "state"), "suspended"),
    (FLINK_GROUP, FLINK_SESSION_JOB): (("spec", "job", "state"), "suspended"),
    ("apps", "Deployment"): (("spec", "paused"), True),
    ("batch", "Job"): (("spec", "suspend"), True),
    ("batch", "CronJob"): (("spec", "suspend"), True),
}

DEFAULT_THRESHOLDS = Thresholds()


class Custom(NamedTuple):
    """A policy that judges an object by rules, and what its rules gave for it."""

    policy: HealthPolicy
    outcome: Outcome


__all__ = [
    "DEFAULT_THRESHOLDS",
    "HEALTH_FUNCTIONS",
    "SUSPENSIONS",
    "Custom",
    "Thresholds",
    "evaluate",
    "health",
    "health_from_file",
]


def evaluate(
    manifest: Manifest,
    facts: Facts,
    now_s: float,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    desired: Manifest | None = None,
    custom: Custom | None = None,
) -> Judged:
    """`health`, but whatever goes wrong in it is Unknown with the facts unchanged."""
    try:
        return health(manifest, facts, now_s, thresholds, desired, custom)
    except Exception as error:  # noqa: BLE001 - a status is untrusted input; any failure to read it means Unknown
        kind = type(error).__name__
        return Health.UNKNOWN, spoken("HealthError", f"its health could not be judged ({kind}: {error})"), facts


def health(
    manifest: Manifest,
    facts: Facts,
    now_s: float,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    desired: Manifest | None = None,
    custom: Custom | None = None,
) -> Judged:
    """Health of a live object. `facts` are those of its last look, Facts() at the first; `now_s` is the policy
    clock's wall time. `desired` is what the object is to be; without it the object's own spec counts as that.
    `custom` is the health policy that judges it instead of its kind's function."""
    metadata = metadata_of(manifest)
    if metadata.get("deletionTimestamp"):
        reason = finalizers_hold(manifest, now_s) or Reason("Deleting", "it is being deleted")
        return Health.PROGRESSING, reason, entered(facts, "deleting", now_s)
    key = ObjectKey.of(manifest)
    if (key.group, key.kind) not in _OWN_GENERATION:
        status, generation = map_at(manifest, "status"), number_at(metadata, "generation")
        observed = number_at(status, "observedGeneration", generation)
        if observed < generation:
            message = f"generation {generation} is not taken over yet, its controller is at {observed}"
            pending = entered(facts, f"pending@{generation}", now_s)
            return Health.PROGRESSING, Reason("GenerationPending", message), pending
    suspension = SUSPENSIONS.get((key.group, key.kind), NO_SUSPENSION)
    if custom is not None:
        judged = by_rules(custom.policy, custom.outcome, manifest, facts, now_s)
        suspension = custom.policy.suspended_by or suspension
    else:
        function = HEALTH_FUNCTIONS.get((key.group, key.kind), health_by_conditions)
        judged = function(manifest, facts, now_s, thresholds)
    if judged[0] is Health.SUSPENDED and desired is not None and not _declares(desired, suspension):
        return _suspended_by_hand(manifest, facts, judged[2], now_s, thresholds, suspension)
    return judged


def _declares(desired: Manifest, suspension: Suspension) -> bool:
    field, value = suspension
    return strictly_equal(map_at(desired, *field[:-1]).get(field[-1]), value)


def _suspended_by_hand(
    manifest: Manifest, before: Facts, after: Facts, now_s: float, thresholds: Thresholds, suspension: Suspension
) -> Judged:
    """It stands still and Git does not ask for that. `before` are the facts of the last look, `after` those that the
    kind's own function made of them."""
    key = ObjectKey.of(manifest)
    limit_s = thresholds.progress_deadline_s if key.group == FLINK_GROUP else thresholds.workload_deadline_s
    state = f"suspended-by-hand@{number_at(metadata_of(manifest), 'generation')}"
    facts = dataclasses.replace(after, state=state, since_s=entered(before, state, now_s).since_s)
    field, value = suspension
    shown = "true" if value is True else value
    message = f"{'.'.join(field)} is {shown} on the cluster and not in Git: undo it there, or declare it in Git"
    if waited_s(facts, now_s) >= limit_s:
        message = f"{message}; for {waited_s(facts, now_s):.0f} s"
        return Health.DEGRADED, Reason("SuspendedByHand", message), facts
    return Health.PROGRESSING, Reason("SuspendedByHand", message), facts


def health_from_file(
    manifest: Manifest, thresholds: Thresholds = DEFAULT_THRESHOLDS, custom: Custom | None = None
) -> tuple[Health, Reason]:
    """Health of an object read from a file: there is no history, and "now" is the newest time that stands in it."""
    facts, now_s = Facts(state=FROM_FILE), newest_time_s(manifest)
    found, reason, _ = evaluate(manifest, facts, now_s, thresholds, custom=custom)
    return found, reason
