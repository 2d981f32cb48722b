"""How statements are built and run: built once, from the tables, and run on the driver itself.

SQLAlchemy knows the tables and the dialect, so it writes every statement's text; no text is ever made of data. Running
is left to the driver: SQLAlchemy's way through a statement takes ten times as long as SQLite's own, and the thread that
pays for it shares the interpreter with everybody else. A `Prepared` statement is compiled when it first runs, so it has
to be kept: made at import, or by a function that remembers what it made.

Values go to the driver and come back as they are. No type of `schema.py` needs more than that: texts, integers and
bytes are the driver's own, and SQLite itself makes a float of what a REAL column is given.

    _BY_TARGET = Prepared(select_where(schema.assignment, "application", "cluster"))
    for row in _BY_TARGET.rows(connection, {"application": "sample/orders", "cluster": "eu-west-1a"}):
        row.digest
"""

from __future__ import annotations

import functools
import operator
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import Insert, insert

Parameters = Mapping[str, Any]

_DIALECT = sqlite.dialect(paramstyle="qmark")
#: Makes a type of rows from the names of their columns, which are known only when a statement is compiled.
_row_type: Callable[..., Any] = namedtuple


class Prepared:
    """One statement, as the driver takes it. Kept by who runs it; safe to use from several threads."""

    def __init__(self, statement: sa.Executable) -> None:
        self._statement = statement

    @functools.cached_property
    def _compiled(self) -> Any:
        statement: Any = self._statement
        column_keys = None
        if isinstance(statement, sa.Insert):
            # What the database numbers by itself is not given.
            numbered = statement.table.autoincrement_column  # type: ignore[attr-defined]
            column_keys = [column.name for column in statement.table.columns if column is not numbered]
        compiled = statement.compile(dialect=_DIALECT, column_keys=column_keys)
        # Text that depends on the parameters would have to be written anew each time.
        assert not compiled.post_compile_params, f"{compiled} takes a list"
        assert not compiled.literal_execute_params, f"{compiled} takes a literal"
        return compiled

    @functools.cached_property
    def sql(self) -> str:
        """Its text."""
        return str(self._compiled)

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The parameters that have to be given; the others are constants of the statement."""
        return frozenset(name for name, bind in self._compiled.binds.items() if bind.required)

    @functools.cached_property
    def _in_order(self) -> Callable[[Parameters], tuple[Any, ...]]:
        """The parameters as a tuple in the order of the text."""
        order: list[str] = self._compiled.positiontup
        constants = {name: value for name, value in self._compiled.params.items() if name not in self.names}
        if len(order) < 2:
            return lambda parameters: tuple({**constants, **parameters}[name] for name in order)
        get = operator.itemgetter(*order)
        if not constants:
            return get
        return lambda parameters: get({**constants, **parameters})

    def _arguments(self, parameters: Parameters) -> tuple[Any, ...]:
        """Raises KeyError for one that is missing and ValueError for one too many: it would be lost silently."""
        arguments = self._in_order(parameters)
        if len(parameters) != len(self.names):
            raise ValueError(f"not a parameter of {self.sql}: {sorted(parameters.keys() - self.names)}")
        return arguments

    @functools.cached_property
    def _row(self) -> Callable[[Iterable[Any]], Any]:
        """Makes a row: a tuple whose columns have their names."""
        columns = [str(name) for name in self._compiled.statement.selected_columns.keys()]  # noqa: SIM118 - no mapping
        make: Callable[[Iterable[Any]], Any] = _row_type("Row", columns, rename=True)._make
        return make

    def tuples(self, connection: sqlite3.Connection, parameters: Parameters) -> list[Any]:
        """All rows that a query finds, without names: for many rows that are taken apart by place."""
        return connection.execute(self.sql, self._arguments(parameters)).fetchall()

    def rows(self, connection: sqlite3.Connection, parameters: Parameters) -> list[Any]:
        """All rows that a query finds."""
        found = self.tuples(connection, parameters)
        return list(map(self._row, found)) if found else found

    def run(self, connection: sqlite3.Connection, parameters: Parameters) -> int:
        """Returns how many rows the statement changed."""
        return connection.execute(self.sql, self._arguments(parameters)).rowcount

    def run_each(self, connection: sqlite3.Connection, rows: Sequence[Parameters]) -> int:
        """The statement once for each of `rows`; returns how many rows it changed altogether."""
        return connection.executemany(self.sql, list(map(self._arguments, rows))).rowcount


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
