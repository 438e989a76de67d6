"""The table of tasks."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Json, utc_now


class TaskRow(Base):
    """A task that this service's workers can measure: one of the library's own, or one that somebody made
    here, `owner/name`, whose name and data are for ever the same.

    Attributes:
        body: `nirvana.tasks.task.task_to_json`.
        owner_id: None: the library's.
        storage_key: what the keys of its blobs are made of (`data_key`, `sealed_key`).
        stored_bytes: of its data and its sealed rows together.
        removed_at: its data were taken away; the name stays taken.
    """

    __tablename__ = "task"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    body: Mapped[Json]
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("account.id"), index=True)
    storage_key: Mapped[str | None] = mapped_column(String(36))
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    yanked_at: Mapped[datetime | None]
    yank_reason: Mapped[str | None] = mapped_column(String(20))
    yank_detail: Mapped[str | None] = mapped_column(Text)
    removed_at: Mapped[datetime | None]

    @property
    def data_key(self) -> str:
        """The key of its public examples."""
        return f"tasks/{self.storage_key}.npz"

    @property
    def sealed_key(self) -> str:
        """The key of its sealed rows, which no route knows."""
        return f"sealed/{self.storage_key}.npz"
