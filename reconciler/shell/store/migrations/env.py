"""Alembic's environment: migrate.py hands over a connection whose transaction it opens and commits itself."""

from __future__ import annotations

from alembic import context

from reconciler.shell.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
