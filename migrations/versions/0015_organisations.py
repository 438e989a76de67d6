"""Organisations with members and invitations, an index of private listings, and identities at a provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.add_column(
            sa.Column("is_organisation", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        account.add_column(sa.Column("made_by_id", sa.Integer(), nullable=True))
        account.create_foreign_key(op.f("fk_account_made_by_id_account"), "account", ["made_by_id"], ["id"])
        account.create_index(op.f("ix_account_made_by_id"), ["made_by_id"])
    _create_table("membership")
    op.create_index(
        "ix_membership_account_id_organisation_id", "membership", ["account_id", "organisation_id"]
    )
    _create_table("invitation", "invited_by_id")
    for column in ("account_id", "invited_by_id"):
        op.create_index(op.f(f"ix_invitation_{column}"), "invitation", [column])
    _create_identities()
    is_private = sa.text("visibility = 'private'")
    op.create_index(
        "ix_ticket_private", "ticket", ["owner_id"], sqlite_where=is_private, postgresql_where=is_private
    )


def _create_table(name: str, *more: str) -> None:
    """Make a table of accounts in organisations."""
    accounts = ("organisation_id", "account_id", *more)
    op.create_table(
        name,
        *(sa.Column(column, sa.Integer(), nullable=False) for column in accounts),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('reader', 'writer', 'owner')", name=op.f(f"ck_{name}_role_known")),
        *(
            sa.ForeignKeyConstraint([column], ["account.id"], name=op.f(f"fk_{name}_{column}_account"))
            for column in accounts
        ),
        sa.PrimaryKeyConstraint("organisation_id", "account_id", name=op.f(f"pk_{name}")),
    )


def _create_identities() -> None:
    """Make the tables of those who sign in by a provider."""
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_identity_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_identity_issuer_subject")),
    )
    op.create_index(op.f("ix_identity_account_id"), "identity", ["account_id"])
    op.create_table(
        "sign_in",
        sa.Column("id", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.String(length=64), nullable=False)
            for name in ("key_sha256", "state", "nonce", "verifier")
        ),
        sa.Column("after", sa.String(length=1000), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_sign_in_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_sign_in_key_sha256")),
    )
    for column in ("account_id", "expires_at"):
        op.create_index(op.f(f"ix_sign_in_{column}"), "sign_in", [column])


def downgrade() -> None:
    op.drop_table("sign_in")
    op.drop_table("identity")
    op.drop_index("ix_ticket_private", table_name="ticket")
    op.drop_table("invitation")
    op.drop_table("membership")
    with op.batch_alter_table("account") as account:
        account.drop_index(op.f("ix_account_made_by_id"))
        account.drop_constraint(op.f("fk_account_made_by_id_account"), type_="foreignkey")
        account.drop_column("made_by_id")
        account.drop_column("is_organisation")
