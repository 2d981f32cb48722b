"""The tables: what is durable, and by which index each question is answered.

Written as SQLAlchemy Core tables with plain types only, so that rows need no conversion on their way through and the
same definitions serve another database later. `migrations/` holds the same schema as a history; a test proves that
both roads end at the same tables. A change here is a new revision there, and a new SCHEMA_VERSION.

Conventions: a target is the two columns (application, cluster); an object key is (api_group, kind, namespace, name); a
reason is (reason_code, reason_message), both NULL for none; times end in `_wall` (seconds since the epoch) or `_s`;
JSON is canonical text. Tables that are asked for a whole cluster have the cluster first in their primary key, so that
one tree answers for the cluster and for the target.
"""

from __future__ import annotations

import sqlalchemy as sa

#: The newest revision in migrations/versions.
SCHEMA_VERSION = "0004"
#: Marks a SQLite file as ours ("RCNC"), in its header.
APPLICATION_ID = 0x52434E43

metadata = sa.MetaData()

#: Lines of the audit log that say that a target drifted, and those that say that we wrote it.
ABOUT_DRIFT = "code IN ('Drift', 'Healing', 'Applying', 'RollingBack')"

#: Alembic's own table: which revision the schema is at.
alembic_version = sa.Table(
    "alembic_version", metadata, sa.Column("version_num", sa.String(32), primary_key=True, nullable=False)
)


def _text(name: str, *, primary_key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=primary_key, nullable=nullable)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _real(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float(53), nullable=nullable)


def _reason() -> tuple[sa.Column[str], sa.Column[str]]:
    return _text("reason_code", nullable=True), _text("reason_message", nullable=True)


def _object_key(*, primary_key: bool) -> tuple[sa.Column[str], ...]:
    return tuple(_text(name, primary_key=primary_key) for name in ("api_group", "kind", "namespace", "name"))


#: A number that only grows: rows of these tables are ordered by when they were committed.
def _sequence(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True, autoincrement=True)


#: `epoch` (how often the store was opened) and `installation` (its stable id).
meta = sa.Table("meta", metadata, _text("name", primary_key=True), _text("value"), sqlite_with_rowid=False)

source = sa.Table(
    "source",
    metadata,
    _text("name", primary_key=True),
    _text("fleet"),
    _text("last_attempted"),
    _text("last_applied"),
    _text("last_baked"),
    _text("problems"),
    _text("last_usable"),
    _text("held"),
    sa.Column("health_policies", sa.Text, nullable=False, server_default=sa.text("''")),
)

revision = sa.Table(
    "revision",
    metadata,
    _text("source", primary_key=True),
    _text("sha", primary_key=True),
    _text("author"),
    _text("subject"),
    _real("authored_wall"),
    _real("seen_wall"),
    sqlite_with_rowid=False,
)

#: `objects` is zlib over canonical JSON. `unreferenced` is set by one retention run and obeyed by the next, so that a
#: release stored for a rollout that is about to be opened is not collected in between.
release = sa.Table(
    "release",
    metadata,
    _text("digest", primary_key=True),
    _text("application"),
    sa.Column("objects", sa.LargeBinary, nullable=False),
    sa.Column("unreferenced", sa.Integer, nullable=False, server_default=sa.text("0")),
)

assignment = sa.Table(
    "assignment",
    metadata,
    _text("application", primary_key=True),
    _text("cluster", primary_key=True),
    # A target can only be assigned a release that is here to be compared with; NULL while it has none.
    sa.Column("digest", sa.Text, sa.ForeignKey("release.digest"), nullable=True),
    _text("source"),
    _text("revision"),
    _text("baked", nullable=True),
    _text("due", nullable=True),
    _integer("heal_count"),
    _integer("heal_streak"),
    _real("heal_at_s"),
    _integer("heal_boot"),
    # Added by a later revision: SQLite adds no column without a default to rows that are there.
    sa.Column("contested", sa.Text, nullable=False, server_default=sa.text("''")),
    _real("disabled_wall", nullable=True),
    _real("orphaned_wall", nullable=True),
    sa.Index("ix_assignment_cluster", "cluster"),
    sa.Index("ix_assignment_source", "source"),
    sa.Index("ix_assignment_digest", "digest"),
    sqlite_with_rowid=False,
)

#: How an application's objects are written, where that is not the default: core/apply_rules.py. `rules` is JSON.
apply_rules = sa.Table(
    "apply_rules",
    metadata,
    _text("application", primary_key=True),
    _text("source"),
    _text("rules"),
    sa.Index("ix_apply_rules_source", "source"),
    sqlite_with_rowid=False,
)

inventory = sa.Table(
    "inventory",
    metadata,
    _text("cluster", primary_key=True),
    _text("application", primary_key=True),
    *_object_key(primary_key=True),
    _text("api_version"),
    _text("phase"),
    _text("uid"),
    _integer("generation"),
    sa.Index("ix_inventory_application", "application"),
    sqlite_with_rowid=False,
)

#: `sequence` is the order of creation. `plan` never changes after the insert; `plan_hash` proves it.
rollout = sa.Table(
    "rollout",
    metadata,
    _sequence("sequence"),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _text("source"),
    _text("application"),
    _text("kind"),
    _text("revision"),
    _text("plan"),
    _text("plan_hash"),
    _text("state"),
    *_reason(),
    _real("created_wall"),
    _integer("version"),
    _real("ended_wall", nullable=True),
    _text("paused_from", nullable=True),
    _integer("went_back"),
    _integer("active"),
    sa.Index("ix_rollout_active", "sequence", sqlite_where=sa.text("active = 1")),
    sa.Index("ix_rollout_application", "application", "active"),
    sa.Index("ix_rollout_source", "source", "active"),
    sqlite_autoincrement=True,
)

#: `place` is the row's place in its wave. `active` repeats the rollout's, for the index that says which rollout a
#: target belongs to however many have ended.
rollout_target = sa.Table(
    "rollout_target",
    metadata,
    sa.Column("rollout", sa.Text, sa.ForeignKey("rollout.id", ondelete="CASCADE"), primary_key=True),
    _text("application", primary_key=True),
    _text("cluster", primary_key=True),
    _integer("wave"),
    _integer("place"),
    _text("to_digest"),
    _text("from_digest", nullable=True),
    _text("baked_digest", nullable=True),
    _text("state"),
    *_reason(),
    _integer("changed"),
    _integer("rolling"),
    _integer("attempt"),
    _real("bake_s"),
    _integer("bake_resets"),
    _real("progress_s"),
    _real("observed_at", nullable=True),
    _integer("observed_boot"),
    _text("job_ids"),
    _integer("restarts"),
    _integer("superseding"),
    _real("started_wall", nullable=True),
    _real("healthy_wall", nullable=True),
    _real("baked_wall", nullable=True),
    _integer("active"),
    sa.Index("ix_rollout_target_active", "application", "cluster", sqlite_where=sa.text("active = 1")),
    sa.Index("ix_rollout_target_release", "to_digest", "cluster"),
    sqlite_with_rowid=False,
)

#: `sequence` is the order of commitment.
intent = sa.Table(
    "intent",
    metadata,
    _sequence("sequence"),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _text("owner"),
    _text("purpose"),
    _text("application"),
    _text("cluster"),
    _text("verb"),
    *_object_key(primary_key=False),
    _text("api_version"),
    _text("digest"),
    _integer("attempt"),
    _integer("place"),
    _integer("epoch"),
    _text("state"),
    *_reason(),
    sa.Index("ix_intent_pending", "cluster", "application", sqlite_where=sa.text("state = 'pending'")),
    sa.Index("ix_intent_pending_application", "application", sqlite_where=sa.text("state = 'pending'")),
    sa.Index("ix_intent_failed_prune", "application", sqlite_where=sa.text("state = 'failed' AND purpose = 'prune'")),
    sa.Index(
        "ix_intent_failed_heal",
        "application",
        "cluster",
        "attempt",
        sqlite_where=sa.text("state = 'failed' AND purpose = 'heal'"),
    ),
    sa.Index("ix_intent_owner", "owner", "state"),
    sa.Index("ix_intent_application", "application", "cluster"),
    sqlite_autoincrement=True,
)

facts = sa.Table(
    "facts",
    metadata,
    _text("cluster", primary_key=True),
    _text("application", primary_key=True),
    *_object_key(primary_key=True),
    _text("state"),
    _real("since_s"),
    _text("transitions_s"),
    _text("job_id"),
    _integer("restarts"),
    sqlite_with_rowid=False,
)

quarantine = sa.Table(
    "quarantine",
    metadata,
    _text("application", primary_key=True),
    _text("digest", primary_key=True),
    _text("reason_code"),
    _text("reason_message"),
    _text("rollout"),
    _real("created_wall"),
    sqlite_with_rowid=False,
)

ledger = sa.Table(
    "ledger",
    metadata,
    _sequence("sequence"),
    _text("kind"),
    _text("scope"),
    _integer("amount"),
    _real("wall"),
    sa.Index("ix_ledger_scope", "kind", "scope", "wall"),
)

audit = sa.Table(
    "audit",
    metadata,
    _sequence("id"),
    _real("wall"),
    _text("level"),
    _text("code"),
    _text("message"),
    _text("source"),
    _text("application"),
    _text("cluster"),
    _text("rollout"),
    _text("actor"),
    _text("data", nullable=True),
    sa.Index("ix_audit_application", "application"),
    sa.Index("ix_audit_rollout", "rollout"),
    sa.Index("ix_audit_drift", "application", "cluster", sqlite_where=sa.text(ABOUT_DRIFT)),
    sqlite_autoincrement=True,
)

outbox = sa.Table(
    "outbox",
    metadata,
    _sequence("sequence"),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    _text("kind"),
    _text("body"),
    _real("created_wall"),
    _real("sent_wall", nullable=True),
    sa.Index("ix_outbox_unsent", "sequence", sqlite_where=sa.text("sent_wall IS NULL")),
    sqlite_autoincrement=True,
)
