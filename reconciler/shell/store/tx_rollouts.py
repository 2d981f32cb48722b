"""Transactions, part two: rollouts and the targets in them.

A rollout is compared and swapped by its version. Its plan is written once: an update changes the state, never what was
promised. `active` is a column of both tables, so that "which rollout does this target belong to" costs the same after
a thousand rollouts as after one.
"""

from __future__ import annotations

import dataclasses
import functools
import sqlite3
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from reconciler.core.model import (
    ENDED_STATES,
    Rollout,
    RolloutKind,
    RolloutState,
    RolloutTarget,
    Target,
    TargetState,
)
from reconciler.shell.ports import ConflictError
from reconciler.shell.store import codec, schema
from reconciler.shell.store.statements import Prepared, equals, is_literally, select_where, sorted_apart
from reconciler.shell.store.tx_base import TxBase

_rollout = schema.rollout
_row = schema.rollout_target

_ROLLOUT = Prepared(select_where(_rollout, "id"))
_INSERT_ROLLOUT = Prepared(sa.insert(_rollout))
_GUARD = Prepared(sa.select(_rollout.c.active, _rollout.c.plan_hash).where(*equals(_rollout, "id", "version")))
_UPDATE_ROLLOUT = Prepared(
    sa.update(_rollout)
    .where(_rollout.c.id == sa.bindparam("of"), _rollout.c.version == sa.bindparam("at"))
    .values({name: sa.bindparam(name) for name in ("state", "reason_code", "reason_message", "ended_wall")})
    .values({name: sa.bindparam(name) for name in ("paused_from", "went_back", "active", "version")})
)
_SET_TARGETS_ACTIVE = Prepared(
    sa.update(_row).where(_row.c.rollout == sa.bindparam("of")).values(active=sa.bindparam("active"))
)

#: The columns of a RolloutTarget, in the order in which `_target_row` reads them.
_COLUMNS = [column for column in _row.columns if column.name not in ("rollout", "place", "active")]
_TARGETS = Prepared(sa.select(*_COLUMNS).where(*equals(_row, "rollout")).order_by(_row.c.wave, _row.c.place))
_REVISION_OF = Prepared(
    sa.select(_rollout.c.revision)
    .join(_row, _row.c.rollout == _rollout.c.id)
    .where(*equals(_row, "application", "cluster", "to_digest"))
    .order_by(_rollout.c.sequence.desc())
    .limit(1)
)
_INSERT_TARGET = Prepared(sa.insert(_row))
_UPDATE_TARGET = Prepared(
    sa.update(_row)
    .where(
        _row.c.rollout == sa.bindparam("of"),
        _row.c.application == sa.bindparam("on_application"),
        _row.c.cluster == sa.bindparam("on_cluster"),
    )
    .values({c.name: sa.bindparam(c.name) for c in _COLUMNS if c.name not in ("application", "cluster", "wave")})
)


@functools.cache
def _active_rows_where(names: tuple[str, ...]) -> Prepared:
    return Prepared(
        sa.select(_row.c.rollout, *_COLUMNS)
        .join(_rollout, _rollout.c.id == _row.c.rollout)
        .where(*equals(_row, *names), is_literally(_row.c.active, 1), _row.c.rollout != sa.bindparam("but"))
        .order_by(sorted_apart(_rollout.c.sequence), _row.c.application, _row.c.cluster)
    )


@functools.cache
def _rollouts_where(names: tuple[str, ...], active: bool | None) -> Prepared:
    statement = select_where(_rollout, *names, order_by=())
    if active is not None:
        statement = statement.where(is_literally(_rollout.c.active, int(active)))
    # The active ones are few among many that have ended.
    newest = sorted_apart(_rollout.c.sequence) if active else _rollout.c.sequence
    statement = statement.order_by(newest.desc())
    return Prepared(statement.limit(sa.bindparam("limit", type_=sa.Integer)))


#: A look-up instead of a call of the enum: rollouts may have many targets.
_STATES = {state.value: state for state in TargetState}


class RolloutsTx(TxBase):
    """The part of Tx named after rollouts."""

    __slots__ = ()

    def rollout(self, rollout_id: str) -> Rollout | None:
        row = self._first(_ROLLOUT, {"id": rollout_id})
        return None if row is None else self._read(row)

    def rollouts(
        self,
        *,
        source: str | None = None,
        application: str | None = None,
        active: bool | None = None,
        limit: int = 1000,
    ) -> list[Rollout]:
        given = {k: v for k, v in (("source", source), ("application", application)) if v is not None}
        rows = self._all(_rollouts_where(tuple(given), active), {**given, "limit": limit})
        return [self._read(row) for row in rows]

    def insert_rollout(self, rollout: Rollout, targets: Sequence[RolloutTarget]) -> None:
        """Raises ConflictError if a rollout with this id exists, ValueError for a target that no wave of its plan
        holds: it could never start."""
        places = {
            target: (number, place)
            for number, wave in enumerate(rollout.plan.waves)
            for place, target in enumerate(wave.targets)
        }
        for row in targets:
            if places.get(row.target, (None, 0))[0] != row.wave:
                raise ValueError(f"rollout {rollout.id} puts {row.target} in wave {row.wave}, its plan does not")
        try:
            self._run(_INSERT_ROLLOUT, _rollout_columns(rollout))
        except sqlite3.IntegrityError as error:
            raise ConflictError(f"rollout {rollout.id} exists already") from error
        fixed = {"rollout": rollout.id, "active": _active(rollout)}
        self._run_each(
            _INSERT_TARGET,
            [
                {
                    **fixed,
                    **codec.target_columns(row.target),
                    "wave": row.wave,
                    "place": places[row.target][1],
                    **_target_columns(row),
                }
                for row in targets
            ],
        )

    def update_rollout(self, rollout: Rollout) -> Rollout:
        """State, reason, ended_wall, paused_from and went_back are written; the rest of a rollout never changes."""
        guard = self._first(_GUARD, {"id": rollout.id, "version": rollout.version})
        if guard is None:
            raise ConflictError(f"rollout {rollout.id} is no longer at version {rollout.version}")
        if guard.plan_hash != rollout.plan.hash:
            raise ValueError(f"rollout {rollout.id} has plan {guard.plan_hash} for good, not {rollout.plan.hash}")
        active = _active(rollout)
        updated = self._run(
            _UPDATE_ROLLOUT,
            {
                "of": rollout.id,
                "at": rollout.version,
                "state": rollout.state.value,
                **codec.reason_columns(rollout.reason),
                "ended_wall": rollout.ended_wall,
                "paused_from": None if rollout.paused_from is None else rollout.paused_from.value,
                "went_back": int(rollout.went_back),
                "active": active,
                "version": rollout.version + 1,
            },
        )
        if updated != 1:
            raise ConflictError(f"rollout {rollout.id} is no longer at version {rollout.version}")
        if active != guard.active:
            self._run(_SET_TARGETS_ACTIVE, {"of": rollout.id, "active": active})
        return dataclasses.replace(rollout, version=rollout.version + 1)

    def rollout_targets(self, rollout_id: str) -> list[RolloutTarget]:
        return [_target_row(row) for row in self._tuples(_TARGETS, {"rollout": rollout_id})]

    def revision_of(self, target: Target, digest: str) -> str:
        return self._scalar(_REVISION_OF, {**codec.target_columns(target), "to_digest": digest}) or ""

    def put_rollout_targets(self, rollout_id: str, rows: Sequence[RolloutTarget]) -> None:
        """Rows are made with their rollout and only changed here; one that is not there is a LookupError."""
        changed = self._run_each(
            _UPDATE_TARGET,
            [
                {
                    "of": rollout_id,
                    "on_application": row.target.application,
                    "on_cluster": row.target.cluster,
                    **_target_columns(row),
                }
                for row in rows
            ],
        )
        if changed != len(rows):
            raise LookupError(f"rollout {rollout_id} has only {changed} of {[str(row.target) for row in rows]}")

    def active_rows(
        self, application: str | None = None, *, but: str = ""
    ) -> dict[Target, list[tuple[str, RolloutTarget]]]:
        given = {} if application is None else {"application": application}
        found: dict[Target, list[tuple[str, RolloutTarget]]] = {}
        for rollout_id, *columns in self._tuples(_active_rows_where(tuple(given)), {**given, "but": but}):
            row = _target_row(columns)
            found.setdefault(row.target, []).append((rollout_id, row))
        return found

    def _read(self, row: Any) -> Rollout:
        return Rollout(
            id=row.id,
            source=row.source,
            application=row.application,
            kind=RolloutKind(row.kind),
            revision=row.revision,
            plan=self._decoder.plan(row.plan),
            state=RolloutState(row.state),
            reason=codec.reason_of(row.reason_code, row.reason_message),
            created_wall=row.created_wall,
            version=row.version,
            ended_wall=row.ended_wall,
            paused_from=None if row.paused_from is None else RolloutState(row.paused_from),
            went_back=bool(row.went_back),
        )


def _active(rollout: Rollout) -> int:
    return int(rollout.state not in ENDED_STATES)


def _rollout_columns(rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "source": rollout.source,
        "application": rollout.application,
        "kind": rollout.kind.value,
        "revision": rollout.revision,
        "plan": codec.encode_plan(rollout.plan),
        "plan_hash": rollout.plan.hash,
        "state": rollout.state.value,
        **codec.reason_columns(rollout.reason),
        "created_wall": rollout.created_wall,
        "version": rollout.version,
        "ended_wall": rollout.ended_wall,
        "paused_from": None if rollout.paused_from is None else rollout.paused_from.value,
        "went_back": int(rollout.went_back),
        "active": _active(rollout),
    }


def _target_columns(row: RolloutTarget) -> dict[str, Any]:
    """What may change of a row, and the digests it was made with."""
    reason = row.reason
    return {
        "to_digest": row.to_digest,
        "from_digest": row.from_digest,
        "baked_digest": row.baked_digest,
        "state": row.state.value,
        "reason_code": None if reason is None else reason.code,
        "reason_message": None if reason is None else reason.message,
        "changed": int(row.changed),
        "rolling": int(row.rolling),
        "attempt": row.attempt,
        "bake_s": row.bake_s,
        "bake_resets": row.bake_resets,
        "progress_s": row.progress_s,
        "observed_at": row.observed_at,
        "observed_boot": row.observed_boot,
        "job_ids": codec.encode_strings(row.job_ids),
        "restarts": row.restarts,
        "superseding": int(row.superseding),
        "started_wall": row.started_wall,
        "healthy_wall": row.healthy_wall,
        "baked_wall": row.baked_wall,
    }


def _target_row(row: Any) -> RolloutTarget:
    """From the columns of `_COLUMNS`, which are the fields in their order but for those that are two columns."""
    application, cluster, wave, to_digest, from_digest, baked_digest, state, code, message, *rest = row
    changed, rolling, attempt, bake_s, bake_resets, progress_s, *rest = rest
    observed_at, observed_boot, job_ids, restarts, superseding, started_wall, healthy_wall, baked_wall = rest
    return RolloutTarget(
        codec.target_of(application, cluster),
        wave,
        to_digest,
        from_digest,
        baked_digest,
        _STATES[state],
        codec.reason_of(code, message),
        bool(changed),
        bool(rolling),
        attempt,
        bake_s,
        bake_resets,
        progress_s,
        observed_at,
        observed_boot,
        codec.decode_strings(job_ids),
        restarts,
        bool(superseding),
        started_wall,
        healthy_wall,
        baked_wall,
    )
