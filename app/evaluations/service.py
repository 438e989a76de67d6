"""Rules of evaluations: who may write one (only a job), and which one a ticket is listed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from sqlalchemy import case, column, select, table, update
from sqlalchemy.orm import Session

from app.db import UtcDateTime, insert_if_absent, utc_now
from app.evaluations.models import UNMEASURED, Evaluation
from app.paging import Page, binding, read_cursor, write_cursor
from nirvana.errors import NotFound

# The columns of a listing that repeat its headline evaluation. `app.tickets` knows evaluations, not the
# other way round, so they are named here and not imported.
LISTING = table(
    "ticket",
    *(column(name) for name in ("digest", "task", "verdict", "accuracy", "accuracy_gap", "replicates")),
    *(column(name) for name in ("sort_accuracy", "sort_gap", "version")),
    column("evaluated_at", UtcDateTime),
)


def record_evaluation(
    session: Session, *, digest: str, evaluation: Mapping[str, Any], job_id: str | None
) -> Evaluation:
    """Record a measured verdict, once a job, and bring every listing of the ticket up to date.

    Args:
        digest: the ticket's.
        evaluation: what `lab.verify` gives (`Evaluation.to_dict()`).
        job_id: the job that measured it; the same job again changes nothing.
    """
    values = _values(digest, evaluation, job_id)
    if job_id is None:
        row = Evaluation(**values)
        session.add(row)
        session.flush()
    else:
        insert_if_absent(session, Evaluation, **values)
        row = session.scalars(select(Evaluation).where(Evaluation.job_id == job_id)).one()
    refresh_listings(session, digest)
    return row


def _values(digest: str, evaluation: Mapping[str, Any], job_id: str | None) -> dict[str, Any]:
    arms = evaluation.get("arms", {})
    measured: Sequence[float] = arms.get("ticket", [])
    dense: Sequence[float] = arms.get("dense", [])
    return {
        "ticket_digest": digest,
        "job_id": job_id,
        "task": evaluation["task"],
        "protocol": evaluation["protocol"],
        "verdict": evaluation["verdict"],
        "replicates": evaluation["replicates"],
        "margin": evaluation["margin"],
        "accuracy": fmean(measured) if measured else None,
        "accuracy_sd": stdev(measured) if len(measured) > 1 else None,
        "dense_accuracy": fmean(dense) if dense else None,
        "body": dict(evaluation),
        "created_at": utc_now(),
    }


def refresh_listings(session: Session, digest: str) -> None:
    """Give every listing of a ticket the verdict of its headline evaluation.

    It is the one with the most replicates on the listing's own task, and of those the first: asking again
    and again until the dice fall well changes nothing, more replicates do. INVALID goes before them all:
    gate 0 throws no dice, and what it refuses has no replicates.
    """
    query = select(Evaluation).where(Evaluation.ticket_digest == digest)
    headlines: dict[str, Evaluation] = {}
    is_invalid = case((Evaluation.verdict == "INVALID", 1), else_=0)
    for row in session.scalars(query.order_by(is_invalid, Evaluation.replicates, Evaluation.id.desc())):
        headlines[row.task] = row
    for task, row in headlines.items():
        listings = update(LISTING).where(LISTING.c.digest == digest, LISTING.c.task == task)
        session.execute(listings.values(**_headline(row), version=LISTING.c.version + 1))


def _headline(row: Evaluation) -> dict[str, Any]:
    known = row.accuracy is not None and row.dense_accuracy is not None
    gap = row.accuracy - row.dense_accuracy if known else None  # type: ignore[operator]
    return {
        "verdict": row.verdict,
        "accuracy": row.accuracy,
        "accuracy_gap": gap,
        "replicates": row.replicates,
        "evaluated_at": row.created_at,
        "sort_accuracy": UNMEASURED if row.accuracy is None else row.accuracy,
        "sort_gap": UNMEASURED if gap is None else gap,
    }


def list_evaluations(
    session: Session, digest: str, *, limit: int, cursor: str | None = None
) -> Page[Evaluation]:
    """Evaluations of a ticket, newest first. Raises: InvalidCursor."""
    bound_to = binding("evaluations", digest)
    query = select(Evaluation).where(Evaluation.ticket_digest == digest)
    if cursor is not None:
        query = query.where(Evaluation.id < read_cursor(cursor, bound_to, (int,))[0])
    rows = list(session.scalars(query.order_by(Evaluation.id.desc()).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, write_cursor(bound_to, (rows[-1].id,)) if more else None)


def get_evaluation(session: Session, digest: str, evaluation_id: int) -> Evaluation:
    """One evaluation of a ticket. Raises: NotFound."""
    row = session.get(Evaluation, evaluation_id)
    if row is None or row.ticket_digest != digest:
        raise NotFound(f"The ticket {digest} has no verification {evaluation_id}.")
    return row
