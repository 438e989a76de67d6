"""Search that costs the page: kept counts, indexes for every order, and full text by the database's engine.

The triggers that keep the counts are written by `migrations/env.py` after every migration, because SQLite
loses them with a table that it makes anew. The words of old listings are read from their columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ORDERS = ("sort_accuracy", "sort_gap", "density", "kept", "created_at", "downloads", "speedup")
OLD_ORDERS = ("sort_accuracy", "sort_gap", "density", "kept", "created_at")
OF_TASK = ("sort_accuracy", "density", "created_at")
SINGLE = ("origin", "architecture_name", "family", "method", "license", "verdict")
WIDE = ("description", "card", "warnings", "layers", "manifest")
BANDED = (("accuracy_band", "kept"), ("density_band", "sort_accuracy"))
NEW: dict[str, sa.types.TypeEngine[Any]] = {
    "is_copy": sa.Boolean(),
    "speedup": sa.Double(),
    "accuracy_band": sa.Integer(),
    "density_band": sa.Integer(),
}
AT_ONCE = 500


def upgrade() -> None:
    op.create_table(
        "listing_group",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("visibility", sa.String(length=10), nullable=False),
        sa.Column("is_yanked", sa.Boolean(), nullable=False),
        sa.Column("is_copy", sa.Boolean(), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("architecture_name", sa.String(length=200), nullable=False),
        sa.Column("family", sa.String(length=200), nullable=False),
        sa.Column("method", sa.String(length=100), nullable=False),
        sa.Column("verdict", sa.String(length=30), nullable=False),
        sa.Column("origin", sa.String(length=12), nullable=False),
        sa.Column("license", sa.String(length=200), nullable=False),
        sa.Column("listings", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listing_group")),
        sa.UniqueConstraint(
            "visibility",
            "is_yanked",
            "task",
            "architecture_name",
            "family",
            "method",
            "verdict",
            "origin",
            "license",
            "is_copy",
            name="uq_listing_group_key",
        ),
    )
    op.create_table(
        "blob_count",
        sa.Column("digit", sa.String(length=1), nullable=False),
        sa.Column("blobs", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digit", name=op.f("pk_blob_count")),
    )
    _widen_ticket()
    op.execute(
        "UPDATE ticket SET is_copy = EXISTS (SELECT 1 FROM ticket AS other WHERE other.id < ticket.id "
        "AND other.visibility = 'public' AND other.yanked_at IS NULL "
        "AND (other.digest = ticket.digest OR other.fingerprint = ticket.fingerprint))"
    )
    op.execute(
        "UPDATE ticket SET speedup = (SELECT 1.0 * architecture.flops / "
        "CASE WHEN ticket.flops > 0 THEN ticket.flops ELSE 1 END "
        "FROM architecture WHERE architecture.id = ticket.architecture_id)"
    )
    _create_text()
    for row in _rows():
        _keep_bands(row)
        _keep_words(row)
    with op.batch_alter_table("ticket") as ticket:
        for name, kind in NEW.items():
            ticket.alter_column(name, existing_type=kind, nullable=False)
    op.drop_table("ticket_term")


def _widen_ticket() -> None:
    """Add the columns and indexes; on SQLite the wide columns go to the end of a row, where a list that does
    not read them does not pass them."""
    options: dict[str, Any] = {}
    if op.get_bind().dialect.name == "sqlite":
        options = {"recreate": "always", "partial_reordering": [_narrow_first()]}
    with op.batch_alter_table("ticket", **options) as ticket:
        ticket.add_column(sa.Column("group_id", sa.Integer(), nullable=True))
        for name, kind in NEW.items():
            ticket.add_column(sa.Column(name, kind, nullable=True))
        ticket.add_column(sa.Column("downloads", sa.BigInteger(), nullable=False, server_default="0"))
        ticket.create_foreign_key(
            op.f("fk_ticket_group_id_listing_group"), "listing_group", ["group_id"], ["id"]
        )
        for name in SINGLE:
            ticket.drop_index(f"ix_ticket_{name}")
        for name in ORDERS:
            if name not in OLD_ORDERS:
                ticket.create_index(f"ix_ticket_{name}_id", [name, "id"])
            if name not in OF_TASK:
                ticket.create_index(f"ix_ticket_task_{name}_id", ["task", name, "id"])
            ticket.create_index(f"ix_ticket_group_id_{name}_id", ["group_id", name, "id"])
        for band, name in BANDED:
            ticket.create_index(f"ix_ticket_task_{band}_{name}_id", ["task", band, name, "id"])


def _narrow_first() -> tuple[str, ...]:
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns("ticket")]
    return tuple(name for name in names if name not in WIDE) + WIDE


def _create_text() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE ticket_text USING fts5(words, detail = 'none', prefix = '2 3 4 5 6 7', "
            "tokenize = 'unicode61 remove_diacritics 0')"
        )
        return
    op.execute(
        "CREATE TABLE ticket_text (ticket_id integer PRIMARY KEY REFERENCES ticket (id), "
        "words tsvector NOT NULL)"
    )
    op.execute("CREATE INDEX ix_ticket_text_words ON ticket_text USING gin (words)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name in ("ticket_insert", "ticket_update", "ticket_delete", "blob_insert", "blob_delete"):
            op.execute(f"DROP TRIGGER IF EXISTS counted_{name}")
    else:
        op.execute("DROP TRIGGER IF EXISTS ticket_grouped ON ticket")
        op.execute("DROP TRIGGER IF EXISTS ticket_counted ON ticket")
        op.execute("DROP TRIGGER IF EXISTS blob_counted ON blob")
        op.execute("DROP FUNCTION IF EXISTS count_blob")
        op.execute("DROP FUNCTION IF EXISTS group_ticket")
        op.execute("DROP FUNCTION IF EXISTS count_ticket")
    op.execute("DROP TABLE ticket_text")
    term = sa.Column("term", sa.String(collation=_c()), nullable=False)
    op.create_table(
        "ticket_term",
        term,
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_ticket_term_ticket_id_ticket")),
        sa.PrimaryKeyConstraint("term", "ticket_id", name=op.f("pk_ticket_term")),
    )
    op.create_index(op.f("ix_ticket_term_ticket_id"), "ticket_term", ["ticket_id"])
    for row in _rows():
        _keep_terms(row)
    with op.batch_alter_table("ticket") as ticket:
        for name in ORDERS:
            if name not in OLD_ORDERS:
                ticket.drop_index(f"ix_ticket_{name}_id")
            if name not in OF_TASK:
                ticket.drop_index(f"ix_ticket_task_{name}_id")
            ticket.drop_index(f"ix_ticket_group_id_{name}_id")
        for band, name in BANDED:
            ticket.drop_index(f"ix_ticket_task_{band}_{name}_id")
        for name in SINGLE:
            ticket.create_index(f"ix_ticket_{name}", [name])
        ticket.drop_constraint(op.f("fk_ticket_group_id_listing_group"), type_="foreignkey")
        for name in ("group_id", "downloads", *NEW):
            ticket.drop_column(name)
    op.drop_table("listing_group")
    op.drop_table("blob_count")


def _c() -> str | None:
    return "C" if op.get_bind().dialect.name == "postgresql" else None


# The words of a listing, as this version of the service reads them.

TICKET = sa.table(
    "ticket",
    *(sa.column(name) for name in ("id", "owner_id", "name", "task", "architecture_name", "method")),
    *(sa.column(name) for name in ("description", "card", "density", "sort_accuracy", *NEW)),
    sa.column("tags", sa.JSON()),
)
ACCOUNT = sa.table("account", sa.column("id"), sa.column("name"))
WORD = re.compile(r"[^\W_]+")


def _rows() -> Iterator[dict[str, Any]]:
    """Yield every listing's texts, with its owner's name."""
    connection, last = op.get_bind(), 0
    query = sa.select(TICKET, ACCOUNT.c.name.label("owner")).join(ACCOUNT, ACCOUNT.c.id == TICKET.c.owner_id)
    while True:
        some = query.where(TICKET.c.id > last).order_by(TICKET.c.id).limit(AT_ONCE)
        rows = connection.execute(some).mappings().all()
        yield from (dict(row) for row in rows)
        if not rows:
            return
        last = rows[-1]["id"]


def _keep_bands(row: dict[str, Any]) -> None:
    bands = {
        "accuracy_band": math.floor(100 * row["sort_accuracy"]),
        "density_band": min(60, math.floor(-2 * math.log2(row["density"] or 2**-60))),
    }
    op.get_bind().execute(sa.update(TICKET).where(TICKET.c.id == row["id"]).values(bands))


def _words(*texts: str | None) -> list[str]:
    joined = " ".join(text for text in texts if text)
    return list(dict.fromkeys(word[0][:40] for word in WORD.finditer(joined.lower())))


def _keep_words(row: dict[str, Any]) -> None:
    about = (row["owner"], row["task"], row["architecture_name"], row["method"], *row["tags"])
    parts = [_words(row["name"]), _words(*about), _words(row["description"], row["card"])[:5000]]
    ranked = [f"{rank}{word}" for rank in (1, 2, 3) for part in parts[:rank] for word in part]
    every = list(dict.fromkeys(ranked))
    insert, written = "INSERT INTO ticket_text (rowid, words) VALUES (:id, :words)", " ".join(every)
    if op.get_bind().dialect.name == "postgresql":
        insert = "INSERT INTO ticket_text (ticket_id, words) VALUES (:id, CAST(:words AS tsvector))"
        written = " ".join(f"'{word}'" for word in every)
    op.get_bind().execute(sa.text(insert), {"id": row["id"], "words": written})


def _keep_terms(row: dict[str, Any]) -> None:
    """Write the terms as they were before."""
    fields = ("owner", "name", "task", "architecture_name", "method", "description")
    terms = _words(*(row[name] for name in fields))[:200]
    table = sa.table("ticket_term", sa.column("term"), sa.column("ticket_id"))
    values = [{"term": term, "ticket_id": row["id"]} for term in terms]
    if values:
        op.get_bind().execute(sa.insert(table), values)
