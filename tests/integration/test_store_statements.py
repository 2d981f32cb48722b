"""Statements are run on the driver; what they write and find is what SQLAlchemy's own way would."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.model import InventoryPhase
from reconciler.shell.ports import Tx
from reconciler.shell.store import (
    open_store,
    retention,
    schema,
    sqlite,
    tx_intents,
    tx_journal,
    tx_ledgers,
    tx_rollouts,
    tx_sources,
)
from reconciler.shell.store.migrate import create
from reconciler.shell.store.statements import Prepared, equals, insert_or_keep, select_where, upsert
from tests.integration.store_values import TARGETS, item

TABLES = [table for table in schema.metadata.sorted_tables if table is not schema.alembic_version]
MODULES = (sqlite, tx_sources, tx_rollouts, tx_intents, tx_ledgers, tx_journal)
PREPARED = {
    f"{module.__name__.rpartition('.')[2]}.{name}": found
    for module in MODULES
    for name, found in vars(module).items()
    if isinstance(found, Prepared)
}

VALUES: dict[type[Any], st.SearchStrategy[Any]] = {
    sa.Text: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    sa.Integer: st.integers(-(2**63), 2**63 - 1),
    sa.Float: st.floats(allow_nan=False, width=64) | st.integers(-(2**40), 2**40) | st.just(-0.0),
    sa.LargeBinary: st.binary(max_size=8),
}


@st.composite
def table_and_row(draw: st.DrawFn) -> tuple[sa.Table, dict[str, Any]]:
    table = draw(st.sampled_from(TABLES))
    row = {}
    for column in table.columns:
        if column is table.autoincrement_column:
            continue
        value = VALUES[type(column.type)]
        row[column.name] = draw(st.none() | value if column.nullable else value)
    return table, row


@contextmanager
def database() -> Iterator[tuple[sa.Connection, sqlite3.Connection]]:
    """An empty store: SQLAlchemy's connection, and the driver's below it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool)
        with engine.connect() as connection:
            create(connection)
            yield connection, raw


def typed(rows: Any) -> list[list[tuple[type[Any], Any]]]:
    """So that 1 is not 1.0, and -0.0 not 0.0."""
    return [[(type(value), repr(value)) for value in row] for row in rows]


@given(table_and_row())
def test_what_is_written_and_found_is_the_same(drawn: tuple[sa.Table, dict[str, Any]]) -> None:
    table, row = drawn
    names = [column.name for column in table.primary_key.columns if column.name in row]
    key = {name: row[name] for name in names}
    found: list[Any] = []
    with database() as (theirs, _), database() as (also_theirs, ours):
        for statement in (sa.insert(table), upsert(table), insert_or_keep(table, *key)) if key else (sa.insert(table),):
            if found:
                theirs.execute(sa.delete(table).where(*equals(table, *names)), key)
                ours_deleted = Prepared(sa.delete(table).where(*equals(table, *names))).run(ours, key)
                assert ours_deleted == 1
            assert Prepared(statement).run(ours, row) == theirs.execute(statement, row).rowcount == 1
            question = select_where(table, *names)
            found = list(theirs.execute(question, key))
            assert typed(Prepared(question).rows(ours, key)) == typed(found)
            assert typed(also_theirs.execute(question, key)) == typed(found)
        assert len(found) == 1
        (mine,) = Prepared(select_where(table)).rows(ours, {})
        assert mine._fields == tuple(column.name for column in table.columns)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz", max_size=3)), min_size=2, max_size=6))
def test_many_rows_count_as_they_would(pairs: list[tuple[str, str]]) -> None:
    rows = [{"name": name, "value": value} for name, value in pairs]
    for statement in (upsert(schema.meta), insert_or_keep(schema.meta, "name")):
        with database() as (theirs, _), database() as (_, ours):
            assert Prepared(statement).run_each(ours, rows) == theirs.execute(statement, rows).rowcount
            everything = select_where(schema.meta)
            assert Prepared(everything).rows(ours, {}) == [tuple(row) for row in theirs.execute(everything)]


@pytest.mark.parametrize("column", [c for table in TABLES for c in table.columns], ids=str)
def test_no_type_converts(column: sa.Column[Any]) -> None:
    """A type that had to change values on their way could not be used: the driver would be handed the value itself.
    A REAL column makes floats of what it is given, which is all that SQLAlchemy's Float would do."""
    assert type(column.type) in VALUES
    dialect: Any = sa.create_engine("sqlite://").dialect
    kind: Any = column.type.dialect_impl(dialect)
    assert kind.result_processor(dialect, None) is None
    convert = kind.bind_processor(dialect)
    given_and_bound = {"LargeBinary": (b"x", b"x"), "Float": (1, 1.0)}.get(type(column.type).__name__)
    if given_and_bound is None:
        assert convert is None
    else:
        # Bytes are only wrapped in a view of them.
        value, bound = given_and_bound
        assert convert(value) == bound


@pytest.mark.parametrize("statement", PREPARED.values(), ids=PREPARED)
def test_what_is_missing_or_too_much_is_refused(statement: Prepared) -> None:
    with database() as (_, raw):
        for name in sorted(statement.names):
            with pytest.raises(KeyError):
                statement.run(raw, dict.fromkeys(statement.names - {name}, "1"))
        with pytest.raises(ValueError, match="not a parameter"):
            statement.run(raw, dict.fromkeys(statement.names | {"unheard_of"}, "1"))


def test_every_statement_can_be_compiled() -> None:
    """Those of retention are made when they are first needed."""
    made = [statement for table in retention.WALKED for statement in retention._walk(table)]
    made += [*retention._release_rules(), retention._revision_rule()]
    with database() as (_, raw):
        for statement in (*made, *PREPARED.values()):
            raw.execute(f"EXPLAIN {statement.sql}", [None] * statement.sql.count("?"))


def test_text_that_would_depend_on_the_parameters_is_refused() -> None:
    within = sa.select(schema.meta).where(schema.meta.c.name.in_(sa.bindparam("names", expanding=True)))
    with pytest.raises(AssertionError, match="takes a list"):
        _ = Prepared(within).sql


def test_a_row_is_a_tuple_with_names() -> None:
    with database() as (_, raw):
        Prepared(upsert(schema.meta)).run(raw, {"name": "epoch", "value": "7"})
        (row,) = Prepared(select_where(schema.meta, "name")).rows(raw, {"name": "epoch"})
        assert (row.name, row.value) == row == ("epoch", "7")
        (counted,) = Prepared(sa.select(sa.func.count()).select_from(schema.meta)).rows(raw, {})
        assert counted == (1,)


def test_a_row_that_is_remembered_is_never_one_that_was_undone() -> None:
    target = TARGETS[0]
    before, after = item(target, InventoryPhase.OWNED, uid="u"), item(target, InventoryPhase.DELETING, uid="u")

    def undone(tx: Tx) -> None:
        tx.put_inventory([after])
        assert tx.inventory(target) == [after]
        raise ZeroDivisionError

    store = open_store(":memory:", new_id=lambda: "i")
    store.transact_now("put", lambda tx: tx.put_inventory([before]))
    assert store.read_now("look", lambda tx: tx.inventory(target)) == [before]
    with pytest.raises(ZeroDivisionError):
        store.transact_now("put", undone)
    assert store.read_now("look", lambda tx: tx.inventory(target)) == [before]
    store.close_now()
