"""Thresholds of health from the shipped document `policies/health.yaml`, and from HealthPolicy documents.

The document speaks of what a person sees ("unstable this often within this time"); this is the table that says which
threshold each of its fields sets. What a document leaves out keeps its default; an unknown field is an error.

    thresholds({"flink": {"rejectedDegradedAfter": "90s"}}).rejected_s     # 90.0
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.formats import duration_s
from reconciler.core.health_common import Thresholds

#: field of the document -> threshold it sets.
FIELDS: dict[str, str] = {
    "flink.noStatusDegradedAfter": "no_status_s",
    "flink.rejectedDegradedAfter": "rejected_s",
    "flink.jobManagerGoneDegradedAfter": "stopped_s",
    "flink.progressingDegradedAfter": "progress_deadline_s",
    "flink.unstableDegradedAfter": "restarting_s",
    "flink.unstableTimes": "restarts_max",
    "flink.unstableWithin": "restarts_window_s",
    "flink.imagePullGrace": "image_pull_s",
    "flink.operatorSilentAfter": "operator_silent_s",
    "workload.progressingDegradedAfter": "workload_deadline_s",
    "workload.unavailableDegradedAfter": "unavailable_s",
}
#: Fields that other parts read.
_NOT_OURS = frozenset({"preHealthDegradedFor"})
#: Fields that are counts and no durations.
COUNTS = frozenset({"flink.unstableTimes"})


def thresholds(spec: Mapping[str, Any]) -> Thresholds:
    """The thresholds that a document's `spec` sets. Fields may stand in sections or be dotted, and durations be given
    as text or as seconds, as the catalogue has them. ValueError names a field that is unknown or no duration."""
    return Thresholds.of(threshold_values(spec))


def threshold_values(spec: Mapping[str, Any]) -> dict[str, float]:
    """The same, as the thresholds' own names and numbers."""
    values: dict[str, Any] = {}
    for field, value in _flat(spec):
        if field in _NOT_OURS:
            continue
        if field not in FIELDS:
            raise ValueError(f"unknown field spec.{field}; known are {', '.join(sorted(FIELDS))}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        read = value if number else duration_s(value)
        if field in COUNTS and isinstance(read, float) and read.is_integer():
            read = int(read)
        if read is None:
            raise ValueError(f"spec.{field}: {value!r} is no duration such as 90s or 15m")
        values[FIELDS[field]] = read
    return values


def _flat(spec: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (f"{name}.{field}" if field else str(name), value)
        for name, section in spec.items()
        for field, value in (section.items() if isinstance(section, Mapping) else [("", section)])
    ]
