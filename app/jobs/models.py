"""The job row (what people see), its events, and the workers' heartbeats."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.accounts.models import Account
from app.db import Base, one_of

OPEN_STATES = ("queued", "running")
ENDED_STATES = ("succeeded", "failed", "cancelled")
STATES = OPEN_STATES + ENDED_STATES


class Job(Base):
    """A job that somebody asked for.

    Attributes:
        id: also the id of the engine's workflow.
        kind: one of `app.jobs.kinds`, which says what its spec is.
        spec: validated and with every default filled in; never changed.
        budget: `{"seconds", "parameters", "flops"}`; seconds is always there.
        flops: that it plans at most, for the account's budget.
        priority: its turn (`app.jobs.queue`); lower goes first, and of the same one the older.
        person: whose turn it takes: `app.accounts.service.Person`.
        progress_done: finished rounds, with a fraction; of `progress_total`.
        attempts: how often a worker began with it.
        worker: executor id of the worker that began with it last.
        reason: why it failed, for people; `reason_code` is for machines.
        last_event: serial of its last event.
        request_digest: sha256 of what was asked, to tell a repeated request from another one.
    """

    __tablename__ = "job"
    __table_args__ = (
        one_of("state", STATES),
        UniqueConstraint("account_id", "idempotency_key", name="uq_job_account_id_idempotency_key"),
        Index("ix_job_account_state", "account_id", "state"),
        Index("ix_job_account_created", "account_id", "created_at", "id"),
        Index("ix_job_person_state", "person", "state", "queue", "priority"),
        Index("ix_job_person_created", "person", "created_at"),
        Index("ix_job_queue_order", "queue", "state", "priority", "created_at", "id"),
        Index("ix_job_queue_age", "queue", "state", "created_at"),
        Index("ix_job_state_id", "state", "id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    kind: Mapped[str] = mapped_column(String(20))
    spec: Mapped[dict[str, Any]]
    budget: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20), default="queued")
    queue: Mapped[str] = mapped_column(String(20))
    priority: Mapped[int]
    person: Mapped[str] = mapped_column(String(80))
    flops: Mapped[float] = mapped_column(default=0.0)
    progress_done: Mapped[float] = mapped_column(default=0.0)
    progress_total: Mapped[float] = mapped_column(default=0.0)
    progress_message: Mapped[str] = mapped_column(String(500), default="")
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(100), default=None)
    result: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    reason: Mapped[str | None] = mapped_column(String(4000), default=None)
    reason_code: Mapped[str | None] = mapped_column(String(50), default=None)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), default=None)
    request_digest: Mapped[str] = mapped_column(String(80))
    last_event: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    account: Mapped[Account] = relationship(lazy="raise")


class JobCount(Base):
    """The number of jobs in a state, kept by every transaction that changes one."""

    __tablename__ = "job_count"

    state: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)


class JobEvent(Base):
    """Something that happened to a job, append only.

    Attributes:
        serial: 1, 2, 3 ... within the job, without gaps and in the order of the commits.
        kind: `state`, `progress`, `point` (of a training curve), `level`, `arm`, `look`, `verdict`, `log` or
            `done`.
    """

    __tablename__ = "job_event"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    serial: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Worker(Base):
    """A worker's heartbeat.

    Attributes:
        id: the executor id, new at every start and never shared.
        beat_at: when it was last alive, by the database's clock.
        leaving: it said that it goes: its jobs are free at once.
        queues: comma-separated names of the queues it listens to.
    """

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime] = mapped_column(index=True)
    leaving: Mapped[bool] = mapped_column(default=False)
    queues: Mapped[str] = mapped_column(String(200), default="cpu")
