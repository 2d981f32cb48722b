"""What all health functions share: thresholds, times, conditions, and how facts move on.

A health function is pure: (object, facts, now, thresholds) -> (health, reason, facts). Facts carry what one look cannot
see: since when, how often, which job before.

    facts = entered(facts, "restarting@7", now_s)   # since_s moves only when the state does
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.core.model import Facts, Health, Manifest, Reason
from reconciler.core.values import clean_text


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Times in seconds after which waiting becomes Degraded. The defaults are starting points from operating
    experience; `policies/health.yaml` and HealthPolicy documents set them by these names."""

    progress_deadline_s: float = 900.0  # a Flink job or session cluster that does not come up
    no_status_s: float = 900.0  # the operator does not take it over at all
    workload_deadline_s: float = 600.0  # a built-in workload that does not get its pods, or an address
    rejected_s: float = 120.0  # a refused spec: an error left over from the spec before goes away by then
    stopped_s: float = 180.0  # JobManager gone or job cancelled while it should run: the operator redeploys
    restarting_s: float = 120.0  # one restart of a job that was stable
    restarts_max: int = 3  # restarts within the window that make a crash loop
    restarts_window_s: float = 600.0
    image_pull_s: float = 300.0  # an image that cannot be pulled
    operator_silent_s: float = 420.0  # two reconcile intervals of 60 s and 5 min without taking over a generation
    unavailable_s: float = 180.0  # a workload that was up and lost its pods

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Thresholds:
        """Thresholds with some of them set; ValueError for an unknown name or a value that is no positive number."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown threshold {name}; known are {', '.join(sorted(known))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} must be a number above 0")
        if "restarts_max" in values and not isinstance(values["restarts_max"], int):
            raise ValueError("restarts_max must be a whole number")
        return cls(**values)


Judged = tuple[Health, Reason, Facts]
HealthFunction = Callable[[Manifest, Facts, float, Thresholds], Judged]

#: State of the facts of an object that was read from a file: there is no history, its own times are all there is.
FROM_FILE = "from-file"
TRANSITIONS_MAX = 10


def entered(facts: Facts, state: str, now_s: float, own_time_s: float | None = None) -> Facts:
    """`facts` in `state`, whose `since_s` moves only when the state does. For an object from a file it is `own_time_s`,
    when the object itself tells."""
    if facts.state == state:
        return facts
    since_s = now_s
    if facts.state == FROM_FILE and own_time_s is not None:
        since_s = min(own_time_s, now_s)
    return dataclasses.replace(facts, state=state, since_s=since_s)


def waited_s(facts: Facts, now_s: float) -> float:
    """How long the object has been in its state; a clock that went back counts as no time."""
    return max(0.0, now_s - facts.since_s)


def progressing(
    manifest: Manifest, facts: Facts, now_s: float, phase: str, reason: Reason, limit_s: float | None = None
) -> Judged:
    """Progressing, and Degraded once `phase` has lasted `limit_s` at this generation."""
    generation = number_at(metadata_of(manifest), "generation")
    moved = entered(facts, f"{phase}@{generation}", now_s, last_written_s(manifest))
    if limit_s is not None and waited_s(moved, now_s) >= limit_s:
        return Health.DEGRADED, spoken(reason.code, f"{reason.message}, for {waited_s(moved, now_s):.0f} s"), moved
    return Health.PROGRESSING, reason, moved


def settled(facts: Facts, now_s: float, health: Health, reason: Reason) -> Judged:
    """An answer that no time changes."""
    return health, reason, entered(facts, "settled", now_s)


def spoken(code: str, message: str) -> Reason:
    """A reason whose message may hold text from the cluster."""
    return Reason(code, clean_text(message))


def metadata_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """metadata, {} if there is none."""
    found = manifest.get("metadata")
    return found if isinstance(found, Mapping) else {}


def map_at(holder: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The map at a path of field names, {} where there is none."""
    found: Any = holder
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def text_at(holder: Mapping[str, Any], name: str) -> str:
    """The text in a field, "" where there is none."""
    found = holder.get(name)
    return found if isinstance(found, str) else ""


def number_at(holder: Mapping[str, Any], name: str, default: int = 0) -> int:
    """The whole number in a field; `default` where there is none."""
    found = holder.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def items_at(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The maps in a list, [] where there is none."""
    found = holder.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of type `kind`, {} if there is none."""
    return next((found for found in items_at(status, "conditions") if found.get("type") == kind), {})


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """True if the condition of type `kind` says "True"."""
    return condition(status, kind).get("status") == "True"


# ---- times an object tells itself --------------------------------------------------------------------------------


def time_s(value: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time, or of Flink's milliseconds as text; None if it is neither."""
    if not isinstance(value, str) or not 13 <= len(value) <= 40:
        return None
    if value.isascii() and value.isdigit():
        return int(value) / 1000 if len(value) == 13 else None
    if value[10] != "T":
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def newest_time_s(manifest: Mapping[str, Any]) -> float:
    """The newest time that the server or a controller wrote into the object: for one read from a file, "now". 0 if
    there is none at all."""
    metadata = metadata_of(manifest)
    written = [metadata.get("creationTimestamp"), metadata.get("managedFields"), manifest.get("status")]
    return max(_times(written, 0), default=0.0)


_DEPTH_MAX = 60


def _times(value: Any, depth: int) -> Iterator[float]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, Mapping):
        for below in value.values():
            yield from _times(below, depth + 1)
    elif isinstance(value, list):
        for below in value:
            yield from _times(below, depth + 1)
    else:
        found = time_s(value)
        if found is not None:
            yield found


def last_written_s(manifest: Mapping[str, Any]) -> float | None:
    """When somebody last wrote the object itself (not its status), as its managedFields tell; None if they don't. The
    creation says nothing: the spec may have been written many times since."""
    entries = [entry for entry in items_at(metadata_of(manifest), "managedFields") if not entry.get("subresource")]
    written = [found for entry in entries if (found := time_s(entry.get("time"))) is not None]
    return max(written, default=None)
