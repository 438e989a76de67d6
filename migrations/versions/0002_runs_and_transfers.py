"""Runs that later verifications share (`baseline`), and tickets on other tasks (`transfer`)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "baseline",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("architecture_digest", sa.String(length=71), nullable=False),
        sa.Column("recipe_digest", sa.String(length=71), nullable=False),
        sa.Column("arm", sa.String(length=20), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_baseline")),
    )
    op.create_table(
        "transfer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_digest", sa.String(length=71), nullable=False),
        sa.Column("source", sa.String(length=100), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("verdict", sa.String(length=30), nullable=False),
        sa.Column("replicates", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("dense_accuracy", sa.Double(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('TRANSFERS', 'TRANSFERS_NOT', 'UNRESOLVED')",
            name=op.f("ck_transfer_verdict_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfer")),
        sa.UniqueConstraint("job_id", name=op.f("uq_transfer_job_id")),
    )
    op.create_index("ix_transfer_ticket_digest_id", "transfer", ["ticket_digest", "id"], unique=False)
    op.create_index("ix_transfer_task_id", "transfer", ["task", "id"], unique=False)
    _set_kinds("'prune', 'verify', 'transfer'")


def downgrade() -> None:
    op.execute("DELETE FROM job_event WHERE job_id IN (SELECT id FROM job WHERE kind = 'transfer')")
    op.execute("DELETE FROM job WHERE kind = 'transfer'")
    _set_kinds("'prune', 'verify'")
    op.drop_table("transfer")
    op.drop_table("baseline")


def _set_kinds(kinds: str) -> None:
    """Change what a job may be; SQLite makes the table anew (`migrations/env.py` lets it)."""
    name = op.f("ck_job_kind_known")
    with op.batch_alter_table("job") as job:
        job.drop_constraint(name, type_="check")
        job.create_check_constraint(name, f"kind IN ({kinds})")
