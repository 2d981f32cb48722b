"""Opening a store: lock, connect, check that it is ours and whole, bring its schema up to date, begin a new epoch.

store = open_store(directory / "reconciler.db", executor=ThreadPoolExecutor(1), new_id=lambda: uuid4().hex)
store = open_store(":memory:", new_id=lambda: "simulated")                   # the simulator's
other = from_bytes(store.serialize(), new_id=lambda: "never asked")          # its copy, one epoch on
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from reconciler.shell.store import migrate, schema
from reconciler.shell.store.errors import StoreError
from reconciler.shell.store.lock import StateLock
from reconciler.shell.store.sqlite import SqlStore, raw_connection
from reconciler.shell.store.statements import upsert

MEMORY = ":memory:"
SQLITE_HEADER = b"SQLite format 3\0"

#: How long a statement waits for another process's transaction. There is none but in the moment of a takeover.
BUSY_TIMEOUT_MS = 5000
#: The write-ahead log is cut back to this size after a checkpoint.
JOURNAL_SIZE_MAX = 64 * 1024 * 1024
#: Statements that a connection keeps parsed: more than there are, so that none is parsed twice.
STATEMENTS_CACHED = 256

_META = sa.select(schema.meta.c.name, schema.meta.c.value)
_PUT_META = upsert(schema.meta)


def open_store(
    path: Path | str,
    *,
    new_id: Callable[[], str],
    executor: Executor | None = None,
    readers: Executor | None = None,
    lock: bool = True,
) -> SqlStore:
    """Open the store in the file `path`, or a new one in memory (":memory:"). Raises StoreError in one line.

    `new_id` makes the installation's id when the store is new. `executor` must have exactly one thread: it becomes the
    writer's; without one everything runs in the calling thread. `readers` runs `read` on connections of their own;
    without it reads take their turn with the writes. `lock` holds the directory's lock until `close`; only tests of the
    epoch do without. The executors are not shut down by the store."""
    file = None if str(path) == MEMORY else Path(path)
    held = StateLock.acquire(file.parent) if file is not None and lock else None
    try:
        if executor is None:
            return _open(file, None, new_id, None, None, held)
        return executor.submit(_open, file, None, new_id, executor, readers, held).result()
    except BaseException:
        if held is not None:
            held.release()
        raise


def from_bytes(data: bytes, *, new_id: Callable[[], str], executor: Executor | None = None) -> SqlStore:
    """A store in memory with the content that `SqlStore.serialize` gave, opened anew: its epoch is one higher."""
    if executor is None:
        return _open(None, data, new_id, None, None, None)
    return executor.submit(_open, None, data, new_id, executor, None, None).result()


def _open(
    file: Path | None,
    data: bytes | None,
    new_id: Callable[[], str],
    executor: Executor | None,
    readers: Executor | None,
    held: StateLock | None,
) -> SqlStore:
    """Runs in the thread that is to own the connection."""
    name = str(file) if file is not None else "the store in memory"
    try:
        connection = _connect(file, data)
        try:
            migrate.prepare(connection, file)
            epoch = _begin_epoch(connection, new_id)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.DatabaseError, sa.exc.DBAPIError) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise StoreError(
            f"cannot open {name}: {cause}. If the file is damaged, move it away and restore a backup. Started anew, "
            "the daemon no longer owns what runs: it leaves those objects alone (NotOwned)"
        ) from error
    return SqlStore(
        connection,
        name=name,
        epoch=epoch,
        executor=executor,
        readers=readers,
        connect_reader=None if file is None else lambda: _connect_reader(file),
        lock=held,
    )


def _connect(file: Path | None, data: bytes | None) -> sa.Connection:
    if file is None:
        raw = sqlite3.connect(MEMORY, isolation_level=None, cached_statements=STATEMENTS_CACHED)
        if data is not None:
            # Bytes 18 and 19 of the header say "write-ahead log" in the copy of a file; memory has none.
            raw.deserialize(data[:18] + b"\x01\x01" + data[20:])
    else:
        _prepare_file(file)
        raw = sqlite3.connect(
            file, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, cached_statements=STATEMENTS_CACHED
        )
    try:
        _require_ours(raw, file)
        _configure(raw, file)
    except BaseException:
        raw.close()
        raise
    return _wrap(raw)


def _prepare_file(file: Path) -> None:
    """Make the file if it is not there. Releases may hold Secrets, so nobody else may read it; SQLite gives its log the
    same mode."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            start = os.read(descriptor, len(SQLITE_HEADER))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"cannot open {file}: {error.strerror}") from error
    if start and start != SQLITE_HEADER:
        # SQLite would take a very short file for an empty database, and overwrite it.
        raise sqlite3.DatabaseError("file is not a database")


def _require_ours(raw: sqlite3.Connection, file: Path | None) -> None:
    """Nothing is changed in a database of another program, not even its journal mode."""
    (tables,) = raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (marker,) = raw.execute("PRAGMA application_id").fetchone()
    if tables and marker != schema.APPLICATION_ID:
        raise StoreError(f"{file or 'the copy'} is a SQLite database of another program: choose another stateDir")


def _configure(raw: sqlite3.Connection, file: Path | None) -> None:
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA temp_store = MEMORY")
    if file is None:
        return
    (mode,) = raw.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{file} cannot have a write-ahead log here (journal mode {mode}); use a local file system")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute(f"PRAGMA journal_size_limit = {JOURNAL_SIZE_MAX}")
    found = [row[0] for row in raw.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise sqlite3.DatabaseError(" ".join(str(found[0]).split()))


def _connect_reader(file: Path) -> sqlite3.Connection:
    """Read-only, and used by whichever thread of the readers' executor is free."""
    raw = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=STATEMENTS_CACHED,
    )
    raw.execute("PRAGMA query_only = 1")
    return raw


#: The driver's connection that the engine is to wrap next.
_RAW: ContextVar[sqlite3.Connection] = ContextVar("_RAW")


@functools.cache
def _engine() -> sa.Engine:
    """One for the whole process, for it remembers compiled statements: the simulator opens thousands of stores."""
    return sa.create_engine("sqlite://", creator=_RAW.get, poolclass=NullPool)


def _wrap(raw: sqlite3.Connection) -> sa.Connection:
    """SQLAlchemy on a driver connection that is in autocommit: we say BEGIN ourselves, for the driver would only say it
    before a write, and never IMMEDIATE. Closing it closes the driver's."""
    token = _RAW.set(raw)
    try:
        return _engine().connect()
    finally:
        _RAW.reset(token)


def _begin_epoch(connection: sa.Connection, new_id: Callable[[], str]) -> int:
    with connection.begin():
        raw_connection(connection).execute("BEGIN IMMEDIATE")
        meta = {row.name: row.value for row in connection.execute(_META)}
        epoch = int(meta.get("epoch", "0")) + 1
        connection.execute(_PUT_META, {"name": "epoch", "value": str(epoch)})
        if "installation" not in meta:
            connection.execute(_PUT_META, {"name": "installation", "value": new_id()})
    return epoch
