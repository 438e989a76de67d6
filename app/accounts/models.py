"""Tables of accounts, their tokens and sessions, and one-time links."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of, utc_now

SCOPES = ("read", "publish", "yank", "job", "admin")
TOKEN_KINDS = ("token", "session")


class Account(Base):
    """Somebody who publishes tickets and asks for jobs, or an organisation, in whose name its members do."""

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
    password_hash: Mapped[str | None] = mapped_column(String(200))
    """Argon2id with its parameters; None: it signs in with tokens alone."""
    is_admin: Mapped[bool] = mapped_column(default=False)
    """Its browser sessions have the scope `admin`, and it may make tokens that have it."""
    tickets: Mapped[int] = mapped_column(default=0)
    """Listings that it has published; `stored_bytes` is the size of their files together."""
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Size of all its files together; None: the setting's default."""
    network: Mapped[str | None] = mapped_column(String(50))
    """The network that it was made from, while it is new; None: it never was, or its operator made it."""
    is_organisation: Mapped[bool] = mapped_column(default=False)
    """It has members (`app.accounts.organisations`), and neither a password nor tokens."""
    made_by_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"), index=True)
    """The account that made the organisation."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Token(Base):
    """A bearer token, or a browser's session. Only its hash is kept, so the database gives no secret away."""

    __tablename__ = "token"
    __table_args__ = (UniqueConstraint("secret_sha256"), one_of("kind", TOKEN_KINDS))

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    kind: Mapped[str] = mapped_column(String(10), default="token")
    names: Mapped[list[str] | None]
    """Patterns of the listings that it may write: `lenet-*` of the account's own, `lab/lenet-*` of an
    organisation's; None: whatever the account may."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SetupLink(Base):
    """A link that makes one administrator, once. Only the hash of its key is kept."""

    __tablename__ = "setup_link"
    __table_args__ = (UniqueConstraint("key_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key_sha256: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime]
