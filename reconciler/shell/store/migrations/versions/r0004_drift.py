"""Two questions about drift are answered by an index, however long the history is: which objects the last repair of a
target was refused for, and what was told of its drift since it was last written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the indexes."""
    op.create_index(
        "ix_intent_failed_heal",
        "intent",
        ["application", "cluster", "attempt"],
        sqlite_where=sa.text("state = 'failed' AND purpose = 'heal'"),
    )
    op.create_index(
        "ix_audit_drift",
        "audit",
        ["application", "cluster"],
        sqlite_where=sa.text("code IN ('Drift', 'Healing', 'Applying', 'RollingBack')"),
    )
