"""Health of any kind that says how it is by standard conditions.

The types below mean the same wherever they are used; all others belong to one kind and say nothing here. Bad news is
asked for first, good news counts only if every known condition that is there agrees, and a condition about an older
generation counts as none.

    Stalled, Failed -> Reconciling -> Degraded -> Complete, Succeeded -> Ready, Available, ... -> nothing known: there

A kind that says nothing of this is healthy when it is there, which a HealthPolicy can say better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.health_common import (
    Judged,
    Thresholds,
    items_at,
    map_at,
    metadata_of,
    number_at,
    progressing,
    settled,
    spoken,
    text_at,
)
from reconciler.core.model import Facts, Health, Manifest, Reason

#: True: the controller has given up, and waiting does not help.
GIVEN_UP = ("Stalled", "Failed")
#: True: the controller is at work.
AT_WORK = ("Reconciling",)
#: True: it works, but not as it should; it often passes while something is upgraded.
IMPAIRED = ("Degraded",)
#: True: it has done what it was there for.
DONE = ("Complete", "Completed", "Succeeded")
#: False or Unknown: it does not do what it is there for, or not yet.
WORKING = ("Ready", "Available", "Healthy", "Established", "Programmed", "Synced", "Accepted")
CONDITIONS_MAX = 200


def health_by_conditions(manifest: Manifest, facts: Facts, now_s: float, thresholds: Thresholds) -> Judged:
    """An object of a kind that has no function of its own."""
    generation = number_at(metadata_of(manifest), "generation")
    known = _known(map_at(manifest, "status"))
    if not known:
        return settled(facts, now_s, Health.HEALTHY, Reason("Present", "it exists"))
    current = {kind: found for kind, found in known.items() if _generation(found, generation) >= generation}
    for kind in GIVEN_UP:
        if _says(current, kind, "True"):
            return settled(facts, now_s, Health.DEGRADED, _reason(kind, current[kind]))
    limit_s = thresholds.workload_deadline_s
    for kind in AT_WORK:
        if _says(current, kind, "True"):
            return progressing(manifest, facts, now_s, "working", _reason(kind, current[kind]), limit_s)
    for kind in IMPAIRED:
        if _says(current, kind, "True"):
            reason = _reason(kind, current[kind])
            return progressing(manifest, facts, now_s, "impaired", reason, thresholds.unavailable_s)
    if old := [kind for kind in known if kind not in current]:
        message = f"condition {old[0]} is about generation {_generation(known[old[0]], 0)}, not {generation}"
        return progressing(manifest, facts, now_s, "pending", Reason("GenerationPending", message), limit_s)
    for kind in DONE:
        if _says(current, kind, "True"):
            return settled(facts, now_s, Health.HEALTHY, _reason(kind, current[kind]))
    for kind in WORKING:
        if kind in current and not _says(current, kind, "True"):
            return progressing(manifest, facts, now_s, "not-working", _reason(kind, current[kind], "Not"), limit_s)
    for kind in WORKING:
        if kind in current:
            return settled(facts, now_s, Health.HEALTHY, Reason(kind, f"condition {kind} is True"))
    return settled(facts, now_s, Health.HEALTHY, Reason("Present", "it exists, and nothing is wrong with it"))


def _known(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of types that mean the same everywhere; of two of one type the first."""
    types = {*GIVEN_UP, *AT_WORK, *IMPAIRED, *DONE, *WORKING}
    found: dict[str, Mapping[str, Any]] = {}
    for each in items_at(status, "conditions")[:CONDITIONS_MAX]:
        if each.get("type") in types:
            found.setdefault(text_at(each, "type"), each)
    return found


def _generation(found: Mapping[str, Any], default: int) -> int:
    return number_at(found, "observedGeneration", default)


def _says(conditions: Mapping[str, Mapping[str, Any]], kind: str, value: str) -> bool:
    return kind in conditions and conditions[kind].get("status") == value


def _reason(kind: str, found: Mapping[str, Any], prefix: str = "") -> Reason:
    """A condition in words. Its own reason is a program's code; where it has none, its type is."""
    said = text_at(found, "message") or f"condition {kind} is {text_at(found, 'status') or 'not set'}"
    why = text_at(found, "reason")
    return spoken(prefix + kind, f"{why}: {said}" if why and why not in said else said)
