"""What a release would do to live objects, said by the clusters themselves before anything is written.

A dry-run costs a cluster as much as a write, and of a thousand clusters most would say the same. So one is asked for
all that are in the same position: the same release and rules, the same schemas, and live objects that are equal but for
what every cluster has of its own. What it answers is told as its own (`differs`, `equal`), and as `predicted` for the
others.

    parts = await foreseen(daemon, parts, sent_by_target)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.core import adopt
from reconciler.core.as_sent import as_sent
from reconciler.core.diff import same_after_dry_run, variant_digest
from reconciler.core.digest import digest_of
from reconciler.core.explain_diff import Change
from reconciler.core.managed_fields import FIELD_MANAGER, entries_of
from reconciler.core.model import Manifest, Target
from reconciler.core.plan_diff import ObjectDiff, changed_by
from reconciler.core.schema_check import kinds_brought
from reconciler.core.values import clean_text
from reconciler.shell.daemon import Daemon
from reconciler.shell.kube_errors import KindMissingError, KubeError, NamespaceMissingError
from reconciler.shell.lane import Lane
from reconciler.shell.live import NotSeen
from reconciler.shell.releases import SentRelease

#: More dry-runs for one question would cost the clusters more than the answer is worth; the rest stays the client's.
REPRESENTATIVES_MAX = 50


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What one cluster said. `verdict` is equal, differs or not-judgeable; None: it could not be asked now."""

    verdict: str | None
    message: str = ""
    changes: tuple[Change, ...] | None = None
    conflicts: tuple[str, ...] = ()

    def of(self, part: ObjectDiff, *, representative: bool) -> ObjectDiff:
        """`part` as it is told now."""
        if self.verdict is None:
            return part
        verdict = self.verdict if representative or self.verdict == "not-judgeable" else "predicted"
        changes = part.changes if self.changes is None else self.changes
        action = "none" if self.verdict == "equal" else part.action
        conflicts = tuple(sorted({*part.conflicts, *self.conflicts}))
        message = self.message or part.message
        return replace(part, action=action, verdict=verdict, changes=changes, message=message, conflicts=conflicts)


async def foreseen(
    daemon: Daemon, parts: Sequence[ObjectDiff], sent_by_target: Mapping[Target, SentRelease]
) -> list[ObjectDiff]:
    """`parts`, of releases that are not assigned yet, with what the clusters say of them."""
    known: dict[str, _Foreseen] = {}
    told: list[ObjectDiff] = []
    for part in parts:
        target = Target(part.application, part.cluster)
        lane, sent = daemon.lanes.get(target.cluster), sent_by_target.get(target)
        asked = part.action in ("create", "update") and part.verdict in ("predicted", "differs")
        if lane is None or sent is None or not asked or part.key not in sent.objects:
            told.append(part)
            continue
        unfit = await lane.performing.schemas.reasons(
            {part.key: sent.objects[part.key]}, kinds_brought(sent.objects.values())
        )
        if part.key in unfit:
            why = unfit[part.key]
            told.append(replace(part, verdict="differs", message=f"{why.code}: {why.message}"))
            continue
        live = lane.observer.live(part.key)
        position = await _position(lane, part, sent, live)
        representative = position not in known
        if representative:
            if len(known) >= REPRESENTATIVES_MAX:
                told.append(part)
                continue
            known[position] = await _asked(daemon, lane, part, sent, live)
        told.append(known[position].of(part, representative=representative))
    return told


async def _position(lane: Lane, part: ObjectDiff, sent: SentRelease, live: Manifest | NotSeen | None) -> str:
    """Equal for objects of which one cluster's answer holds for the other."""
    variant = variant_digest(live) if isinstance(live, dict) else ""
    return digest_of([list(part.key), sent.identity, await lane.kube.schema_digest(), variant], length=32)


async def _asked(
    daemon: Daemon, lane: Lane, part: ObjectDiff, sent: SentRelease, live: Manifest | NotSeen | None
) -> _Foreseen:
    """One dry-run, within the cluster's write limits."""
    if lane.performing.limits.take(daemon.ports.clock.now().monotonic, promise=False) is not None:
        return _Foreseen(None)
    cluster = lane.kube.acting_for(sent.source)
    try:
        if not isinstance(live, dict):
            there = await cluster.get(part.api_version, part.key)
            if there is not None:
                return _of_others(there, sent)
            await cluster.apply(sent.objects[part.key], uid=None, force=False, dry_run=True)
            return _Foreseen("differs")
        wanted = as_sent(sent.objects[part.key], live, sent.by_object.get(part.key))
        force = sent.rules.conflicts == "force"
        after = await cluster.apply(wanted, uid=str(live["metadata"]["uid"]), force=force, dry_run=True)
    except KubeError as error:
        return _refused(error, sent)
    if same_after_dry_run(live, after):
        return _Foreseen("equal", changes=())
    return _Foreseen("differs", changes=changed_by(live, after) or part.changes)


def _of_others(live: Manifest, sent: SentRelease) -> _Foreseen:
    """An object that is there and not ours: is it adopted, and from whom?"""
    reason = adopt.refusal(live, sent.rules.adopt, sent.owner)
    managers = {clean_text(entry.get("manager"), 120) for entry in entries_of(live)} - {FIELD_MANAGER, ""}
    said = "it is there and is adopted" if reason is None else f"{reason.code}: {reason.message}"
    return _Foreseen("differs", said, conflicts=tuple(sorted(managers)))


def _refused(error: KubeError, sent: SentRelease) -> _Foreseen:
    """What the cluster refuses now it will refuse then, unless what it lacks comes with the release."""
    if not (error.permanent and error.answered):
        return _Foreseen(None)
    kinds = {key.kind for key in sent.objects}
    comes = (isinstance(error, NamespaceMissingError) and "Namespace" in kinds) or (
        isinstance(error, KindMissingError) and "CustomResourceDefinition" in kinds
    )
    if comes:
        return _Foreseen("not-judgeable", f"what it needs comes with this release: {error.reason.message}")
    return _Foreseen("differs", f"the cluster would refuse it: {error.reason.code}: {error.reason.message}")
