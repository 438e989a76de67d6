"""Tasks that people make, and the class of a ticket's kept weights, by which frontiers are drawn."""

from __future__ import annotations

import math

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ON_BOARD = "visibility = 'public' AND yanked_at IS NULL AND NOT is_copy AND accuracy IS NOT NULL"
TASK_COLUMNS = ("storage_key", "stored_bytes", "yanked_at", "yank_reason", "yank_detail", "removed_at")
AT_ONCE = 1000


def upgrade() -> None:
    with op.batch_alter_table("task") as task:
        task.add_column(sa.Column("owner_id", sa.Integer(), nullable=True))
        task.add_column(sa.Column("storage_key", sa.String(length=36), nullable=True))
        task.add_column(sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default="0"))
        task.add_column(sa.Column("yanked_at", sa.DateTime(timezone=True), nullable=True))
        task.add_column(sa.Column("yank_reason", sa.String(length=20), nullable=True))
        task.add_column(sa.Column("yank_detail", sa.Text(), nullable=True))
        task.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        task.create_foreign_key(op.f("fk_task_owner_id_account"), "account", ["owner_id"], ["id"])
        task.create_index("ix_task_owner_id", ["owner_id"], unique=False)
    op.add_column("ticket", sa.Column("kept_class", sa.Integer(), nullable=False, server_default="0"))
    _classify()
    where = sa.text(ON_BOARD)
    op.create_index(
        "ix_ticket_board",
        "ticket",
        ["task", "kept_class", "origin", "sort_accuracy", "id"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )


def _classify() -> None:
    """Write the classes, a number of kept weights at a time: each has an index."""
    connection, ticket = op.get_bind(), sa.table("ticket", sa.column("kept"), sa.column("kept_class"))
    last = -1
    query = sa.select(ticket.c.kept).distinct().order_by(ticket.c.kept).limit(AT_ONCE)
    while numbers := connection.scalars(query.where(ticket.c.kept > last)).all():
        for kept in numbers:
            of_kept = math.floor(8 * math.log2(max(1, kept)))
            connection.execute(sa.update(ticket).where(ticket.c.kept == kept).values(kept_class=of_kept))
        last = numbers[-1]


def downgrade() -> None:
    op.drop_index("ix_ticket_board", table_name="ticket")
    op.drop_column("ticket", "kept_class")
    op.execute("DELETE FROM task WHERE owner_id IS NOT NULL")
    with op.batch_alter_table("task") as task:
        task.drop_index("ix_task_owner_id")
        task.drop_constraint(op.f("fk_task_owner_id_account"), type_="foreignkey")
        for name in (*TASK_COLUMNS, "owner_id"):
            task.drop_column(name)
