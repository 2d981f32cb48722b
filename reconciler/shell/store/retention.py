"""Retention: what history may go, in small transactions, and never anything that is still referenced.

History is whatever no decision reads any more: ended rollouts with their rows and intents, finished intents of sources,
spent ledger entries, delivered messages, old audit lines, revisions and releases that nothing points to. Long tables
are walked once from the oldest row on, SPAN rows a transaction, so that the writer is never held for long.

    await store.prune_history(before_wall=now.wall - 30 * 86400, keep=20)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from reconciler.core.model import IntentState
from reconciler.shell.store import schema
from reconciler.shell.store.statements import Prepared, is_literally
from reconciler.shell.store.tx import SqlTx

#: Rows looked at in one transaction: some ten milliseconds.
SPAN = 2000


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows went, by table. Rows of targets go with their rollout and are not counted."""

    rows: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def _nth_newest(identity: sa.Column[Any], *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The identity of the newest row that is not among the `keep` newest; NULL if there is none."""
    keep = sa.bindparam("keep", type_=sa.Integer)
    return sa.select(identity).where(*conditions).order_by(identity.desc()).limit(1).offset(keep)


def _rollouts() -> tuple[sa.ColumnElement[bool], ...]:
    """Ended before the limit, not among the newest `keep` of its source and application, no intent still pending (it
    would be an orphan), no quarantine that names it. Its target rows go with it (cascade)."""
    one, newer = schema.rollout, schema.rollout.alias()
    kept = _nth_newest(newer.c.sequence, newer.c.application == one.c.application, newer.c.source == one.c.source)
    pending = sa.exists().where(
        schema.intent.c.owner == sa.literal_column("'rollout:'").concat(one.c.id),
        is_literally(schema.intent.c.state, IntentState.PENDING.value),
    )
    blamed = sa.exists().where(schema.quarantine.c.rollout == one.c.id)
    return (
        is_literally(one.c.active, 0),
        one.c.ended_wall < sa.bindparam("before"),
        one.c.sequence <= kept.correlate(one).scalar_subquery(),
        sa.not_(pending),
        sa.not_(blamed),
    )


def _intents() -> tuple[sa.ColumnElement[bool], ...]:
    """Finished intents of rollouts that are gone; and of sources, which never end, all but the newest `keep` of each
    target."""
    one, newer = schema.intent, schema.intent.alias()
    of_source: sa.ColumnElement[str] = sa.literal_column("'source:%'")
    alive = sa.exists().where(schema.rollout.c.id == sa.func.substr(one.c.owner, len("rollout:") + 1))
    kept = _nth_newest(
        newer.c.sequence,
        newer.c.application == one.c.application,
        newer.c.cluster == one.c.cluster,
        newer.c.owner.like(of_source),
    )
    return (
        sa.not_(is_literally(one.c.state, IntentState.PENDING.value)),
        sa.or_(
            sa.and_(one.c.owner.like(sa.literal_column("'rollout:%'")), sa.not_(alive)),
            sa.and_(one.c.owner.like(of_source), one.c.sequence <= kept.correlate(one).scalar_subquery()),
        ),
    )


def _audit() -> tuple[sa.ColumnElement[bool], ...]:
    """Older than the limit and not among the newest `keep` of all."""
    kept = _nth_newest(schema.audit.alias().c.id).scalar_subquery()
    return schema.audit.c.wall < sa.bindparam("before"), schema.audit.c.id <= kept


@functools.cache
def _walk(table: sa.Table) -> tuple[Prepared, Prepared]:
    """Where the next SPAN rows end, and the statement that prunes among them."""
    before: sa.BindParameter[float] = sa.bindparam("before")
    rules: dict[str, Callable[[], tuple[sa.ColumnElement[bool], ...]]] = {
        "rollout": _rollouts,
        "intent": _intents,
        "ledger": lambda: (schema.ledger.c.wall < before,),
        "outbox": lambda: (schema.outbox.c.sent_wall < before,),
        "audit": _audit,
    }
    (identity,) = table.primary_key.columns
    after = identity > sa.bindparam("after")
    span = sa.select(identity).where(after).order_by(identity).limit(sa.literal_column(str(SPAN))).subquery()
    end = sa.select(sa.func.max(span.c[0]))
    prune = sa.delete(table).where(after, identity <= sa.bindparam("end"), *rules[table.name]())
    return Prepared(end), Prepared(prune)


def _release_is_referenced() -> sa.ColumnElement[bool]:
    row, assignment, intent = schema.rollout_target, schema.assignment, schema.intent
    digests = sa.union(
        *(sa.select(c) for c in (assignment.c.digest, assignment.c.baked, assignment.c.due)),
        *(sa.select(c) for c in (row.c.to_digest, row.c.from_digest, row.c.baked_digest)),
        sa.select(intent.c.digest).where(is_literally(intent.c.state, IntentState.PENDING.value)),
    ).subquery()
    return schema.release.c.digest.in_(sa.select(digests.c[0]).where(digests.c[0].is_not(None)))


@functools.cache
def _release_rules() -> tuple[Prepared, Prepared]:
    """Delete what was marked by an earlier run and is still unreferenced; then mark what is unreferenced now. Storing a
    release again takes the mark away, pointing at it makes it void."""
    one = schema.release
    unreferenced = sa.not_(_release_is_referenced())
    collect = sa.delete(one).where(is_literally(one.c.unreferenced, 1), unreferenced)
    mark = sa.update(one).where(is_literally(one.c.unreferenced, 0), unreferenced).values(unreferenced=1)
    return Prepared(collect), Prepared(mark)


@functools.cache
def _revision_rule() -> Prepared:
    """Seen before the limit and named by nothing."""
    source = schema.source
    named = sa.union(
        *(sa.select(source.c[name]) for name in ("last_attempted", "last_applied", "last_baked", "last_usable")),
        sa.select(schema.rollout.c.revision),
        sa.select(schema.assignment.c.revision),
    ).subquery()
    one = schema.revision
    old = sa.delete(one).where(one.c.seen_wall < sa.bindparam("before"), one.c.sha.not_in(sa.select(named.c[0])))
    return Prepared(old)


#: The tables that are walked, in an order in which one makes way for the next.
WALKED = (schema.rollout, schema.intent, schema.ledger, schema.outbox, schema.audit)


def prune_span(tx: SqlTx, table: sa.Table, after: int, before_wall: float, keep: int) -> tuple[int | None, int]:
    """Prune among the SPAN rows of `table` that follow `after`. Returns where to go on (None: done) and how many rows
    went."""
    end, delete = _walk(table)
    ((reached,),) = end.rows(tx.connection, {"after": after})
    if reached is None:
        return None, 0
    parameters = {"after": after, "end": reached, "before": before_wall, "keep": keep}
    return reached, delete.run(tx.connection, {name: parameters[name] for name in delete.names})


def prune_revisions(tx: SqlTx, before_wall: float) -> int:
    """Returns how many went."""
    return _revision_rule().run(tx.connection, {"before": before_wall})


def collect_releases(tx: SqlTx) -> int:
    """Collect what a run before this one marked, then mark. Returns how many releases went."""
    collect, mark = _release_rules()
    collected = collect.run(tx.connection, {})
    mark.run(tx.connection, {})
    return collected
