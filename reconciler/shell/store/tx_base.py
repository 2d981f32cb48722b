"""What all parts of a transaction share: the connection and a decoder."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from reconciler.shell.store.codec import Decoder
from reconciler.shell.store.statements import Parameters, Prepared

_NONE: Parameters = {}


class TxBase:
    """One transaction on one connection. It begins and ends in `sqlite.py`; nothing here commits."""

    __slots__ = ("_connection", "_decoder", "_given_up")

    def __init__(self, connection: sqlite3.Connection, decoder: Decoder, given_up: set[str]) -> None:
        """The clusters on which pending intents are given up are added to `given_up`."""
        self._connection = connection
        self._decoder = decoder
        self._given_up = given_up

    @property
    def connection(self) -> sqlite3.Connection:
        """For what goes through all tables (retention.py)."""
        return self._connection

    def _all(self, statement: Prepared, parameters: Parameters = _NONE) -> list[Any]:
        return statement.rows(self._connection, parameters)

    def _tuples(self, statement: Prepared, parameters: Parameters = _NONE) -> list[Any]:
        """As `_all`, without the columns' names: for what may be many rows and is taken apart by place."""
        return statement.tuples(self._connection, parameters)

    def _first(self, statement: Prepared, parameters: Parameters = _NONE) -> Any | None:
        """For queries that find one row at most."""
        rows = statement.rows(self._connection, parameters)
        return rows[0] if rows else None

    def _scalar(self, statement: Prepared, parameters: Parameters = _NONE) -> Any | None:
        """The first column of what `_first` finds."""
        row = self._first(statement, parameters)
        return None if row is None else row[0]

    def _run(self, statement: Prepared, parameters: Parameters = _NONE) -> int:
        """Returns how many rows the statement changed."""
        return statement.run(self._connection, parameters)

    def _run_each(self, statement: Prepared, rows: Sequence[Parameters]) -> int:
        """The statement once for each of `rows`; returns how many rows it changed altogether."""
        if not rows:
            return 0
        if len(rows) == 1:
            return self._run(statement, rows[0])
        return statement.run_each(self._connection, rows)
