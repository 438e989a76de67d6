"""Codes by which a command line gets a token in a browser; transfers in the log of changes.

Kept counts set listings in quarantine apart from here on: `env.py` writes them anew after a migration.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

KINDS = ("published", "card", "yanked", "unyanked", "verdict", "origin", "transfer", "hidden", "shown")
STATES = ("asked", "granted", "denied")


def upgrade() -> None:
    _allow(KINDS)
    op.create_table(
        "device_code",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("user_code", sa.String(length=9), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("network", sa.String(length=50), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(_one_of(STATES, "state"), name=op.f("ck_device_code_state_known")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_device_code_account_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_code")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_device_code_secret_sha256")),
        sa.UniqueConstraint("user_code", name=op.f("uq_device_code_user_code")),
    )


def downgrade() -> None:
    op.drop_table("device_code")
    op.execute("DELETE FROM change WHERE kind = 'transfer'")
    _allow(tuple(kind for kind in KINDS if kind != "transfer"))


def _allow(kinds: tuple[str, ...]) -> None:
    with op.batch_alter_table("change") as change:
        change.drop_constraint(op.f("ck_change_kind_known"), type_="check")
        change.create_check_constraint(op.f("ck_change_kind_known"), _one_of(kinds, "kind"))


def _one_of(values: tuple[str, ...], column: str) -> str:
    return f"{column} IN ({', '.join(map(repr, values))})"
