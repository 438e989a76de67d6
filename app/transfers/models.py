"""The table of transfers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Json, one_of, utc_now
from nirvana.verification.protocol import TRANSFER_VERDICTS


class Transfer(Base):
    """A measured answer to whether a ticket of one task serves another.

    Attributes:
        ticket_digest: of the ticket that was found on the task `source`.
        task: the target.
        accuracy: mean test accuracy of the ticket on the target; `dense_accuracy`: of the dense network.
        body: all that was measured: arms, tests, seeds, environment.
    """

    __tablename__ = "transfer"
    __table_args__ = (
        UniqueConstraint("job_id"),
        one_of("verdict", TRANSFER_VERDICTS),
        Index("ix_transfer_ticket_digest_id", "ticket_digest", "id"),
        Index("ix_transfer_task_id", "task", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_digest: Mapped[str] = mapped_column(String(71))
    source: Mapped[str] = mapped_column(String(100))
    task: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(30))
    replicates: Mapped[int]
    accuracy: Mapped[float]
    dense_accuracy: Mapped[float]
    job_id: Mapped[str] = mapped_column(String(40))
    body: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
