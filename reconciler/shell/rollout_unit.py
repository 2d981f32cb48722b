"""The unit of one rollout: gather -> decide -> admit -> record, in one transaction, and wake whom it concerns.

It sees all of its targets' verdicts and never calls a cluster. The rows, assignments, intents and ledgers are read in
the transaction that records the decision, so that two units never spend the same budget or overwrite each other.

    while not ended:
        wait for a wake-up, or for recheck_at
        step()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.core.actions import Alert, Decision, Wait
from reconciler.core.admit import admit, scopes_of
from reconciler.core.decide import decide
from reconciler.core.model import (
    ENDED_STATES,
    SETTLED_STATES,
    ClusterView,
    IntentState,
    Now,
    Rollout,
    RolloutTarget,
    Target,
    TargetVerdict,
)
from reconciler.core.observation import IntentSummary, Observation
from reconciler.core.rollout import SLOT_HOLDING
from reconciler.core.way_back import no_way_back
from reconciler.shell.context import Context, intents_of
from reconciler.shell.outbox import OUTBOX
from reconciler.shell.ports import AuditRow, Tx
from reconciler.shell.record import drifted, heals_of, ledgers_for, record_decision, refused_heals, report_only


def owner_of(rollout_id: str) -> str:
    """The name of the rollout's unit, which its intents carry."""
    return f"rollout:{rollout_id}"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a step's transaction says to the world outside it."""

    rollout: Rollout
    waits: tuple[Wait, ...]
    recheck_at: float | None
    lanes: frozenset[str]
    changed: bool
    alerts: tuple[str, ...] = ()  # the level of each that was raised


class RolloutUnit:
    """Decides one rollout until it has ended."""

    def __init__(self, context: Context, rollout: Rollout) -> None:
        self._context = context
        self.id = rollout.id
        self._source = rollout.source
        self._targets = rollout.plan.targets
        self._ways_back: dict[tuple[str, str], str] = {}
        self._applications = sorted({target.application for target in self._targets})

    async def run(self) -> None:
        """Step at every wake-up until the rollout has ended."""
        context = self._context
        name = owner_of(self.id)
        context.board.watch(name, self._targets)
        for cluster in sorted({target.cluster for target in self._targets}):
            context.hub.wake(f"lane:{cluster}")  # it looks more often now that somebody waits for it
        try:
            with context.hub.unit(name) as unit:
                while True:
                    outcome = await self.step()
                    if outcome.rollout.state in ENDED_STATES:
                        return
                    unit.wake_at(context.clock, outcome.recheck_at)
                    await unit.wait()
        finally:
            context.board.unwatch(name)
            context.board.waits.pop(name, None)

    async def step(self) -> _Outcome:
        """Decide once."""
        context = self._context
        now = context.clock.now()
        verdicts = context.board.observe(self._targets)
        clusters = context.board.views((target.cluster for target in self._targets), now)
        outcome = await context.store.transact(
            f"decide:{self.id}", lambda tx: self._decide(tx, verdicts, clusters, now)
        )
        context.board.waits[owner_of(self.id)] = outcome.waits
        if outcome.rollout.state in ENDED_STATES:
            context.metrics.add("rollouts_ended", state=str(outcome.rollout.state))
        context.metrics.add("decisions", unit="rollout")
        for cluster in sorted(outcome.lanes):
            context.hub.wake(f"lane:{cluster}", *map(intents_of, self._applications))
        if outcome.changed:
            context.hub.wake(f"source:{self._source}", *self._applications)
        for level in outcome.alerts:
            context.metrics.add("alerts", level=level)
        if outcome.alerts:
            context.hub.wake(OUTBOX)
        return outcome

    def _decide(
        self,
        tx: Tx,
        verdicts: Mapping[Target, TargetVerdict],
        clusters: Mapping[str, ClusterView],
        now: Now,
    ) -> _Outcome:
        context = self._context
        rollout = tx.rollout(self.id)
        assert rollout is not None, f"rollout {self.id} vanished from the store"
        rows = tx.rollout_targets(self.id)
        if rollout.state in ENDED_STATES:
            return _Outcome(rollout, (), None, frozenset(), False)
        intents = intent_summaries(tx, owner_of(self.id), rows)
        differing = drifted(verdicts, intents)
        assignments = {found.target: found for name in self._applications for found in tx.assignments(application=name)}
        seen = Observation(
            verdicts,
            clusters,
            assignments,
            intents,
            held_by_others(tx, self.id, self._applications),
            stopped_elsewhere(tx, self.id, self._applications),
            self._without_way_back(tx, rows),
            report_only(tx, differing),
            heals_of(tx, differing, now),
            refused_heals(tx, assignments, differing),
        )
        decision = decide(rollout, rows, seen, now)
        commit = f"{rollout.source}/{rollout.revision}"
        regions = context.board.regions()
        ledgers = ledgers_for(tx, scopes_of(decision, regions, commit), now)
        decision, spends = admit(decision, ledgers, context.limits, regions, commit, now)
        lanes = record_decision(
            tx, owner_of(self.id), rollout.source, decision, {row.target: row for row in rows}, spends, now
        )
        after = decision.rollout
        assert after is not None
        if after != rollout:
            after = tx.update_rollout(after)
            audit_state(tx, rollout, after, now)
        settled = _settled(decision, rows)
        alerts = tuple(action.level for action in decision.actions if isinstance(action, Alert))
        return _Outcome(after, decision.waits, decision.recheck_at, frozenset(lanes), settled, alerts)

    def _without_way_back(self, tx: Tx, rows: Iterable[RolloutTarget]) -> dict[tuple[str, str], str]:
        """Pairs of releases without a way back. Releases never change, so each pair is compared once."""
        for row in rows:
            pair = (row.to_digest, row.baked_digest or "")
            if pair in self._ways_back or row.baked_digest in (None, row.to_digest):
                continue
            release, baked = tx.release(pair[0]), tx.release(pair[1])
            if release is not None and baked is not None:
                self._ways_back[pair] = no_way_back(release.objects, baked.objects)
        return {pair: fields for pair, fields in self._ways_back.items() if fields}


def _settled(decision: Decision, rows: Iterable[RolloutTarget]) -> bool:
    """True if a target has left the rollout's hands, or the rollout has stopped or ended: its source decides next."""
    before = {row.target: row for row in rows}
    ended = decision.rollout is not None and decision.rollout.state in ENDED_STATES
    return ended or any(
        step.after is not None
        and step.after.state in SETTLED_STATES
        and before[step.target].state not in SETTLED_STATES
        for step in decision.steps
    )


def audit_state(tx: Tx, before: Rollout, after: Rollout, now: Now, actor: str = "reconciler") -> None:
    """A line in the audit log when a rollout's state changes."""
    if before.state is after.state:
        return
    message = f"rollout {after.id} of {after.application} is {after.state}"
    if after.reason is not None:
        message += f": {after.reason.message}"
    tx.audit(
        AuditRow(
            now.wall,
            "event",
            f"Rollout{after.state}",
            message,
            after.source,
            after.application,
            rollout=after.id,
            actor=actor,
        )
    )


def intent_summaries(tx: Tx, owner: str, rows: Iterable[RolloutTarget]) -> dict[Target, IntentSummary]:
    """How far the writes of each target's current attempt are. Repairs count as pending, never as a failure: what
    cannot be repaired is seen in the verdict."""
    found: dict[Target, IntentSummary] = {}
    interesting = {row.target: row for row in rows if row.state not in SETTLED_STATES}
    for intent in tx.unfinished_intents(owner):
        row = interesting.get(intent.target)
        if row is None:
            continue
        summary = found.get(intent.target, IntentSummary())
        if intent.state is IntentState.PENDING:
            found[intent.target] = IntentSummary(summary.pending + 1, summary.failed)
        elif intent.state is IntentState.FAILED and intent.purpose != "heal" and intent.attempt == row.attempt:
            found[intent.target] = IntentSummary(summary.pending, summary.failed or intent.reason)
    return found


def stopped_elsewhere(tx: Tx, rollout_id: str, applications: Iterable[str]) -> dict[tuple[str, str], str]:
    """Releases that another rollout was stopped for: one opened before that may not start them either."""
    return {
        (row.application, row.digest): row.rollout
        for application in applications
        for row in tx.quarantined(application)
        if row.rollout != rollout_id
    }


def held_by_others(tx: Tx, rollout_id: str, applications: Iterable[str]) -> dict[Target, str]:
    """Targets of `applications` that another active rollout still has in flight."""
    held: dict[Target, str] = {}
    for application in applications:
        for target, others in tx.active_rows(application, but=rollout_id).items():
            for other_id, row in others:
                if row.state in SLOT_HOLDING:
                    held.setdefault(target, other_id)
    return held
