"""What all parts of a transaction share: the connection and a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from reconciler.shell.store.codec import Decoder

Parameters = Mapping[str, Any]


class TxBase:
    """One transaction on one connection. It begins and ends in `sqlite.py`; nothing here commits."""

    __slots__ = ("_connection", "_decoder")

    def __init__(self, connection: sa.Connection, decoder: Decoder) -> None:
        self._connection = connection
        self._decoder = decoder

    @property
    def connection(self) -> sa.Connection:
        """For what goes through all tables (retention.py)."""
        return self._connection

    def _all(self, statement: sa.Executable, parameters: Parameters | None = None) -> Sequence[Any]:
        return self._connection.execute(statement, parameters).all()

    def _first(self, statement: sa.Executable, parameters: Parameters | None = None) -> Any | None:
        return self._connection.execute(statement, parameters).first()

    def _scalar(self, statement: sa.Executable, parameters: Parameters | None = None) -> Any | None:
        return self._connection.execute(statement, parameters).scalar()

    def _run(self, statement: sa.Executable, parameters: Parameters | None = None) -> int:
        """Returns how many rows the statement changed."""
        return int(self._connection.execute(statement, parameters).rowcount)

    def _run_each(self, statement: sa.Executable, rows: Sequence[Parameters]) -> int:
        """The statement once for each of `rows`; returns how many rows it changed altogether."""
        if not rows:
            return 0
        if len(rows) == 1:
            return self._run(statement, rows[0])
        return int(self._connection.execute(statement, rows).rowcount)
