"""Rules of webhooks. A webhook is a reader of the log of changes: its position is the last serial that its
receiver has taken, so that a delivery that failed is made again, and replaying is going back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, String, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.accounts.models import Account
from app.changes.service import KINDS, last_serial
from app.db import Base, utc_now
from nirvana.errors import Invalid, NotFound, Problem, QuotaExceeded

MOST_WEBHOOKS = 10  # of an account
MOST_FAILURES = 30  # in a row; then the webhook is turned off
FIRST_WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=6)
LEASE = timedelta(minutes=2)  # longer than a delivery may take


class Webhook(Base):
    """An address that changes are sent to.

    Attributes:
        secret: the key of the signatures; it must be known here, so it is no hash.
        kinds: of changes that are sent.
        position: the serial of the last change that was taken.
        failures: in a row.
        next_try_at: not before; while a worker delivers, the end of its lease.
    """

    __tablename__ = "webhook"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    secret: Mapped[str] = mapped_column(String(64))
    kinds: Mapped[list[str]]
    position: Mapped[int]
    failures: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(String(300))
    next_try_at: Mapped[datetime] = mapped_column(default=utc_now)
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def create_webhook(session: Session, account: Account, url: str, kinds: Sequence[str]) -> Webhook:
    """Add a webhook, which hears of every change from now on. Raises: Invalid, QuotaExceeded."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        detail = f"{unknown[0][:100]!r} is none of {', '.join(KINDS)}"
        raise Invalid(f"kinds: {detail}.", errors=[Problem("/kinds", "unknown-kind", detail)])
    count = session.scalar(select(func.count()).where(Webhook.account_id == account.id)) or 0
    if count >= MOST_WEBHOOKS:
        raise QuotaExceeded(f"The account has {count} webhooks, and no more than {MOST_WEBHOOKS}.")
    row = Webhook(
        account_id=account.id,
        url=url,
        secret="whsec_" + secrets.token_urlsafe(32),
        kinds=sorted(set(kinds)) or list(KINDS),
        position=last_serial(session),
    )
    session.add(row)
    session.flush()
    return row


def list_webhooks(session: Session, account: Account) -> list[Webhook]:
    """Return an account's webhooks, newest first."""
    query = select(Webhook).where(Webhook.account_id == account.id)
    return list(session.scalars(query.order_by(Webhook.id.desc())))


def get_webhook(session: Session, account: Account, webhook_id: int) -> Webhook:
    """Return a webhook of an account. Raises: NotFound."""
    row = session.get(Webhook, webhook_id)
    if row is None or row.account_id != account.id:
        raise NotFound(f"You have no webhook {webhook_id}.")
    return row


def replay(session: Session, row: Webhook, since: int) -> None:
    """Send every change after a serial again, and turn the webhook on again."""
    row.position = min(since, last_serial(session))
    row.failures, row.disabled_at, row.last_error, row.next_try_at = 0, None, None, utc_now()
    session.flush()


def list_due(session: Session) -> list[int]:
    """Return the webhooks that have changes to send, now. An instant that no wait reaches is of a clock that
    was set back since: it counts as over."""
    now = utc_now()
    is_time = or_(Webhook.next_try_at <= now, Webhook.next_try_at > now + LONGEST_WAIT + LEASE)
    waiting = (Webhook.disabled_at.is_(None), Webhook.position < last_serial(session))
    return list(session.scalars(select(Webhook.id).where(*waiting, is_time).order_by(Webhook.next_try_at)))


def claim(session: Session, webhook_id: int) -> Webhook | None:
    """Take a webhook for one delivery; None where another worker has it."""
    now = utc_now()
    is_time = or_(Webhook.next_try_at <= now, Webhook.next_try_at > now + LONGEST_WAIT + LEASE)
    mine = update(Webhook).where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None), is_time)
    taken = session.scalar(mine.values(next_try_at=now + LEASE).returning(Webhook.id))
    return None if taken is None else session.get(Webhook, webhook_id)


def note_delivery(session: Session, webhook_id: int, before: int, position: int) -> None:
    """Write down that a receiver has taken the changes up to a serial, unless it was replayed meanwhile."""
    this = update(Webhook).where(Webhook.id == webhook_id)
    session.execute(this.values(failures=0, last_error=None, next_try_at=utc_now()))
    session.execute(this.where(Webhook.position == before).values(position=position))


def note_failure(session: Session, webhook_id: int, reason: str) -> None:
    """Write down that a delivery failed, and when to try again: after twice the wait each time."""
    row = session.get(Webhook, webhook_id)
    if row is None:
        return
    row.failures += 1
    row.last_error = reason[:300]
    row.next_try_at = utc_now() + min(FIRST_WAIT * 2 ** (row.failures - 1), LONGEST_WAIT)
    if row.failures >= MOST_FAILURES:
        row.disabled_at = utc_now()
