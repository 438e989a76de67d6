"""Rules of reports and quarantine.

A listing in quarantine is seen by nobody, its owner included: its page, file and exports are 410, and lists
leave it out. Nothing is deleted, and everything that an admin does is written down.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.architectures.service import rename_architecture
from app.changes.service import note_change
from app.db import unique, utc_now
from app.moderation.models import Moderation, Report
from app.pagination import Page, binding, cut_page, read_cursor
from app.tickets.models import Listing
from app.tickets.service import get_ticket, unyank_ticket, yank_ticket
from nirvana.errors import Conflict, NotFound


def report_ticket(
    session: Session, reporter: Account, reference: str, reason: str, detail: str | None
) -> Report:
    """Complain about a listing that the reporter may see. Raises: NotFound, Gone, Conflict."""
    row = get_ticket(session, reference, reporter)
    report = Report(ticket_id=row.id, account_id=reporter.id, reason=reason, detail=detail)
    session.add(report)
    twice = Conflict(f"You have reported {row.owner.name}/{row.name} already.")
    with unique(session, {"uq_report_ticket_id_account_id": twice}):
        return report


def list_reports(session: Session, *, limit: int, cursor: str | None) -> Page[Report]:
    """Return the reports that nobody has looked at yet, oldest first."""
    bound_to = binding("reports")
    query = select(Report).where(Report.outcome.is_(None)).order_by(Report.id).limit(limit + 1)
    query = query.options(joinedload(Report.account), joinedload(Report.ticket).joinedload(Listing.owner))
    if cursor is not None:
        (after,) = read_cursor(cursor, bound_to, (int,))
        query = query.where(Report.id > after)
    return cut_page(session.scalars(query).all(), limit, bound_to, lambda row: (row.id,))


def dismiss_report(session: Session, report_id: int) -> None:
    """Close a report without doing anything. Raises: NotFound."""
    closed = update(Report).where(Report.id == report_id, Report.outcome.is_(None))
    if session.execute(closed.values(outcome="dismissed").returning(Report.id)).first() is None:
        raise NotFound(f"There is no open report {report_id}.")


def quarantine_ticket(session: Session, admin: Account, reference: str, reason: str) -> Moderation:
    """Hide a listing from everybody, and close its reports. Raises: NotFound, Conflict."""
    row = _get_any(session, reference)
    if row.quarantined_at is not None:
        raise Conflict(f"{reference} is in quarantine already.")
    was_yanked = row.yanked_at is not None
    if not was_yanked:
        yank_ticket(session, row, "other", "in quarantine")
    row.quarantined_at, row.version = utc_now(), row.version + 1
    _note_seen(session, row, "hidden")
    closed = update(Report).where(Report.ticket_id == row.id, Report.outcome.is_(None))
    session.execute(closed.values(outcome="quarantined"))
    return _note(session, Moderation(ticket_id=row.id, account=admin, action="quarantine", reason=reason,
                                     was_yanked=was_yanked))  # fmt: skip


def release_ticket(session: Session, admin: Account, reference: str, reason: str) -> Moderation:
    """Show a listing again as it was before its quarantine. Raises: NotFound, Conflict."""
    row = _get_any(session, reference)
    if row.quarantined_at is None:
        raise Conflict(f"{reference} is not in quarantine.")
    was_yanked = list_moderation(session, reference)[0].was_yanked
    row.quarantined_at, row.version = None, row.version + 1
    _note_seen(session, row, "shown")
    if not was_yanked:
        unyank_ticket(session, row)
    return _note(session, Moderation(ticket_id=row.id, account=admin, action="release", reason=reason,
                                     was_yanked=was_yanked))  # fmt: skip


def list_moderation(session: Session, reference: str) -> list[Moderation]:
    """Return what admins did to a listing, newest first. Raises: NotFound."""
    query = select(Moderation).where(Moderation.ticket_id == _get_any(session, reference).id)
    return list(session.scalars(query.options(joinedload(Moderation.account)).order_by(Moderation.id.desc())))


def _note_seen(session: Session, row: Listing, kind: str) -> None:
    """Tell those who follow the log, who never heard of a private one, and name its network anew."""
    if row.visibility == "public":
        note_change(session, kind, [row.id])
    rename_architecture(session, row.architecture_id)


def _note(session: Session, entry: Moderation) -> Moderation:
    session.add(entry)
    session.flush()
    return entry


def _get_any(session: Session, reference: str) -> Listing:
    """Return the listing `owner/name`, whoever may see it. Raises: NotFound."""
    owner, _, name = reference.partition("/")
    query = select(Listing).join(Listing.owner).where(Account.name == owner, Listing.name == name)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound(f"There is no ticket {reference[:200]!r}.")
    return row
