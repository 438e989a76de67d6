"""Every table of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=39), nullable=False),
        sa.Column("max_open_jobs", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
    )
    op.create_table(
        "architecture",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("family", sa.String(length=200), nullable=False),
        sa.Column("input_shape", sa.JSON(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("prunable", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("graph", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_architecture")),
        sa.UniqueConstraint("digest", name=op.f("uq_architecture_digest")),
    )
    op.create_index(op.f("ix_architecture_family"), "architecture", ["family"], unique=False)
    op.create_index("ix_architecture_name_id", "architecture", ["name", "id"], unique=False)
    op.create_table(
        "blob",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
        sa.UniqueConstraint("digest", name=op.f("uq_blob_digest")),
    )
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_digest", sa.String(length=71), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("protocol", sa.String(length=100), nullable=False),
        sa.Column("verdict", sa.String(length=30), nullable=False),
        sa.Column("replicates", sa.Integer(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("accuracy_sd", sa.Double(), nullable=True),
        sa.Column("dense_accuracy", sa.Double(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('INVALID', 'NOT_MATCHING', 'INCONCLUSIVE', 'TRIVIAL', "
            "'LAYER_RATIO_ONLY', 'STRUCTURE_ONLY', 'INIT_ONLY', 'MATCHING_UNRESOLVED', "
            "'MATCHING', 'WINNING')",
            name=op.f("ck_evaluation_verdict_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation")),
        sa.UniqueConstraint("job_id", name=op.f("uq_evaluation_job_id")),
    )
    op.create_index("ix_evaluation_ticket_digest_id", "evaluation", ["ticket_digest", "id"], unique=False)
    op.create_table(
        "task",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
        sa.UniqueConstraint("name", name=op.f("uq_task_name")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaving", sa.Boolean(), nullable=False),
        sa.Column("queues", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_index(op.f("ix_worker_beat_at"), "worker", ["beat_at"], unique=False)
    op.create_table(
        "idempotency_key",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_idempotency_key_account_id_account")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_key")),
        sa.UniqueConstraint("account_id", "key", name=op.f("uq_idempotency_key_account_id_key")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("budget", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("queue", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("progress_done", sa.Double(), nullable=False),
        sa.Column("progress_total", sa.Double(), nullable=False),
        sa.Column("progress_message", sa.String(length=500), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=100), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("reason", sa.String(length=4000), nullable=True),
        sa.Column("reason_code", sa.String(length=50), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_digest", sa.String(length=80), nullable=False),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('prune', 'verify')", name=op.f("ck_job_kind_known")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_job_state_known"),
        ),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_job_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("account_id", "idempotency_key", name="uq_job_account_id_idempotency_key"),
    )
    op.create_index("ix_job_account_created", "job", ["account_id", "created_at", "id"], unique=False)
    op.create_index("ix_job_account_state", "job", ["account_id", "state"], unique=False)
    op.create_index("ix_job_queue", "job", ["state", "priority", "created_at"], unique=False)
    op.create_table(
        "ticket",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("visibility", sa.String(length=10), nullable=False),
        sa.Column("blob_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("architecture_name", sa.String(length=200), nullable=False),
        sa.Column("family", sa.String(length=200), nullable=False),
        sa.Column("method", sa.String(length=100), nullable=True),
        sa.Column("level", sa.Integer(), nullable=True),
        sa.Column("parent_digest", sa.String(length=71), nullable=True),
        sa.Column("license", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("initial_kind", sa.String(length=10), nullable=False),
        sa.Column("rewind_step", sa.BigInteger(), nullable=False),
        sa.Column("density", sa.Double(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("flops", sa.BigInteger(), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("card", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("yanked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("yank_reason", sa.String(length=20), nullable=True),
        sa.Column("yank_detail", sa.Text(), nullable=True),
        sa.Column("verdict", sa.String(length=30), nullable=True),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("accuracy_gap", sa.Double(), nullable=True),
        sa.Column("replicates", sa.Integer(), nullable=True),
        sa.Column("evaluated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sort_accuracy", sa.Double(), nullable=False),
        sa.Column("sort_gap", sa.Double(), nullable=False),
        sa.CheckConstraint("initial_kind IN ('seeded', 'stored')", name=op.f("ck_ticket_initial_kind_known")),
        sa.CheckConstraint("visibility IN ('public', 'private')", name=op.f("ck_ticket_visibility_known")),
        sa.CheckConstraint(
            "yank_reason IN ('broken', 'duplicate', 'license', 'privacy', 'superseded', "
            "'withdrawn', 'other')",
            name=op.f("ck_ticket_yank_reason_known"),
        ),
        sa.ForeignKeyConstraint(
            ["architecture_id"], ["architecture.id"], name=op.f("fk_ticket_architecture_id_architecture")
        ),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_ticket_blob_id_blob")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_ticket_owner_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ticket")),
        sa.UniqueConstraint("owner_id", "name", name=op.f("uq_ticket_owner_id_name")),
    )
    op.create_index(op.f("ix_ticket_architecture_id"), "ticket", ["architecture_id"], unique=False)
    op.create_index(op.f("ix_ticket_architecture_name"), "ticket", ["architecture_name"], unique=False)
    op.create_index(op.f("ix_ticket_blob_id"), "ticket", ["blob_id"], unique=False)
    op.create_index("ix_ticket_created_at_id", "ticket", ["created_at", "id"], unique=False)
    op.create_index("ix_ticket_density_id", "ticket", ["density", "id"], unique=False)
    op.create_index(op.f("ix_ticket_digest"), "ticket", ["digest"], unique=False)
    op.create_index(op.f("ix_ticket_family"), "ticket", ["family"], unique=False)
    op.create_index(op.f("ix_ticket_job_id"), "ticket", ["job_id"], unique=False)
    op.create_index("ix_ticket_kept_id", "ticket", ["kept", "id"], unique=False)
    op.create_index(op.f("ix_ticket_license"), "ticket", ["license"], unique=False)
    op.create_index(op.f("ix_ticket_method"), "ticket", ["method"], unique=False)
    op.create_index(
        "ix_ticket_owner_id_created_at_id", "ticket", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_ticket_parent_digest"), "ticket", ["parent_digest"], unique=False)
    op.create_index("ix_ticket_sort_accuracy_id", "ticket", ["sort_accuracy", "id"], unique=False)
    op.create_index("ix_ticket_sort_gap_id", "ticket", ["sort_gap", "id"], unique=False)
    op.create_index("ix_ticket_task_created_at_id", "ticket", ["task", "created_at", "id"], unique=False)
    op.create_index("ix_ticket_task_density_id", "ticket", ["task", "density", "id"], unique=False)
    op.create_index(
        "ix_ticket_task_sort_accuracy_id", "ticket", ["task", "sort_accuracy", "id"], unique=False
    )
    op.create_index(op.f("ix_ticket_verdict"), "ticket", ["verdict"], unique=False)
    op.create_table(
        "token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_token_account_id_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_token_secret_sha256")),
    )
    op.create_index(op.f("ix_token_account_id"), "token", ["account_id"], unique=False)
    op.create_table(
        "job_event",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_job_event_job_id_job"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "serial", name=op.f("pk_job_event")),
    )
    op.create_table(
        "ticket_tag",
        sa.Column("tag", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_ticket_tag_ticket_id_ticket")),
        sa.PrimaryKeyConstraint("tag", "ticket_id", name=op.f("pk_ticket_tag")),
    )
    op.create_index(op.f("ix_ticket_tag_ticket_id"), "ticket_tag", ["ticket_id"], unique=False)
    op.create_table(
        "ticket_term",
        sa.Column("term", sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=False),
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_ticket_term_ticket_id_ticket")),
        sa.PrimaryKeyConstraint("term", "ticket_id", name=op.f("pk_ticket_term")),
    )
    op.create_index(op.f("ix_ticket_term_ticket_id"), "ticket_term", ["ticket_id"], unique=False)


def downgrade() -> None:

    op.drop_index(op.f("ix_ticket_term_ticket_id"), table_name="ticket_term")
    op.drop_table("ticket_term")
    op.drop_index(op.f("ix_ticket_tag_ticket_id"), table_name="ticket_tag")
    op.drop_table("ticket_tag")
    op.drop_table("job_event")
    op.drop_index(op.f("ix_token_account_id"), table_name="token")
    op.drop_table("token")
    op.drop_index(op.f("ix_ticket_verdict"), table_name="ticket")
    op.drop_index("ix_ticket_task_sort_accuracy_id", table_name="ticket")
    op.drop_index("ix_ticket_task_density_id", table_name="ticket")
    op.drop_index("ix_ticket_task_created_at_id", table_name="ticket")
    op.drop_index("ix_ticket_sort_gap_id", table_name="ticket")
    op.drop_index("ix_ticket_sort_accuracy_id", table_name="ticket")
    op.drop_index(op.f("ix_ticket_parent_digest"), table_name="ticket")
    op.drop_index("ix_ticket_owner_id_created_at_id", table_name="ticket")
    op.drop_index(op.f("ix_ticket_method"), table_name="ticket")
    op.drop_index(op.f("ix_ticket_license"), table_name="ticket")
    op.drop_index("ix_ticket_kept_id", table_name="ticket")
    op.drop_index(op.f("ix_ticket_job_id"), table_name="ticket")
    op.drop_index(op.f("ix_ticket_family"), table_name="ticket")
    op.drop_index(op.f("ix_ticket_digest"), table_name="ticket")
    op.drop_index("ix_ticket_density_id", table_name="ticket")
    op.drop_index("ix_ticket_created_at_id", table_name="ticket")
    op.drop_index(op.f("ix_ticket_blob_id"), table_name="ticket")
    op.drop_index(op.f("ix_ticket_architecture_name"), table_name="ticket")
    op.drop_index(op.f("ix_ticket_architecture_id"), table_name="ticket")
    op.drop_table("ticket")
    op.drop_index("ix_job_queue", table_name="job")
    op.drop_index("ix_job_account_state", table_name="job")
    op.drop_index("ix_job_account_created", table_name="job")
    op.drop_table("job")
    op.drop_table("idempotency_key")
    op.drop_index(op.f("ix_worker_beat_at"), table_name="worker")
    op.drop_table("worker")
    op.drop_table("task")
    op.drop_index("ix_evaluation_ticket_digest_id", table_name="evaluation")
    op.drop_table("evaluation")
    op.drop_table("blob")
    op.drop_index("ix_architecture_name_id", table_name="architecture")
    op.drop_index(op.f("ix_architecture_family"), table_name="architecture")
    op.drop_table("architecture")
    op.drop_table("account")
