"""What the Flink operator makes of a spec: its defaults, whether it accepts it, and what a change of it calls for.

This is the operator's side of the rules that `core/flink_effect.py` predicts from outside. The two are written apart on
purpose: a mistake in one shows as a disagreement in a simulated run.

    >>> change({"image": "a:1"}, {"image": "a:2"}, "native")
    <Change.UPGRADE: 'UPGRADE'>
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any

Spec = dict[str, Any]

CHECKPOINT_DIRECTORY = ("execution.checkpointing.dir", "state.checkpoints.dir")
SAVEPOINT_DIRECTORY = ("execution.checkpointing.savepoint-dir", "state.savepoints.dir")
ROLLBACK_ENABLED = "kubernetes.operator.deployment.rollback.enabled"
READINESS_TIMEOUT = "kubernetes.operator.deployment.readiness.timeout"
IN_PLACE_SCALING = "kubernetes.operator.job.upgrade.inplace-scaling.enabled"
LAST_STATE_FALLBACK = "kubernetes.operator.job.upgrade.last-state-fallback.enabled"

IGNORED_JOB_FIELDS = frozenset(
    {
        "upgradeMode",
        "allowNonRestoredState",
        "initialSavepointPath",
        "savepointTriggerNonce",
        "checkpointTriggerNonce",
        "autoscalerResetNonce",
    }
)
IGNORED_CONFIGURATION = ("job.autoscaler", "parallelism.default", "kubernetes.operator")
FORBIDDEN_CONFIGURATION = ("kubernetes.namespace", "kubernetes.cluster-id")
NAME_LENGTH_MAX = 45


class Change(enum.Enum):
    """What a change of a spec calls for, mildest first; a redeployment carries out everything else, too."""

    NONE = "NONE"
    IGNORE = "IGNORE"
    SCALE = "SCALE"
    UPGRADE = "UPGRADE"
    SAVEPOINT_REDEPLOY = "SAVEPOINT_REDEPLOY"


def flattened(configuration: Any, prefix: str = "") -> dict[str, str]:
    """flinkConfiguration, nested or flat, with numbers and booleans, as the map of strings that Flink reads."""
    flat: dict[str, str] = {}
    for key, value in (configuration or {}).items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{key}."))
        elif isinstance(value, bool):
            flat[prefix + key] = str(value).lower()
        elif value is not None:
            flat[prefix + key] = str(value)
    return flat


def effective(spec: Spec) -> Spec:
    """`spec` with the operator's own defaults, for there are none in the CRD."""
    result = {key: value for key, value in spec.items() if value is not None}
    job = result.get("job")
    if isinstance(job, dict):
        defaults = {"state": "running", "upgradeMode": "stateless", "args": []}
        result["job"] = defaults | {key: value for key, value in job.items() if value is not None}
    if "jobManager" in result:
        result["jobManager"] = {"replicas": 1} | result["jobManager"]
    return result


def with_job(spec: Spec, **fields: Any) -> Spec:
    """`spec` with fields of its job replaced; a session cluster's spec has no job and stays as it is."""
    return {**spec, "job": {**spec["job"], **fields}} if "job" in spec else spec


def stored(spec: Spec, *, first: bool) -> str:
    """A spec as the operator keeps it in its status."""
    metadata = {"apiVersion": "flink.apache.org/v1beta1", "firstDeployment": first}
    return json.dumps({"spec": spec, "resource_metadata": metadata}, sort_keys=True, separators=(",", ":"))


def unstored(text: str) -> Spec:
    """The spec inside `stored`."""
    spec: Spec = json.loads(text)["spec"]
    return spec


def setting(spec: Spec, *names: str) -> str:
    """The first of the Flink configuration keys `names` that is set; "" if none is."""
    configuration = flattened(spec.get("flinkConfiguration"))
    return next((configuration[name] for name in names if configuration.get(name)), "")


def high_availability(spec: Spec) -> bool:
    """Does the job keep its metadata outside the JobManager?"""
    return setting(spec, "high-availability.type", "high-availability").lower() not in ("", "none")


def bounded(spec: Spec) -> bool:
    """Does the job end by itself?"""
    return setting(spec, "execution.runtime-mode").upper() == "BATCH"


def session_job(spec: Spec) -> bool:
    """Is this the spec of a FlinkSessionJob?"""
    return "deploymentName" in spec


def change(before: Spec, after: Spec, mode: str) -> Change:
    """What the step from `before` to `after` (both effective) calls for: the gravest of its parts."""
    parts = [_field(key, before.get(key), after.get(key), mode) for key in sorted(before.keys() | after.keys())]
    return max(parts, key=list(Change).index, default=Change.NONE)


def _field(key: str, before: Any, after: Any, mode: str) -> Change:
    if key == "flinkConfiguration":
        return _configuration(flattened(before), flattened(after), mode)
    if before == after:
        return Change.NONE
    if key == "restartNonce" and after is None:
        return Change.IGNORE
    if key == "job" and isinstance(before, dict) and isinstance(after, dict):
        parts = [_job(name, before.get(name), after.get(name), mode) for name in sorted(before.keys() | after.keys())]
        return max(parts, key=list(Change).index)
    if key == "taskManager" and mode == "standalone" and isinstance(before, dict) and isinstance(after, dict):
        replicas_only = {**before, "replicas": None} == {**after, "replicas": None}
        return Change.SCALE if replicas_only else Change.UPGRADE
    return Change.UPGRADE


def _job(name: str, before: Any, after: Any, mode: str) -> Change:
    if before == after:
        return Change.NONE
    if name in IGNORED_JOB_FIELDS:
        return Change.IGNORE
    if name == "savepointRedeployNonce":
        return Change.IGNORE if after is None else Change.SAVEPOINT_REDEPLOY
    return Change.SCALE if name == "parallelism" and mode == "standalone" else Change.UPGRADE


def _configuration(before: dict[str, str], after: dict[str, str], mode: str) -> Change:
    gravest = Change.NONE
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        if key.startswith(IGNORED_CONFIGURATION):
            found = Change.IGNORE
        elif key == "pipeline.jobvertex-parallelism-overrides" and mode == "native":
            found = Change.SCALE
        else:
            found = Change.UPGRADE
        gravest = max(gravest, found, key=list(Change).index)
    return gravest


def scales_in_place(before: Spec, after: Spec, mode: str) -> bool:
    """Can a SCALE change be carried out without a restart?"""
    if mode == "standalone":
        return setting(after, "scheduler-mode").lower() == "reactive"
    version = after.get("flinkVersion", "v2_0").removeprefix("v").split("_")
    recent = tuple(int(part) for part in version) >= (1, 18)
    adaptive = setting(after, "jobmanager.scheduler").lower() == "adaptive"
    allowed = setting(after, IN_PLACE_SCALING).lower() != "false"
    return recent and adaptive and allowed and _overridden(before) <= _overridden(after)


def _overridden(spec: Spec) -> set[str]:
    overrides = setting(spec, "pipeline.jobvertex-parallelism-overrides")
    return {part.partition(":")[0].strip() for part in overrides.split(",") if part.strip()}


def refusal(name: str, spec: Spec, last: Spec | None) -> str | None:
    """Why the operator's validation refuses `spec` (effective) after `last`, or None."""
    configuration = flattened(spec.get("flinkConfiguration"))
    job = spec.get("job")
    if len(name) > NAME_LENGTH_MAX:
        return f"The FlinkDeployment name: {name} is invalid, must be no more than {NAME_LENGTH_MAX} characters"
    for key in FORBIDDEN_CONFIGURATION:
        if key in configuration:
            return f"Forbidden Flink config key: {key}"
    if not session_job(spec):
        if "flinkVersion" not in spec:
            return "Flink Version must be defined."
        problem = _refused_cluster(spec)
        if problem:
            return problem
    if last is not None and ("job" in spec) != ("job" in last):
        return f"Cannot switch from {'job to session' if 'job' in last else 'session to job'} cluster"
    return _refused_job(spec, job) if job is not None else None


def _refused_cluster(spec: Spec) -> str | None:
    for part, title in (("jobManager", "JobManager"), ("taskManager", "TaskManager")):
        resource = (spec.get(part) or {}).get("resource")
        if resource is not None and "memory" not in resource:
            return f"{title} resource memory must be defined."
    replicas = (spec.get("jobManager") or {}).get("replicas", 1)
    if replicas < 1:
        return "JobManager replicas should not be configured less than one."
    if replicas > 1 and not high_availability(spec):
        return "High availability should be enabled when starting standby JobManagers."
    return None


def _refused_job(spec: Spec, job: Spec) -> str | None:
    if job.get("parallelism", 1) < 1:
        return "Job parallelism must be larger than 0"
    if session_job(spec):  # directories come from its cluster
        return None if "jarURI" in job else "Jar URI must be defined"
    if job["upgradeMode"] == "last-state" and not setting(spec, *CHECKPOINT_DIRECTORY):
        return "Checkpoint directory must be defined for last-state upgrade mode"
    if job["upgradeMode"] == "savepoint" and not setting(spec, *SAVEPOINT_DIRECTORY):
        return f"Job could not be upgraded with savepoint while config key[{SAVEPOINT_DIRECTORY[1]}] is not set"
    return None
