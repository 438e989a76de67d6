"""Turns between people: the network that a new account was made from, whose turn a job takes, and indexes
and counts by which lists, places and gauges cost the same however long the queue is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_job_person_state": ["person", "state", "queue", "priority"],
    "ix_job_person_created": ["person", "created_at"],
    "ix_job_queue_order": ["queue", "state", "priority", "created_at", "id"],
    "ix_job_queue_age": ["queue", "state", "created_at"],
    "ix_job_state_id": ["state", "id"],
}


def upgrade() -> None:
    op.add_column("account", sa.Column("network", sa.String(length=50), nullable=True))
    op.add_column("account", sa.Column("tickets", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("account", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("account", sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE account SET tickets = (SELECT count(*) FROM ticket WHERE ticket.owner_id = account.id), "
        "stored_bytes = (SELECT coalesce(sum(blob.size_bytes), 0) FROM ticket JOIN blob "
        "ON blob.id = ticket.blob_id WHERE ticket.owner_id = account.id)"
    )
    op.add_column("job", sa.Column("person", sa.String(length=80), nullable=False, server_default=""))
    op.execute("UPDATE job SET person = 'account:' || account_id")
    op.drop_index("ix_job_queue", table_name="job")
    for name, columns in INDEXES.items():
        op.create_index(name, "job", columns, unique=False)
    op.create_table(
        "job_count",
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("state", name=op.f("pk_job_count")),
    )
    op.create_table(
        "export_blob",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_export_blob")),
    )
    op.create_index("ix_export_blob_used_at", "export_blob", ["used_at"], unique=False)
    _create_moderation()
    op.add_column("ticket", sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("INSERT INTO job_count (state, number) SELECT state, count(*) FROM job GROUP BY state")


def _create_moderation() -> None:
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "reason IN ('abuse', 'broken', 'license', 'misleading', 'privacy', 'spam', 'other')",
            name=op.f("ck_report_reason_known"),
        ),
        sa.CheckConstraint("outcome IN ('quarantined', 'dismissed')", name=op.f("ck_report_outcome_known")),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_report_ticket_id_ticket")),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_report_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report")),
        sa.UniqueConstraint("ticket_id", "account_id", name=op.f("uq_report_ticket_id_account_id")),
    )
    op.create_index("ix_report_outcome_id", "report", ["outcome", "id"], unique=False)
    op.create_table(
        "moderation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("was_yanked", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("action IN ('quarantine', 'release')", name=op.f("ck_moderation_action_known")),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_moderation_ticket_id_ticket")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_moderation_account_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moderation")),
    )
    op.create_index("ix_moderation_ticket_id", "moderation", ["ticket_id"], unique=False)


def downgrade() -> None:
    op.drop_column("ticket", "quarantined_at")
    op.drop_table("moderation")
    op.drop_table("report")
    op.drop_table("export_blob")
    op.drop_table("job_count")
    for name in INDEXES:
        op.drop_index(name, table_name="job")
    op.create_index("ix_job_queue", "job", ["state", "priority", "created_at"], unique=False)
    op.drop_column("job", "person")
    for column in ("network", "max_stored_bytes", "stored_bytes", "tickets"):
        op.drop_column("account", column)
