"""Transactions, part four: health facts, quarantine and the ledgers of what was spent."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import sqlalchemy as sa

from reconciler.core.model import Facts, ObjectKey, Reason, Target
from reconciler.shell.ports import QuarantineRow
from reconciler.shell.store import codec, schema
from reconciler.shell.store.statements import Prepared, equals, select_where, upsert
from reconciler.shell.store.tx_base import TxBase

_FACTS = Prepared(select_where(schema.facts, "cluster"))
_PUT_FACTS = Prepared(upsert(schema.facts))
_DELETE_FACTS = Prepared(sa.delete(schema.facts).where(*equals(schema.facts, "cluster", "application")))
_PUT_QUARANTINE = Prepared(upsert(schema.quarantine))
_SPEND = Prepared(sa.insert(schema.ledger))
_counted = (*equals(schema.ledger, "kind", "scope"), schema.ledger.c.wall > sa.bindparam("since"))
_total = sa.func.coalesce(sa.func.sum(schema.ledger.c.amount), 0)
_SPENT = Prepared(sa.select(_total).where(*_counted))
_LEDGER = Prepared(sa.select(_total, sa.func.min(schema.ledger.c.wall)).where(*_counted))


@functools.cache
def _quarantined_where(names: tuple[str, ...]) -> Prepared:
    return Prepared(select_where(schema.quarantine, *names))


@functools.cache
def _delete_quarantine_where(names: tuple[str, ...]) -> Prepared:
    return Prepared(sa.delete(schema.quarantine).where(*equals(schema.quarantine, *names)))


class LedgersTx(TxBase):
    """The part of Tx named after facts, quarantine and ledgers."""

    __slots__ = ()

    def facts(self, cluster: str) -> dict[tuple[Target, ObjectKey], Facts]:
        found = {}
        for (
            _,
            application,
            group,
            kind,
            namespace,
            name,
            state,
            since_s,
            transitions_s,
            job_id,
            restarts,
        ) in self._tuples(_FACTS, {"cluster": cluster}):
            key = (codec.target_of(application, cluster), codec.key_of(group, kind, namespace, name))
            found[key] = Facts(state, since_s, codec.decode_numbers(transitions_s), job_id, restarts)
        return found

    def put_facts(self, target: Target, key: ObjectKey, facts: Facts) -> None:
        self._run(
            _PUT_FACTS,
            {
                **codec.target_columns(target),
                **codec.key_columns(key),
                "state": facts.state,
                "since_s": facts.since_s,
                "transitions_s": codec.encode_numbers(facts.transitions_s),
                "job_id": facts.job_id,
                "restarts": facts.restarts,
            },
        )

    def delete_facts(self, target: Target) -> None:
        self._run(_DELETE_FACTS, codec.target_columns(target))

    def quarantined(self, application: str | None = None) -> list[QuarantineRow]:
        given = {} if application is None else {"application": application}
        return [
            QuarantineRow(
                row.application, row.digest, Reason(row.reason_code, row.reason_message), row.rollout, row.created_wall
            )
            for row in self._all(_quarantined_where(tuple(given)), given)
        ]

    def put_quarantine(self, rows: Sequence[QuarantineRow]) -> None:
        self._run_each(
            _PUT_QUARANTINE,
            [
                {
                    "application": row.application,
                    "digest": row.digest,
                    **codec.reason_columns(row.reason),
                    "rollout": row.rollout,
                    "created_wall": row.created_wall,
                }
                for row in rows
            ],
        )

    def delete_quarantine(self, application: str, digest: str | None = None) -> int:
        given = {"application": application} | ({} if digest is None else {"digest": digest})
        return self._run(_delete_quarantine_where(tuple(given)), given)

    def spend(self, kind: str, scope: str, amount: int, wall: float) -> None:
        self._run(_SPEND, {"kind": kind, "scope": scope, "amount": amount, "wall": wall})

    def spent(self, kind: str, scope: str, since_wall: float) -> int:
        """What was spent *after* `since_wall`: an entry is free again exactly one window after it was made, so that
        looking again at that moment finds budget."""
        return int(self._scalar(_SPENT, {"kind": kind, "scope": scope, "since": since_wall}) or 0)

    def ledger(self, kind: str, scope: str, since_wall: float) -> tuple[int, float | None]:
        ((spent, oldest),) = self._tuples(_LEDGER, {"kind": kind, "scope": scope, "since": since_wall})
        return spent, oldest
