"""What each version was made of, whether its files are sound, and what an event tells beside its reasons.

Going back loses the lineage, the marks of quarantine, and of events the traffic, the reasons that were overruled and the rows of
deleted versions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("versions", sa.Column("lineage", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("versions", sa.Column("state", sa.Text, nullable=False, server_default="ready"))
    op.add_column("events", sa.Column("details", sa.JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("events", "details")
    op.drop_column("versions", "state")
    op.drop_column("versions", "lineage")
