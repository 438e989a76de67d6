"""Rules of transfers: only a job writes one, and who may see a ticket sees where it was tried."""

from __future__ import annotations

from statistics import fmean

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.changes.service import note_ticket
from app.db import Json, insert_if_absent, utc_now
from app.pagination import Page, binding, cut_page, read_cursor
from app.tickets.models import Listing
from app.tickets.search.conditions import visible_to
from app.transfers.models import Transfer

MOST_CELLS = 500


def record_transfer(session: Session, *, digest: str, measured: Json, job_id: str) -> Transfer:
    """Record a measured transfer, once a job.

    Args:
        digest: the ticket's.
        measured: the result of `lab.transfer` (`Transfer.to_dict()`).
        job_id: the job that measured it; the same job again changes nothing.
    """
    means = {arm: fmean(measured["arms"][arm]["accuracies"]) for arm in ("ticket", "dense")}
    is_new = insert_if_absent(
        session,
        Transfer,
        ticket_digest=digest,
        source=measured["source"],
        task=measured["target"],
        verdict=measured["verdict"],
        replicates=measured["replicates"],
        accuracy=means["ticket"],
        dense_accuracy=means["dense"],
        job_id=job_id,
        body=dict(measured),
        created_at=utc_now(),
    )
    if is_new:
        note_ticket(session, "transfer", digest)
    return session.scalars(select(Transfer).where(Transfer.job_id == job_id)).one()


def list_transfers(
    session: Session,
    reader: Account | None,
    *,
    digest: str | None = None,
    task: str | None = None,
    limit: int,
    cursor: str | None = None,
) -> Page[Transfer]:
    """Return the transfers of tickets that a reader may see, newest first. Raises: InvalidCursor."""
    bound_to = binding("transfers", digest, task)
    query = _visible(reader).order_by(Transfer.id.desc()).limit(limit + 1)
    if digest is not None:
        query = query.where(Transfer.ticket_digest == digest)
    if task is not None:
        query = query.where(Transfer.task == task)
    if cursor is not None:
        query = query.where(Transfer.id < read_cursor(cursor, bound_to, (int,))[0])
    return cut_page(session.scalars(query).all(), limit, bound_to, lambda row: (row.id,))


def name_tickets(session: Session, reader: Account | None, digests: set[str]) -> dict[str, str]:
    """Return digest -> the first owner/name of it that a reader may see."""
    query = select(Listing).options(joinedload(Listing.owner)).where(Listing.digest.in_(digests))
    rows = session.scalars(query.where(visible_to(reader)).order_by(Listing.id.desc()))
    return {row.digest: f"{row.owner.name}/{row.name}" for row in rows}


def read_matrix(session: Session, reader: Account | None) -> dict[str, dict[str, Transfer]]:
    """Return digest -> task -> the transfer with the most replicates, and of those the first: the newest five
    hundred transfers, newest tickets first."""
    rows = list(session.scalars(_visible(reader).order_by(Transfer.id.desc()).limit(MOST_CELLS)))
    matrix: dict[str, dict[str, Transfer]] = {}
    for row in rows:
        cells = matrix.setdefault(row.ticket_digest, {})
        if row.task not in cells or row.replicates >= cells[row.task].replicates:
            cells[row.task] = row
    return matrix


def _visible(reader: Account | None) -> Select[Transfer]:
    listed = exists().where(Listing.digest == Transfer.ticket_digest, visible_to(reader))
    return select(Transfer).where(listed)
