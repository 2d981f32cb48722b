"""Transactions, part five: the audit log, the outbox and the installation's id."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from reconciler.core.model import Target
from reconciler.shell.ports import AuditRow, OutboxRow
from reconciler.shell.store import codec, schema
from reconciler.shell.store.statements import Prepared, insert_or_keep, select_where
from reconciler.shell.store.tx_base import TxBase

_audit = schema.audit
_outbox = schema.outbox

_LIMIT = sa.bindparam("limit", type_=sa.Integer)
_AUDIT = Prepared(sa.insert(_audit))
_ABOUT_DRIFT = Prepared(
    select_where(_audit, "application", "cluster", order_by=())
    .where(sa.text(schema.ABOUT_DRIFT))
    .order_by(_audit.c.id.desc())
    .limit(_LIMIT)
)
_PUT_OUTBOX = Prepared(insert_or_keep(_outbox, "key"))
_MARK_SENT = Prepared(
    sa.update(_outbox)
    .where(_outbox.c.key == sa.bindparam("of"), _outbox.c.sent_wall.is_(None))
    .values(sent_wall=sa.bindparam("sent_wall"))
)
_INSTALLATION = Prepared(sa.select(schema.meta.c.value).where(schema.meta.c.name == "installation"))


@functools.cache
def _audit_where(names: tuple[str, ...]) -> Prepared:
    statement = select_where(_audit, *names, order_by=()).where(_audit.c.id > sa.bindparam("after_id"))
    return Prepared(statement.order_by(_audit.c.id.desc()).limit(_LIMIT))


@functools.cache
def _outbox_where(sent: bool | None) -> Prepared:
    statement = select_where(_outbox)
    if sent is not None:
        statement = statement.where(_outbox.c.sent_wall.is_not(None) if sent else _outbox.c.sent_wall.is_(None))
    return Prepared(statement.limit(_LIMIT))


class JournalTx(TxBase):
    """The part of Tx named after audit and outbox."""

    __slots__ = ()

    def audit(self, row: AuditRow) -> None:
        """Append a line; its id is given by the store."""
        self._run(
            _AUDIT,
            {
                "wall": row.wall,
                "level": row.level,
                "code": row.code,
                "message": row.message,
                "source": row.source,
                "application": row.application,
                "cluster": row.cluster,
                "rollout": row.rollout,
                "actor": row.actor,
                "data": None if row.data is None else codec.encode_json(row.data),
            },
        )

    def audit_log(
        self, *, application: str | None = None, rollout: str | None = None, after_id: int = 0, limit: int = 200
    ) -> list[AuditRow]:
        given = {k: v for k, v in (("application", application), ("rollout", rollout)) if v is not None}
        rows = self._all(_audit_where(tuple(given)), {**given, "after_id": after_id, "limit": limit})
        return [_audit_row(row) for row in rows]

    def drift_told(self, target: Target, limit: int = 100) -> list[AuditRow]:
        """Newest first."""
        asked = {"application": target.application, "cluster": target.cluster, "limit": limit}
        rows = itertools.takewhile(lambda row: row.code == "Drift", self._all(_ABOUT_DRIFT, asked))
        return [_audit_row(row) for row in rows]

    def put_outbox(self, key: str, kind: str, body: Mapping[str, Any], wall: float) -> bool:
        row = {"key": key, "kind": kind, "body": codec.encode_json(body), "created_wall": wall, "sent_wall": None}
        return self._run(_PUT_OUTBOX, row) == 1

    def outbox(self, *, sent: bool | None = None, limit: int = 100) -> list[OutboxRow]:
        """Oldest first."""
        return [
            OutboxRow(row.key, row.kind, codec.decode_json(row.body), row.created_wall, row.sent_wall)
            for row in self._all(_outbox_where(sent), {"limit": limit})
        ]

    def mark_sent(self, key: str, wall: float) -> None:
        """A message that was marked keeps its first time; an unknown key changes nothing."""
        self._run(_MARK_SENT, {"of": key, "sent_wall": wall})

    def installation(self) -> str:
        value = self._scalar(_INSTALLATION)
        assert isinstance(value, str), "a store without an installation id cannot be opened"
        return value


def _audit_row(row: Any) -> AuditRow:
    return AuditRow(
        row.wall,
        row.level,
        row.code,
        row.message,
        row.source,
        row.application,
        row.cluster,
        row.rollout,
        row.actor,
        None if row.data is None else codec.decode_json(row.data),
        row.id,
    )
