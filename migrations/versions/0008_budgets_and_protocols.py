"""An account may have a budget of floating-point operations a day of its own, and a listing says by which
protocol its verdict was measured.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CURRENT = "nirvana-verify/3"  # of this revision


def upgrade() -> None:
    op.add_column("account", sa.Column("max_flops_per_day", sa.Double(), nullable=True))
    op.add_column("ticket", sa.Column("protocol", sa.String(length=100), nullable=True))
    fill = sa.text(
        "UPDATE ticket SET protocol = (SELECT evaluation.protocol FROM evaluation "
        "WHERE evaluation.exam_key = ticket.exam_key ORDER BY "
        "CASE WHEN evaluation.protocol = :current THEN 0 ELSE 1 END, "
        "CASE WHEN evaluation.verdict = 'INVALID' THEN 0 ELSE 1 END, "
        "evaluation.replicates DESC, evaluation.id LIMIT 1)"
    )
    op.get_bind().execute(fill, {"current": CURRENT})


def downgrade() -> None:
    op.drop_column("ticket", "protocol")
    op.drop_column("account", "max_flops_per_day")
