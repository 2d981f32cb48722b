"""The history of drift on one cluster: a line in the audit log whenever a live object leaves what is assigned.

Drift is a target that was what is assigned, no longer is, and is assigned the same still. What a rollout is about to
change, or has not finished writing, is none. An object that is changed further is told again, for what is new.

    rows = log.notice(verdict, assignment, sent, judging, observer)     # to be stored by the lane, in one transaction
"""

from __future__ import annotations

from reconciler.core.as_sent import as_sent
from reconciler.core.drift import drift_of
from reconciler.core.model import Assignment, ObjectVerdict, Sync, Target, TargetVerdict
from reconciler.shell.context import Context
from reconciler.shell.judging import Judging
from reconciler.shell.live import NotSeen
from reconciler.shell.observe import Observer
from reconciler.shell.ports import AuditRow
from reconciler.shell.releases import SentRelease

#: More objects of one target that leave at once, as when a namespace is deleted, are told as one number.
OBJECTS_TOLD_MAX = 20
DRIFTED = (Sync.DIFFERS, Sync.MISSING)


class DriftLog:
    """What was last told of each target of one cluster."""

    def __init__(self, context: Context, cluster: str) -> None:
        self._context = context
        self._cluster = cluster
        self._told: dict[Target, TargetVerdict] = {}
        self._settled: dict[Target, str] = {}

    def forget(self, target: Target) -> None:
        """`target` is assigned nothing any more."""
        self._told.pop(target, None)
        self._settled.pop(target, None)

    def notice(
        self, after: TargetVerdict, assignment: Assignment, sent: SentRelease, judging: Judging, observer: Observer
    ) -> list[AuditRow]:
        """What is news in `after`, the verdict on a target that is assigned `sent`: lines for the audit log."""
        target, before = after.target, self._told.get(after.target)
        self._told[target] = after
        if before is None and assignment.baked == after.digest:
            self._settled[target] = after.digest  # an earlier boot saw it in sync
        settled = self._settled.get(target) == after.digest
        self._count(before, after, assignment)
        if after.sync is Sync.IN_SYNC:
            self._settled[target] = after.digest
        if not settled or after.sync not in DRIFTED:
            return []
        known = {part.key: part for part in before.objects} if before is not None else {}
        news = [part for part in after.objects if part.sync in DRIFTED and _is_news(known.get(part.key), part)]
        rows = []
        for part in news[:OBJECTS_TOLD_MAX]:
            live = observer.live(part.key)
            if part.key in sent.objects and not isinstance(live, NotSeen):
                desired = as_sent(sent.objects[part.key], live, sent.by_object.get(part.key))
                drift = drift_of(desired, live, judging.server_says(target, part.key))
                rows.append(self._row(target, drift.message, drift.data, assignment.source))
        more = len(news) - OBJECTS_TOLD_MAX
        if more > 0:
            rows.append(self._row(target, f"{more} more objects of {target} drifted", {}, assignment.source))
        return rows

    def _count(self, before: TargetVerdict | None, after: TargetVerdict, assignment: Assignment) -> None:
        if before is None or before.digest != after.digest:
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
