"""Rules of single kinds: what the API server refuses beyond what the types say.

Only what the contract tests or a comparison with a real server have shown: a Deployment's selector, a Service's address
and ports, the fixed parts of StatefulSets, Jobs, pods and role bindings, immutable Secrets and ConfigMaps.

    RULES[("apps", "Deployment")](after, before)     # yields a Cause for each reason; `before` is None for a create
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.sim.problems import Cause, forbidden_value, invalid_value, required, shown
from reconciler.sim.typed import same

Object = Mapping[str, Any]


def _get(value: Any, *path: str) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _containers(spec: Any, path: str) -> Iterator[Cause]:
    yield from _volumes(spec, path)
    for field in ("initContainers", "containers"):
        for index, container in enumerate(_get(spec, field) or ()):
            if not container.get("image"):
                yield required(f"{path}.{field}[{index}].image")


_VOLUME_ORDER = (
    "hostPath",
    "emptyDir",
    "secret",
    "nfs",
    "persistentVolumeClaim",
    "configMap",
    "downwardAPI",
    "projected",
)


def _volumes(spec: Any, path: str) -> Iterator[Cause]:
    for index, volume in enumerate(_get(spec, "volumes") or ()):
        kinds = sorted(
            (key for key in volume if key != "name"),
            key=lambda key: _VOLUME_ORDER.index(key) if key in _VOLUME_ORDER else 99,
        )
        for kind in kinds[1:]:
            yield forbidden_value(f"{path}.volumes[{index}].{kind}", "may not specify more than 1 volume type")


def _pod(value: Object, live: Object | None) -> Iterator[Cause]:
    if live is None:
        yield from _containers(value.get("spec"), "spec")
    elif not same(_fixed_pod_spec(value.get("spec") or {}), _fixed_pod_spec(live.get("spec") or {})):
        names = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
        names += "`spec.tolerations` (only additions to existing tolerations),"
        last = "`spec.terminationGracePeriodSeconds` (allow it "
        text = (
            f"pod updates may not change fields other than {names}{last}to be set to 1 if it was previously negative)"
        )
        yield forbidden_value("spec", text)


def _fixed_pod_spec(spec: Object) -> Object:
    """What of a pod's spec may never change."""
    fixed = {key: part for key, part in spec.items() if key not in ("activeDeadlineSeconds", "tolerations")}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{key: part for key, part in one.items() if key != "image"} for one in fixed[field]]
    return fixed


def _deployment(value: Object, live: Object | None) -> Iterator[Cause]:
    selector = _get(value, "spec", "selector")
    labels = _get(value, "spec", "template", "metadata", "labels") or {}
    wanted = _get(selector, "matchLabels") or {}
    if any(labels.get(key) != text for key, text in wanted.items()):
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from _containers(_get(value, "spec", "template", "spec"), "spec.template.spec")
    yield from _strategy(value)
    replicas = _get(value, "spec", "replicas")
    if isinstance(replicas, int) and replicas < 0:
        yield invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
    if live is not None and not same(selector, _get(live, "spec", "selector")):
        yield invalid_value("spec.selector", selector, "field is immutable")


_STATEFUL_SET_FREE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


def _strategy(value: Object) -> Iterator[Cause]:
    strategy = _get(value, "spec", "strategy") or {}
    if strategy.get("type") == "Recreate" and strategy.get("rollingUpdate") is not None:
        text = "may not be specified when strategy `type` is 'Recreate'"
        yield forbidden_value("spec.strategy.rollingUpdate", text)


def _stateful_set(value: Object, live: Object | None) -> Iterator[Cause]:
    labels = _get(value, "spec", "template", "metadata", "labels") or {}
    wanted = _get(value, "spec", "selector", "matchLabels") or {}
    if any(labels.get(key) != text for key, text in wanted.items()):
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from _containers(_get(value, "spec", "template", "spec"), "spec.template.spec")
    if live is None:
        return
    before = {key: part for key, part in live.get("spec", {}).items() if key not in _STATEFUL_SET_FREE}
    after = {key: part for key, part in value.get("spec", {}).items() if key not in _STATEFUL_SET_FREE}
    if not same(before, after):
        names = "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
        last = "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        yield forbidden_value("spec", f"updates to statefulset spec for fields other than {names}{last}")


def _service(value: Object, live: Object | None) -> Iterator[Cause]:
    seen: set[str] = set()
    ports = _get(value, "spec", "ports") or []
    for index, port in enumerate(ports):
        name = port.get("name", "")
        if not name and len(ports) > 1:
            yield required(f"spec.ports[{index}].name")
        if name and name in seen:
            yield Cause(f"spec.ports[{index}].name", "FieldValueDuplicate", f"Duplicate value: {shown(name)}")
        seen.add(name)
    if live is None:
        return
    before, after = _get(live, "spec", "clusterIP"), _get(value, "spec", "clusterIP")
    if before and after != before and _get(value, "spec", "type") != "ExternalName":
        yield invalid_value("spec.clusterIPs[0]", [after], "may not change once set")


def _secret(value: Object, live: Object | None) -> Iterator[Cause]:
    if live is not None and value.get("type") != live.get("type"):
        yield invalid_value("type", value.get("type"), "field is immutable")
    yield from _data(value, live)


_CONFIG_KEY = "[-._a-zA-Z0-9]+"


def _data(value: Object, live: Object | None) -> Iterator[Cause]:
    """ConfigMaps and Secrets: how keys may be written, and what must not change once it is declared immutable."""
    text = (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
        f"'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
    )
    for field in ("data", "binaryData"):
        for key in value.get(field) or ():
            if not re.fullmatch(_CONFIG_KEY, key):
                yield invalid_value(f"{field}[{key}]", key, text)
    if live is None or not live.get("immutable"):
        return
    if not value.get("immutable"):
        yield forbidden_value("immutable", "field is immutable when `immutable` is set")
    for field in ("data", "binaryData"):
        if not same(value.get(field), live.get(field)):
            yield forbidden_value(field, "field is immutable when `immutable` is set")


def _claim(value: Object, live: Object | None) -> Iterator[Cause]:
    """A claim's spec is fixed, its size too for as long as no volume is bound to it (which nobody here does)."""
    if live is not None and not same(value.get("spec"), live.get("spec")):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        yield forbidden_value("spec", text)


def _job(value: Object, live: Object | None) -> Iterator[Cause]:
    yield from _containers(_get(value, "spec", "template", "spec"), "spec.template.spec")
    if live is None:
        return
    for field in ("selector", "template", "completionMode"):
        after = _get(value, "spec", field)
        if not same(after, _get(live, "spec", field)):
            yield invalid_value(f"spec.{field}", after, "field is immutable")


def _role_binding(value: Object, live: Object | None) -> Iterator[Cause]:
    if live is not None and not same(value.get("roleRef"), live.get("roleRef")):
        yield invalid_value("roleRef", value.get("roleRef"), "cannot change roleRef")


RULES: dict[tuple[str, str], Callable[[Object, Object | None], Iterator[Cause]]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "ConfigMap"): _data,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("batch", "Job"): _job,
    ("rbac.authorization.k8s.io", "RoleBinding"): _role_binding,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _role_binding,
}
