"""The schema's version: a new store gets the tables as they are, an older one is brought up by Alembic.

Alembic takes longer to import than a store takes to open, so it is imported only here, and only if there is something
to do. A store is changed in one transaction, after a copy of it was put beside it: whoever has to go back to the older
version of the program restores that file.

    prepare(connection, path)   # StoreError: ... was written by a newer version
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from reconciler.shell.store import schema
from reconciler.shell.store.errors import StoreError

SCRIPTS = Path(__file__).parent / "migrations"


def prepare(connection: sa.Connection, path: Path | None, scripts: Path = SCRIPTS) -> None:
    """Bring the database to SCHEMA_VERSION. `path` is its file, None in memory. Raises StoreError if it is newer
    than this program."""
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar()
    connection.rollback()
    if not tables:
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            create(connection)
        return
    version = connection.execute(sa.select(schema.alembic_version.c.version_num)).scalar()
    connection.rollback()
    if version != schema.SCHEMA_VERSION:
        _upgrade(connection, path, version, scripts)


def create(connection: sa.Connection) -> None:
    """All tables of a new store, in the running transaction."""
    connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    for table in schema.metadata.sorted_tables:
        connection.execute(CreateTable(table))
        # A table keeps its indexes in a set; SQLite breaks ties between indexes by their age.
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    connection.execute(sa.insert(schema.alembic_version), {"version_num": schema.SCHEMA_VERSION})


def _upgrade(connection: sa.Connection, path: Path | None, version: str | None, scripts: Path) -> None:
    from alembic import command, config, script  # noqa: PLC0415 - imported only when needed: see above

    settings = config.Config()
    settings.set_main_option("script_location", str(scripts).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    known = script.ScriptDirectory.from_config(settings)
    if version is not None and version not in {revision.revision for revision in known.walk_revisions()}:
        raise StoreError(
            f"{path or 'the store in memory'} has schema {version}, which this version does not know: it was written "
            f"by a newer one. Run that one, or restore the copy it made before the change ({_copy_pattern(path)})"
        )
    if path is not None:
        _copy(connection, path, version or "none")
    settings.attributes["connection"] = connection
    # SQLite cannot alter a table with foreign keys in place while they are enforced, nor switch that in a transaction.
    connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    connection.rollback()
    with connection.begin():
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(settings, "head")
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise StoreError(
                f"{path} cannot be brought to schema {schema.SCHEMA_VERSION}: {len(broken)} broken references"
            )
    connection.exec_driver_sql("PRAGMA foreign_keys = ON")
    connection.rollback()


def _copy_pattern(path: Path | None) -> str:
    return f"{path.name if path else 'reconciler.db'}.before-*"


def _copy(connection: sa.Connection, path: Path, version: str) -> None:
    """A complete copy beside the store; one that a broken attempt left behind is replaced."""
    copy = path.with_name(f"{path.name}.before-{schema.SCHEMA_VERSION}-was-{version}")
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    source = connection.connection.driver_connection
    assert isinstance(source, sqlite3.Connection)
    target = sqlite3.connect(copy)
    try:
        source.backup(target)
    finally:
        target.close()
