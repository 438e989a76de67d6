"""Tables of accounts and tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, utc_now

SCOPES = ("read", "publish", "yank", "job", "admin")


class Account(Base):
    """Somebody who publishes tickets and asks for jobs."""

    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(39))
    max_open_jobs: Mapped[int | None]
    """Queued and running jobs at once; None: the setting's default."""
    max_flops_per_day: Mapped[float | None]
    """Floating-point operations that its jobs of 24 hours may plan; None: the setting's default."""
    tickets: Mapped[int] = mapped_column(default=0)
    """Listings that it has published; `stored_bytes` is the size of their files together."""
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of all its files together; None: the setting's default."""
    network: Mapped[str | None] = mapped_column(String(50))
    """The network that it was made from, while it is new; None: it never was, or its operator made it."""
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
