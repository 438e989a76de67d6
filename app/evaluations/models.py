"""The tables of evaluations, and of runs that later ones need not train again."""

from __future__ import annotations

import math
from datetime import datetime

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, Json, one_of, utc_now
from nirvana.verification.protocol import VERDICTS

OUTCOMES = ("found", "same", "differs")
ATTESTING = ("found", "same")  # outcomes that attest
UNMEASURED = -2.0  # sorts below every accuracy and every difference of two
UNMEASURED_BAND = -200


def band_of_accuracy(accuracy: float | None) -> int:
    """Return an accuracy in whole percent, so that a range of accuracies is a few bands of an index."""
    return UNMEASURED_BAND if accuracy is None else math.floor(100 * accuracy)


class Exam(Base):
    """The seed of all verifications of one exam by one protocol: drawn at the first, never again.

    So nobody can ask again for better luck: a verification that was cancelled is taken up with the same data
    orders and draws, and a further one goes on from there.

    Attributes:
        key: `app.evaluations.service.exam_key`.
    """

    __tablename__ = "exam"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(100), primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Pool(Base):
    """The registry's dense runs of a network on a task by a recipe, by one protocol.

    Attributes:
        key: `nirvana.verification.arms.baseline_sha256`.
        seed: run i trains with seed + i; drawn, and drawn again when the pool is too old.
        runs: how many there are at least.
    """

    __tablename__ = "pool"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(100), primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger)
    runs: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Evaluation(Base):
    """A measured verdict on a ticket, by one recipe, on one task: on one exam.

    Attributes:
        exam_key: None where nobody knows of which listing's recipe an evaluation of an old protocol was.
        progress: what the exam's next verification goes on from, but for `body`
            (`nirvana.verification.plan.Progress`).
    """

    __tablename__ = "evaluation"
    __table_args__ = (
        UniqueConstraint("job_id"),
        one_of("verdict", VERDICTS),
        Index("ix_evaluation_ticket_digest_id", "ticket_digest", "id"),
        Index("ix_evaluation_exam_key_id", "exam_key", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_digest: Mapped[str] = mapped_column(String(71))
    exam_key: Mapped[str | None] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(40))
    task: Mapped[str] = mapped_column(String(100))
    protocol: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(30))
    replicates: Mapped[int]
    margin: Mapped[float]
    accuracy: Mapped[float | None]
    accuracy_sd: Mapped[float | None]
    dense_accuracy: Mapped[float | None]
    body: Mapped[Json]
    """All that was measured: arms, tests, cost, environment, seeds."""
    progress: Mapped[Json | None] = mapped_column(deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Attestation(Base):
    """What the registry's own worker found when it ran a ticket's search: where its mask came from.

    It is of a ticket on a task, whoever lists it: a mask that an honest search gives is honest by any recipe.

    Attributes:
        outcome: `found` by a find job, `same` when it ran the search again, `differs`: another one came
            out.
        overlap: of the masks, beyond what chance gives (`nirvana.verification.duplicates`).
        found_digest: of the ticket that came out.
        job_id: the job that ran it; no foreign key, because a job's row may be purged.
        environment: versions and kind of machine.
    """

    __tablename__ = "attestation"
    __table_args__ = (
        UniqueConstraint("job_id", "ticket_digest"),
        one_of("outcome", OUTCOMES),
        Index("ix_attestation_ticket_digest_id", "ticket_digest", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_digest: Mapped[str] = mapped_column(String(71))
    task: Mapped[str] = mapped_column(String(100))
    outcome: Mapped[str] = mapped_column(String(10))
    overlap: Mapped[float]
    found_digest: Mapped[str] = mapped_column(String(71))
    job_id: Mapped[str] = mapped_column(String(40))
    environment: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SigningKey(Base):
    """The public half of a key that verdicts were signed with; it stays when the key is replaced.

    Attributes:
        kid: its RFC 7638 thumbprint.
        jwk: RFC 7517.
    """

    __tablename__ = "signing_key"

    kid: Mapped[str] = mapped_column(String(43), primary_key=True)
    jwk: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Baseline(Base):
    """The measurements of one training of an arm, under the sha256 of all that it follows from.

    The next verification that asks for the same run takes it from here (`nirvana.verification.runs`). It
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
    body: Mapped[Json]
    job_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
