"""A job keeps how many floating-point operations it plans, for its account's budget."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("flops", sa.Double(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("job", "flops")
