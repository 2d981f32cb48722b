"""What an API server fills in for built-in kinds, as far as a comparison of files must know it.

Only for judging files, where no server can be asked: a declared default that live leaves out is no difference, and a
container port without protocol is the one live calls TCP. A missing row makes a file comparison show a difference that
a server would not; it never hides one.

    >>> default_of("Deployment", ("spec", "replicas"))
    1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.diff_walk import Item, Place

#: Defaults by kind and path below the object.
KIND_DEFAULTS: dict[tuple[str, str], Any] = {
    ("Deployment", "spec.replicas"): 1,
    ("Deployment", "spec.revisionHistoryLimit"): 10,
    ("Deployment", "spec.progressDeadlineSeconds"): 600,
    ("Deployment", "spec.strategy.type"): "RollingUpdate",
    ("Deployment", "spec.strategy.rollingUpdate"): {"maxUnavailable": "25%", "maxSurge": "25%"},
    ("Deployment", "spec.strategy.rollingUpdate.maxUnavailable"): "25%",
    ("Deployment", "spec.strategy.rollingUpdate.maxSurge"): "25%",
    ("StatefulSet", "spec.replicas"): 1,
    ("StatefulSet", "spec.revisionHistoryLimit"): 10,
    ("StatefulSet", "spec.podManagementPolicy"): "OrderedReady",
    ("StatefulSet", "spec.updateStrategy.type"): "RollingUpdate",
    ("StatefulSet", "spec.updateStrategy.rollingUpdate"): {"partition": 0},
    ("DaemonSet", "spec.revisionHistoryLimit"): 10,
    ("DaemonSet", "spec.updateStrategy.type"): "RollingUpdate",
    ("DaemonSet", "spec.updateStrategy.rollingUpdate"): {"maxUnavailable": 1, "maxSurge": 0},
    ("DaemonSet", "spec.updateStrategy.rollingUpdate.maxUnavailable"): 1,
    ("DaemonSet", "spec.updateStrategy.rollingUpdate.maxSurge"): 0,
    ("HorizontalPodAutoscaler", "spec.behavior.scaleUp"): {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    },
    ("HorizontalPodAutoscaler", "spec.behavior.scaleDown"): {
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
    ("Service", "spec.type"): "ClusterIP",
    ("Service", "spec.sessionAffinity"): "None",
    ("Service", "spec.internalTrafficPolicy"): "Cluster",
    ("Job", "spec.completions"): 1,
    ("Job", "spec.parallelism"): 1,
    ("Job", "spec.backoffLimit"): 6,
    ("Job", "spec.completionMode"): "NonIndexed",
    ("CronJob", "spec.concurrencyPolicy"): "Allow",
    ("CronJob", "spec.successfulJobsHistoryLimit"): 3,
    ("CronJob", "spec.failedJobsHistoryLimit"): 1,
    ("Secret", "type"): "Opaque",
    ("PersistentVolumeClaim", "spec.volumeMode"): "Filesystem",
}

#: Defaults by field name alone, wherever pods, containers, ports and references are described.
NAMED_DEFAULTS: dict[str, Any] = {
    "protocol": "TCP",
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
    "scheme": "HTTP",
    "defaultMode": 420,
}


def default_of(kind: str, place: Place) -> Any:
    """The default at `place` of a built-in kind, None if none is known."""
    dotted = ".".join(step for step in place if isinstance(step, str))
    return KIND_DEFAULTS.get((kind, dotted), NAMED_DEFAULTS.get(str(place[-1])))


#: How the items of well-known lists are told apart: field of the parent -> key fields with their defaults.
_MERGE_KEYS: dict[str, tuple[dict[str, Any], ...]] = {
    "containers": ({"name": None},),
    "initContainers": ({"name": None},),
    "ephemeralContainers": ({"name": None},),
    "env": ({"name": None},),
    "volumes": ({"name": None},),
    "volumeMounts": ({"mountPath": None},),
    "volumeDevices": ({"devicePath": None},),
    "imagePullSecrets": ({"name": None},),
    "ports": ({"containerPort": None, "protocol": "TCP"}, {"port": None, "protocol": "TCP"}),
    "hostAliases": ({"ip": None},),
    "topologySpreadConstraints": ({"topologyKey": None, "whenUnsatisfiable": "DoNotSchedule"},),
    "ownerReferences": ({"uid": None},),
    "secrets": ({"name": None},),
}


def merge_key(place: Place, desired: list[Any], live: list[Any]) -> dict[str, Any] | None:
    """The key fields (with defaults) that tell the items of both lists apart; None: the list is compared as a whole."""
    last = next((step for step in reversed(place) if not isinstance(step, Item)), "")
    for keys in _MERGE_KEYS.get(last, ()):
        if all(_distinct(items, keys) for items in (desired, live)):
            return keys
    return None


def _distinct(items: list[Any], keys: Mapping[str, Any]) -> bool:
    if not all(isinstance(item, dict) for item in items):
        return False
    found = [tuple(with_defaults(item, keys).values()) for item in items]
    if any(value is None or isinstance(value, dict | list) for key in found for value in key):
        return False
    return len(set(found)) == len(found)


def with_defaults(item: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """The key fields of `item`, defaulted."""
    return {name: item.get(name, default) for name, default in keys.items()}
