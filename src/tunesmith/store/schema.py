"""The ledger's tables, in SQLAlchemy Core. `migrations/versions` builds the same; a test compares the two.

Only what SQLite and PostgreSQL share is used. `id` columns give the order of registration.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["HEAD", "METADATA", "aliases", "api_keys", "events", "job_events", "jobs", "stages", "uploads", "versions"]

HEAD = "0004"
"""The migration that the tables below describe."""

METADATA = sa.MetaData()

versions = sa.Table(
    "versions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("artefact", sa.Text, nullable=False),
    sa.Column("weights_digest", sa.Text, nullable=False),
    sa.Column("chat_digest", sa.Text, nullable=False),
    sa.Column("base_digest", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("reports", sa.JSON, nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False, server_default="{}"),
    sa.Column("state", sa.Text, nullable=False, server_default="ready"),
    sa.UniqueConstraint("name", "number", name="uq_versions_name_number"),
    sa.UniqueConstraint("name", "artefact", "run", name="uq_versions_name_artefact_run"),
    sa.CheckConstraint("number >= 1", name="ck_versions_number"),
)

aliases = sa.Table(
    "aliases",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("arms", sa.JSON, nullable=False),
    sa.Column("because", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(
        ["name", "version"], ["versions.name", "versions.number"], name="fk_aliases_versions", ondelete="RESTRICT"
    ),
)

events = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("because", sa.JSON, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False, server_default="{}"),
)

stages = sa.Table(
    "stages",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("artefact", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.Text, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Text, nullable=True),
    sa.Column("revoked_at", sa.Text, nullable=True),
    sa.Column("last_used_at", sa.Text, nullable=True),
    sa.Column("quotas", sa.JSON, nullable=False),
    sa.UniqueConstraint("prefix", name="uq_api_keys_prefix"),
    sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
)

uploads = sa.Table(
    "uploads",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Integer, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("num_bytes", sa.BigInteger, nullable=False),
    sa.Column("num_rows", sa.Integer, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.UniqueConstraint("id", name="uq_uploads_id"),
)

jobs = sa.Table(
    "jobs",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("outcome", sa.JSON, nullable=False),
    sa.Column("finished_at", sa.Integer, nullable=True),
    sa.UniqueConstraint("id", name="uq_jobs_id"),
)

job_events = sa.Table(
    "job_events",
    METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False, index=True),
    sa.Column("created_at", sa.Integer, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.UniqueConstraint("id", name="uq_job_events_id"),
)
