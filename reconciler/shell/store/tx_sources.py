"""Transactions, part one: sources and revisions, releases, assignments and the inventory.

What Git asked for, what it compiles to, which target is to have it, and which objects are ours there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from reconciler.core.model import Assignment, InventoryItem, ObjectKey, Release, Target
from reconciler.shell.ports import Commit, SourceRow
from reconciler.shell.store import codec, schema
from reconciler.shell.store.statements import Prepared, equals, insert_or_keep, select_where, upsert
from reconciler.shell.store.tx_base import TxBase

_SOURCE = Prepared(select_where(schema.source, "name"))
_PUT_SOURCE = Prepared(upsert(schema.source))
_REVISION = Prepared(select_where(schema.revision, "source", "sha"))
_PUT_REVISION = Prepared(insert_or_keep(schema.revision, "source", "sha"))
_RELEASE = Prepared(select_where(schema.release, "digest"))
_INSERT_RELEASE = Prepared(sa.insert(schema.release))
_KEEP_RELEASE = Prepared(
    sa.update(schema.release).where(schema.release.c.digest == sa.bindparam("of")).values(unreferenced=0)
)
_ASSIGNMENT = Prepared(select_where(schema.assignment, "application", "cluster"))
_PUT_ASSIGNMENT = Prepared(upsert(schema.assignment))
_DELETE_ASSIGNMENT = Prepared(sa.delete(schema.assignment).where(*equals(schema.assignment, "application", "cluster")))
_APPLY_RULES = Prepared(select_where(schema.apply_rules, "application"))
_APPLY_RULES_OF_SOURCE = Prepared(select_where(schema.apply_rules, "source"))
_APPLY_RULES_OF_CLUSTER = Prepared(
    sa.select(schema.apply_rules.c.application, schema.apply_rules.c.rules)
    .join(schema.assignment, schema.assignment.c.application == schema.apply_rules.c.application)
    .where(*equals(schema.assignment, "cluster"))
    .order_by(schema.apply_rules.c.application)
)
_PUT_APPLY_RULES = Prepared(upsert(schema.apply_rules))
_DELETE_APPLY_RULES = Prepared(sa.delete(schema.apply_rules).where(*equals(schema.apply_rules, "application")))
_INVENTORY = Prepared(select_where(schema.inventory, "cluster", "application"))
_INVENTORY_OF_CLUSTER = Prepared(select_where(schema.inventory, "cluster"))
_INVENTORY_SIZES = Prepared(
    sa.select(schema.inventory.c.cluster, sa.func.count())
    .where(*equals(schema.inventory, "application"))
    .group_by(schema.inventory.c.cluster)
)
_PUT_INVENTORY = Prepared(upsert(schema.inventory))
_DELETE_INVENTORY = Prepared(
    sa.delete(schema.inventory).where(
        *equals(schema.inventory, "cluster", "application", "api_group", "kind", "namespace", "name")
    )
)


_RENAME = [
    Prepared(sa.update(table).where(table.c.application == sa.bindparam("old")).values(application=sa.bindparam("new")))
    for table in (schema.assignment, schema.inventory, schema.facts, schema.quarantine)
]


@functools.cache
def _assignments_where(names: tuple[str, ...]) -> Prepared:
    return Prepared(select_where(schema.assignment, *names))


class SourcesTx(TxBase):
    """The part of Tx named after sources."""

    __slots__ = ()

    def source(self, name: str) -> SourceRow | None:
        row = self._first(_SOURCE, {"name": name})
        return None if row is None else SourceRow(*row)

    def put_source(self, row: SourceRow) -> None:
        self._run(
            _PUT_SOURCE,
            {
                "name": row.name,
                "fleet": row.fleet,
                "last_attempted": row.last_attempted,
                "last_applied": row.last_applied,
                "last_baked": row.last_baked,
                "problems": row.problems,
                "last_usable": row.last_usable,
                "held": row.held,
                "health_policies": row.health_policies,
            },
        )

    def put_revision(self, source: str, commit: Commit, seen_wall: float) -> None:
        """Remember a commit; one that is known keeps the time it was seen first."""
        self._run(
            _PUT_REVISION,
            {
                "source": source,
                "sha": commit.sha,
                "author": commit.author,
                "subject": commit.subject,
                "authored_wall": commit.authored_wall,
                "seen_wall": seen_wall,
            },
        )

    def revision(self, source: str, sha: str) -> Commit | None:
        row = self._first(_REVISION, {"source": source, "sha": sha})
        return None if row is None else Commit(row.sha, row.author, row.subject, row.authored_wall)

    def put_release(self, release: Release) -> None:
        """A release is immutable: one that is here only learns that somebody is about to use it, so that retention
        does not collect it."""
        if self._run(_KEEP_RELEASE, {"of": release.digest}):
            return
        self._run(
            _INSERT_RELEASE,
            {
                "digest": release.digest,
                "application": release.application,
                "objects": codec.encode_objects(release.objects),
                "unreferenced": 0,
            },
        )

    def release(self, digest: str) -> Release | None:
        """The release; its objects are shared with other callers and must not be changed."""
        row = self._first(_RELEASE, {"digest": digest})
        return None if row is None else Release(digest, row.application, self._decoder.objects(row.objects))

    def assignment(self, target: Target) -> Assignment | None:
        row = self._first(_ASSIGNMENT, codec.target_columns(target))
        return None if row is None else _assignment(row)

    def assignments(
        self, *, source: str | None = None, application: str | None = None, cluster: str | None = None
    ) -> list[Assignment]:
        wanted = {"source": source, "application": application, "cluster": cluster}
        given = {name: value for name, value in wanted.items() if value is not None}
        return [_assignment(row) for row in self._tuples(_assignments_where(tuple(given)), given)]

    def put_assignment(self, row: Assignment) -> None:
        """The release has to be stored first."""
        self._run(
            _PUT_ASSIGNMENT,
            {
                **codec.target_columns(row.target),
                "digest": row.digest or None,
                "source": row.source,
                "revision": row.revision,
                "baked": row.baked,
                "due": row.due,
                "heal_count": row.heal_count,
                "heal_streak": row.heal_streak,
                "heal_at_s": row.heal_at_s,
                "heal_boot": row.heal_boot,
                "contested": row.contested,
                "disabled_wall": row.disabled_wall,
                "orphaned_wall": row.orphaned_wall,
            },
        )

    def delete_assignment(self, target: Target) -> None:
        self._run(_DELETE_ASSIGNMENT, codec.target_columns(target))

    def apply_rules(self, application: str) -> str:
        row = self._first(_APPLY_RULES, {"application": application})
        return "" if row is None else str(row.rules)

    def apply_rules_of_source(self, source: str) -> dict[str, str]:
        return {row.application: row.rules for row in self._all(_APPLY_RULES_OF_SOURCE, {"source": source})}

    def apply_rules_of_cluster(self, cluster: str) -> dict[str, str]:
        return {row.application: row.rules for row in self._all(_APPLY_RULES_OF_CLUSTER, {"cluster": cluster})}

    def put_apply_rules(self, application: str, source: str, rules: str) -> None:
        """ "" is the default, which has no row."""
        if rules:
            self._run(_PUT_APPLY_RULES, {"application": application, "source": source, "rules": rules})
        else:
            self._run(_DELETE_APPLY_RULES, {"application": application})

    def rename_application(self, old: str, new: str) -> None:
        """Everything that is known of the targets of `old` is of `new` from now on; its history keeps the name."""
        for statement in _RENAME:
            self._run(statement, {"old": old, "new": new})

    def inventory(self, target: Target) -> list[InventoryItem]:
        return list(map(codec.decode_item, self._tuples(_INVENTORY, codec.target_columns(target))))

    def inventory_of_cluster(self, cluster: str) -> list[InventoryItem]:
        return list(map(codec.decode_item, self._tuples(_INVENTORY_OF_CLUSTER, {"cluster": cluster})))

    def inventory_sizes(self, application: str) -> dict[Target, int]:
        rows = self._tuples(_INVENTORY_SIZES, {"application": application})
        return {codec.target_of(application, cluster): count for cluster, count in rows}

    def put_inventory(self, items: Sequence[InventoryItem]) -> None:
        rows = [
            {
                **codec.target_columns(item.target),
                **codec.key_columns(item.key),
                "api_version": item.api_version,
                "phase": item.phase.value,
                "uid": item.uid,
                "generation": item.generation,
            }
            for item in items
        ]
        self._run_each(_PUT_INVENTORY, rows)

    def delete_inventory(self, target: Target, keys: Sequence[ObjectKey]) -> None:
        rows = [{**codec.target_columns(target), **codec.key_columns(key)} for key in keys]
        self._run_each(_DELETE_INVENTORY, rows)


def _assignment(row: Any) -> Assignment:
    application, cluster, digest, *rest = row
    return Assignment(codec.target_of(application, cluster), digest or "", *rest)
