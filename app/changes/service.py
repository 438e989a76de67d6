"""The log of changes: written as the last thing of a transaction, read by serial number.

A reader that has seen serial n must never meet a smaller one later. So whoever writes changes takes a lock
just before the commit and holds it through it: serials are in the order of commits. SQLite has one writer
anyway; PostgreSQL takes an advisory lock, which bounds all publishes to one wait for the disk after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Integer, Row, column, event, func, insert, select, table
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base, one_of, utc_now

KINDS = ("published", "card", "yanked", "unyanked", "verdict", "origin", "transfer", "hidden", "shown")
LOCK = 0x6E697276616E61  # "nirvana"
_NOTED = "nirvana_changes"

# What a change says of its listing. `app.tickets` writes changes, so that its tables are named here.
LISTING = table(
    "ticket",
    column("id", Integer),
    *(column(name) for name in ("owner_id", "name", "digest", "visibility", "blob_id", "exam_key")),
    *(column(name) for name in ("task", "verdict", "quarantined_at")),
)
OWNER = table("account", column("id", Integer), column("name"))
BLOB = table("blob", column("id", Integer), column("digest"))
IS_OPEN = (LISTING.c.visibility == "public") & LISTING.c.quarantined_at.is_(None)
"""The condition of the listings that everybody sees."""


class Change(Base):
    """Something that happened to a listing.

    Attributes:
        id: the serial number.
        kind: one of KINDS; `hidden`: it became private or was put in quarantine, `shown`: it is back.
    """

    __tablename__ = "change"
    __table_args__ = (one_of("kind", KINDS),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    listing_id: Mapped[int] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def note_change(session: Session, kind: str, listing_ids: Iterable[int]) -> None:
    """Have a change written with the commit, for each of some listings; of a private one nobody hears."""
    assert kind in KINDS
    session.info.setdefault(_NOTED, []).extend((kind, listing_id) for listing_id in listing_ids)


def note_exam(session: Session, kind: str, exam: str) -> None:
    """Have a change written for every listing of an exam."""
    note_change(session, kind, session.scalars(select(LISTING.c.id).where(LISTING.c.exam_key == exam)))


def note_ticket(session: Session, kind: str, digest: str) -> None:
    """Have a change written for every listing of a ticket."""
    note_change(session, kind, session.scalars(select(LISTING.c.id).where(LISTING.c.digest == digest)))


def _write_noted(session: Session) -> None:
    noted = dict.fromkeys(session.info.pop(_NOTED, ()))  # each once, in order
    if not noted:
        return
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(LOCK)))
    now = utc_now()
    rows = [{"kind": kind, "listing_id": listing, "created_at": now} for kind, listing in noted]
    session.execute(insert(Change), rows)


def _forget_noted(session: Session, *_: object) -> None:
    session.info.pop(_NOTED, None)


event.listen(Session, "before_commit", _write_noted)
event.listen(Session, "after_rollback", _forget_noted)


def list_changes(
    session: Session, since: int, limit: int
) -> Sequence[Row[int, str, int, datetime, str, str, str, str, bool]]:
    """Return the changes after a serial, oldest first, each with its listing as it is now; the last column
    tells whether everybody sees that.

    Of a listing that is private or in quarantine now nothing is returned but that it became so.
    """
    query = (
        select(Change.id, Change.kind, Change.listing_id, Change.created_at)
        .add_columns(OWNER.c.name, LISTING.c.name, LISTING.c.digest, BLOB.c.digest, IS_OPEN)
        .join_from(Change, LISTING, LISTING.c.id == Change.listing_id)
        .join(OWNER, OWNER.c.id == LISTING.c.owner_id)
        .join(BLOB, BLOB.c.id == LISTING.c.blob_id)
        .where(Change.id > since, IS_OPEN | (Change.kind == "hidden"))
    )
    return session.execute(query.order_by(Change.id).limit(limit)).all()


def last_serial(session: Session) -> int:
    """Return the serial of the newest change, 0 where there is none."""
    return session.scalar(select(func.max(Change.id))) or 0
