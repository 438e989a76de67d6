"""A listing has an origin, and a search that the registry ran itself attests what it gave.

Tickets of prune jobs were found here; everything else was brought in.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ORIGINS = "origin IN ('attested', 'sealed', 'brought-in')"


def upgrade() -> None:
    op.create_table(
        "attestation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_digest", sa.String(length=71), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("overlap", sa.Double(), nullable=False),
        sa.Column("found_digest", sa.String(length=71), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('found', 'same', 'differs')", name=op.f("ck_attestation_outcome_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attestation")),
        sa.UniqueConstraint("job_id", "ticket_digest", name=op.f("uq_attestation_job_id_ticket_digest")),
    )
    op.create_index("ix_attestation_ticket_digest_id", "attestation", ["ticket_digest", "id"], unique=False)
    op.execute(
        "INSERT INTO attestation (ticket_digest, task, outcome, overlap, found_digest, job_id, environment, "
        "created_at) SELECT digest, task, 'found', 1.0, digest, job_id, '{}', min(created_at) FROM ticket "
        "WHERE job_id IS NOT NULL GROUP BY digest, task, job_id"
    )
    with op.batch_alter_table("ticket") as ticket:
        ticket.add_column(sa.Column("origin", sa.String(length=12), nullable=True))
    op.execute(
        "UPDATE ticket SET origin = CASE WHEN EXISTS (SELECT 1 FROM attestation WHERE "
        "attestation.ticket_digest = ticket.digest AND attestation.task = ticket.task) "
        "THEN 'attested' ELSE 'brought-in' END"
    )
    with op.batch_alter_table("ticket") as ticket:
        ticket.alter_column("origin", existing_type=sa.String(length=12), nullable=False)
        ticket.create_index("ix_ticket_origin", ["origin"], unique=False)
        ticket.create_check_constraint(op.f("ck_ticket_origin_known"), ORIGINS)


def downgrade() -> None:
    with op.batch_alter_table("ticket") as ticket:
        ticket.drop_constraint(op.f("ck_ticket_origin_known"), type_="check")
        ticket.drop_index("ix_ticket_origin")
        ticket.drop_column("origin")
    op.drop_table("attestation")
