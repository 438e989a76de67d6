"""Measuring old headlines again by today's protocol: one job an exam, in a queue of the registry's own."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.db import Database, insert_if_absent, utc_now
from app.evaluations.service import list_stale_exams
from app.jobs.service import submit_reverification
from app.settings import Settings
from app.tickets.models import Listing
from nirvana.errors import InvalidJob

REGISTRY = "(registry)"  # no name that anybody can take
ENQUEUED, THERE = "enqueued", "open or done already"


def reverify(
    database: Database,
    settings: Settings,
    *,
    task: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> Iterator[tuple[str, str]]:
    """Enqueue a verification for every exam whose headline is of an older protocol, each in a transaction of
    its own; what is there already is not enqueued again, so that it can be stopped and run again.

    Args:
        task: None: of all tasks. limit: the most to enqueue.
        dry_run: take it all back: only say what would happen.

    Yields:
        (owner/name, what happened): `enqueued`, `open or done already`, or why it cannot be verified.
    """
    with database.read() as session:
        exams = list_stale_exams(session, task)
    enqueued = 0
    for exam in exams:
        if limit is not None and enqueued >= limit:
            return
        with database.write() as session:
            name, happened = _reverify_one(session, settings, exam)
            if dry_run:
                session.rollback()
        enqueued += happened == ENQUEUED
        yield name, happened


def _reverify_one(session: Session, settings: Settings, exam: str) -> tuple[str, str]:
    public = (Listing.exam_key == exam, Listing.visibility == "public", Listing.yanked_at.is_(None))
    query = select(Listing).where(*public).options(joinedload(Listing.owner)).order_by(Listing.id).limit(1)
    row = session.scalars(query).one_or_none()
    if row is None:
        return exam, "yanked meanwhile"
    name = f"{row.owner.name}/{row.name}"
    try:
        job = submit_reverification(session, settings, _registry(session), exam, name)
    except InvalidJob as refusal:
        return name, refusal.detail
    return name, THERE if job is None else ENQUEUED


def _registry(session: Session) -> Account:
    insert_if_absent(session, Account, name=REGISTRY, created_at=utc_now())
    return session.scalars(select(Account).where(Account.name == REGISTRY)).one()
