"""In which order the objects of one release are applied; they are pruned in the reverse order.

A *stage* is finished before the next begins. Within a stage the rank of the kind decides, then namespace and name, so
that the order of a release is always the same. Kinds that are not in the table are custom resources: they come with the
workloads, after everything a workload may need.

    namespaces -> CRDs -> configuration and identity -> services -> workloads -> jobs on a cluster -> what watches them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.core.model import Manifest

#: The order, first to last. Each row is a stage; each kind's rank is its place in the row.
STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("namespaces", ("Namespace",)),
    ("definitions", ("CustomResourceDefinition", "PriorityClass", "StorageClass", "RuntimeClass", "IngressClass")),
    # Quotas first: what comes after them is counted. Identity before what uses it, secrets before what mounts them.
    ("configuration", (
        "ResourceQuota", "LimitRange", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding",
        "Secret", "ConfigMap", "PersistentVolume", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget",
    )),
    # Before the pods, so that names resolve when they start.
    ("services", ("Service", "Endpoints", "EndpointSlice")),
    ("workloads", ("DaemonSet", "StatefulSet", "Deployment", "ReplicaSet", "Pod", "FlinkDeployment")),
    # A session job needs its session cluster.
    ("jobs", ("FlinkSessionJob", "Job", "CronJob", "FlinkStateSnapshot")),
    ("traffic", ("HorizontalPodAutoscaler", "Ingress", "HTTPRoute", "ServiceMonitor", "PodMonitor", "PrometheusRule")),
    # Last: a webhook that is up before what answers it refuses everything above.
    ("admission", ("APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
                   "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")),
)  # fmt: skip

_PLACES = {kind: (stage, rank) for stage, (_, kinds) in enumerate(STAGES) for rank, kind in enumerate(kinds)}
_CUSTOM = (next(stage for stage, (name, _) in enumerate(STAGES) if name == "workloads"), 1_000)

#: Kinds without a namespace, by name. A kind of our table only counts as such in its own API group.
CLUSTER_SCOPED = frozenset(
    {
        ("", "Namespace"), ("", "Node"), ("", "PersistentVolume"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("certificates.k8s.io", "CertificateSigningRequest"), ("certificates.k8s.io", "ClusterTrustBundle"),
        ("cert-manager.io", "ClusterIssuer"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
        ("networking.k8s.io", "IngressClass"), ("networking.k8s.io", "IPAddress"), ("networking.k8s.io", "ServiceCIDR"),
        ("node.k8s.io", "RuntimeClass"),
        ("rbac.authorization.k8s.io", "ClusterRole"), ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("resource.k8s.io", "DeviceClass"), ("resource.k8s.io", "ResourceSlice"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("snapshot.storage.k8s.io", "VolumeSnapshotClass"), ("snapshot.storage.k8s.io", "VolumeSnapshotContent"),
        ("storage.k8s.io", "CSIDriver"), ("storage.k8s.io", "CSINode"), ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "VolumeAttachment"), ("storage.k8s.io", "VolumeAttributesClass"),
    }
)  # fmt: skip


def place_of(kind: str) -> tuple[int, int]:
    """The stage of a kind, from 0, and its rank in it."""
    return _PLACES.get(kind, _CUSTOM)


def stage_of(manifest: Mapping[str, Any]) -> int:
    """The stage of an object, from 0."""
    return place_of(str(manifest.get("kind", "")))[0]


def stage_name(stage: int) -> str:
    """What a stage is called."""
    return STAGES[stage][0]


def order_key(manifest: Mapping[str, Any]) -> tuple[int, int, str, str, str, str]:
    """The sort key of an object: stage, rank, kind, namespace, name, API version."""
    kind = str(manifest.get("kind", ""))
    metadata = manifest.get("metadata") or {}
    stage, rank = place_of(kind)
    name, namespace = str(metadata.get("name") or ""), str(metadata.get("namespace") or "")
    return (stage, rank, kind, namespace, name, str(manifest.get("apiVersion", "")))


def in_apply_order(manifests: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """`manifests` in the order they are applied."""
    return tuple(sorted(manifests, key=order_key))


def is_cluster_scoped(api_version: str, kind: str) -> bool:
    """True if objects of this kind have no namespace. Kinds nobody told us of are taken to have one."""
    group, _, _ = api_version.rpartition("/")
    return (group, kind) in CLUSTER_SCOPED
