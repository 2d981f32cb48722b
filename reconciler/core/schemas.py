"""The schema of every kind of document, and of the components' properties: data for `schema.check`."""

from __future__ import annotations

from typing import Any

from reconciler.core.health_policy import COUNTS, FIELDS
from reconciler.core.schema import Schema

_LABELS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string", "format": "label-value"}}
_ANNOTATIONS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_NAMES: dict[str, Any] = {"type": "array", "items": {"type": "string", "format": "dns-subdomain"}, "minItems": 1}
_NAMESPACE: dict[str, Any] = {"type": "string", "format": "dns-label", "description": "namespace of the objects"}
_ANYTHING: dict[str, Any] = {"type": "object", "description": "passed through as it is"}
_PATHS: dict[str, Any] = {
    "type": ["string", "array"],
    "items": {"type": "string", "format": "repository-path"},
    "description": "a directory or glob, or a list of them, relative to the repository's root",
}


def _document(api_version: str, kind: str, spec: Schema, *, name: str = "dns-label") -> Schema:
    metadata = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "format": name},
            "labels": _LABELS,
            "annotations": _ANNOTATIONS,
        },
    }
    return {
        "title": kind,
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", *(["spec"] if spec["required"] else [])],
        "properties": {
            "apiVersion": {"type": "string", "enum": [api_version]},
            "kind": {"type": "string", "enum": [kind]},
            "metadata": metadata,
            "spec": spec,
        },
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _not_enforced(what: str, **keywords: Any) -> dict[str, Any]:
    return {**keywords, "x-not-enforced": f"{what} not enforced by this version yet"}


_CLUSTERS = {"clusterLabelSelector": _LABELS, "clusters": _NAMES}

_OBJECT_RULE = _object(
    [],
    match=_object(
        [],
        group={"type": "string"},
        kind={"type": "string", "maxLength": 63},
        name={"type": "string", "maxLength": 253},
    ),
    ignoreDifferences={"type": "array", "items": {"format": "field-path"}, "maxItems": 64},
    handover={"type": "array", "items": {"type": "string", "maxLength": 128, "pattern": r"\S+"}, "maxItems": 16},
    replace={"type": "boolean", "description": "delete and create anew where a field that cannot change would have to"},
)
APPLY = _object(
    [],
    adopt={"type": "string", "enum": ["never", "ifUnowned", "force"]},
    conflicts={"type": "string", "enum": ["force", "fail"]},
    selfHeal={"type": "boolean"},
    objects={"type": "array", "items": _OBJECT_RULE, "maxItems": 64},
)

FLEET = _document(
    "reconciler.dev/v1alpha1",
    "Fleet",
    _object(
        ["clusters", "applications"],
        clusters=_PATHS,
        applications=_PATHS,
        policies=_PATHS,
        defaults=_object([], rollout={"type": "string", "format": "dns-label"}, namespace=_NAMESPACE),
        directories={
            "type": "array",
            "items": _object(
                ["path"],
                path={"type": "string", "format": "repository-path"},
                namespace=_NAMESPACE,
                createNamespace={"type": "boolean"},
                apply=APPLY,
                **_CLUSTERS,
            ),
        },
    ),
)

CLUSTER = _document(
    "reconciler.dev/v1alpha1",
    "Cluster",
    _object(
        [],
        credentials={
            "type": "string",
            "description": "a key of `clusters` in the daemon's settings; default: its name",
        },
        suspend={"type": "boolean", "description": "no write at all there, reads go on"},
        staleAfter={"type": "string", "format": "duration", "description": "silence after which it is unreachable"},
        flinkRest={"type": "string", "enum": ["serviceProxy", "direct", "none"]},
        maintenanceWindows=_not_enforced("maintenance windows are", type="array"),
    ),
    name="dns-subdomain",
)

_TRAIT = _object(["type"], type={"type": "string"}, properties=_ANYTHING)
_COMPONENT = _object(
    ["name", "type"],
    name={"type": "string", "format": "dns-label"},
    type={"type": "string"},
    properties=_ANYTHING,
    dependsOn={"type": "array", "items": {"type": "string"}},
    traits={"type": "array", "items": _TRAIT},
)

APPLICATION = _document(
    "core.oam.dev/v1beta1",
    "Application",
    _object(
        ["components"],
        components={"type": "array", "minItems": 1, "items": _COMPONENT},
        policies={
            "type": "array",
            "items": _object(["type"], type={"type": "string"}, name={"type": "string"}, properties=_ANYTHING),
        },
        workflow={"x-unsupported": "a workflow is not run: the rollout policy decides what happens when; remove it"},
    ),
)

TOPOLOGY = _object([], **_CLUSTERS, namespace=_NAMESPACE, createNamespace={"type": "boolean"})
OVERRIDE = _object(
    ["components"],
    **_CLUSTERS,
    components={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["name"], name={"type": "string"}, properties=_ANYTHING, traits={"type": "array", "items": _TRAIT}
        ),
    },
)
ROLLOUT = _object(["policy"], policy={"type": "string", "format": "dns-label"})

_WAVE = _object(
    ["name"],
    name={"type": "string", "format": "dns-label"},
    select=_object([], clusters=_LABELS, applications=_LABELS),
    size={"format": "share", "description": "share of the targets no earlier wave took"},
    bake={"format": "duration", "description": "continuous health each target must show"},
    maxConcurrent={"format": "positive-amount", "description": "targets on their way at a time"},
    maxFailures={"format": "amount", "description": "failures above this stop the rollout"},
    maxUnreachable={"format": "amount", "description": "unreachable targets above this make the rollout wait"},
    approval=_not_enforced("approvals are", type="string", enum=["before", "after"]),
    spread=_not_enforced("spread is", type="object"),
    exclusive=_not_enforced("exclusive is", type="object"),
)

ROLLOUT_POLICY = _document(
    "reconciler.dev/v1alpha1",
    "RolloutPolicy",
    _object(
        ["waves"],
        waves={"type": "array", "minItems": 1, "items": _WAVE},
        progressDeadline={"format": "duration", "description": "until Progressing becomes TimedOut"},
        onFailure={"type": "string", "enum": ["halt", "rollback"]},
        mandatory={"type": "boolean", "description": "a wave in which nothing was measurable opens nothing"},
        maxUnreachable={"format": "amount", "description": "default of the waves after the first"},
        maxDeletes={"format": "amount", "description": "targets and stateful objects one rollout may delete"},
        windows=_not_enforced("change windows are", type="array", items={"type": "string"}),
        gates=_not_enforced("gates are", type="array", items={"type": "string"}),
        exclusive=_not_enforced("exclusive is", type="object"),
        onForeignChange=_not_enforced(
            "onForeignChange: halt is", type="string", enum=["alert", "halt"], **{"x-enforced-values": ["alert"]}
        ),
        onUntouchedHealthLoss=_not_enforced(
            "onUntouchedHealthLoss: halt is", type="string", enum=["alert", "halt"], **{"x-enforced-values": ["alert"]}
        ),
        supersede=_not_enforced(
            "supersede other than restart is",
            type="string",
            enum=["restart", "finish", "queue"],
            **{"x-enforced-values": ["restart"]},
        ),
        fleetBatch=_not_enforced("fleetBatch is", type="integer", minimum=1),
    ),
)


def _thresholds(section: str) -> dict[str, Any]:
    fields = [field.partition(".")[2] for field in FIELDS if field.startswith(f"{section}.")]
    count = {"type": "integer", "minimum": 1}
    return _object([], **{name: count if f"{section}.{name}" in COUNTS else {"format": "duration"} for name in fields})


HEALTH_POLICY = _document(
    "reconciler.dev/v1alpha1",
    "HealthPolicy",
    _object(
        ["match"],
        match={
            "type": "array",
            "minItems": 1,
            "description": "the objects it is about: those that any entry takes",
            "items": _object(
                ["kind"],
                group={"type": "string", "pattern": r"[a-z0-9.-]*", "description": "an API group; none for the core's"},
                kind={"type": "string", "pattern": "[A-Z][A-Za-z0-9]*", "maxLength": 63, "description": "as declared"},
                name={"type": "string", "format": "dns-subdomain"},
                labels={"type": "object", "additionalProperties": {"type": "string", "format": "label-value"}},
            ),
        },
        rules={
            "type": "array",
            "items": _object(
                ["health", "when"],
                health={"type": "string", "enum": ["Healthy", "Suspended", "Progressing", "Degraded", "Unknown"]},
                when={"type": "string", "description": "a condition in CEL over `object`, the live object"},
                reason={"type": "string", "pattern": "[A-Z][A-Za-z0-9]{0,62}", "description": "a code in CamelCase"},
                message={"type": "string", "maxLength": 300},
                messageExpression={"type": "string", "description": "CEL that gives the message"},
            ),
        },
        otherwise={"type": "string", "enum": ["Healthy", "Progressing", "Degraded", "Unknown"]},
        progressDeadline={"format": "duration", "description": "until Progressing becomes Degraded"},
        suspendedBy=_object(
            ["path", "value"],
            path={"type": "string", "pattern": r"spec(\.[A-Za-z0-9_-]+){1,8}", "maxLength": 253},
            value={"type": ["boolean", "string", "integer"]},
        ),
        thresholds=_object([], flink=_thresholds("flink"), workload=_thresholds("workload")),
    ),
)

#: Kinds that are recognised, with a warning that nothing acts on them yet.
LATER_KINDS = ("ChangeWindow", "Gate", "Guardrail", "HealingPolicy")

SCHEMAS: dict[str, Schema] = {
    "Application": APPLICATION,
    "Cluster": CLUSTER,
    "Fleet": FLEET,
    "HealthPolicy": HEALTH_POLICY,
    "RolloutPolicy": ROLLOUT_POLICY,
}

MANIFESTS_PROPERTIES = _object(
    [],
    objects={"type": "array", "minItems": 1, "items": {"type": "object"}, "description": "Kubernetes objects"},
    path={"type": "string", "format": "repository-path", "description": "a directory of YAML, relative to this file"},
)

_COMPUTE = _object(
    [], cpu={"type": "number", "minimum": 0.01}, memory={"format": "memory"}, ephemeralStorage={"type": "string"}
)
_REPLICAS = {"type": "integer", "minimum": 0, "maximum": 10_000}
_NONCE = {"type": "integer"}
_CONFIGURATION = {"type": "object", "description": "flat or nested; values are strings, numbers or booleans"}

FLINK_APPLICATION_PROPERTIES = _object(
    ["image", "flinkVersion", "job"],
    image={"type": "string", "maxLength": 1024, "pattern": r"\S+", "description": "an image without spaces"},
    imagePullPolicy={"type": "string", "enum": ["Always", "IfNotPresent", "Never"]},
    flinkVersion={"type": "string", "format": "flink-version"},
    mode={"type": "string", "enum": ["native", "standalone"]},
    serviceAccount={"type": "string", "format": "dns-subdomain", "default": "flink"},
    flinkConfiguration=_CONFIGURATION,
    logConfiguration={"type": "object", "additionalProperties": {"type": "string"}},
    ingress=_object(
        ["template"],
        template={"type": "string"},
        className={"type": "string"},
        annotations=_ANNOTATIONS,
        labels=_LABELS,
        tls={"type": "array", "items": {"type": "object"}},
    ),
    podTemplate=_ANYTHING,
    jobManager=_object([], resource=_COMPUTE, replicas=_REPLICAS, podTemplate=_ANYTHING),
    taskManager=_object([], resource=_COMPUTE, replicas=_REPLICAS, podTemplate=_ANYTHING),
    job=_object(
        [],
        jarURI={"type": "string"},
        entryClass={"type": "string"},
        args={"type": "array", "items": {"type": "string"}},
        parallelism={"type": "integer", "minimum": 1, "maximum": 32_768},
        state={"type": "string", "enum": ["running", "suspended"]},
        upgradeMode={"type": "string", "enum": ["stateless", "last-state", "savepoint"]},
        allowNonRestoredState={"type": "boolean"},
        initialSavepointPath={"type": "string"},
        savepointTriggerNonce=_NONCE,
        checkpointTriggerNonce=_NONCE,
        savepointRedeployNonce=_NONCE,
        autoscalerResetNonce=_NONCE,
    ),
    restartNonce=_NONCE,
)
