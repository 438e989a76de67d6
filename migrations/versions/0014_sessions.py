"""Passwords, browser sessions, tokens for some names alone, links that make the first administrator."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.add_column(sa.Column("password_hash", sa.String(length=200), nullable=True))
        account.add_column(sa.Column("is_admin", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("token") as token:
        token.add_column(sa.Column("kind", sa.String(length=10), nullable=False, server_default="token"))
        token.add_column(sa.Column("names", sa.JSON(), nullable=True))
        token.create_check_constraint(op.f("ck_token_kind_known"), "kind IN ('token', 'session')")
    op.create_table(
        "setup_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setup_link")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_setup_link_key_sha256")),
    )


def downgrade() -> None:
    op.drop_table("setup_link")
    op.execute("DELETE FROM token WHERE kind = 'session'")
    with op.batch_alter_table("token") as token:
        token.drop_constraint(op.f("ck_token_kind_known"), type_="check")
        token.drop_column("names")
        token.drop_column("kind")
    with op.batch_alter_table("account") as account:
        account.drop_column("is_admin")
        account.drop_column("password_hash")
