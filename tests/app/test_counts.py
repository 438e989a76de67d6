"""Kept counts: after whatever happens to listings they are what a GROUP BY says."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

from alembic import command
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session, joinedload

from app.__main__ import alembic_config
from app.accounts.models import Account
from app.accounts.service import create_account
from app.db import Database
from app.evaluations.origins import Outcome, record_attestation
from app.moderation.models import Moderation
from app.moderation.service import quarantine_ticket, release_ticket
from app.settings import Settings
from app.storage import Storage
from app.tickets.models import Blob, BlobCount, Listing, ListingGroup, TicketSketch
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.search.counts import KEY, recount
from app.tickets.service import unyank_ticket, yank_ticket
from tests.factories import make_ticket
from tests.registry import VERDICT, count_now, measure


def kept(session: Session) -> dict[tuple[object, ...], int]:
    rows = session.execute(select(*(getattr(ListingGroup, name) for name in KEY), ListingGroup.listings))
    return {tuple(row[:-1]): row[-1] for row in rows if row[-1]}


def counted(session: Session) -> dict[tuple[object, ...], int]:
    listings = session.scalars(select(Listing).execution_options(populate_existing=True)).all()
    return Counter(
        tuple(
            row.yanked_at is not None
            if name == "is_yanked"
            else getattr(row, name) or ""
            if name in ("method", "verdict")
            else "hidden"
            if name == "visibility" and row.quarantined_at is not None
            else getattr(row, name)
            for name in KEY
        )
        for row in listings
    )


def assert_kept(session: Session) -> None:
    session.flush()
    count_now(session)
    assert kept(session) == counted(session)
    groups = select(Listing.name).join(ListingGroup, Listing.group_id == ListingGroup.id)
    same = groups.where(Listing.task == ListingGroup.task, Listing.origin == ListingGroup.origin)
    assert len(session.scalars(same).all()) == sum(kept(session).values())
    blobs = session.scalars(select(Blob.size_bytes)).all()
    files = session.execute(select(BlobCount.blobs, BlobCount.size_bytes)).all()
    assert tuple(map(sum, zip(*files, strict=True))) == (len(blobs), sum(blobs))


def test_kept_counts_are_those_of_the_listings_whatever_happened(
    database: Database, storage: Storage
) -> None:
    random = Random(5)
    with database.write() as session:
        owners = [create_account(session, name) for name in ("ada", "bob")]
        for step in range(60):
            rows = session.scalars(
                select(Listing).options(joinedload(Listing.owner)).order_by(Listing.id)
            ).all()
            row = random.choice(rows) if rows else None
            act = random.randrange(7)
            if row is None or act < 2:
                task = random.choice(("digits", "mnist"))
                data = make_ticket(seed=random.randrange(8), task=task).to_bytes()
                visibility = random.choice(("public", "public", "private"))
                publish_ticket(
                    session, storage, data, Publication(random.choice(owners), f"t{step}", visibility)
                )
            elif act == 2:
                unyank_ticket(session, row) if row.yanked_at else yank_ticket(session, row, "broken", None)
            elif act == 3:
                measure(session, row.digest, VERDICT | {"task": row.task}, f"job-{step}")
            elif act == 4:
                outcome = Outcome(row.digest, row.task, "same", row.digest, 1.0, {})
                record_attestation(session, outcome, f"job-{step}")
            elif act == 5:
                hide = release_ticket if row.quarantined_at is not None else quarantine_ticket
                hide(session, owners[0], f"{row.owner.name}/{row.name}", "report")
            else:
                session.execute(delete(TicketSketch).where(TicketSketch.ticket_id == row.id))
                session.execute(delete(Moderation).where(Moderation.ticket_id == row.id))
                session.execute(text("DELETE FROM ticket_text"))
                session.execute(delete(Listing).where(Listing.id == row.id))
                session.expunge_all()
                owners = [session.merge(owner) for owner in owners]
            assert_kept(session)
        assert len(kept(session)) > 5


def test_counts_hold_when_several_write_at_once(database: Database, storage: Storage) -> None:
    with database.write() as session:
        owners = [create_account(session, f"owner-{number}") for number in range(3)]

    def work(owner: Account) -> None:
        for step in range(4):
            data = make_ticket(seed=step).to_bytes()
            with database.write() as session:
                row, _ = publish_ticket(session, storage, data, Publication(owner, f"t{step}"))
            with database.write() as session:
                yank_ticket(session, session.get_one(Listing, row.id), "broken", None)
            with database.write() as session:
                measure(session, row.digest, VERDICT)
            with database.write() as session:
                unyank_ticket(session, session.get_one(Listing, row.id))

    with ThreadPoolExecutor(len(owners)) as pool:
        list(pool.map(work, owners))
    with database.write() as session:
        assert_kept(session)
        assert sum(kept(session).values()) == 12


def test_the_same_ticket_again_counts_once(database: Database, storage: Storage) -> None:
    with database.write() as session:
        ada = create_account(session, "ada")
        for _ in range(2):
            publish_ticket(session, storage, make_ticket().to_bytes(), Publication(ada, "t"))
        count_now(session)
        assert list(kept(session).values()) == [1]


def test_what_is_counted_wrongly_is_counted_anew(database: Database, storage: Storage) -> None:
    with database.write() as session:
        ada = create_account(session, "ada")
        publish_ticket(session, storage, make_ticket().to_bytes(), Publication(ada, "t"))
        count_now(session)
        session.execute(update(ListingGroup).values(listings=7))
        session.execute(update(BlobCount).values(blobs=7))
        session.execute(update(Listing).values(group_id=None))
        recount(session.connection())
        assert_kept(session)


def test_a_migration_leaves_the_counts_and_what_keeps_them(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        ada = create_account(session, "ada")
        publish_ticket(session, storage, make_ticket(seed=1).to_bytes(), Publication(ada, "one"))
    command.downgrade(alembic_config(settings), "0009")
    command.upgrade(alembic_config(settings), "head")
    with database.write() as session:
        assert_kept(session)
        publish_ticket(session, storage, make_ticket(seed=2).to_bytes(), Publication(ada, "two"))
        assert_kept(session)
        assert sum(kept(session).values()) == 2
