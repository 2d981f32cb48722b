"""The first schema.

Written out and not taken from schema.py: a revision says what the schema was, however schema.py goes on. There is no
way down: migrate.py keeps a copy of the file before it changes anything.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _create_audit()
    _create_facts()
    _create_intent()
    _create_inventory()
    _create_ledger()
    _create_meta()
    _create_outbox()
    _create_quarantine()
    _create_release()
    _create_revision()
    _create_rollout()
    _create_source()
    _create_assignment()
    _create_rollout_target()


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("wall", sa.Float(precision=53), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_application", "audit", ["application"])
    op.create_index("ix_audit_rollout", "audit", ["rollout"])


def _create_facts() -> None:
    op.create_table(
        "facts",
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("api_group", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since_s", sa.Float(precision=53), nullable=False),
        sa.Column("transitions_s", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "application", "api_group", "kind", "namespace", "name"),
        sqlite_with_rowid=False,
    )


def _create_intent() -> None:
    op.create_table(
        "intent",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("api_group", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_intent_application", "intent", ["application", "cluster"])
    op.create_index(
        "ix_intent_failed_prune",
        "intent",
        ["application"],
        sqlite_where=sa.text("state = 'failed' AND purpose = 'prune'"),
    )
    op.create_index("ix_intent_owner", "intent", ["owner", "state"])
    op.create_index(
        "ix_intent_pending", "intent", ["cluster", "application"], sqlite_where=sa.text("state = 'pending'")
    )
    op.create_index(
        "ix_intent_pending_application", "intent", ["application"], sqlite_where=sa.text("state = 'pending'")
    )


def _create_inventory() -> None:
    op.create_table(
        "inventory",
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("api_group", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("cluster", "application", "api_group", "kind", "namespace", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_inventory_application", "inventory", ["application"])


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("wall", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("ix_ledger_scope", "ledger", ["kind", "scope", "wall"])


def _create_meta() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_wall", sa.Float(precision=53), nullable=False),
        sa.Column("sent_wall", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_unsent", "outbox", ["sequence"], sqlite_where=sa.text("sent_wall IS NULL"))


def _create_quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("reason_message", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("created_wall", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("application", "digest"),
        sqlite_with_rowid=False,
    )


def _create_release() -> None:
    op.create_table(
        "release",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("objects", sa.LargeBinary(), nullable=False),
        sa.Column("unreferenced", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )


def _create_revision() -> None:
    op.create_table(
        "revision",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("authored_wall", sa.Float(precision=53), nullable=False),
        sa.Column("seen_wall", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("source", "sha"),
        sqlite_with_rowid=False,
    )


def _create_rollout() -> None:
    op.create_table(
        "rollout",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("created_wall", sa.Float(precision=53), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ended_wall", sa.Float(precision=53), nullable=True),
        sa.Column("paused_from", sa.Text(), nullable=True),
        sa.Column("went_back", sa.Integer(), nullable=False),
        sa.Column("active", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollout_active", "rollout", ["sequence"], sqlite_where=sa.text("active = 1"))
    op.create_index("ix_rollout_application", "rollout", ["application", "active"])
    op.create_index("ix_rollout_source", "rollout", ["source", "active"])


def _create_source() -> None:
    op.create_table(
        "source",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fleet", sa.Text(), nullable=False),
        sa.Column("last_attempted", sa.Text(), nullable=False),
        sa.Column("last_applied", sa.Text(), nullable=False),
        sa.Column("last_baked", sa.Text(), nullable=False),
        sa.Column("problems", sa.Text(), nullable=False),
        sa.Column("last_usable", sa.Text(), nullable=False),
        sa.Column("held", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _create_assignment() -> None:
    op.create_table(
        "assignment",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("baked", sa.Text(), nullable=True),
        sa.Column("due", sa.Text(), nullable=True),
        sa.Column("heal_count", sa.Integer(), nullable=False),
        sa.Column("heal_streak", sa.Integer(), nullable=False),
        sa.Column("heal_at_s", sa.Float(precision=53), nullable=False),
        sa.Column("heal_boot", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["digest"],
            ["release.digest"],
        ),
        sa.PrimaryKeyConstraint("application", "cluster"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_assignment_cluster", "assignment", ["cluster"])
    op.create_index("ix_assignment_digest", "assignment", ["digest"])
    op.create_index("ix_assignment_source", "assignment", ["source"])


def _create_rollout_target() -> None:
    op.create_table(
        "rollout_target",
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("to_digest", sa.Text(), nullable=False),
        sa.Column("from_digest", sa.Text(), nullable=True),
        sa.Column("baked_digest", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("rolling", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("bake_s", sa.Float(precision=53), nullable=False),
        sa.Column("bake_resets", sa.Integer(), nullable=False),
        sa.Column("progress_s", sa.Float(precision=53), nullable=False),
        sa.Column("observed_at", sa.Float(precision=53), nullable=True),
        sa.Column("observed_boot", sa.Integer(), nullable=False),
        sa.Column("job_ids", sa.Text(), nullable=False),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("superseding", sa.Integer(), nullable=False),
        sa.Column("started_wall", sa.Float(precision=53), nullable=True),
        sa.Column("healthy_wall", sa.Float(precision=53), nullable=True),
        sa.Column("baked_wall", sa.Float(precision=53), nullable=True),
        sa.Column("active", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rollout", "application", "cluster"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_rollout_target_active", "rollout_target", ["application", "cluster"], sqlite_where=sa.text("active = 1")
    )
    op.create_index("ix_rollout_target_release", "rollout_target", ["to_digest", "cluster"])
