"""Which kinds the API server itself types, and what it does to a value there that it does to no custom resource.

A built-in kind goes through Go structs: a field that says nothing is left out, one that is declared empty may become
the default, a quantity is written anew, and a field the server does not use (behind a feature gate, say) is dropped. A
custom resource is stored as it was sent, but for the defaults of its schema.

    >>> is_built_in("apps/v1"), is_built_in("flink.apache.org/v1beta1")
    (True, False)
    >>> same_form("1024Mi", "1Gi"), same_form("1Gi", "1073741824")
    (True, False)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.core.values import quantity

#: API groups whose objects the API server itself defaults and whose quantities it rewrites.
BUILT_IN_GROUPS = frozenset({"", "apps", "batch", "autoscaling", "policy"})


def is_built_in(api_version: str) -> bool:
    """True for the core group, the workload groups and everything below k8s.io."""
    group, _, _ = api_version.rpartition("/")
    return group in BUILT_IN_GROUPS or group.endswith(".k8s.io")


#: Maps of quantities, and single quantities with the field that they stand in.
_QUANTITY_MAPS = frozenset(
    {"limits", "requests", "hard", "capacity", "overhead", "default", "defaultRequest", "max", "min",
     "maxLimitRequestRatio"}
)  # fmt: skip
_QUANTITY_FIELDS = frozenset(
    {("emptyDir", "sizeLimit"), ("target", "value"), ("target", "averageValue"), ("resourceFieldRef", "divisor"),
     ("scaleUp", "tolerance"), ("scaleDown", "tolerance")}
)  # fmt: skip


def in_quantities(place: Sequence[Any]) -> bool:
    """True if the API server reads a quantity at `place` of a built-in kind."""
    return len(place) > 1 and (place[-2] in _QUANTITY_MAPS or (place[-2], place[-1]) in _QUANTITY_FIELDS)


def same_form(desired: Any, live: Any) -> bool:
    """True if two equal quantities are of one form (1024Mi and 1Gi; 1000m and 1; 1e3 and 1000e0), of which the server
    knows one spelling: what it writes for `desired` is `live`, which it wrote as well."""
    return _form(desired) == _form(live) or quantity(live) == 0


def _form(value: Any) -> str:
    text = str(value)
    if text.endswith("i"):
        return "binary"
    exponent = text.lower().partition("e")[2]
    return "exponent" if exponent else "decimal"


#: Fields that tell a declared false, 0 or "" from nothing at all: it is kept, and never becomes the default.
TELLS_EMPTY_FROM_ABSENT = frozenset(
    {"activeDeadlineSeconds", "allowPrivilegeEscalation", "automountServiceAccountToken", "backoffLimit", "completions",
     "defaultMode", "enableServiceLinks", "failedJobsHistoryLimit", "fsGroup", "hostUsers", "immutable",
     "maxUnavailable", "minAvailable", "minReplicas", "optional", "parallelism", "partition", "privileged",
     "progressDeadlineSeconds", "readOnlyRootFilesystem", "replicas", "revisionHistoryLimit", "runAsGroup",
     "runAsNonRoot", "runAsUser", "shareProcessNamespace", "stabilizationWindowSeconds", "startingDeadlineSeconds",
     "storageClassName", "successfulJobsHistoryLimit", "suspend", "terminationGracePeriodSeconds", "tolerationSeconds",
     "ttlSecondsAfterFinished"}
)  # fmt: skip


#: Inside a value that is owned as a whole: (the field it stands in, its name) -> what the server always fills in.
_FILLED_IN: dict[tuple[str, str], Any] = {
    ("fieldRef", "apiVersion"): "v1",
    ("resourceFieldRef", "divisor"): "0",
    ("serviceAccountToken", "expirationSeconds"): 3600,
    ("ports", "protocol"): "TCP",
    ("volumeClaimTemplates", "apiVersion"): "v1",
    ("volumeClaimTemplates", "kind"): "PersistentVolumeClaim",
    ("volumeClaimTemplates", "status"): {"phase": "Pending"},
    ("roleRef", "apiGroup"): "rbac.authorization.k8s.io",
    ("subjects", "apiGroup"): "rbac.authorization.k8s.io",
}


def is_filled_in(place: Sequence[Any], value: Any) -> bool:
    """True if `value` is what the server fills in at `place` of a built-in kind wherever nothing is declared, so that
    declaring it or not is the same."""
    names = [step for step in place if isinstance(step, str)]
    if names[:-1][-2:] == ["volumeClaimTemplates", "spec"]:
        return (names[-1], value) == ("volumeMode", "Filesystem")
    return len(names) > 1 and _FILLED_IN.get((names[-2], names[-1])) == value
