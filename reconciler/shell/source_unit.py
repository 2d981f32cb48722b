"""The unit of one Git repository: fetch, compile what changed, decide what follows from it.

    poll -> new commit? -> read and compile only what changed -> for each application concerned, in one transaction:
    gather -> decide -> admit -> record (open, supersede, heal, prune)

What Git asks for is kept in memory and compiled again at every start, from the mirror and without the network. While a
commit cannot be read or understood the source stays at its last good one; what already runs goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.core.actions import Wait
from reconciler.core.admit import admit, scopes_of
from reconciler.core.apply_rules import DEFAULT_RULES, takes_back_now
from reconciler.core.decide_source import ApplicationDecision, decide_application
from reconciler.core.documents import Cluster
from reconciler.core.fleet_model import FleetSettings, FleetSnapshot
from reconciler.core.health_rules import HealthPolicies, policies_from_text
from reconciler.core.model import (
    Assignment,
    ClusterView,
    Now,
    Reason,
    Target,
    TargetVerdict,
)
from reconciler.core.waves import UnmatchedTargetsError
from reconciler.shell.context import INTENTS, Context, intents_of
from reconciler.shell.fleet_reader import FleetReader, changed_applications
from reconciler.shell.gather_source import Gathering, take_over_former
from reconciler.shell.hub import Unit
from reconciler.shell.logs import event
from reconciler.shell.open_rollout import open_rollout
from reconciler.shell.ports import AuditRow, Commit, Source, SourceError, SourceRow, Tx
from reconciler.shell.progress import Progress
from reconciler.shell.record import ledgers_for, record_decision, settle_contests
from reconciler.shell.rollout_unit import owner_of

#: What a source is woken with besides names of applications (which contain a slash and never begin like this).
POLL = "@poll"
RESYNC = "@resync"


def source_name(name: str) -> str:
    """The name of the source's unit, which its intents carry."""
    return f"source:{name}"


@dataclass(frozen=True, slots=True)
class _Outcome:
    waits: tuple[Wait, ...]
    recheck_at: float | None
    lanes: frozenset[str]
    renamed: frozenset[str]
    opened: str | None
    taken_over: frozenset[str]
    applied: bool
    baked: bool
    moving: bool


@dataclass(frozen=True, slots=True)
class _Overlooked:
    """Nothing was decided: the store knows targets that were not looked at."""

    targets: frozenset[Target]


class SourceUnit:
    """One repository. `on_clusters` is told which clusters it declares whenever that changes."""

    def __init__(
        self,
        context: Context,
        name: str,
        source: Source,
        settings: FleetSettings,
        on_clusters: Callable[[str, Mapping[str, Cluster]], None],
    ) -> None:
        self._context = context
        self.name = name
        self._reader = FleetReader(source, settings, context.metrics)
        self._on_clusters = on_clusters
        self.snapshot: FleetSnapshot | None = None
        self.commit: Commit | None = None  # the newest one looked at
        self.failure: Reason | None = None
        self._failures = 0
        self._retry_at: float | None = None
        self._rechecks: dict[str, float] = {}
        self._progress = Progress()
        self._gathering = Gathering(name, context.limits.deletes_per_commit)

    @property
    def good(self) -> Commit | None:
        """The commit that `snapshot` is of: the newest one that could be used at all."""
        return self._reader.usable

    # ---- the unit ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll and decide until cancelled."""
        with self._context.hub.unit(source_name(self.name)) as unit:
            await self._restore()
            dirty: tuple[str, ...] = (POLL, RESYNC)
            while True:
                await self.step(dirty)
                self._wake_at(unit)
                dirty = await unit.wait()

    def _wake_at(self, unit: Unit) -> None:
        times = [*self._rechecks.values()]
        if self._retry_at is not None:
            times.append(self._retry_at)
        if times:
            unit.wake_at(self._context.clock, min(times))

    async def step(self, dirty: Iterable[str]) -> None:
        """One round: look at Git if asked to, then decide the applications concerned."""
        now = self._context.clock.now()
        marks = set(dirty)
        changed: set[str] = {mark for mark in marks if not mark.startswith("@")}
        if POLL in marks or (self._retry_at is not None and self._retry_at <= now.monotonic):
            changed |= await self._poll()
        changed |= {name for name, at_s in self._rechecks.items() if at_s <= now.monotonic}
        if RESYNC in marks:
            changed |= await self._every_application()
        for application in sorted(changed):
            await self._decide(application)
        if self.good is not None and self._progress.may_have_moved(self.good.sha):
            await self._context.store.transact(f"progress:{self.name}", self._note_progress)

    # ---- Git ---------------------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Compile what was in force before this start, from the mirror: the network is not needed for it."""
        row = await self._context.store.read("source", lambda tx: tx.source(self.name))
        if row is None or not row.last_attempted:
            return
        self._progress.wrote(row.last_applied, row.last_baked)
        try:
            await self._reader.recall(row)
        except SourceError as error:
            # What is broken now is then taken for broken from the start: it stays as it is, and nothing is deleted.
            why = str(error.reason)
            event(self._context.log, logging.WARNING, "source.recall.failed", source=self.name, reason=why)
        try:
            await self._compile(row.last_attempted)
        except SourceError as error:
            self._note_failure(error.reason)

    async def _poll(self) -> set[str]:
        """Ask the remote for its head and take it in if it is new. Returns the applications that changed."""
        metrics = self._context.metrics
        try:
            sha = await self._reader.head()
            new = self.commit is None or sha != self.commit.sha
            changed = await self._compile(sha) if new else set()
        except SourceError as error:
            self._note_failure(error.reason)
            metrics.add("polls", source=self.name, result="failed")
            return set()
        metrics.add("polls", source=self.name, result="changed" if new else "unchanged")
        if self.failure is not None:
            event(self._context.log, logging.INFO, "source.recovered", source=self.name)
        self.failure, self._failures, self._retry_at = None, 0, None
        return changed

    def _note_failure(self, reason: Reason) -> None:
        self._failures += 1
        delay_s = min(self._context.check_interval_s * 2 ** min(self._failures - 1, 10), 600.0)
        self._retry_at = self._context.clock.now().monotonic + delay_s
        self.failure = reason
        event(
            self._context.log, logging.WARNING, "source.failed", source=self.name, reason=str(reason), retry_s=delay_s
        )

    async def _compile(self, sha: str) -> set[str]:
        """Read and compile what changed at `sha`. Returns the applications whose releases, policy or state changed."""
        before = self.snapshot
        commit, snapshot = await self._reader.read(sha)
        self._claim(snapshot.fleet)
        self.snapshot, self.commit = snapshot, commit
        self._on_clusters(self.name, snapshot.clusters)
        written, judged_anew = await self._context.store.transact(
            f"revision:{self.name}",
            lambda tx: (self._store_revision(tx, commit, snapshot), self._store_health(tx, snapshot)),
        )
        for name in written:
            for cluster in sorted(snapshot.applications[name].targets if name in snapshot.applications else ()):
                self._context.hub.wake(f"lane:{cluster}", intents_of(name))
        for cluster in sorted(snapshot.clusters) if judged_anew else ():
            self._context.hub.wake(f"lane:{cluster}", INTENTS)
        changed = changed_applications(before, snapshot) | set(written)
        if before is not None and snapshot.deletions_allowed and not before.deletions_allowed:
            changed |= await self._held_up()
        self._progress.behind(changed)
        return changed

    def _claim(self, fleet: str) -> None:
        """Have the fleet's name for this source, and no other any more. Raises SourceError if another one has it."""
        fleets = self._context.fleets
        owner = fleets.get(fleet, self.name)
        if owner != self.name:
            message = (
                f"the fleet {fleet!r} is that of repository {owner!r}: a fleet's name is unique, rename one of them"
            )
            raise SourceError("FleetNameTaken", message)
        for name in [name for name, source in fleets.items() if source == self.name]:
            del fleets[name]
        if fleet:
            fleets[fleet] = self.name

    async def _held_up(self) -> set[str]:
        """Applications that wait until deletions are allowed again, and those whose rollouts may have targets to let
        go."""
        assert self.snapshot is not None
        waits = self._context.board.waits
        names = {
            name
            for name in self.snapshot.applications
            if any(wait.reason.code == "DeletionsHeld" for wait in waits.get(f"application:{name}", ()))
        }
        active = await self._context.store.read("active", lambda tx: tx.rollouts(source=self.name, active=True))
        return names | {rollout.application for rollout in active}

    def _store_revision(self, tx: Tx, commit: Commit, snapshot: FleetSnapshot) -> list[str]:
        """Note the commit, and how objects are written from now on. Returns the applications whose rules changed."""
        self._note_revision(tx, commit, snapshot)
        known = tx.apply_rules_of_source(self.name)
        # Nearly all applications have the default, which is not stored.
        applications = snapshot.applications
        asked = {name: each.apply.as_text() for name, each in applications.items() if each.apply is not DEFAULT_RULES}
        # One that is not there may be missing by mistake, and of one that is blocked nothing changes: then what it had
        # said of writing still holds.
        said = {name for name, each in applications.items() if each.blocked is None}
        names = said | (known.keys() - applications.keys() if snapshot.deletions_allowed else set())
        written = [name for name in sorted(names) if known.get(name, "") != asked.get(name, "")]
        now = self._context.clock.now()
        for name in written:
            tx.put_apply_rules(name, self.name, asked.get(name, ""))
            if takes_back_now(known.get(name, ""), asked.get(name, "")):
                settle_contests(tx, name, now)
        return written

    def _store_health(self, tx: Tx, snapshot: FleetSnapshot) -> bool:
        """Note the health policies in force. True if they changed."""
        row = tx.source(self.name)
        if row is None or snapshot.kept is not None:
            return False
        policies = {policy.name: policy for policy in snapshot.health.policies}
        if not snapshot.deletions_allowed:
            # One that is not there may be missing by mistake: then it still holds.
            known = policies_from_text(row.health_policies)
            policies = {**{policy.name: policy for policy in known.policies}, **policies}
        text = HealthPolicies.of(policies.values()).as_text()
        if text == row.health_policies:
            return False
        tx.put_source(replace(row, health_policies=text))
        return True

    def _note_revision(self, tx: Tx, commit: Commit, snapshot: FleetSnapshot) -> None:
        now = self._context.clock.now()
        row = tx.source(self.name) or SourceRow(self.name)
        if row.last_attempted == commit.sha:
            return
        tx.put_revision(self.name, commit, now.wall)
        problems = json.dumps([problem.as_json() for problem in snapshot.problems[:200]])
        tx.put_source(replace(self._reader.noted(row, commit.sha, snapshot), problems=problems))
        message = f"commit {commit.sha[:7]} by {commit.author}: {commit.subject}"
        tx.audit(AuditRow(now.wall, "event", "RevisionSeen", message, self.name, data={"sha": commit.sha}))

    def _note_progress(self, tx: Tx) -> None:
        """A revision is applied once nothing of it is on its way any more, and baked if nothing waits either."""
        row = tx.source(self.name)
        if row is None or self.good is None or tx.rollouts(source=self.name, active=True, limit=1):
            return
        applied, baked = self._progress.of(self.good.sha, row.last_baked)
        after = replace(row, last_applied=applied, last_baked=baked)
        if after != row:
            tx.put_source(after)
        self._progress.wrote(applied, baked)

    # ---- deciding ----------------------------------------------------------------------------------------------

    async def _every_application(self) -> set[str]:
        """All that Git declares and all that is assigned."""
        assigned = await self._context.store.read("assigned", lambda tx: tx.assignments(source=self.name))
        names = {row.target.application for row in assigned}
        return names | (set(self.snapshot.applications) if self.snapshot is not None else set())

    async def _decide(self, application: str) -> None:
        context = self._context
        now = context.clock.now()
        outcome = await self._decide_on(application, self._declared(application), now)
        while isinstance(outcome, _Overlooked):
            outcome = await self._decide_on(application, self._declared(application) | outcome.targets, now)
        context.board.waits[f"application:{application}"] = outcome.waits
        context.metrics.add("decisions", unit="source")
        self._progress.decided(application, applied=outcome.applied, baked=outcome.baked, moving=outcome.moving)
        self._rechecks.pop(application, None)
        if outcome.recheck_at is not None:
            self._rechecks[application] = outcome.recheck_at
        for cluster in sorted(outcome.lanes):
            context.hub.wake(f"lane:{cluster}", intents_of(application))
        for cluster in sorted(outcome.renamed):
            context.hub.wake(f"lane:{cluster}", INTENTS)  # its former application has nothing there any more
        for rollout_id in sorted(outcome.taken_over):
            context.hub.wake(owner_of(rollout_id))
        if outcome.opened is not None:
            context.rollout_opened(outcome.opened)

    def _declared(self, application: str) -> set[Target]:
        """The targets that Git asks for."""
        compiled = self.snapshot.applications.get(application) if self.snapshot is not None else None
        return {Target(application, cluster) for cluster in compiled.targets} if compiled is not None else set()

    async def _decide_on(self, application: str, targets: set[Target], now: Now) -> _Outcome | _Overlooked:
        """Look at `targets`, and decide if those are all. Mostly they are: only what Git no longer has is known to the
        store alone, so that it is not asked before."""
        context = self._context
        verdicts = context.board.observe(sorted(targets))
        clusters = context.board.views((target.cluster for target in targets), now)
        return await context.store.transact(
            f"source:{self.name}/{application}",
            lambda tx: self._decide_in(tx, application, targets, verdicts, clusters, now),
        )

    def _decide_in(
        self,
        tx: Tx,
        application: str,
        looked_at: set[Target],
        verdicts: Mapping[Target, TargetVerdict],
        clusters: Mapping[str, ClusterView],
        now: Now,
    ) -> _Outcome | _Overlooked:
        """Gather, decide, admit, record: inside one transaction."""
        standing = self._gathering.standing(tx, application)
        targets = sorted(self._declared(application) | standing.targets)
        if not looked_at.issuperset(targets):
            return _Overlooked(frozenset(looked_at.union(targets)))
        verdicts = {target: verdicts[target] for target in targets if target in verdicts}
        renamed, waits_for = take_over_former(
            tx, self.name, self.snapshot, application, self._context.board.writing, now
        )
        if renamed:
            standing = self._gathering.standing(tx, application)
        facts = self._gathering.facts(tx, self.snapshot, standing, targets, verdicts, clusters, now)
        revision = self.good.sha if self.good is not None else ""
        facts = replace(facts, revision=revision, blocked=waits_for or facts.blocked)
        found = decide_application(facts, now)
        context = self._context
        commit = f"{self.name}/{facts.revision}"
        regions = context.board.regions()
        ledgers = ledgers_for(tx, scopes_of(found.decision, regions, commit), now)
        decision, spends = admit(found.decision, ledgers, context.limits, regions, commit, now)
        lanes = record_decision(tx, source_name(self.name), self.name, decision, {}, spends, now)
        for rollout_id, row in found.take_over:
            tx.put_rollout_targets(rollout_id, [row])
        waits, opened = decision.waits, None
        if found.open:
            try:
                opened = self._open(tx, application, found, now)
            except UnmatchedTargetsError as error:
                waits = (*waits, Wait("", Reason("UnmatchedTargets", str(error))))
        taken_over = frozenset(rollout_id for rollout_id, _ in found.take_over)
        applied, baked = self._standing(application, facts.seen.assignments)
        recheck_at = decision.recheck_at
        if waits_for is not None:
            recheck_at = min(recheck_at or float("inf"), now.monotonic + self._context.check_interval_s)
        moving = bool(standing.active) or opened is not None
        return _Outcome(waits, recheck_at, frozenset(lanes), renamed, opened, taken_over, applied, baked, moving)

    def _standing(self, application: str, assignments: Mapping[Target, Assignment]) -> tuple[bool, bool]:
        """Is what Git asks for assigned to all targets of `application`, and has it baked on all of them?"""
        compiled = self.snapshot.applications.get(application) if self.snapshot is not None else None
        applied = baked = True
        for cluster, digest in compiled.targets.items() if compiled is not None else ():
            found = assignments.get(Target(application, cluster))
            applied = applied and found is not None and found.digest == digest
            baked = baked and found is not None and found.digest == digest and found.baked == digest
        return applied, baked

    def _open(self, tx: Tx, application: str, found: ApplicationDecision, now: Now) -> str:
        assert self.snapshot is not None
        assert self.good is not None
        interval_s = self._context.check_interval_s
        return open_rollout(tx, self.name, self.good.sha, self.snapshot, application, found, interval_s, now)
