"""Tables of reports and of what admins did."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.accounts.models import Account
from app.db import Base, one_of, utc_now
from app.tickets.models import Listing

REPORT_REASONS = ("abuse", "broken", "license", "misleading", "privacy", "spam", "other")
OUTCOMES = ("quarantined", "dismissed")
ACTIONS = ("quarantine", "release")


class Report(Base):
    """Somebody's complaint about a listing, one a person and listing."""

    __tablename__ = "report"
    __table_args__ = (
        UniqueConstraint("ticket_id", "account_id"),
        one_of("reason", REPORT_REASONS),
        one_of("outcome", OUTCOMES),
        Index("ix_report_outcome_id", "outcome", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("ticket.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    reason: Mapped[str] = mapped_column(String(20))
    detail: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(String(20))
    """None: nobody has looked at it yet."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    account: Mapped[Account] = relationship(lazy="raise")
    ticket: Mapped[Listing] = relationship(lazy="raise")


class Moderation(Base):
    """Something that an admin did to a listing; append only.

    Attributes:
        was_yanked: its owner had yanked it before, so that releasing it leaves that.
    """

    __tablename__ = "moderation"
    __table_args__ = (one_of("action", ACTIONS),)

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("ticket.id"), index=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    action: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    was_yanked: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    account: Mapped[Account] = relationship(lazy="raise")
