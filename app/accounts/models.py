"""Tables of accounts and tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, utc_now

SCOPES = ("read", "publish", "yank", "job", "admin")


class Account(Base):
    """Somebody who publishes tickets and asks for jobs."""

    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("skeleton"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(39))
    skeleton: Mapped[str | None] = mapped_column(String(80))
    """`app.accounts.names.skeleton`: one account of those that look alike; None: an older one has it."""
    max_open_jobs: Mapped[int | None]
    """Queued and running jobs at once; None: the setting's default."""
    max_flops_per_day: Mapped[float | None]
    """Floating-point operations that its jobs of 24 hours may plan; None: the setting's default."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Token(Base):
    """A bearer token. Only its hash is kept, so the database gives no secret away."""

    __tablename__ = "token"
    __table_args__ = (UniqueConstraint("secret_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
