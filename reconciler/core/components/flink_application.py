"""The component type `flink-application`: one FlinkDeployment in application mode.

The properties are the fields of the resource's spec. `flinkConfiguration` may be nested or flat and hold numbers and
booleans; the resource takes a flat map of strings, so that is what is rendered:

    flinkConfiguration: {taskmanager: {numberOfTaskSlots: 2}}  ->  {"taskmanager.numberOfTaskSlots": "2"}

Traits are checked, then written into the spec; nothing may be written twice with different values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.core.components.effective import Context, Effective
from reconciler.core.objects import Located
from reconciler.core.problems import Problem, has_errors
from reconciler.core.schema import check, with_defaults
from reconciler.core.schemas import FLINK_APPLICATION_PROPERTIES
from reconciler.core.traits import check_traits, combine, missing_prerequisites, value_at, writes_of
from reconciler.core.yaml_kube import Path

API_VERSION = "flink.apache.org/v1beta1"
NAME_MAX = 45
_CONFIGURATION: Path = ("spec", "flinkConfiguration")
_CHECKPOINT_DIRECTORIES = ("state.checkpoints.dir", "execution.checkpointing.dir")


def render(component: Effective, context: Context) -> tuple[list[Located], list[Problem]]:
    """The FlinkDeployment of one component."""
    problems = [component.problem_of(finding) for finding in check(FLINK_APPLICATION_PROPERTIES, component.properties)]
    if not problems:
        problems = _check_properties(component)
    problems += check_traits(component.type, component.traits, context.traits)
    if has_errors(problems):
        return [], problems
    spec = with_defaults(FLINK_APPLICATION_PROPERTIES, component.properties)
    flat, places = flatten(spec.get("flinkConfiguration") or {}, component, problems)
    if flat:
        spec["flinkConfiguration"] = flat
    workload = {"spec": spec}

    def declared_at(path: Path) -> str:
        inside = places.get(str(path[-1])) if path[:2] == _CONFIGURATION else None
        return component.line_of(("flinkConfiguration", *inside) if inside else path[1:])

    writes = []
    for place in component.traits:
        for write in writes_of(place, context.traits[place.use.type]):
            is_configuration = write.path[: len(_CONFIGURATION)] == _CONFIGURATION
            writes.append(replace(write, value=as_text(write.value)) if is_configuration else write)
    combined, clashes = combine(workload, writes, declared_at)
    problems += clashes
    problems += missing_prerequisites(component.traits, workload, context.traits)
    if not has_errors(problems):
        problems += _check_state(component, combined)
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "FlinkDeployment",
        "metadata": {"name": component.name},
        "spec": combined["spec"],
    }
    return [Located(manifest, component.document, component.at)], problems


def _check_properties(component: Effective) -> list[Problem]:
    problems = []
    if len(component.name) > NAME_MAX:
        says = f"{component.name!r} is {len(component.name)} long: the Flink operator allows {NAME_MAX}"
        problems.append(component.document.problem((*component.at, "name"), "invalid-value", says, "shorten it"))
    job = component.properties.get("job") or {}
    if not job.get("jarURI") and component.properties.get("mode") != "standalone":
        says = "the field 'jarURI' is missing"
        hint = "local:///opt/flink/usrlib/job.jar names a jar inside the image"
        problems.append(component.problem(("job", "jarURI"), "missing-field", says, hint))
    return problems


def _check_state(component: Effective, combined: Mapping[str, Any]) -> list[Problem]:
    """An upgrade mode that keeps state needs somewhere to keep it, whoever set it."""
    mode = value_at(combined, ("spec", "job", "upgradeMode"))
    if mode not in ("last-state", "savepoint"):
        return []
    configuration = value_at(combined, _CONFIGURATION) or {}
    if any(configuration.get(name) for name in _CHECKPOINT_DIRECTORIES):
        return []
    says = f"job.upgradeMode {mode!r} needs a checkpoint directory"
    return [component.problem(("job", "upgradeMode"), "missing-prerequisite", says, "add the trait 'checkpointing'")]


def flatten(
    nested: Mapping[str, Any], component: Effective, problems: list[Problem]
) -> tuple[dict[str, str], dict[str, Path]]:
    """A Flink configuration as a flat map of strings, and where each key stands in the nested one."""
    flat: dict[str, str] = {}
    places: dict[str, Path] = {}

    def walk(values: Mapping[str, Any], path: Path) -> None:
        for name, value in values.items():
            at = (*path, name)
            key = ".".join(map(str, at))
            if value is None:
                continue
            if isinstance(value, Mapping):
                walk(value, at)
            elif isinstance(value, list):
                says = f"{key!r} is a list, and Flink's configuration has none"
                hint = "write it as one string, as Flink does: a;b;c"
                problems.append(component.problem(("flinkConfiguration", *at), "invalid-type", says, hint))
            elif flat.get(key, as_text(value)) != as_text(value):
                first = component.line_of(("flinkConfiguration", *places[key]))
                says = f"{key!r} is set to {as_text(value)!r} here and to {flat[key]!r} at {first}"
                problems.append(component.problem(("flinkConfiguration", *at), "write-conflict", says, "keep one"))
            else:
                flat[key], places[key] = as_text(value), at

    walk(nested, ())
    return flat, places


def as_text(value: Any) -> str:
    """A value of Flink's configuration as a string."""
    return value if isinstance(value, str) else json.dumps(value)
