"""A verdict belongs to an exam: the ticket with its recipe, laws and task, and no longer to a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import rfc8785
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Columns = dict[str, Any]

_AT_ONCE = 500
_HEADLINE = ("verdict", "accuracy", "accuracy_gap", "replicates", "evaluated_at", "sort_accuracy", "sort_gap")
_MEASURED = ("verdict", "accuracy", "dense_accuracy", "replicates", "created_at")
_TICKET = sa.table(
    "ticket",
    *map(sa.column, ("id", "digest", "task", "blob_id", "exam_key", *_HEADLINE)),
    sa.column("manifest", sa.JSON),
)
_BLOB = sa.table("blob", *map(sa.column, ("id", "digest")))
_EVALUATION = sa.table(
    "evaluation",
    *map(sa.column, ("id", "ticket_digest", "task", "exam_key", *_MEASURED)),
    sa.column("body", sa.JSON),
)
_JOB = sa.table("job", *map(sa.column, ("id", "kind", "state")), sa.column("spec", sa.JSON))
_WITH_FILE = sa.select(_TICKET, _BLOB.c.digest.label("file")).join(_BLOB, _BLOB.c.id == _TICKET.c.blob_id)


def upgrade() -> None:
    op.create_table(
        "exam",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=100), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "protocol", name=op.f("pk_exam")),
    )
    op.create_table(
        "pool",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=100), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "protocol", name=op.f("pk_pool")),
    )
    op.add_column("evaluation", sa.Column("exam_key", sa.String(length=64), nullable=True))
    op.add_column("evaluation", sa.Column("progress", sa.JSON(), nullable=True))
    op.add_column("ticket", sa.Column("exam_key", sa.String(length=64), nullable=True))
    connection = op.get_bind()
    _name_exams(connection)
    _choose_headlines(connection)
    with op.batch_alter_table("ticket") as ticket:
        ticket.alter_column("exam_key", existing_type=sa.String(length=64), nullable=False)
    op.create_index(op.f("ix_ticket_exam_key"), "ticket", ["exam_key"])
    op.create_index("ix_evaluation_exam_key_id", "evaluation", ["exam_key", "id"])


def downgrade() -> None:
    op.drop_index("ix_evaluation_exam_key_id", "evaluation")
    op.drop_index(op.f("ix_ticket_exam_key"), "ticket")
    with op.batch_alter_table("evaluation") as evaluation:
        evaluation.drop_column("progress")
        evaluation.drop_column("exam_key")
    with op.batch_alter_table("ticket") as ticket:
        ticket.drop_column("exam_key")
    op.drop_table("pool")
    op.drop_table("exam")


def _name_exams(connection: sa.Connection) -> None:
    """Give each listing its exam, each evaluation that of the listings with its digest, task and recipe where
    that is one exam, and each open job that of its file."""
    for row in _listings(connection):
        key = _exam_key(row.manifest, row.digest, row.file)
        connection.execute(sa.update(_TICKET).where(_TICKET.c.id == row.id).values(exam_key=key))
    for row in connection.execute(sa.select(_EVALUATION)).all():
        same = (_TICKET.c.digest == row.ticket_digest, _TICKET.c.task == row.task)
        listings = connection.execute(sa.select(_TICKET).where(*same)).all()
        keys = {one.exam_key for one in listings if one.manifest["recipe"] == row.body.get("recipe")}
        if len(keys) == 1:
            named = sa.update(_EVALUATION).where(_EVALUATION.c.id == row.id)
            connection.execute(named.values(exam_key=keys.pop()))
    is_open = (_JOB.c.kind == "verify", _JOB.c.state.in_(("queued", "running")))
    for job in connection.execute(sa.select(_JOB).where(*is_open)).all():
        row = connection.execute(_WITH_FILE.where(_BLOB.c.digest == job.spec["file"]).limit(1)).one()
        spec = job.spec | {"exam": row.exam_key, "pool": row.exam_key}  # a pool of its own
        connection.execute(sa.update(_JOB).where(_JOB.c.id == job.id).values(spec=spec))


def _choose_headlines(connection: sa.Connection) -> None:
    """Give each listing the verdict of its own exam, or none."""
    for row in _listings(connection):
        if row.verdict is not None:
            is_invalid = sa.case((_EVALUATION.c.verdict == "INVALID", 1), else_=0)
            order = (is_invalid.desc(), _EVALUATION.c.replicates.desc(), _EVALUATION.c.id)
            own = sa.select(_EVALUATION).where(_EVALUATION.c.exam_key == row.exam_key).order_by(*order)
            values = _headline(connection.execute(own.limit(1)).one_or_none())
            connection.execute(sa.update(_TICKET).where(_TICKET.c.id == row.id).values(values))


def _listings(connection: sa.Connection) -> Iterator[Any]:
    """Yield every listing with its file's digest, some at a time."""
    last = 0
    while rows := connection.execute(
        _WITH_FILE.where(_TICKET.c.id > last).order_by(_TICKET.c.id).limit(_AT_ONCE)
    ).all():
        yield from rows
        last = rows[-1].id


def _headline(row: Any) -> Columns:
    if row is None:
        return dict.fromkeys(_HEADLINE[:5]) | {"sort_accuracy": -2.0, "sort_gap": -2.0}
    is_known = row.accuracy is not None and row.dense_accuracy is not None
    gap = row.accuracy - row.dense_accuracy if is_known else None
    return {
        "verdict": row.verdict,
        "accuracy": row.accuracy,
        "accuracy_gap": gap,
        "replicates": row.replicates,
        "evaluated_at": row.created_at,
        "sort_accuracy": -2.0 if row.accuracy is None else row.accuracy,
        "sort_gap": -2.0 if gap is None else gap,
    }


def _exam_key(manifest: Columns, digest: str, file_digest: str) -> str:
    """Return what `app.evaluations.service.exam_key` gave when this migration was written."""
    initial = {name: value for name, value in manifest["initial"].items() if name != "sha256"}
    if initial["kind"] == "stored":
        initial["file"] = file_digest
    fields = {"ticket": digest, "initial": initial, "recipe": manifest["recipe"], "task": manifest["task"]}
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
