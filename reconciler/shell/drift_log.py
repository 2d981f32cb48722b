"""The history of drift on one cluster: a line in the audit log whenever a live object leaves what is assigned.

Drift is a target that was what is assigned, no longer is, and is assigned the same still. What a rollout is about to
change, or has not finished writing, is none. An object that is changed further is told again, for what is new. What
stays as it is is told once: not again after a restart, for the audit log itself knows what it says, and not after a
while in which nobody could look.

    lines = log.notice(verdict, assignment, sent, judging, observer)
    tell(tx, lines)                 # in one transaction of the lane
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reconciler.core.as_sent import as_sent
from reconciler.core.drift import drift_of
from reconciler.core.model import Assignment, ObjectKey, ObjectVerdict, Sync, Target, TargetVerdict
from reconciler.shell.context import Context
from reconciler.shell.judging import Judging
from reconciler.shell.live import NotSeen
from reconciler.shell.observe import Observer
from reconciler.shell.ports import AuditRow, Tx
from reconciler.shell.releases import SentRelease

#: More objects of one target that leave at once, as when a namespace is deleted, are told as one number.
OBJECTS_TOLD_MAX = 20
DRIFTED = (Sync.DIFFERS, Sync.MISSING)
CERTAIN = (*DRIFTED, Sync.IN_SYNC)


@dataclass(frozen=True, slots=True)
class Line:
    """A line for the audit log. `first`: nothing of what it is about is known from this boot, so that an earlier one
    may have told it."""

    row: AuditRow
    first: bool


def tell(tx: Tx, lines: Iterable[Line]) -> None:
    """Write `lines`, but for those that say what the log says already and that we have not written over since."""
    for line in lines:
        row = line.row
        told = tx.drift_told(Target(row.application, row.cluster)) if line.first else []
        # Of each object what was told last.
        last = next((each for each in told if _object_of(each) == _object_of(row)), None)
        if last is None or not _says(last, row):
            tx.audit(row)


def _object_of(row: AuditRow) -> object:
    return (row.data or {}).get("object")


def _says(told: AuditRow, row: AuditRow) -> bool:
    """True if `told` says all that `row` does. When it was written is no news: some write the same again and again."""
    known, changes = _changes(told), _changes(row)
    return told.message == row.message or (bool(changes) and all(change in known for change in changes))


def _changes(row: AuditRow) -> list[dict[str, Any]]:
    return [{**change, "time": ""} for change in (row.data or {}).get("changes", ())]


class DriftLog:
    """What was last told of each target of one cluster."""

    def __init__(self, context: Context, cluster: str) -> None:
        self._context = context
        self._cluster = cluster
        self._known: dict[Target, TargetVerdict] = {}  # of each object, what was certain last
        self._settled: dict[Target, str] = {}

    def forget(self, target: Target) -> None:
        """`target` is assigned nothing any more."""
        self._known.pop(target, None)
        self._settled.pop(target, None)

    def notice(
        self, after: TargetVerdict, assignment: Assignment, sent: SentRelease, judging: Judging, observer: Observer
    ) -> list[Line]:
        """What is news in `after`, the verdict on a target that is assigned `sent`: lines for the audit log."""
        target, before = after.target, self._known.get(after.target)
        if before is None and assignment.baked == after.digest:
            self._settled[target] = after.digest  # an earlier boot saw it in sync
        if before is not None and before.digest != after.digest:
            before = None
        settled = self._settled.get(target) == after.digest
        known = {part.key: part for part in before.objects} if before is not None else {}
        self._know(before, after, known)
        self._count(before, after, assignment)
        if after.sync is Sync.IN_SYNC:
            self._settled[target] = after.digest
        if not settled or after.sync not in DRIFTED:
            return []
        news = [part for part in after.objects if part.sync in DRIFTED and _is_news(known.get(part.key), part)]
        lines = []
        for part in news[:OBJECTS_TOLD_MAX]:
            live = observer.live(part.key)
            if part.key in sent.objects and not isinstance(live, NotSeen):
                desired = as_sent(sent.objects[part.key], live, sent.by_object.get(part.key))
                drift = drift_of(desired, live, judging.server_says(target, part.key))
                row = self._row(target, drift.message, drift.data, assignment.source)
                lines.append(Line(row, part.key not in known))
        more = len(news) - OBJECTS_TOLD_MAX
        if more > 0:
            row = self._row(target, f"{more} more objects of {target} drifted", {}, assignment.source)
            lines.append(Line(row, not known))
        return lines

    def _know(
        self, before: TargetVerdict | None, after: TargetVerdict, known: Mapping[ObjectKey, ObjectVerdict]
    ) -> None:
        """Remember `after`; of what it cannot tell, what was known before stays known."""
        found = [part if part.sync in CERTAIN else known.get(part.key) for part in after.objects]
        sync = after.sync if after.sync in CERTAIN or before is None else before.sync
        objects = tuple(part for part in found if part is not None)
        self._known[after.target] = replace(after, sync=sync, objects=objects)

    def _count(self, before: TargetVerdict | None, after: TargetVerdict, assignment: Assignment) -> None:
        if before is None:
            return
        if before.sync is Sync.IN_SYNC and after.sync in DRIFTED:
            self._context.metrics.add("drift_found")
        elif before.sync in DRIFTED and after.sync is Sync.IN_SYNC and assignment.heal_streak:
            self._context.metrics.add("drift_healed")

    def _row(self, target: Target, message: str, data: dict[str, object], source: str) -> AuditRow:
        wall = self._context.clock.now().wall
        return AuditRow(wall, "event", "Drift", message, source, target.application, self._cluster, data=data)


def _is_news(before: ObjectVerdict | None, after: ObjectVerdict) -> bool:
    """True if the object was in sync, or not seen, or differs in more than it did."""
    if before is None or before.sync not in DRIFTED:
        return True
    return not set(after.drifted) <= set(before.drifted)
