"""The log of changes, with what is known of older ones, webhooks, and downloads a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
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

    op.create_table(
        "webhook",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(length=300), nullable=True),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_webhook_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_index(op.f("ix_webhook_account_id"), "webhook", ["account_id"])
    op.create_table(
        "download_count",
        sa.Column("listing_id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["listing_id"], ["ticket.id"], name=op.f("fk_download_count_listing_id_ticket")
        ),
        sa.PrimaryKeyConstraint("listing_id", "day", name=op.f("pk_download_count")),
    )


def downgrade() -> None:
    op.drop_table("download_count")
    op.drop_table("webhook")
    op.drop_table("change")
