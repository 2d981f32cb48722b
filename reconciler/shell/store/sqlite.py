"""SqlStore: the Store port on SQLite.

One connection writes, and one thread owns it: the executor given in production, the caller's own thread in the
simulator (`executor=None`), where every call runs to its end at once. A transaction is BEGIN IMMEDIATE, a look at the
epoch, the work, COMMIT with `synchronous=FULL`. With an executor, transactions that wait for the thread together are
committed together: each in a savepoint of its own, none is told its result before the COMMIT (a *group commit*: the
disk is asked once). Readers have read-only connections and see the last commit, also while a transaction runs.

    store = open_store(directory / "reconciler.db", executor=ThreadPoolExecutor(1), new_id=lambda: uuid4().hex)
    rows = await store.read("status", lambda tx: tx.rollouts(active=True))
    await store.transact("pause", lambda tx: tx.update_rollout(replace(rollout, state=RolloutState.PAUSED)))
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from reconciler.shell.ports import FencedError
from reconciler.shell.store import retention, schema
from reconciler.shell.store.codec import Decoder
from reconciler.shell.store.errors import StoreError
from reconciler.shell.store.lock import StateLock
from reconciler.shell.store.statements import Prepared
from reconciler.shell.store.tx import SqlTx

T = TypeVar("T")

#: Transactions that share one commit at most: bounds how long one of them waits for the others.
GROUP_MAX = 64

_EPOCH = Prepared(sa.select(schema.meta.c.value).where(schema.meta.c.name == "epoch"))


@dataclass(frozen=True, slots=True)
class _Pending:
    """A transaction that waits for the writer's thread."""

    point: str
    work: Callable[[SqlTx], Any]
    future: Future[Any]


class SqlStore:
    """Durable state in one SQLite database. Made by `open_store` and `from_bytes` (opening.py)."""

    def __init__(
        self,
        connection: sa.Connection,
        *,
        name: str,
        epoch: int,
        executor: Executor | None,
        readers: Executor | None,
        connect_reader: Callable[[], sqlite3.Connection] | None,
        lock: StateLock | None,
    ) -> None:
        self._connection = connection  # kept to be closed; all work is done on the driver's
        self._raw = raw_connection(connection)
        self._name = name
        self._epoch = epoch
        self._executor = executor
        self._readers = readers
        self._connect_reader = connect_reader
        self._idle_readers: deque[sqlite3.Connection] = deque()
        self._lock = lock
        self._decoder = Decoder()
        self._given_up: Counter[str] = Counter()
        self._giving_up: set[str] = set()  # by the transaction that runs
        self._pending: deque[_Pending] = deque()
        self._closed = False

    @property
    def epoch(self) -> int:
        """+1 at every opening: Now.boot."""
        return self._epoch

    def given_up(self, cluster: str) -> int:
        """As Store.given_up."""
        return self._given_up[cluster]

    # ---- the port ------------------------------------------------------------------------------------------------

    async def transact(self, point: str, work: Callable[[SqlTx], T]) -> T:
        """Run `work` in a transaction and commit. If it raises, its writes are undone and the error is raised here.
        Whoever is cancelled while waiting does not know whether the transaction was committed."""
        if self._executor is None:
            return self.transact_now(point, work)
        self._check_open(point)
        future: Future[T] = Future()
        self._pending.append(_Pending(point, work, future))
        self._executor.submit(self._commit_group)
        return await asyncio.wrap_future(future)

    async def read(self, point: str, work: Callable[[SqlTx], T]) -> T:
        """Run `work` on a consistent snapshot. A write in it fails with StoreError."""
        if self._executor is None:
            return self.read_now(point, work)
        self._check_open(point)
        loop = asyncio.get_running_loop()
        if self._connect_reader is None or self._readers is None:
            return await loop.run_in_executor(self._executor, self.read_now, point, work)
        return await loop.run_in_executor(self._readers, self._read_apart, point, work)

    async def close(self) -> None:
        """Finish what is queued, close, let go of the lock. The executors stay their owner's."""
        if self._executor is None:
            self.close_now()
        elif not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, self._close)

    async def prune_history(self, before_wall: float, keep: int) -> retention.Pruned:
        """Delete history older than `before_wall` but the newest `keep` of each kind; see retention.py. Releases go
        at the second run that finds them unreferenced."""
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least the newest of everything has to stay")
        pruned: dict[str, int] = {}
        for table in retention.WALKED:
            pruned[table.name] = 0
            after: int | None = 0
            while after is not None:
                span = functools.partial(
                    retention.prune_span, table=table, after=after, before_wall=before_wall, keep=keep
                )
                after, count = await self.transact(f"retention:{table.name}", span)
                pruned[table.name] += count
        revisions = functools.partial(retention.prune_revisions, before_wall=before_wall)
        pruned["revision"] = await self.transact("retention:revision", revisions)
        pruned["release"] = await self.transact("retention:release", retention.collect_releases)
        return retention.Pruned(pruned)

    # ---- the same, at once, in the thread that owns the connection -------------------------------------------------

    def transact_now(self, point: str, work: Callable[[SqlTx], T]) -> T:
        """`transact` without a loop: for the simulator, and for the writer's own thread."""
        self._check_open(point)
        with self._transaction(point):
            return work(SqlTx(self._raw, self._decoder, self._giving_up))

    def read_now(self, point: str, work: Callable[[SqlTx], T]) -> T:
        """`read` on the writer's connection, which refuses to write meanwhile."""
        self._check_open(point)
        with self._translated(point):
            self._raw.execute("PRAGMA query_only = 1")
            try:
                return self._read_on(self._raw, work)
            finally:
                self._raw.execute("PRAGMA query_only = 0")

    def close_now(self) -> None:
        """`close` without a loop."""
        if not self._closed:
            self._closed = True
            self._close()

    def serialize(self) -> bytes:
        """The committed content as the bytes of a SQLite file, for `from_bytes`. Only outside a transaction."""
        if self._raw.in_transaction:
            raise RuntimeError("a store is copied between transactions, not inside one")
        return self._raw.serialize()

    # ---- transactions --------------------------------------------------------------------------------------------

    def _commit_group(self) -> None:
        """Take what is waiting and commit it together. One task of the executor runs this for each transaction, so the
        later ones of a group find nothing left."""
        group: list[_Pending] = []
        while self._pending and len(group) < GROUP_MAX:
            one = self._pending.popleft()
            if one.future.set_running_or_notify_cancel():
                group.append(one)
        if len(group) == 1:
            self._commit_one(group[0])
        elif group:
            self._commit_several(group)

    def _commit_one(self, one: _Pending) -> None:
        try:
            with self._transaction(one.point):
                result = one.work(SqlTx(self._raw, self._decoder, self._giving_up))
        except BaseException as error:  # noqa: BLE001 - not swallowed: raised where the transaction was asked for
            one.future.set_exception(error)
        else:
            one.future.set_result(result)

    def _commit_several(self, group: list[_Pending]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            with self._transaction("+".join(one.point for one in group)):
                outcomes.extend(self._in_savepoint(one) for one in group)
        except BaseException as error:  # noqa: BLE001 - not swallowed: raised where each transaction was asked for
            # Nothing was committed, so everybody has failed; who failed for a reason of its own is told that one.
            for one in group:
                one.future.set_exception(error)
            return
        for one, (result, failure) in zip(group, outcomes, strict=True):
            if failure is None:
                one.future.set_result(result)
            else:
                one.future.set_exception(failure)

    def _in_savepoint(self, one: _Pending) -> tuple[Any, BaseException | None]:
        """Its result, or its error after its own writes were undone. An error that ended the whole transaction (disk
        full) leaves no savepoint to go back to, and the failing ROLLBACK TO ends the group."""
        self._raw.execute("SAVEPOINT one")
        try:
            with self._translated(one.point):
                result = one.work(SqlTx(self._raw, self._decoder, self._giving_up))
        except Exception as error:  # noqa: BLE001 - not swallowed: raised where the transaction was asked for
            self._raw.execute("ROLLBACK TO one")
            self._raw.execute("RELEASE one")
            return None, error
        self._raw.execute("RELEASE one")
        return result, None

    @contextmanager
    def _transaction(self, point: str) -> Iterator[None]:
        raw = self._raw
        with self._translated(point):
            raw.execute("BEGIN IMMEDIATE")
            try:
                rows = _EPOCH.rows(raw, {})
                stored = rows[0].value if rows else None
                if stored != str(self._epoch):
                    raise FencedError(f"{self._name} was opened again (epoch {stored}, ours is {self._epoch})")
                yield
                if not raw.in_transaction:
                    # SQLite ends a transaction by itself on some errors; what came after it was not part of it.
                    raise StoreError(f"{point}: SQLite gave up the transaction")
                raw.execute("COMMIT")
                self._given_up.update(self._giving_up)
            finally:
                self._giving_up.clear()
                # Still there: something failed, the commit itself perhaps.
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    def _read_apart(self, point: str, work: Callable[[SqlTx], T]) -> T:
        """On a read-only connection of its own: there are as many as the readers' executor has threads."""
        assert self._connect_reader is not None
        with self._translated(point):
            try:
                connection = self._idle_readers.pop()
            except IndexError:
                connection = self._connect_reader()
            try:
                return self._read_on(connection, work)
            finally:
                self._idle_readers.append(connection)

    def _read_on(self, raw: sqlite3.Connection, work: Callable[[SqlTx], T]) -> T:
        raw.execute("BEGIN")
        try:
            return work(SqlTx(raw, self._decoder, self._giving_up))
        finally:
            if raw.in_transaction:
                raw.execute("ROLLBACK")

    @contextmanager
    def _translated(self, point: str) -> Iterator[None]:
        """The library's errors as StoreError, with the place and the database they happened in."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{point}: {self._name}: {error}") from error

    def _check_open(self, point: str) -> None:
        if self._closed:
            raise StoreError(f"{point}: the store is closed")

    def _close(self) -> None:
        try:
            while self._pending:
                self._commit_group()
            while self._idle_readers:
                self._idle_readers.pop().close()
            self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()


def raw_connection(connection: sa.Connection) -> sqlite3.Connection:
    """The driver's connection below SQLAlchemy's."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw
