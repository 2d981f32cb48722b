"""Transactions, part three: intents, and what becomes known of objects when their results arrive.

An intent is inserted once and finished once. Its result also says something about an object, and that is true even if
the intent was given up in the meantime: the request had been sent. So a late result never revives an intent, yet always
reaches the inventory; it only does not undo what the newer decision recorded there (see `_learn`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from reconciler.core.model import (
    Intent,
    IntentResult,
    IntentState,
    InventoryPhase,
    Reason,
    Target,
    Verb,
)
from reconciler.shell.store import codec, schema
from reconciler.shell.store.statements import (
    Parameters,
    Prepared,
    equals,
    insert_or_keep,
    is_literally,
    select_where,
    sorted_apart,
    upsert,
)
from reconciler.shell.store.tx_base import TxBase

_intent = schema.intent
_inventory = schema.inventory
_ITEM = ("cluster", "application", "api_group", "kind", "namespace", "name")

_PENDING = is_literally(_intent.c.state, IntentState.PENDING.value)
_FAILED = is_literally(_intent.c.state, IntentState.FAILED.value)
#: Those whose ids are in a list, in JSON.
_INTENTS_AMONG = Prepared(
    sa.select(_intent).where(_intent.c.id.in_(sa.select(sa.func.json_each(sa.bindparam("ids")).table_valued("value"))))
)
_UNFINISHED_STATES = _intent.c.state.in_(
    [sa.literal_column(f"'{state.value}'") for state in (IntentState.PENDING, IntentState.FAILED)]
)
_INTENT = Prepared(select_where(_intent, "id"))
_UNFINISHED = Prepared(
    sa.select(_intent).where(*equals(_intent, "owner"), _UNFINISHED_STATES).order_by(sorted_apart(_intent.c.sequence))
)
_PENDING_COUNTS = Prepared(
    sa.select(_intent.c.cluster, sa.func.count())
    .where(*equals(_intent, "application"), _PENDING)
    .group_by(sorted_apart(_intent.c.cluster))
)
_FAILED_PRUNES = Prepared(
    sa.select(_intent)
    .where(*equals(_intent, "application"), _FAILED, is_literally(_intent.c.purpose, "prune"))
    .order_by(sorted_apart(_intent.c.sequence))
)
_REFUSED_HEALS = Prepared(
    sa.select(_intent)
    .where(*equals(_intent, "application", "cluster", "attempt", "digest"))
    .where(_FAILED, is_literally(_intent.c.purpose, "heal"))
    .order_by(sorted_apart(_intent.c.sequence))
)
_PUT_INTENT = Prepared(insert_or_keep(_intent, "id"))
_FINISH = Prepared(
    sa.update(_intent)
    .where(_intent.c.id == sa.bindparam("of"), _PENDING)
    .values({name: sa.bindparam(name) for name in ("state", "reason_code", "reason_message")})
)
_ABANDON = Prepared(
    sa.update(_intent)
    .where(
        _intent.c.application == sa.bindparam("on_application"),
        _intent.c.cluster == sa.bindparam("on_cluster"),
        _PENDING,
    )
    .values({name: sa.bindparam(name) for name in ("state", "reason_code", "reason_message")})
)
_PHASE = Prepared(sa.select(_inventory.c.phase).where(*equals(_inventory, *_ITEM)))
_PUT_ITEM = Prepared(upsert(_inventory))
_DELETE_ITEM = Prepared(sa.delete(_inventory).where(*equals(_inventory, *_ITEM)))
_FORGET_UID = Prepared(
    sa.update(_inventory)
    .where(*(_inventory.c[name] == sa.bindparam(f"of_{name}") for name in _ITEM))
    .values(uid="", generation=0)
)

_WRITTEN = frozenset({IntentState.DONE, IntentState.UNCHANGED})


@functools.cache
def _intents_where(names: tuple[str, ...], pending: bool | None) -> Prepared:
    if pending:
        found = select_where(_intent, *names, order_by=()).where(_PENDING)
        return Prepared(found.order_by(sorted_apart(_intent.c.sequence)))
    statement = select_where(_intent, *names)
    return Prepared(statement if pending is None else statement.where(sa.not_(_PENDING)))


class IntentsTx(TxBase):
    """The part of Tx named after intents."""

    __slots__ = ()

    def intents(
        self,
        *,
        cluster: str | None = None,
        owner: str | None = None,
        application: str | None = None,
        pending: bool | None = None,
    ) -> list[Intent]:
        wanted = {"cluster": cluster, "owner": owner, "application": application}
        given = {name: value for name, value in wanted.items() if value is not None}
        return list(map(codec.decode_intent, self._tuples(_intents_where(tuple(sorted(given)), pending), given)))

    def pending_counts(self, application: str) -> dict[Target, int]:
        rows = self._tuples(_PENDING_COUNTS, {"application": application})
        return {codec.target_of(application, cluster): count for cluster, count in rows}

    def unfinished_intents(self, owner: str) -> list[Intent]:
        return list(map(codec.decode_intent, self._tuples(_UNFINISHED, {"owner": owner})))

    def failed_prunes(self, application: str) -> list[Intent]:
        return list(map(codec.decode_intent, self._tuples(_FAILED_PRUNES, {"application": application})))

    def refused_heals(self, target: Target, digest: str, attempt: int) -> list[Intent]:
        asked = {**codec.target_columns(target), "digest": digest, "attempt": attempt}
        return list(map(codec.decode_intent, self._tuples(_REFUSED_HEALS, asked)))

    def intent(self, intent_id: str) -> Intent | None:
        rows = self._tuples(_INTENT, {"id": intent_id})
        return codec.decode_intent(rows[0]) if rows else None

    def put_intents(self, intents: Sequence[Intent]) -> None:
        """The intents of one call are committed in their `order`, those of later calls after them."""
        self._run_each(_PUT_INTENT, [_columns(intent) for intent in sorted(intents, key=lambda one: one.order)])

    def abandon_intents(self, target: Target, reason: Reason) -> int:
        count = self._run(
            _ABANDON,
            {
                "on_application": target.application,
                "on_cluster": target.cluster,
                "state": IntentState.ABANDONED.value,
                **codec.reason_columns(reason),
            },
        )
        if count:
            self._given_up.add(target.cluster)
        return count

    def finish_intents(self, results: Sequence[IntentResult]) -> None:
        """A result that is still PENDING is a ValueError, one for an unknown intent a LookupError. Of two results for
        one intent the first one stays."""
        found = self._intents_among([result.intent for result in results])
        finished: list[dict[str, Any]] = []
        learnt: list[tuple[Prepared, Parameters]] = []
        for result in results:
            if result.state is IntentState.PENDING:
                raise ValueError(f"intent {result.intent} cannot be finished as pending")
            intent = found.get(result.intent)
            if intent is None:
                raise LookupError(f"there is no intent {result.intent}")
            finished.append({"of": intent.id, "state": result.state.value, **codec.reason_columns(result.reason)})
            learnt.extend(self._learn(intent, result))
        self._run_each(_FINISH, finished)
        for statement, group in itertools.groupby(learnt, key=lambda pair: pair[0]):
            self._run_each(statement, [row for _, row in group])

    def _intents_among(self, ids: list[str]) -> dict[str, Intent]:
        rows = self._tuples(_INTENTS_AMONG, {"ids": codec.encode_strings(tuple(ids))}) if ids else []
        return {intent.id: intent for intent in map(codec.decode_intent, rows)}

    def _learn(self, intent: Intent, result: IntentResult) -> Iterator[tuple[Prepared, Parameters]]:
        """How `result` brings what it says of the object into the inventory: statements with their parameters.

        If the intent was given up, a newer decision may have been recorded there: an item on its way out keeps saying
        so, with the uid that its delete will need; one that is wanted again stays wanted, without the uid of the object
        that is gone."""
        item = {**codec.target_columns(intent.target), **codec.key_columns(intent.key)}
        phase = self._scalar(_PHASE, item) if intent.state is IntentState.ABANDONED else None
        if intent.verb is Verb.APPLY and result.state in _WRITTEN:
            kept = InventoryPhase.DELETING if phase == InventoryPhase.DELETING else InventoryPhase.OWNED
            known = {"api_version": intent.api_version, "uid": result.uid, "generation": result.generation}
            yield _PUT_ITEM, {**item, **known, "phase": kept.value}
        elif intent.verb is Verb.DELETE and result.gone:
            if phase == InventoryPhase.INTENDED:
                yield _FORGET_UID, {f"of_{name}": value for name, value in item.items()}
            else:
                yield _DELETE_ITEM, item


def _columns(intent: Intent) -> dict[str, Any]:
    return {
        "id": intent.id,
        "owner": intent.owner,
        "purpose": intent.purpose,
        **codec.target_columns(intent.target),
        "verb": intent.verb.value,
        **codec.key_columns(intent.key),
        "api_version": intent.api_version,
        "digest": intent.digest,
        "attempt": intent.attempt,
        "place": intent.order,
        "epoch": intent.epoch,
        "state": intent.state.value,
        **codec.reason_columns(intent.reason),
    }
