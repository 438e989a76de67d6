"""The tables of evaluations, and of runs that later ones need not train again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, one_of, utc_now
from nirvana.protocol import VERDICTS

UNMEASURED = -2.0  # sorts below every accuracy and every difference of two


class Evaluation(Base):
    """A measured verdict on a ticket (a digest, so on every listing of it)."""

    __tablename__ = "evaluation"
    __table_args__ = (
        UniqueConstraint("job_id"),
        one_of("verdict", VERDICTS),
        Index("ix_evaluation_ticket_digest_id", "ticket_digest", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_digest: Mapped[str] = mapped_column(String(71))
    job_id: Mapped[str | None] = mapped_column(String(40))
    task: Mapped[str] = mapped_column(String(100))
    protocol: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(30))
    replicates: Mapped[int]
    margin: Mapped[float]
    accuracy: Mapped[float | None]
    accuracy_sd: Mapped[float | None]
    dense_accuracy: Mapped[float | None]
    body: Mapped[dict[str, Any]]
    """All that was measured: arms, tests, cost, environment, seeds."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Baseline(Base):
    """What one training of an arm measured, under the sha256 of all that it follows from.

    The next verification that asks for the same run takes it from here (`nirvana.lab.verification.runs`). It
    is never the only copy: evaluations have their numbers of their own.

    Attributes:
        key: hex sha256 of architecture, data, recipe, masks, values, data order, first step and teacher.
        body: the run cache's record: the numbers, and the environment that they were measured in.
        job_id: the job that trained it last; no foreign key, because a job's row may be purged.
    """

    __tablename__ = "baseline"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    task: Mapped[str] = mapped_column(String(100))
    architecture_digest: Mapped[str] = mapped_column(String(71))
    recipe_digest: Mapped[str] = mapped_column(String(71))
    arm: Mapped[str] = mapped_column(String(20))
    body: Mapped[dict[str, Any]]
    job_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
