"""Health of built-in kinds that run no pods of their own: storage, addresses, autoscaling, and what extends the server.

Most of them wait for somebody else: a provisioner, a load balancer, a metrics server. Whether that somebody exists
cannot be seen on the object, so that waiting is Progressing, and Degraded once it has lasted as long as a workload may.

    PersistentVolumeClaim: lost -> bound? -> resizing?          Ingress: asks a class for an address? -> has it?
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconciler.core.health_common import (
    Judged,
    Thresholds,
    condition,
    is_true,
    items_at,
    map_at,
    metadata_of,
    number_at,
    progressing,
    settled,
    spoken,
    text_at,
)
from reconciler.core.model import Facts, Health, Manifest, Reason

INGRESS_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
#: autoscaling/v1 has no field for conditions: the server writes them here, as JSON.
HPA_CONDITIONS_ANNOTATION = "autoscaling.alpha.kubernetes.io/conditions"
_PRESENT = Reason("Present", "it exists")


def _said(found: Mapping[str, Any], code: str, default: str) -> Reason:
    """What a condition says: its own reason and message where it has them."""
    return spoken(text_at(found, "reason") or code, text_at(found, "message") or default)


# ---- storage -----------------------------------------------------------------------------------------------------

#: Conditions of a claim that is bound and being made larger; the errors are tried again by the controllers.
_RESIZING = ("ControllerResizeError", "NodeResizeError", "Resizing", "FileSystemResizePending")


def claim_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A PersistentVolumeClaim: bound to a volume, and as large as declared."""
    status = map_at(manifest, "status")
    phase, limit_s = text_at(status, "phase"), thresholds.workload_deadline_s
    if phase == "Lost":
        reason = Reason("VolumeLost", "the volume that it was bound to does not exist any more")
        return settled(facts, now_s, Health.DEGRADED, reason)
    if phase != "Bound":
        message = "no volume yet: nothing provisions its class, no volume fits, or it waits for the first pod to use it"
        return progressing(manifest, facts, now_s, "unbound", Reason("NotBound", message), limit_s)
    resizing = next((found for kind in _RESIZING if (found := condition(status, kind)).get("status") == "True"), None)
    if resizing is not None:
        reason = spoken(text_at(resizing, "type"), text_at(resizing, "message") or "its volume is being resized")
        return progressing(manifest, facts, now_s, "resizing", reason, limit_s)
    return settled(facts, now_s, Health.HEALTHY, Reason("Bound", "bound to a volume"))


def volume_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A PersistentVolume: bound or free. One whose claim is gone is of no use until somebody frees or removes it."""
    status = map_at(manifest, "status")
    phase, message = text_at(status, "phase"), text_at(status, "message")
    if phase in ("Available", "Bound"):
        said = "bound to its claim" if phase == "Bound" else "free to be claimed"
        return settled(facts, now_s, Health.HEALTHY, Reason(phase, said))
    if phase == "Failed":
        why = message or "it could not be reclaimed"
        return settled(facts, now_s, Health.DEGRADED, spoken(text_at(status, "reason") or "Failed", why))
    if phase == "Released":
        reason = spoken("Released", message or "its claim is gone, and nobody can claim it before it is reclaimed")
    else:
        reason = spoken("NotAvailable", message or f"phase {phase or 'Pending'}")
    return progressing(manifest, facts, now_s, phase or "Pending", reason, thresholds.workload_deadline_s)


# ---- addresses ---------------------------------------------------------------------------------------------------


def service_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A Service: there, and with an address if it asks for a load balancer."""
    if map_at(manifest, "spec").get("type") != "LoadBalancer":
        return settled(facts, now_s, Health.HEALTHY, _PRESENT)
    return _addressed(manifest, facts, now_s, "the load balancer has no address yet", thresholds)


def ingress_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """An Ingress: with an address if it names a class. The server fills in the default class where there is one: an
    Ingress without any asks no controller in particular, and perhaps none."""
    annotations = map_at(metadata_of(manifest), "annotations")
    name = text_at(map_at(manifest, "spec"), "ingressClassName") or text_at(annotations, INGRESS_CLASS_ANNOTATION)
    if not name and not items_at(map_at(manifest, "status", "loadBalancer"), "ingress"):
        reason = Reason("Present", "it exists; it names no ingress class, so that no address is waited for")
        return settled(facts, now_s, Health.HEALTHY, reason)
    return _addressed(manifest, facts, now_s, f"the controller of class {name} has given it no address yet", thresholds)


def _addressed(manifest: Manifest, facts: Facts, now_s: float, missing: str, thresholds: Thresholds) -> Judged:
    if items_at(map_at(manifest, "status", "loadBalancer"), "ingress"):
        return settled(facts, now_s, Health.HEALTHY, Reason("AddressAssigned", "the load balancer has an address"))
    reason = spoken("NoAddress", missing)
    return progressing(manifest, facts, now_s, "pending", reason, thresholds.workload_deadline_s)


# ---- autoscaling and disruption ----------------------------------------------------------------------------------


def autoscaler_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A HorizontalPodAutoscaler of any version: able to scale, and with metrics to scale by. Metrics of pods that have
    just started are missing for a while, and a target that is applied later is, too."""
    status = {"conditions": _conditions_of_autoscaler(manifest)}
    limit_s = thresholds.workload_deadline_s
    active = condition(status, "ScalingActive")
    if active.get("status") == "False" and active.get("reason") == "ScalingDisabled":
        reason = Reason("ScalingDisabled", "its target has no replicas: it leaves that as it is")
        return settled(facts, now_s, Health.HEALTHY, reason)
    for kind, phase in (("AbleToScale", "unable"), ("ScalingActive", "inactive")):
        found = condition(status, kind)
        if found.get("status") in ("False", "Unknown"):
            reason = _said(found, kind, f"{kind} is {found['status']}")
            return progressing(manifest, facts, now_s, phase, reason, limit_s)
    if not is_true(status, "AbleToScale") or not active:
        reason = Reason("NotScalingYet", "its controller has not come to a result yet")
        return progressing(manifest, facts, now_s, "new", reason, limit_s)
    limited = condition(status, "ScalingLimited")
    if limited.get("status") == "True":
        return settled(facts, now_s, Health.HEALTHY, _said(limited, "ScalingLimited", "held by its limits"))
    return settled(facts, now_s, Health.HEALTHY, Reason("ScalingActive", "it has metrics and can scale"))


def _conditions_of_autoscaler(manifest: Manifest) -> list[Mapping[str, Any]]:
    found = items_at(map_at(manifest, "status"), "conditions")
    annotation = text_at(map_at(metadata_of(manifest), "annotations"), HPA_CONDITIONS_ANNOTATION)
    return found or items_at({"conditions": json.loads(annotation or "[]")}, "conditions")


def disruption_budget_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A PodDisruptionBudget: as many healthy pods as it demands. That no disruption is allowed right now is what it is
    for, and no ill health."""
    status, limit_s = map_at(manifest, "status"), thresholds.workload_deadline_s
    allowed = condition(status, "DisruptionAllowed")
    if allowed.get("reason") == "SyncFailed":
        reason = _said(allowed, "SyncFailed", "its pods could not be counted")
        return progressing(manifest, facts, now_s, "failing", reason, limit_s)
    if "desiredHealthy" not in status:
        return progressing(manifest, facts, now_s, "new", Reason("NotCounted", "its pods are not counted yet"), limit_s)
    wanted, healthy = number_at(status, "desiredHealthy"), number_at(status, "currentHealthy")
    message = f"{healthy} pods are healthy, {wanted} are demanded"
    if healthy >= wanted or not number_at(status, "expectedPods"):
        return settled(facts, now_s, Health.HEALTHY, Reason("EnoughPods", message))
    return progressing(manifest, facts, now_s, "short", Reason("TooFewPods", message), limit_s)


# ---- what extends the server, and where things are ---------------------------------------------------------------


def api_service_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """An APIService: the server behind it answers."""
    found = condition(map_at(manifest, "status"), "Available")
    reason = _said(found, "Available", "the server behind it answers")
    if found.get("status") == "True":
        return settled(facts, now_s, Health.HEALTHY, reason)
    reason = _said(found, "NotAvailable", "the server behind it has not answered yet")
    return progressing(manifest, facts, now_s, "unavailable", reason, thresholds.workload_deadline_s)


def definition_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A CustomResourceDefinition: its names are its own, its schema is whole, and its objects are served."""
    status = map_at(manifest, "status")
    if is_true(status, "Terminating"):
        reason = _said(condition(status, "Terminating"), "Terminating", "its objects are being deleted")
        return progressing(manifest, facts, now_s, "terminating", reason)
    names = condition(status, "NamesAccepted")
    if names.get("status") == "False":
        return settled(facts, now_s, Health.DEGRADED, _said(names, "NamesRefused", "another definition has its names"))
    if is_true(status, "NonStructuralSchema"):
        reason = _said(condition(status, "NonStructuralSchema"), "NonStructuralSchema", "its schema is not structural")
        return settled(facts, now_s, Health.DEGRADED, reason)
    if is_true(status, "Established"):
        return settled(facts, now_s, Health.HEALTHY, Reason("Established", "its objects are served"))
    reason = _said(condition(status, "Established"), "Installing", "its objects are not served yet")
    return progressing(manifest, facts, now_s, "installing", reason, thresholds.workload_deadline_s)


def namespace_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:  # noqa: ARG001 - one signature for all kinds; a namespace is made at once and goes when it is empty
    """A Namespace: active, or on its way out."""
    status = map_at(manifest, "status")
    if text_at(status, "phase") != "Terminating":
        return settled(facts, now_s, Health.HEALTHY, Reason("Active", "it takes objects"))
    failing = next((found for found in items_at(status, "conditions") if found.get("status") == "True"), {})
    reason = _said(failing, "Terminating", "what is in it is being deleted")
    return progressing(manifest, facts, now_s, "terminating", reason)


def node_health(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """A Node: ready; one whose kubelet is silent is Unknown."""
    ready = condition(map_at(manifest, "status"), "Ready")
    if ready.get("status") == "True":
        return settled(facts, now_s, Health.HEALTHY, Reason("Ready", "its kubelet is ready"))
    if ready.get("status") == "Unknown":
        return settled(facts, now_s, Health.UNKNOWN, _said(ready, "NodeStatusUnknown", "its kubelet is silent"))
    reason = _said(ready, "NotReady", "its kubelet has not reported yet")
    return progressing(manifest, facts, now_s, "not-ready", reason, thresholds.unavailable_s)
