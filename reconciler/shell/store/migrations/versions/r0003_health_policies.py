"""The health policies in force for a source, so that its objects are judged by them from the first moment on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("source", sa.Column("health_policies", sa.Text(), server_default=sa.text("''"), nullable=False))
