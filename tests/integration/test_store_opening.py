"""Opening: one daemon at a time, only our own files, the right schema, and readers beside the writer."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconciler.core.model import InventoryPhase
from reconciler.shell.ports import FencedError, SourceRow, Tx
from reconciler.shell.store import SqlStore, StoreError, from_bytes, migrate, open_store, schema
from tests.integration.store_values import TARGETS, Opened, intent, item, opened, release, rollout, rows


def open_inline(path: Path, *, lock: bool = True) -> SqlStore:
    return open_store(path, new_id=lambda: "installation-1", lock=lock)


# ---- the lock and the epoch --------------------------------------------------------------------------------------


def test_a_state_directory_has_one_daemon(tmp_path: Path) -> None:
    path = tmp_path / "state" / "reconciler.db"
    first = open_inline(path)
    with pytest.raises(StoreError, match=rf"^state directory .*state is in use by process {os.getpid()}: stop it"):
        open_inline(path)
    first.close_now()
    second = open_inline(path)
    assert second.epoch == 2
    second.close_now()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from reconciler.shell.store import open_store\n"
        "open_store(pathlib.Path(sys.argv[1]), new_id=lambda: 'i'); print('open', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "reconciler.db"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"in use by process {child.pid}"):
            open_inline(path)
        child.kill()
    store = open_inline(path)
    assert store.epoch == 2
    store.close_now()


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.db"
    path.write_bytes(b"this is not a database, but it is long enough to be taken for one" * 20)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            open_inline(path)


def test_whoever_opened_last_is_the_only_writer(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.db"
    old = open_inline(path, lock=False)
    old.transact_now("test", lambda tx: tx.put_source(SourceRow("old")))
    new = open_inline(path, lock=False)
    assert (old.epoch, new.epoch) == (1, 2)
    with pytest.raises(FencedError, match="epoch 2, ours is 1"):
        old.transact_now("test", lambda tx: tx.put_source(SourceRow("late")))
    new.transact_now("test", lambda tx: tx.put_source(SourceRow("new")))
    assert new.read_now("test", lambda tx: [tx.source(name) is not None for name in ("old", "late", "new")]) == [
        True,
        False,
        True,
    ]
    old.close_now()
    new.close_now()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with opened("file-executor", tmp_path) as db:
        pass
    with pytest.raises(StoreError, match="closed"):
        db.write(lambda tx: tx.installation())
    asyncio.run(db.store.close())


@pytest.mark.parametrize("variant", ["file-inline", "file-executor", "file-readers"])
def test_closing_and_opening_again_keeps_everything(tmp_path: Path, variant: str) -> None:
    first, to = rollout(), release()
    with opened(variant, tmp_path) as db:
        db.write_all(
            lambda tx: tx.put_release(to),
            lambda tx: tx.insert_rollout(first, rows(first, to)),
            lambda tx: tx.put_intents([intent("i")]),
        )
    with opened(variant, tmp_path) as db:
        assert db.store.epoch == 2
        assert db.read(lambda tx: (tx.rollout("r1"), tx.rollout_targets("r1"))) == (first, rows(first, to))
        assert db.read(lambda tx: (tx.release(to.digest), tx.intents())) == (to, [intent("i")])
        assert db.read(lambda tx: tx.installation()) == "installation-1"
    assert (tmp_path / "reconciler.db").stat().st_mode & 0o777 == 0o600


# ---- readers -----------------------------------------------------------------------------------------------------


def test_readers_see_the_last_commit_while_a_transaction_runs(tmp_path: Path) -> None:
    seen: list[SourceRow | None] = []
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(2) as readers:
        store = open_store(tmp_path / "reconciler.db", new_id=lambda: "i", executor=writer, readers=readers)
        db = Opened(store)

        def work(tx: Tx) -> None:
            tx.put_source(SourceRow("fleet", last_applied="2"))
            seen.append(asyncio.run(store.read("beside", lambda beside: beside.source("fleet"))))

        db.write(lambda tx: tx.put_source(SourceRow("fleet", last_applied="1")))
        db.write(work)
        seen.append(db.read(lambda tx: tx.source("fleet")))
        asyncio.run(store.close())
    assert [row.last_applied for row in seen if row is not None] == ["1", "2"]


def test_a_transaction_that_writes_nothing_asks_nothing_of_the_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path / "reconciler.db", new_id=lambda: "i")
    log = tmp_path / "reconciler.db-wal"
    before = log.stat()
    assert store.transact_now("look", lambda tx: tx.source("fleet")) is None
    assert (log.stat().st_size, log.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    store.transact_now("write", lambda tx: tx.put_source(SourceRow("fleet")))
    assert log.stat().st_mtime_ns != before.st_mtime_ns
    store.close_now()


# ---- files that are not ours -------------------------------------------------------------------------------------


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE diary (entry TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of another program"):
        open_inline(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"x", b"SQLite format 3\0" + b"\0" * 200, b"\xff" * 5000])
def test_a_foreign_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reconciler.db"
    path.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        open_inline(path)
    assert str(raised.value).startswith(f"cannot open {path}: ")
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "reconciler.db"
    store = open_inline(path)
    items = [item(TARGETS[0], InventoryPhase.OWNED, f"object-{number}", "u" * 40) for number in range(2000)]
    store.transact_now("test", lambda tx: tx.put_inventory(items))
    store.close_now()
    data = bytearray(path.read_bytes())
    assert len(data) > 30 * 4096
    data[-8 * 4096 : -2 * 4096] = b"\xa5" * (6 * 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"^cannot open .*reconciler\.db: .*restore a backup") as raised:
        open_inline(path)
    assert "\n" not in str(raised.value)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot use state directory"):
        open_inline(tmp_path / "file" / "reconciler.db")
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(StoreError, match=r"cannot open .*directory"):
        open_inline(tmp_path / "directory.db")


# ---- the schema's version ----------------------------------------------------------------------------------------


def schema_of(connection: sqlite3.Connection) -> dict[str, object]:
    """What SQLite itself says of tables, columns, indexes and references, free of how the SQL was written."""
    found: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"):
        if kind == "table":
            found[name] = {
                "columns": connection.execute(f"SELECT * FROM pragma_table_xinfo('{name}')").fetchall(),  # noqa: S608
                "references": connection.execute(f"PRAGMA foreign_key_list('{name}')").fetchall(),
                "rowid": "WITHOUT ROWID" not in sql,
                "autoincrement": "AUTOINCREMENT" in sql,
            }
        else:
            columns = connection.execute(f"SELECT * FROM pragma_index_xinfo('{name}')").fetchall()  # noqa: S608
            found[name] = (columns, None if sql is None else " ".join(sql.split()))
    return found


def test_both_roads_lead_to_the_same_schema(tmp_path: Path) -> None:
    direct = open_inline(tmp_path / "direct" / "reconciler.db")
    direct.close_now()
    # A store of no version yet: marked as ours, with nothing but the table that says so.
    migrated = tmp_path / "migrated" / "reconciler.db"
    migrated.parent.mkdir()
    with closing(sqlite3.connect(migrated)) as raw:
        raw.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    store = open_inline(migrated)
    assert store.epoch == 1
    store.close_now()
    with (
        closing(sqlite3.connect(tmp_path / "direct" / "reconciler.db")) as one,
        closing(sqlite3.connect(migrated)) as two,
    ):
        assert schema_of(one).keys() == schema_of(two).keys()
        assert schema_of(one) == {**schema_of(two), "alembic_version": schema_of(one)["alembic_version"]}
        version = "SELECT version_num FROM alembic_version"
        assert one.execute(version).fetchall() == two.execute(version).fetchall() == [(schema.SCHEMA_VERSION,)]


def test_a_store_of_the_first_schema_is_brought_up(tmp_path: Path) -> None:
    """What the first version wrote is there, with what is new at its default."""
    from alembic import command, config  # noqa: PLC0415 - as in production, not at import

    path = tmp_path / "reconciler.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool)
        settings = config.Config()
        settings.set_main_option("script_location", str(migrate.SCRIPTS))
        settings.set_main_option("path_separator", "os")
        with engine.begin() as connection:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "0001")
        raw.execute("INSERT INTO release (digest, application, objects) VALUES ('d', 'sample/a', x'00')")
        raw.execute(
            "INSERT INTO assignment (application, cluster, digest, source, revision, heal_count, heal_streak,"
            " heal_at_s, heal_boot) VALUES ('sample/a', 'c1', 'd', 'fleet', 'abc', 1, 0, 0, 0)"
        )
    store = open_inline(path)
    (found,) = store.read_now("test", lambda tx: tx.assignments())
    assert (found.digest, found.heal_count, found.contested, found.disabled_wall) == ("d", 1, "", None)
    assert store.read_now("test", lambda tx: tx.apply_rules("sample/a")) == ""
    store.close_now()


def test_alembic_sees_nothing_to_do() -> None:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - as in production, not at import
    from alembic.migration import MigrationContext  # noqa: PLC0415

    with sa.create_engine("sqlite://").connect() as connection:
        migrate.create(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        known = sa.MetaData()
        for table in schema.metadata.sorted_tables:
            if table.name != "alembic_version":
                table.to_metadata(known)
        assert compare_metadata(context, known) == []


@pytest.fixture
def next_version(tmp_path: Path) -> Path:
    """The migrations with one more revision, as a later version of the program would have it."""
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    for file in (migrate.SCRIPTS / "env.py", *migrate.SCRIPTS.glob("versions/r*.py")):
        (scripts / file.relative_to(migrate.SCRIPTS)).write_text(file.read_text())
    (scripts / "versions" / "next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = 'next'\ndown_revision = '{schema.SCHEMA_VERSION}'\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('rollout') as rollout:\n"
        "        rollout.add_column(sa.Column('colour', sa.Text(), nullable=False, server_default='blue'))\n"
    )
    return scripts


def test_an_older_store_is_copied_and_changed(
    tmp_path: Path, next_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reconciler.db"
    store = open_inline(path)
    first = rollout()
    store.transact_now("test", lambda tx: tx.insert_rollout(first, rows(first, release())))
    store.close_now()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", "next")
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA foreign_keys = ON")
        engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool)
        with engine.connect() as connection:
            migrate.prepare(connection, path, next_version)
        assert raw.execute("SELECT colour FROM rollout").fetchall() == [("blue",)]
        assert raw.execute("SELECT count(*) FROM rollout_target").fetchall() == [(4,)]
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("next",)]
        assert raw.execute("PRAGMA foreign_keys").fetchall() == [(1,)]
    # The older program refuses the newer store, and its own copy is whole.
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"has schema next, .*written by a newer one.*reconciler\.db\.before-"):
        open_inline(path)
    (copy,) = tmp_path.glob("reconciler.db.before-*")
    assert copy.stat().st_mode & 0o777 == 0o600
    restored = open_inline(copy)
    assert restored.read_now("test", lambda tx: tx.rollout_targets("r1")) == rows(first, release())
    restored.close_now()


def test_opening_does_not_import_alembic(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from reconciler.shell.store import open_store\n"
        "for _ in range(2): open_store(pathlib.Path(sys.argv[1]), new_id=lambda: 'i').close_now()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "reconciler.db")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# ---- copies for the simulator ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_copy_is_a_store_of_its_own_one_epoch_on(tmp_path: Path, where: str) -> None:
    original = open_store(":memory:" if where == "memory" else tmp_path / "reconciler.db", new_id=lambda: "one")
    original.transact_now("test", lambda tx: tx.put_source(SourceRow("fleet", last_applied="1")))
    data = original.serialize()
    copy = from_bytes(data, new_id=lambda: "two")
    assert (original.epoch, copy.epoch) == (1, 2)
    copy.transact_now("test", lambda tx: tx.put_source(SourceRow("fleet", last_applied="2")))
    original.transact_now("test", lambda tx: tx.put_source(SourceRow("more")))
    assert original.read_now("test", lambda tx: tx.source("fleet")) == SourceRow("fleet", last_applied="1")
    assert copy.read_now("test", lambda tx: (tx.source("more"), tx.installation())) == (None, "one")
    assert from_bytes(data, new_id=lambda: "two").serialize() == from_bytes(data, new_id=lambda: "two").serialize()
    with pytest.raises(RuntimeError, match="between transactions"):
        original.transact_now("test", lambda _: original.serialize())
    original.close_now()
    copy.close_now()


def test_a_store_may_be_dropped_like_a_crashed_process() -> None:
    store = open_store(":memory:", new_id=lambda: "one")
    store.transact_now("test", lambda tx: tx.put_source(SourceRow("fleet")))
    data = store.serialize()
    del store
    gc.collect()
    assert from_bytes(data, new_id=lambda: "two").read_now("test", lambda tx: tx.source("fleet")) == SourceRow("fleet")
