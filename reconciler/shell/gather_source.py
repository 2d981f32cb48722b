"""Gathering: everything that is to be known of one application before it is decided, read in one transaction.

What Git asks for comes from the source's snapshot, what is live from the lanes' verdicts, and the rest from the store,
in the transaction that will record the decision.

    gathering = Gathering("fleet", deletes_max=20)
    standing = gathering.standing(tx, "sample/orders")
    facts = gathering.facts(tx, snapshot, standing, sorted(standing.targets), verdicts, clusters, now)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.decide_source import ApplicationFacts
from reconciler.core.fleet_model import CompiledApplication, FleetSnapshot
from reconciler.core.inventory import Prunable, prunable
from reconciler.core.model import (
    SETTLED_STATES,
    Assignment,
    ClusterView,
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
from reconciler.shell.record import drifted, give_up_former, heals_of, refused_heals, rename, report_only

#: Of releases, which never change: how many pairs, and how many sizes are kept.
MOVES_REMEMBERED_MAX = 10_000
SIZES_REMEMBERED_MAX = 100_000
_CLUSTERS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How one application stands in the store: what of it this source has assigned, its rows in active rollouts by
    target, and its own active rollouts, newest first."""

    application: str
    assignments: Mapping[Target, Assignment]
    rows: Mapping[Target, list[tuple[str, RolloutTarget]]]
    active: list[Rollout]

    @property
    def targets(self) -> set[Target]:
        """Targets of ours that are assigned something or are in a rollout, whether Git still has them or not."""
        planned = (target for rollout in self.active for target in rollout.plan.targets)
        return {*self.assignments, *(target for target in planned if target.application == self.application)}


class Gathering:
    """The reads of one source's decisions. `deletes_max` is the limit for one commit."""

    def __init__(self, source: str, deletes_max: int) -> None:
        self._source = source
        self._deletes_max = deletes_max
        self._moves: dict[tuple[str, str], str] = {}
        self._sizes: dict[str, int] = {}

    def standing(self, tx: Tx, application: str) -> Standing:
        """What the store says of `application`. A rollout has a row for each of its targets: where there are no rows
        there is no rollout to ask for."""
        rows = tx.active_rows(application)
        return Standing(
            application,
            {row.target: row for row in tx.assignments(application=application) if row.source == self._source},
            rows,
            tx.rollouts(source=self._source, application=application, active=True) if rows else [],
        )

    def facts(
        self,
        tx: Tx,
        snapshot: FleetSnapshot | None,
        standing: Standing,
        targets: list[Target],
        verdicts: Mapping[Target, TargetVerdict],
        clusters: Mapping[str, ClusterView],
        now: Now,
    ) -> ApplicationFacts:
        """All facts but the revision, which the source knows."""
        application, assignments = standing.application, standing.assignments
        compiled = snapshot.applications.get(application) if snapshot is not None else None
        blocked: Reason | None = None
        if snapshot is None:
            blocked = Reason("SourceNotRead", "the repository could not be read yet")
        elif compiled is not None:
            blocked = compiled.blocked
        elif snapshot.kept is not None:
            blocked = snapshot.kept
        deletes = compiled.policy.max_deletes.of(len(targets)) if compiled is not None and compiled.policy else 0
        ours = _ours(assignments, standing.rows)
        counts = tx.pending_counts(application) if ours else {}
        pending = {target: IntentSummary(count) for target, count in counts.items()}
        differing = drifted({target: verdict for target, verdict in verdicts.items() if target in ours}, pending)
        dropped = self._dropped(tx, application, ours)
        return ApplicationFacts(
            application=application,
            revision="",
            goals=dict(compiled.targets) if compiled is not None and blocked is None else {},
            blocked=blocked,
            seen=Observation(
                verdicts,
                clusters,
                assignments,
                pending,
                report_only=report_only(tx, differing),
                heals=heals_of(tx, differing, now),
                refused=refused_heals(tx, assignments, differing),
            ),
            rows=standing.rows,
            quarantined={row.digest: row.rollout for row in tx.quarantined(application)},
            prunable={target: found.items for target, found in dropped.items() if found.items},
            left_behind={target: found.refused for target, found in dropped.items() if found.refused},
            prune_failed=_failed_prunes(tx, application, ours) if ours else {},
            moves=self._moves_of(tx, compiled, assignments) if compiled is not None and blocked is None else {},
            declared_clusters=frozenset(snapshot.clusters) if snapshot is not None else frozenset(),
            unproven=unproven_targets(tx, application, assignments, standing.rows),
            blocked_clusters=snapshot.blocked_clusters if snapshot is not None else {},
            stopped=frozenset(rollout.id for rollout in standing.active if rollout.state is not RolloutState.ACTIVE),
            catching_up=catching_up(standing.active, standing.rows),
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

    def _dropped(self, tx: Tx, application: str, assignments: Mapping[Target, Assignment]) -> dict[Target, Prunable]:
        """What the inventory has that the assigned release has not. Only where it has more objects is it read."""
        sizes = tx.inventory_sizes(application) if assignments else {}
        found: dict[Target, Prunable] = {}
        for target, row in assignments.items():
            size = sizes.get(target, 0)
            if not row.digest or not size or size <= self._size_of(tx, row.digest):
                continue
            release = tx.release(row.digest)
            if release is not None:
                found[target] = prunable(tx.inventory(target), release.objects)
        return found

    def _size_of(self, tx: Tx, digest: str) -> int:
        """How many objects the assigned release `digest` has. Releases never change, so each is read once."""
        if len(self._sizes) > SIZES_REMEMBERED_MAX:
            self._sizes.clear()
        if digest not in self._sizes:
            release = tx.release(digest)
            assert release is not None, f"release {digest} is assigned and not stored"
            self._sizes[digest] = len(release.objects)
        return self._sizes[digest]


def take_over_former(
    tx: Tx,
    source: str,
    snapshot: FleetSnapshot | None,
    application: str,
    writing: Collection[Target],
    now: Now,
) -> tuple[frozenset[str], Reason | None]:
    """Take over what the application had under its former name, once nothing moves there any more. The clusters
    whose lanes have something new to know, and what has to end first.

    What is pending under the former name is given up, so that no lane begins with it or goes on. What is under way
    (`writing`) ends before anything else has the new name: its result belongs to the rows of the old one, and
    two names never write one object at a time."""
    compiled = snapshot.applications.get(application) if snapshot is not None else None
    former = compiled.apply.former if compiled is not None and compiled.blocked is None else ""
    if snapshot is None or not former or former in snapshot.applications or tx.assignments(application=application):
        return frozenset(), None
    standing = tx.assignments(application=former)
    if not any(row.source == source for row in standing):
        return frozenset(), None
    active = tx.rollouts(application=former, active=True, limit=1)
    if active:
        return frozenset(), Reason("RenameWaits", f"rollout {active[0].id} of {former} has to end first")
    given_up = give_up_former(tx, former, application)
    unfinished = sorted(given_up.union(row.target.cluster for row in standing if row.target in writing))
    if unfinished:
        where = ", ".join(unfinished[:_CLUSTERS_NAMED]) + (", ..." if len(unfinished) > _CLUSTERS_NAMED else "")
        return given_up, Reason("RenameWaits", f"what is being written for {former} has to end first (on {where})")
    return rename(tx, source, former, application, now), None


def _ours(
    assignments: Mapping[Target, Assignment], rows: Mapping[Target, list[tuple[str, RolloutTarget]]]
) -> dict[Target, Assignment]:
    """Those that no rollout decides. Nothing else is repaired or pruned by the source, so that of nothing else it is
    asked what that would need."""
    return {
        target: found
        for target, found in assignments.items()
        if all(row.state in SETTLED_STATES for _, row in rows.get(target, ()))
    }


def catching_up(active: Iterable[Rollout], rows: Mapping[Target, list[tuple[str, RolloutTarget]]]) -> str:
    """The id of the catch-up under `active` that the others wait for, "" if there is none. One whose clusters are away
    again has nothing on its way: who returned meanwhile does not wait for them."""
    stand_still = SETTLED_STATES | {TargetState.UNREACHABLE, TargetState.BLOCKED}
    moving = {rollout_id for pairs in rows.values() for rollout_id, row in pairs if row.state not in stand_still}
    return next((each.id for each in active if each.kind is RolloutKind.CATCH_UP and each.id in moving), "")


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
