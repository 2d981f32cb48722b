"""Gathering: everything that is to be known of one application before it is decided, read in one transaction.

What Git asks for comes from the source's snapshot, what is live from the lanes' verdicts, and the rest from the store,
in the transaction that will record the decision.

    facts = Gathering("fleet", deletes_max=20).facts(tx, snapshot, "sample/orders", targets, verdicts, clusters, now)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from reconciler.core.decide_source import ApplicationFacts
from reconciler.core.fleet_model import CompiledApplication, FleetSnapshot
from reconciler.core.inventory import prunable
from reconciler.core.model import (
    SETTLED_STATES,
    Assignment,
    ClusterView,
    InventoryItem,
    Now,
    ObjectKey,
    Reason,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
    TargetVerdict,
)
from reconciler.core.moves import moved_job
from reconciler.core.observation import IntentSummary, Observation
from reconciler.shell.open_rollout import unproven_targets
from reconciler.shell.ports import Tx
from reconciler.shell.record import heals_of, rename, report_only

MOVES_REMEMBERED_MAX = 10_000


class Gathering:
    """The reads of one source's decisions. `deletes_max` is the limit for one commit."""

    def __init__(self, source: str, deletes_max: int) -> None:
        self._source = source
        self._deletes_max = deletes_max
        self._moves: dict[tuple[str, str], str] = {}

    def facts(
        self,
        tx: Tx,
        snapshot: FleetSnapshot | None,
        application: str,
        targets: list[Target],
        verdicts: Mapping[Target, TargetVerdict],
        clusters: Mapping[str, ClusterView],
        now: Now,
    ) -> ApplicationFacts:
        """All facts but the revision, which the source knows."""
        compiled = snapshot.applications.get(application) if snapshot is not None else None
        blocked: Reason | None = None
        if snapshot is None:
            blocked = Reason("SourceNotRead", "the repository could not be read yet")
        elif compiled is not None:
            blocked = compiled.blocked
        elif snapshot.kept is not None:
            blocked = snapshot.kept
        assignments = {row.target: row for row in tx.assignments(application=application) if row.source == self._source}
        deletes = compiled.policy.max_deletes.of(len(targets)) if compiled is not None and compiled.policy else 0
        rows = tx.active_rows(application)
        active = tx.rollouts(source=self._source, application=application, active=True)
        return ApplicationFacts(
            application=application,
            revision="",
            goals=dict(compiled.targets) if compiled is not None and blocked is None else {},
            blocked=blocked,
            seen=Observation(
                verdicts,
                clusters,
                assignments,
                _pending(tx, application),
                report_only=report_only(tx, [application]),
                heals=heals_of(tx, verdicts, now),
            ),
            rows=rows,
            quarantined={row.digest: row.rollout for row in tx.quarantined(application)},
            prunable=_prunable(tx, application, assignments),
            prune_failed=_failed_prunes(tx, application, assignments),
            moves=self._moves_of(tx, compiled, assignments) if compiled is not None and blocked is None else {},
            declared_clusters=frozenset(snapshot.clusters) if snapshot is not None else frozenset(),
            unproven=unproven_targets(tx, application, assignments, rows),
            blocked_clusters=snapshot.blocked_clusters if snapshot is not None else {},
            stopped=frozenset(rollout.id for rollout in active if rollout.state is not RolloutState.ACTIVE),
            catching_up=catching_up(active, rows),
            deletions_allowed=snapshot is not None and snapshot.deletions_allowed,
            deletes_max=min(deletes, self._deletes_max),
        )

    def _moves_of(
        self, tx: Tx, compiled: CompiledApplication, assignments: Mapping[Target, Assignment]
    ) -> dict[tuple[str, str], str]:
        """Pairs of releases (assigned, asked for) between which a job would change its namespace. Releases never
        change, so each pair is compared once."""
        wanted = {
            (row.digest, compiled.targets[target.cluster])
            for target, row in assignments.items()
            if row.digest and target.cluster in compiled.targets and row.digest != compiled.targets[target.cluster]
        }
        if len(self._moves) > MOVES_REMEMBERED_MAX:
            self._moves.clear()
        for pair in sorted(wanted - self._moves.keys()):
            before, after = tx.release(pair[0]), compiled.releases.get(pair[1])
            if before is not None and after is not None:
                self._moves[pair] = moved_job(before.objects, after.objects)
        return {pair: found for pair in wanted if (found := self._moves.get(pair, ""))}


def take_over_former(
    tx: Tx, source: str, snapshot: FleetSnapshot | None, application: str, now: Now
) -> tuple[frozenset[str], Reason | None]:
    """Take over what the application had under its former name, once nothing moves there any more. The clusters
    whose lanes have something new to know, and what has to end first."""
    compiled = snapshot.applications.get(application) if snapshot is not None else None
    former = compiled.apply.former if compiled is not None and compiled.blocked is None else ""
    if snapshot is None or not former or former in snapshot.applications or tx.assignments(application=application):
        return frozenset(), None
    if not any(row.source == source for row in tx.assignments(application=former)):
        return frozenset(), None
    active = tx.rollouts(application=former, active=True, limit=1)
    if active:
        return frozenset(), Reason("RenameWaits", f"rollout {active[0].id} of {former} has to end first")
    return rename(tx, source, former, application, now), None


def catching_up(active: Iterable[Rollout], rows: Mapping[Target, list[tuple[str, RolloutTarget]]]) -> str:
    """The id of the catch-up under `active` that the others wait for, "" if there is none. One whose clusters are away
    again has nothing on its way: who returned meanwhile does not wait for them."""
    stand_still = SETTLED_STATES | {TargetState.UNREACHABLE, TargetState.BLOCKED}
    moving = {rollout_id for pairs in rows.values() for rollout_id, row in pairs if row.state not in stand_still}
    return next((each.id for each in active if each.kind is RolloutKind.CATCH_UP and each.id in moving), "")


def _pending(tx: Tx, application: str) -> dict[Target, IntentSummary]:
    pending = Counter(intent.target for intent in tx.intents(application=application, pending=True))
    return {target: IntentSummary(count) for target, count in pending.items()}


def _prunable(
    tx: Tx, application: str, assignments: Mapping[Target, Assignment]
) -> dict[Target, tuple[InventoryItem, ...]]:
    """What the inventory has that the assigned release has not. Only where it has more objects is it read."""
    sizes = tx.inventory_sizes(application)
    releases = {row.digest: tx.release(row.digest) for row in assignments.values() if row.digest}
    found: dict[Target, tuple[InventoryItem, ...]] = {}
    for target, row in assignments.items():
        release = releases.get(row.digest)
        if release is not None and sizes.get(target, 0) > len(release.objects):
            items = prunable(tx.inventory(target), release.objects).items
            if items:
                found[target] = items
    return found


def _failed_prunes(tx: Tx, application: str, assignments: Mapping[Target, Assignment]) -> dict[Target, Reason]:
    """Deletions that were refused for the release that is still assigned: they are not tried again by themselves. What
    has gone since by itself is not in the inventory any more, and holds nothing up."""
    found: dict[Target, Reason] = {}
    inventories: dict[Target, set[ObjectKey]] = {}
    for intent in tx.failed_prunes(application):
        target = intent.target
        if target not in assignments or assignments[target].digest != intent.digest or intent.reason is None:
            continue
        if target not in inventories:
            inventories[target] = {item.key for item in tx.inventory(target)}
        if intent.key in inventories[target]:
            found[target] = Reason("PruneFailed", intent.reason.message)
    return found
