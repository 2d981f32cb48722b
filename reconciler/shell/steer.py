"""Steering by people: sync, pause, resume, abort, retry. Audited with who and why.

An order is one transaction under a point of its own; the rollout's unit is woken afterwards and goes on from what is
stored. An order that does not fit is refused with what to do instead: nothing is guessed.

    await pause(daemon, "orders-1a2b3c4-77f0", Order(actor="ada", reason="looks slow"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler.core import decide
from reconciler.core.actions import Decision
from reconciler.core.model import ENDED_STATES, Now, Reason, Rollout, RolloutState, RolloutTarget
from reconciler.core.retry import retry as again
from reconciler.shell.asking import AskError, RefusedError, find_application, find_rollout
from reconciler.shell.context import intents_of
from reconciler.shell.daemon import Daemon
from reconciler.shell.lane import lane_name
from reconciler.shell.looks import goals_of
from reconciler.shell.ports import AuditRow, ConflictError, Tx
from reconciler.shell.record import record_decision, settle_contests
from reconciler.shell.rollout_unit import audit_state, owner_of
from reconciler.shell.source_unit import POLL, RESYNC, source_name

#: A unit may write the rollout at the same moment: then the order is looked at again.
ATTEMPTS_MAX = 5
REASON_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Order:
    """Who gives an order, and why."""

    actor: str
    reason: str = ""

    def because(self, verb: str) -> Reason:
        """The reason that the rollout carries from now on."""
        why = f": {self.reason}" if self.reason else ""
        return Reason(f"{verb}ByUser", f"{verb.lower()} by {self.actor}{why}")


@dataclass(frozen=True, slots=True)
class _Done:
    """What an order's transaction did: the rollout as it is now and the clusters whose lanes have news."""

    rollout: Rollout
    clusters: frozenset[str] = frozenset()


Work = Callable[[Tx, Rollout, Now], _Done]


async def pause(daemon: Daemon, name: str, order: Order) -> Rollout:
    """Start nothing new; what is in flight is observed to its end."""

    def work(tx: Tx, rollout: Rollout, now: Now) -> _Done:
        if rollout.state is RolloutState.PAUSED:
            raise RefusedError("already-paused", f"rollout {rollout.id} is paused already", _resume_hint(rollout))
        if rollout.state is RolloutState.HALTED:
            message = f"rollout {rollout.id} is halted: nothing new starts"
            raise RefusedError("already-halted", message, f"`reconciler rollout retry {rollout.id}` tries again")
        return _stored(tx, rollout, decide.pause(rollout, order.because("Paused")), now, order)

    return await _ordered(daemon, name, "pause", order, work)


async def resume(daemon: Daemon, name: str, order: Order) -> Rollout:
    """Go on from where it was paused."""

    def work(tx: Tx, rollout: Rollout, now: Now) -> _Done:
        if rollout.state is RolloutState.HALTED:
            message = f"rollout {rollout.id} is halted, not paused: {rollout.reason.message if rollout.reason else ''}"
            hint = f"push a fix, or try the same release again with `reconciler rollout retry {rollout.id}`"
            raise RefusedError("not-paused", message, hint)
        if rollout.state is not RolloutState.PAUSED:
            message = f"rollout {rollout.id} is {rollout.state}, not paused"
            raise RefusedError("not-paused", message, "there is nothing to resume")
        return _stored(tx, rollout, decide.resume(rollout), now, order)

    return await _ordered(daemon, name, "resume", order, work)


async def abort(daemon: Daemon, name: str, order: Order) -> Rollout:
    """End it where it stands and quarantine its releases."""

    def work(tx: Tx, rollout: Rollout, now: Now) -> _Done:
        rows = tx.rollout_targets(rollout.id)
        decision = decide.abort(rollout, rows, order.because("Aborted"), now)
        return _recorded(tx, rollout, decision, rows, now, order)

    return await _ordered(daemon, name, "abort", order, work)


async def retry(daemon: Daemon, name: str, order: Order) -> Rollout:
    """Let its releases be tried again: end their quarantine. A halted rollout goes on itself, with what failed; for one
    that has ended the source opens a new one."""
    found = await find_rollout(daemon, name)

    def work(tx: Tx) -> _Done:
        now = daemon.ports.clock.now()
        rollout = _fresh(tx, found.id)
        if rollout.state not in ENDED_STATES and rollout.state is not RolloutState.HALTED:
            message = f"rollout {rollout.id} is {rollout.state}: only a halted or ended one is tried again"
            raise RefusedError("not-halted", message, "abort it first, or wait for it to end")
        rows = tx.rollout_targets(rollout.id)
        released = 0
        for application, digest in sorted({(row.target.application, row.to_digest) for row in rows}):
            released += tx.delete_quarantine(application, digest)
        if not released and rollout.state in ENDED_STATES:
            message = f"rollout {rollout.id} is {rollout.state} and none of its releases is in quarantine"
            raise RefusedError("nothing-to-retry", message, "`reconciler explain` says what is waited for")
        _audit(tx, rollout, "retry", order, now)
        if rollout.state in ENDED_STATES:
            return _Done(rollout)
        return _recorded(tx, rollout, again(rollout, rows, order.because("Retried")), rows, now, order)

    done = await _transact(daemon, found.id, work)
    _wake(daemon, done)
    return done.rollout


async def sync(daemon: Daemon, name: str | None, order: Order) -> list[str]:
    """Look at Git now, and compare everything anew; of one application, or of all. Returns the sources."""
    if name is None:
        sources, dirty = sorted(daemon.sources), [POLL, RESYNC]
    else:
        application = await find_application(daemon, name)
        name = application
        source, _ = goals_of(daemon, application)
        sources, dirty = [source] if source else [], [POLL, application]
        if not sources:
            message = f"no repository declares {application} any more"
            raise AskError("unknown-application", message, "`reconciler apps` lists what there is")
    wall = daemon.ports.clock.now().wall
    message = f"sync asked for by {order.actor}" + (f": {order.reason}" if order.reason else "")
    row = AuditRow(wall, "event", "SyncAsked", message, ",".join(sources), name or "", actor=order.actor)
    await daemon.context.store.transact("steer:sync", lambda tx: _sync_asked(tx, row, daemon.ports.clock.now()))
    for source in sources:
        daemon.hub.wake(source_name(source), *dirty)
    return sources


def _sync_asked(tx: Tx, row: AuditRow, now: Now) -> None:
    """A person who asks for one application by name has decided who is right about what was fought over."""
    tx.audit(row)
    if row.application:
        settle_contests(tx, row.application, now)


# ---- how an order is carried out -----------------------------------------------------------------------------------


async def _ordered(daemon: Daemon, name: str, verb: str, order: Order, work: Work) -> Rollout:
    found = await find_rollout(daemon, name)

    def transaction(tx: Tx) -> _Done:
        now = daemon.ports.clock.now()
        rollout = _fresh(tx, found.id)
        if rollout.state in ENDED_STATES:
            message = f"rollout {rollout.id} has ended ({rollout.state}): there is nothing to {verb}"
            raise RefusedError("rollout-ended", message, "`reconciler rollouts` lists those that have not")
        done = work(tx, rollout, now)
        _audit(tx, rollout, verb, order, now)
        return done

    done = await _transact(daemon, found.id, transaction)
    _wake(daemon, done)
    return done.rollout


async def _transact(daemon: Daemon, rollout_id: str, work: Callable[[Tx], _Done]) -> _Done:
    for attempt in range(ATTEMPTS_MAX):
        try:
            return await daemon.context.store.transact(f"steer:{rollout_id}", work)
        except ConflictError:
            if attempt == ATTEMPTS_MAX - 1:
                raise
    raise AssertionError("unreachable")


def _fresh(tx: Tx, rollout_id: str) -> Rollout:
    rollout = tx.rollout(rollout_id)
    assert rollout is not None, f"rollout {rollout_id} vanished from the store"
    return rollout


def _stored(tx: Tx, before: Rollout, after: Rollout, now: Now, order: Order) -> _Done:
    stored = tx.update_rollout(after)
    audit_state(tx, before, stored, now, order.actor)
    return _Done(stored)


def _recorded(tx: Tx, before: Rollout, decision: Decision, rows: list[RolloutTarget], now: Now, order: Order) -> _Done:
    assert decision.rollout is not None
    clusters = record_decision(
        tx, owner_of(before.id), before.source, decision, {row.target: row for row in rows}, [], now
    )
    stored = tx.update_rollout(decision.rollout)
    audit_state(tx, before, stored, now, order.actor)
    return _Done(stored, frozenset(clusters))


def _audit(tx: Tx, rollout: Rollout, verb: str, order: Order, now: Now) -> None:
    message = f"{order.actor} orders: {verb} rollout {rollout.id}" + (f": {order.reason}" if order.reason else "")
    data: dict[str, Any] = {"verb": verb, "reason": order.reason}
    tx.audit(
        AuditRow(
            now.wall,
            "event",
            "Ordered",
            message,
            rollout.source,
            rollout.application,
            rollout=rollout.id,
            actor=order.actor,
            data=data,
        )
    )


def _wake(daemon: Daemon, done: _Done) -> None:
    """The rollout goes on from what is stored, its lanes drop what was given up, and its source decides anew."""
    rollout = done.rollout
    # What it waited for was decided before the order; who asks in between is not to read it as the outcome.
    daemon.board.waits.pop(owner_of(rollout.id), None)
    daemon.hub.wake(owner_of(rollout.id))
    applications = sorted({target.application for target in rollout.plan.targets})
    for cluster in sorted(done.clusters):
        daemon.hub.wake(lane_name(cluster), *map(intents_of, applications))
    daemon.hub.wake(source_name(rollout.source), *applications)


def _resume_hint(rollout: Rollout) -> str:
    return f"`reconciler rollout resume {rollout.id}` lets it go on"
