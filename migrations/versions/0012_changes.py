"""The log of changes, with what is known of older ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0009"
branch_labels = None
depends_on = None

KINDS = ("published", "card", "yanked", "unyanked", "verdict", "origin", "hidden", "shown")


def upgrade() -> None:
    allowed = ", ".join(f"'{kind}'" for kind in KINDS)
    op.create_table(
        "change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("listing_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(f"kind IN ({allowed})", name=op.f("ck_change_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change")),
    )
    op.create_index(op.f("ix_change_listing_id"), "change", ["listing_id"])
    for kind, instant in (("published", "created_at"), ("verdict", "evaluated_at"), ("yanked", "yanked_at")):
        op.execute(
            f"INSERT INTO change (kind, listing_id, created_at) SELECT '{kind}', id, {instant} FROM ticket "
            f"WHERE {instant} IS NOT NULL AND visibility = 'public' ORDER BY id"
        )


def downgrade() -> None:
    op.drop_table("change")
