"""How statements are built: once, from the tables, and never from strings of data.

SQLAlchemy compiles a statement the first time it runs and finds it again by its structure. A statement object that is
kept also keeps the key of that look-up, which is what makes a call cost 15 microseconds instead of 100; so statements
are made at import, or by functions that remember what they made.

    _BY_TARGET = select_where(schema.assignment, "application", "cluster")
    connection.execute(_BY_TARGET, {"application": "sample/orders", "cluster": "eu-west-1a"})
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import Insert, insert


def equals(table: sa.Table, *names: str) -> list[sa.ColumnElement[bool]]:
    """`name = :name` for each of `names`."""
    return [table.c[name] == sa.bindparam(name) for name in names]


def is_literally(column: sa.Column[Any], value: str | int) -> sa.ColumnElement[bool]:
    """`column = value` with the value in the statement's text: SQLite uses a partial index only if it can see that the
    index's condition holds, and a parameter tells it nothing."""
    assert isinstance(value, int) or value.isalnum(), "only for constants of this package"
    return column == sa.literal_column(str(value) if isinstance(value, int) else f"'{value}'")


def sorted_apart(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """`column` as an ORDER BY that no index answers. Where a partial index finds the few rows, SQLite would else take
    another one that finds many but already has them in order."""
    return sa.literal_column(f"+{column.table.name}.{column.name}")


def select_where(table: sa.Table, *names: str, order_by: Iterable[str] | None = None) -> sa.Select[Any]:
    """All columns of `table` where `names` equal their parameters, ordered by primary key unless said otherwise."""
    order = list(table.primary_key.columns) if order_by is None else [table.c[name] for name in order_by]
    return sa.select(table).where(*equals(table, *names)).order_by(*order)


def upsert(table: sa.Table) -> Insert:
    """Insert a row, or set all columns but the key of the one with its primary key."""
    key = [column.name for column in table.primary_key.columns]
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={column.name: statement.excluded[column.name] for column in table.columns if column.name not in key},
    )


def insert_or_keep(table: sa.Table, *key: str) -> Insert:
    """Insert a row unless one with the same `key` is there."""
    return insert(table).on_conflict_do_nothing(index_elements=list(key))
