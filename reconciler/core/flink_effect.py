"""What a change does to a Flink job: its class, its effect, and what becomes of the state.

The *class* is how the operator reads the change (ignore < scale < upgrade < redeploy; the strongest field wins), the
*effect* is what the job feels, the *state* is what it still knows afterwards. The three are what a plan promises:

    flink_effect({"image": "a", "job": {}}, {"image": "b", "job": {}})
    # FlinkEffect("upgrade", "restart", "lost", ("upgradeMode is stateless: STATE IS LOST",), ("spec.image",))

The field table is CLASSES below. Nonces that become null are ignored, and the configuration is compared as the operator
reads it: flat, as strings.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core.flink_config import flatten

Spec = Mapping[str, Any]


class ChangeClass(enum.StrEnum):
    """How the operator reads a change, weakest first."""

    IGNORE = "ignore"
    SCALE = "scale"
    UPGRADE = "upgrade"
    REDEPLOY = "redeploy"


class Effect(enum.StrEnum):
    """What the job feels."""

    NONE = "none"
    IN_PLACE = "in-place"
    RESTART = "restart"
    RUNS_AGAIN = "runs-again"
    REDEPLOY = "redeploy"


class State(enum.StrEnum):
    """What becomes of the job's state: NONE means it is not touched, or there is none."""

    NONE = "none"
    KEPT = "kept"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FlinkEffect:
    """The answer. `change_class` is None where nothing differs or nothing was there before. `fields` are the changed
    fields that decided the class, `reasons` are sentences for the plan."""

    change_class: ChangeClass | None
    effect: Effect
    state: State
    reasons: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def as_json(self) -> dict[str, str | None]:
        """The three words as `diff -o json` has them."""
        return {
            "class": None if self.change_class is None else str(self.change_class),
            "effect": str(self.effect),
            "state": str(self.state),
        }


#: Fields with a class of their own; whatever is not listed is an upgrade. Standalone mode adds STANDALONE_CLASSES.
CLASSES: dict[str, ChangeClass] = {
    "job.upgradeMode": ChangeClass.IGNORE,
    "job.allowNonRestoredState": ChangeClass.IGNORE,
    "job.initialSavepointPath": ChangeClass.IGNORE,
    "job.savepointTriggerNonce": ChangeClass.IGNORE,
    "job.checkpointTriggerNonce": ChangeClass.IGNORE,
    "job.autoscalerResetNonce": ChangeClass.IGNORE,
    "job.savepointRedeployNonce": ChangeClass.REDEPLOY,
}
STANDALONE_CLASSES = {"job.parallelism": ChangeClass.SCALE, "taskManager.replicas": ChangeClass.SCALE}
#: Configuration keys by prefix; the overrides are a scaling in native mode only.
CONFIGURATION_CLASSES: tuple[tuple[str, ChangeClass], ...] = (
    ("job.autoscaler", ChangeClass.IGNORE),
    ("parallelism.default", ChangeClass.IGNORE),
    ("kubernetes.operator", ChangeClass.IGNORE),
)
OVERRIDES = "pipeline.jobvertex-parallelism-overrides"
#: Taking these away changes nothing.
IGNORED_WHEN_NULL = frozenset({"restartNonce", "job.savepointRedeployNonce"})
#: The operator's own defaults: the schema has none.
DEFAULTS: dict[str, Any] = {
    "job.state": "running",
    "job.upgradeMode": "stateless",
    "job.args": [],
    "jobManager.replicas": 1,
    "mode": "native",
}

_CLASS_ORDER = list(ChangeClass)
_TERMINAL = frozenset({"FINISHED", "FAILED", "CANCELED"})
_RANGED = ("job", "jobManager", "taskManager")


def flink_effect(old: Spec | None, new: Spec | None, status: Mapping[str, Any] | None = None) -> FlinkEffect:
    """The effect of moving a FlinkDeployment or FlinkSessionJob from spec `old` to spec `new`; None is "not there".
    `status` is the live object's, where known: a finished job runs again, a terminal one cannot be scaled in place."""
    if new is None:
        return _deleted(old)
    if old is None:
        return FlinkEffect(None, Effect.NONE, State.NONE, (_first_deployment(new),))
    found = classified_fields(old, new)
    if not found:
        return FlinkEffect(None, Effect.NONE, State.NONE)
    change_class = max(found.values(), key=_CLASS_ORDER.index)
    fields = tuple(f"spec.{field}" for field, kind in found.items() if kind is change_class)
    if change_class is ChangeClass.IGNORE:
        return FlinkEffect(change_class, Effect.NONE, State.NONE, ("the operator takes it over as it is",), fields)
    effect, state, reasons = _disruption(change_class, old, new, status or {})
    return FlinkEffect(change_class, effect, state, reasons, fields)


def classified_fields(old: Spec, new: Spec) -> dict[str, ChangeClass]:
    """Every changed field with its class, in the order of the table of fields; configuration keys in brackets."""
    standalone = _value(new, "mode") == "standalone"
    classes = CLASSES | STANDALONE_CLASSES if standalone else CLASSES
    found: dict[str, ChangeClass] = {}
    for field in _fields(old, new):
        before, after = _value(old, field), _value(new, field)
        if same_value(before, after) or (after is None and field in IGNORED_WHEN_NULL):
            continue
        found[field] = classes.get(field, ChangeClass.UPGRADE)
    before_flat, after_flat = flatten(old.get("flinkConfiguration")), flatten(new.get("flinkConfiguration"))
    for key in sorted(before_flat.keys() | after_flat.keys()):
        if before_flat.get(key) != after_flat.get(key):
            found[f"flinkConfiguration[{key}]"] = _configuration_class(key, standalone)
    return found


def _configuration_class(key: str, standalone: bool) -> ChangeClass:
    if key.startswith(OVERRIDES) and not standalone:
        return ChangeClass.SCALE
    return next((kind for prefix, kind in CONFIGURATION_CLASSES if key.startswith(prefix)), ChangeClass.UPGRADE)


def _fields(old: Spec, new: Spec) -> Iterator[str]:
    """Names of the fields to compare, sorted: one level down for job, jobManager and taskManager."""
    for name in sorted(old.keys() | new.keys()):
        if name == "flinkConfiguration":
            continue
        parts = [part for part in (old.get(name), new.get(name)) if isinstance(part, Mapping)]
        if name in _RANGED and len(parts) == 2:  # one that appears or goes is a change as a whole
            for field in sorted({field for part in parts for field in part}):
                yield f"{name}.{field}"
        else:
            yield name


def _value(spec: Spec, field: str) -> Any:
    """The value at `field` ("job.args"), defaulted as the operator does; null and absent are the same."""
    parent, _, name = field.rpartition(".")
    holder = spec.get(parent) if parent else spec
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return DEFAULTS.get(field) if value is None else value


def same_value(left: Any, right: Any) -> bool:
    """Equal to the operator, which reads typed values: numbers by value, null like absent."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return all(same_value(left.get(name), right.get(name)) for name in left.keys() | right.keys())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


# ---- effect and state --------------------------------------------------------------------------------------------


def _first_deployment(new: Spec) -> str:
    path = _value(new, "job.initialSavepointPath")
    return f"first deployment: starts from {path}" if path else "first deployment: starts with empty state"


def _deleted(old: Spec | None) -> FlinkEffect:
    if old is None:
        return FlinkEffect(None, Effect.NONE, State.NONE)
    if _value(old, "job.state") == "suspended" and _stateful(old):
        return FlinkEffect(
            None, Effect.NONE, State.KEPT, ("the job is suspended; its last savepoint stays on storage",)
        )
    return FlinkEffect(None, Effect.NONE, State.LOST, ("deleting it loses what the operator knows of its checkpoints",))


def _stateful(spec: Spec) -> bool:
    return bool(_value(spec, "job.upgradeMode") != "stateless")


def _disruption(
    change_class: ChangeClass, old: Spec, new: Spec, status: Mapping[str, Any]
) -> tuple[Effect, State, tuple[str, ...]]:
    """Effect and state of a change that is not ignored."""
    if (old.get("job") is None) != (new.get("job") is None):
        return Effect.RESTART, State.LOST, ("a session cluster and an application cannot become each other",)
    if new.get("job") is None:
        return _session_cluster(old, new)
    if change_class is ChangeClass.REDEPLOY:
        path = _value(new, "job.initialSavepointPath")
        start = f"starts from {path}" if path else "starts with empty state"
        return Effect.REDEPLOY, State.LOST, (f"cancelled without a savepoint; {start}",)
    suspended = _suspension(old, new)
    if suspended is not None:
        return suspended
    if _job_state(status) == "FINISHED":
        return Effect.RUNS_AGAIN, State.NONE, ("the job has finished; the change submits it again",)
    if change_class is ChangeClass.SCALE:
        obstacle = in_place_obstacle(old, new, status)
        if obstacle is None:
            return Effect.IN_PLACE, State.KEPT, ("rescaled in place; the operator may fall back to a restart",)
        effect, state, reasons = _restart(old, new, status)
        return effect, state, (f"not in place: {obstacle}", *reasons)
    return _restart(old, new, status)


def _job_state(status: Mapping[str, Any]) -> str:
    job = status.get("jobStatus")
    return str(job.get("state") or "") if isinstance(job, Mapping) else ""


def _session_cluster(old: Spec, new: Spec) -> tuple[Effect, State, tuple[str, ...]]:
    """A session cluster is deleted and deployed anew, without a savepoint of its jobs."""
    if not same_value(_value(old, "flinkVersion"), _value(new, "flinkVersion")):
        return Effect.RESTART, State.LOST, ("its jobs restart under another flinkVersion without a savepoint",)
    configuration = flatten(new.get("flinkConfiguration"))
    high_availability = configuration.get("high-availability.type") or configuration.get("high-availability", "NONE")
    if high_availability.upper() == "NONE":
        return Effect.RESTART, State.LOST, ("its session jobs restart without a savepoint: no high availability",)
    return Effect.RESTART, State.KEPT, ("its session jobs are recovered from high-availability metadata",)


def _suspension(old: Spec, new: Spec) -> tuple[Effect, State, tuple[str, ...]] | None:
    """The change when the job is, or is to be, suspended; None for a job that runs before and after."""
    before, after = _value(old, "job.state"), _value(new, "job.state")
    if before != "suspended" and after != "suspended":
        return None
    if before == after:
        return Effect.NONE, State.NONE, ("the job is suspended; the change counts when it is resumed",)
    if after == "suspended":
        if _stateful(new):
            return Effect.RESTART, State.KEPT, (f"suspended with upgradeMode {_value(new, 'job.upgradeMode')}",)
        return Effect.RESTART, State.LOST, ("suspended with upgradeMode stateless: cancelled without a savepoint",)
    if not _stateful(old):
        return Effect.RESTART, State.NONE, ("resumed; it was suspended without its state",)
    if not _stateful(new):
        return (
            Effect.RESTART,
            State.LOST,
            ("resumed with upgradeMode stateless: the state it was suspended with is lost",),
        )
    return Effect.RESTART, State.KEPT, ("resumed from the state it was suspended with",)


def in_place_obstacle(old: Spec, new: Spec, status: Mapping[str, Any] | None = None) -> str | None:
    """Why a scaling cannot happen in place; None if it can."""
    configuration = flatten(new.get("flinkConfiguration"))
    if _job_state(status or {}) in _TERMINAL:
        return "the job is not running"
    if _value(new, "mode") == "standalone":
        reactive = configuration.get("scheduler-mode", "").lower() == "reactive"
        return None if reactive else "standalone mode without scheduler-mode: reactive"
    if configuration.get("jobmanager.scheduler", "").lower() != "adaptive":
        return "not the adaptive scheduler"
    if not _at_least_1_18(str(_value(new, "flinkVersion") or "")):
        return "Flink older than 1.18"
    if configuration.get("kubernetes.operator.job.upgrade.inplace-scaling.enabled", "true").lower() == "false":
        return "in-place scaling is disabled"
    if _overridden(old) - _overridden(new):
        return "an override is removed"
    return None


def _overridden(spec: Spec) -> set[str]:
    """The vertices whose parallelism is overridden ("id:4,id:2", or one flattened key each)."""
    flat = flatten(spec.get("flinkConfiguration"))
    listed = {part.partition(":")[0].strip() for part in flat.get(OVERRIDES, "").split(",")}
    nested = {key[len(OVERRIDES) + 1 :] for key in flat if key.startswith(OVERRIDES + ".")}
    return (listed | nested) - {""}


def _at_least_1_18(version: str) -> bool:
    """`version` is spelled v1_18, v2_0; what cannot be read is taken for old."""
    parts = version.removeprefix("v").split("_")
    return len(parts) == 2 and all(part.isdigit() for part in parts) and (int(parts[0]), int(parts[1])) >= (1, 18)


def _restart(old: Spec, new: Spec, status: Mapping[str, Any]) -> tuple[Effect, State, tuple[str, ...]]:
    """The job is stopped and started; the new spec's upgradeMode says with what."""
    mode = _value(new, "job.upgradeMode")
    if mode == "stateless":
        return Effect.RESTART, State.LOST, ("upgradeMode is stateless: STATE IS LOST",)
    if not same_value(_value(old, "flinkVersion"), _value(new, "flinkVersion")):
        return Effect.RESTART, State.KEPT, ("restarts from a savepoint, since flinkVersion changes",)
    if mode == "savepoint" and _job_state(status) not in ("", "RUNNING"):
        return (
            Effect.RESTART,
            State.KEPT,
            ("restarts from its last state: the job is not running, no savepoint is taken",),
        )
    return (
        Effect.RESTART,
        State.KEPT,
        ("restarts from a savepoint" if mode == "savepoint" else "restarts from its last state",),
    )
