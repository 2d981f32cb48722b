"""Flink's configuration inside a custom resource, as the operator reads it: a flat map of strings.

It may be written nested or flat, with strings, numbers or booleans; the operator flattens all of them the same way, so
these two are one configuration:

    >>> flatten({"taskmanager": {"numberOfTaskSlots": 2}}) == flatten({"taskmanager.numberOfTaskSlots": "2"})
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLINK_GROUP = "flink.apache.org"
FLINK_DEPLOYMENT = "FlinkDeployment"
FLINK_SESSION_JOB = "FlinkSessionJob"
#: The kinds whose spec is a Flink cluster or job, with a `flinkConfiguration`.
FLINK_JOB_KINDS = frozenset({FLINK_DEPLOYMENT, FLINK_SESSION_JOB})


def is_flink(manifest: Mapping[str, Any]) -> bool:
    """True if `manifest` is a FlinkDeployment or a FlinkSessionJob."""
    group, _, _ = str(manifest.get("apiVersion", "")).rpartition("/")
    return group == FLINK_GROUP and manifest.get("kind") in FLINK_JOB_KINDS


def flatten(configuration: Any) -> dict[str, str]:
    """`configuration` as the operator's flat string map; anything that is no map is empty. Of two spellings of one key
    the later wins."""
    flat: dict[str, str] = {}
    if isinstance(configuration, Mapping):
        _flatten_into(configuration, "", flat)
    return flat


def _flatten_into(value: Any, key: str, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for name, below in value.items():
            _flatten_into(below, f"{key}.{name}" if key else str(name), flat)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            _flatten_into(below, f"{key}[{index}]", flat)
    else:
        flat[key] = as_text(value)


def as_text(value: Any) -> str:
    """A scalar as the operator's JSON library prints it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
