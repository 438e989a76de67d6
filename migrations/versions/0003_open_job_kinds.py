"""The kinds of jobs are modules (`app.jobs.kinds`): the table no longer lists them."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAME = "ck_job_kind_known"
_KINDS = "'prune', 'verify', 'transfer'"


def upgrade() -> None:
    with op.batch_alter_table("job") as job:
        job.drop_constraint(op.f(_NAME), type_="check")


def downgrade() -> None:
    op.execute(f"DELETE FROM job_event WHERE job_id IN (SELECT id FROM job WHERE kind NOT IN ({_KINDS}))")
    op.execute(f"DELETE FROM job WHERE kind NOT IN ({_KINDS})")
    with op.batch_alter_table("job") as job:
        job.create_check_constraint(op.f(_NAME), f"kind IN ({_KINDS})")
