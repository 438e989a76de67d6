"""Rules of evaluations: only a job writes one, and a ticket is listed with one of them.

Baselines are runs that were measured here before, so that a verification need not train them again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean, stdev

import rfc8785
from sqlalchemy import ColumnElement, Select, case, column, func, or_, select, table, update
from sqlalchemy.orm import Session, undefer

from app.accounts.models import Account
from app.accounts.organisations.roles import may_see
from app.changes.service import note_exam
from app.db import Json, UtcDateTime, insert_if_absent, utc_now
from app.evaluations.models import UNMEASURED, Baseline, Evaluation, Exam, Pool, band_of_accuracy
from app.pagination import Page, binding, cut_page, read_cursor
from nirvana.errors import NotFound
from nirvana.verification.protocol import BASELINES, PROTOCOL, draw_seed

HEADLINE_FIRST = (
    case((Evaluation.protocol == PROTOCOL, 1), else_=0).desc(),
    case((Evaluation.verdict == "INVALID", 1), else_=0).desc(),
    Evaluation.replicates.desc(),
    Evaluation.id,
)
"""The order of an exam's evaluations (`_of_exam`)."""
POOL_LIFE = timedelta(days=90)  # after which a pool of dense runs begins anew, with another seed
KEYS_AT_ONCE = 500  # well below the most parameters of a statement of SQLite

# The columns of a listing that repeat its headline evaluation. `app.tickets` knows evaluations, not the
# other way round, so they are named here and not imported.
LISTING = table(
    "ticket",
    *(
        column(name)
        for name in ("id", "yanked_at", "exam_key", "digest", "task", "origin", "visibility", "owner_id")
    ),
    *(column(name) for name in ("fingerprint", "quarantined_at")),
    *(column(name) for name in ("verdict", "protocol", "accuracy", "accuracy_gap", "replicates")),
    *(column(name) for name in ("sort_accuracy", "sort_gap", "accuracy_band", "version")),
    column("evaluated_at", UtcDateTime),
)


def exam_key(manifest: Json, digest: str, file_digest: str) -> str:
    """Return the hex sha256 of all that a ticket says of its exam: what is trained, from what, how, on what.

    Stored values count by the whole file: the ticket's digest says nothing of pruned elements' values, from
    which the controls start.

    Args:
        manifest: of the file. digest: the ticket's. file_digest: of the file's bytes.
    """
    initial = {name: value for name, value in manifest["initial"].items() if name != "sha256"}
    if initial["kind"] == "stored":
        initial["file"] = file_digest
    fields = {"ticket": digest, "initial": initial, "recipe": manifest["recipe"], "task": manifest["task"]}
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


def open_exam(session: Session, key: str, pools: Mapping[str, str]) -> Json:
    """Return what a verification of an exam begins with.

    Args:
        key: the exam's. pools: of each baseline its pool's key, `nirvana.verification.arms.baseline_sha256`.

    Returns:
        `seed`, drawn when it was first asked for; `pools`, of each baseline (seed, runs); and the `progress`
        of earlier verifications, which this one goes on from, or None.
    """
    insert_if_absent(session, Exam, key=key, protocol=PROTOCOL, seed=draw_seed(), created_at=utc_now())
    seed = session.scalars(select(Exam.seed).where(Exam.key == key, Exam.protocol == PROTOCOL)).one()
    opened = {arm: _open_pool(session, pool) for arm, pool in pools.items()}
    of_today = _of_exam(key).where(Evaluation.protocol == PROTOCOL, Evaluation.progress.is_not(None))
    last = session.scalars(of_today.options(undefer(Evaluation.progress)).limit(1)).one_or_none()
    progress = {**last.progress, "evaluation": last.body} if last and last.progress else None
    return {"seed": seed, "pools": opened, "progress": progress}


def _open_pool(session: Session, key: str) -> tuple[int, int]:
    """Return a pool's seed and how many runs it has. One that is too old begins anew: whoever knows how lucky
    its runs were shall not go by it for ever."""
    now = utc_now()
    insert_if_absent(session, Pool, key=key, protocol=PROTOCOL, seed=draw_seed(), runs=0, created_at=now)
    this = (Pool.key == key, Pool.protocol == PROTOCOL)
    renewed = update(Pool).where(*this, Pool.created_at < now - POOL_LIFE)
    session.execute(renewed.values(seed=draw_seed(), runs=0, created_at=now))
    pool = session.get_one(Pool, (key, PROTOCOL), populate_existing=True)
    return pool.seed, pool.runs


def grow_pool(session: Session, key: str, seed: int, runs: int) -> None:
    """Note that a pool has so many runs, if it has not more and still is the one of this seed."""
    this = (Pool.key == key, Pool.protocol == PROTOCOL, Pool.seed == seed)
    session.execute(update(Pool).where(*this, Pool.runs < runs).values(runs=runs))


def record_evaluation(
    session: Session,
    exam: str,
    digest: str,
    evaluation: Json,
    job_id: str | None = None,
    progress: Json | None = None,
) -> Evaluation:
    """Record a measured verdict, once a job, and bring every listing of the exam up to date.

    Args:
        exam: its key.
        digest: the ticket's.
        evaluation: the result of `lab.verify` (`Evaluation.to_dict()`).
        job_id: the job that measured it; the same job again changes nothing.
        progress: of the verification, for the next one of the exam.
    """
    kept = progress and progress | {"evaluation": None}
    values = _values(digest, evaluation, job_id) | {"exam_key": exam, "progress": kept}
    if job_id is None:
        row = Evaluation(**values)
        session.add(row)
        session.flush()
    else:
        insert_if_absent(session, Evaluation, **values)
        row = session.scalars(select(Evaluation).where(Evaluation.job_id == job_id)).one()
    refresh_listings(session, exam)
    return row


def _values(digest: str, evaluation: Json, job_id: str | None) -> Json:
    arms = evaluation.get("arms", {})
    measured: Sequence[float] = arms.get("ticket", [])
    baselines: list[Sequence[float]] = [arms[name] for name in BASELINES if arms.get(name)]
    return {
        "ticket_digest": digest,
        "job_id": job_id,
        "task": evaluation["task"],
        "protocol": evaluation["protocol"],
        "verdict": evaluation["verdict"],
        "replicates": evaluation["replicates"],
        "margin": evaluation["margin"],
        "accuracy": fmean(measured) if measured else None,
        "accuracy_sd": stdev(measured) if len(measured) > 1 else None,
        "dense_accuracy": max(map(fmean, baselines), default=None),
        "body": dict(evaluation),
        "created_at": utc_now(),
    }


def refresh_listings(session: Session, exam: str) -> None:
    """Give every listing of an exam the verdict of its headline evaluation."""
    row = session.scalars(_of_exam(exam).limit(1)).one_or_none()
    if row is not None:
        lock_listings(session, LISTING.c.exam_key == exam)
        listings = update(LISTING).where(LISTING.c.exam_key == exam)
        session.execute(listings.values(**_headline(row), version=LISTING.c.version + 1))
        note_exam(session, "verdict", exam)


def find_examined(session: Session, exams: Iterable[str]) -> set[str]:
    """Return those of some exams that have an evaluation."""
    return set(session.scalars(select(Evaluation.exam_key).where(Evaluation.exam_key.in_(list(exams)))))


def lock_listings(session: Session, *conditions: ColumnElement[bool]) -> None:
    """Lock listings in the order that everybody locks them in (`app.tickets.service.lock_copies`)."""
    session.execute(select(LISTING.c.id).where(*conditions).order_by(LISTING.c.id).with_for_update())


def _is_copy_of(digest: str) -> ColumnElement[bool]:
    """Return the condition of the listings of a ticket, in whatever order of its units."""
    same = LISTING.alias("same")
    prints = select(same.c.fingerprint).where(same.c.digest == digest, same.c.fingerprint.is_not(None))
    return or_(LISTING.c.digest == digest, LISTING.c.fingerprint.in_(prints))


def _of_exam(key: str) -> Select[Evaluation]:
    """Select an exam's evaluations, the headline first.

    It is the one with the most replicates by today's protocol, or else by an older one, and of those the
    first: a verification adds its replicates to those of earlier ones, so nobody can replace an answer by
    asking again. INVALID goes before them all: the static checks throw no dice, and what they refuse has no
    replicates.
    """
    return select(Evaluation).where(Evaluation.exam_key == key).order_by(*HEADLINE_FIRST)


def _headline(row: Evaluation) -> Json:
    known = row.accuracy is not None and row.dense_accuracy is not None
    gap = row.accuracy - row.dense_accuracy if known else None  # type: ignore[operator]
    return {
        "verdict": row.verdict,
        "protocol": row.protocol,
        "accuracy": row.accuracy,
        "accuracy_gap": gap,
        "replicates": row.replicates,
        "evaluated_at": row.created_at,
        "sort_accuracy": UNMEASURED if row.accuracy is None else row.accuracy,
        "sort_gap": UNMEASURED if gap is None else gap,
        "accuracy_band": band_of_accuracy(row.accuracy),
    }


def list_stale_exams(session: Session, task: str | None = None) -> list[str]:
    """Return the exams whose headline is of an older protocol, oldest listing first: those of listings that
    are public and not yanked.

    Args:
        task: None: of all tasks.
    """
    stale = select(LISTING.c.exam_key).where(
        LISTING.c.protocol != PROTOCOL,
        LISTING.c.visibility == "public",
        LISTING.c.yanked_at.is_(None),
    )
    if task is not None:
        stale = stale.where(LISTING.c.task == task)
    return list(session.scalars(stale.group_by(LISTING.c.exam_key).order_by(func.min(LISTING.c.id))))


def headline(session: Session, exam: str) -> Evaluation | None:
    """Return the evaluation whose verdict the listings of an exam show."""
    return session.scalars(_of_exam(exam).limit(1)).one_or_none()


@dataclass(frozen=True)
class Measured:
    """A headline evaluation without what is wide of it. Its members are those of the protocol that it was
    made with, so each may be empty.

    Attributes:
        arms: accuracies of each arm's replicates. engines: that trained each arm.
        cost: of the whole verification.
    """

    id: int
    verdict: str
    sealed_rows: int
    arms: Mapping[str, Sequence[float]]
    engines: Mapping[str, str]
    cost: Json
    created_at: datetime


def headlines(session: Session, exams: Iterable[str]) -> dict[str, Measured]:
    """Return what was measured in the headline evaluations of some exams, by exam."""
    wanted, body = sorted(set(exams)), Evaluation.body
    parts = [body[name] for name in ("sealed_rows", "arms", "engines", "cost")]
    about = (Evaluation.exam_key, Evaluation.id, Evaluation.verdict, Evaluation.created_at)
    query = select(*about, *parts).where(Evaluation.exam_key.in_(wanted)).order_by(*HEADLINE_FIRST)
    measured: dict[str, Measured] = {}
    for exam, number, verdict, at, sealed, arms, engines, cost in session.execute(query) if wanted else ():
        one = Measured(number, verdict, sealed or 0, arms or {}, engines or {}, cost or {}, at)
        measured.setdefault(str(exam), one)
    return measured


def count_exams(session: Session, digest: str) -> Counter[str]:
    """Count the exams that public listings of a ticket and of its copies have had, by the verdict that they
    show: whoever tries many recipes and shows the luckiest one is seen, with the units permuted and after a
    yank or in quarantine too."""
    rows = select(LISTING.c.exam_key, func.max(LISTING.c.verdict)).where(
        _is_copy_of(digest), LISTING.c.visibility == "public", LISTING.c.verdict.is_not(None)
    )
    return Counter(verdict for _, verdict in session.execute(rows.group_by(LISTING.c.exam_key)))


def list_evaluations(
    session: Session, digest: str, reader: Account | None, *, limit: int, cursor: str | None = None
) -> Page[Evaluation]:
    """Return the evaluations of a ticket that a reader may see, newest first. Raises: InvalidCursor."""
    bound_to = binding("evaluations", digest)
    query = select(Evaluation).where(Evaluation.ticket_digest == digest, visible_to(reader))
    if cursor is not None:
        query = query.where(Evaluation.id < read_cursor(cursor, bound_to, (int,))[0])
    rows = session.scalars(query.order_by(Evaluation.id.desc()).limit(limit + 1)).all()
    return cut_page(rows, limit, bound_to, lambda row: (row.id,))


def get_evaluation(session: Session, digest: str, reader: Account | None, evaluation_id: int) -> Evaluation:
    """Return one evaluation of a ticket that a reader may see. Raises: NotFound."""
    query = select(Evaluation).where(Evaluation.id == evaluation_id, visible_to(reader))
    row = session.scalars(query).one_or_none()
    if row is None or row.ticket_digest != digest:
        raise NotFound(f"The ticket {digest} has no verification {evaluation_id}.")
    return row


def visible_to(reader: Account | None) -> ColumnElement[bool]:
    """Return the condition of the evaluations of listings that a reader may see: an exam has the recipe of a
    listing, which may be private, or in quarantine. Those that name no exam are of before there were any."""
    seen = may_see(LISTING.c.visibility, LISTING.c.owner_id, reader)
    of_exam = select(LISTING.c.exam_key).where(LISTING.c.exam_key == Evaluation.exam_key, seen)
    of_exam = of_exam.where(LISTING.c.quarantined_at.is_(None))
    return or_(Evaluation.exam_key.is_(None), of_exam.exists())


def find_runs(session: Session, keys: Iterable[str]) -> dict[str, Json]:
    """Return the records of those keys that are there."""
    wanted, rows = sorted(set(keys)), list[Baseline]()
    for first in range(0, len(wanted), KEYS_AT_ONCE):
        some = Baseline.key.in_(wanted[first : first + KEYS_AT_ONCE])
        rows += session.scalars(select(Baseline).where(some))
    return {row.key: row.body for row in rows}


def keep_runs(session: Session, records: Iterable[Json], **about: str) -> None:
    """Keep records of the run cache, each under its `key`; the newest of one key stays.

    A run is only trained again where the one that is there was measured in another environment, or by the
    ticket's own arm.

    Args:
        about: `task`, `architecture_digest`, `recipe_digest`, `arm` and `job_id` of all of them.
    """
    for record in records:
        values: Json = {"body": dict(record), "created_at": utc_now(), **about}
        if not insert_if_absent(session, Baseline, key=record["key"], **values):
            session.execute(update(Baseline).where(Baseline.key == record["key"]).values(values))
