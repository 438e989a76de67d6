"""The table of architectures."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, utc_now


class ArchitectureRow(Base):
    """A graph that some ticket has; one row a digest, under the name that it came with first."""

    __tablename__ = "architecture"
    __table_args__ = (UniqueConstraint("digest"), Index("ix_architecture_name_id", "name", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(71))
    name: Mapped[str] = mapped_column(String(200))
    family: Mapped[str] = mapped_column(String(200), index=True)
    input_shape: Mapped[list[Any]]
    parameters: Mapped[int] = mapped_column(BigInteger)
    prunable: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[int] = mapped_column(BigInteger)
    graph: Mapped[dict[str, Any]] = mapped_column(deferred=True, deferred_raiseload=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
