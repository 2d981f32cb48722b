"""How objects are written, and what is known of drift beside an assignment.

A table for the rules of applications that declare some; and for each assignment the field that is fought over, since
when a person keeps us from touching it, and since when Git no longer declares it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table and the columns."""
    op.create_table(
        "apply_rules",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("application"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_apply_rules_source", "apply_rules", ["source"])
    op.add_column("assignment", sa.Column("contested", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("assignment", sa.Column("disabled_wall", sa.Float(precision=53), nullable=True))
    op.add_column("assignment", sa.Column("orphaned_wall", sa.Float(precision=53), nullable=True))
