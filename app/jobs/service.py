"""Every rule about jobs: who may have how many, in which order they run, and how they end.

A job's row and its start in the engine are one transaction (`app.jobs.engine`). Cancelling is a change of the
row alone: the worker looks at it several times a second and before every effect.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.accounts.service import Person, account_key, person_of
from app.db import UtcDateTime, utc_now
from app.jobs.engine import QUEUE, REVERIFY_QUEUE, enqueue
from app.jobs.kinds import Asker, Budget, Json, Plan, check_budget, find_kind, parse
from app.jobs.models import OPEN_STATES, Job, JobEvent
from app.jobs.queue import FIRST_TURN, count_change, count_open, next_turn
from app.settings import Settings
from app.tickets.service import find_open, is_visible
from nirvana.errors import Forbidden, IdempotencyMismatch, JobFinished, NotFound, QuotaExceeded
from nirvana.verification.protocol import PROTOCOL

DAY = timedelta(hours=24)
CLOCKS_DIFFER = timedelta(hours=1)  # a job from further ahead is of a clock that was set back since
Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class JobRequest:
    """A job that somebody asks for.

    Attributes:
        kind: one of `app.jobs.kinds`. spec: of that kind.
        budget: upper bounds: `seconds`, `parameters`, `flops`; each may be left out.
        idempotency_key: the same key with the same request gives the same job again.
        names: patterns of the listings that the token may write; None: all that the account may.
    """

    kind: str
    spec: Json
    budget: Json
    idempotency_key: str | None = None
    names: Sequence[str] | None = None

    @property
    def digest(self) -> str:
        """sha256 of the request, without the key."""
        asked = {"kind": self.kind, "spec": self.spec, "budget": self.budget}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def submit_job(session: Session, settings: Settings, account: Account, request: JobRequest) -> Job:
    """Check a request, write its job and enqueue it, all in the caller's transaction.

    Raises:
        InvalidJob: the spec or the budget breaks a rule; each with its JSON pointer.
        Forbidden: its tickets would be published where the account or the token may not.
        QuotaExceeded: the account has too many open jobs, or has planned too much today.
        IdempotencyMismatch: the key was used for another request.
    """
    kind = find_kind(request.kind)
    spec, budget = parse(kind.spec, request.spec, "/spec"), parse(Budget, request.budget, "/budget")
    plan = kind.plan(Asker(session, settings, account, request.names), spec)
    bounds = check_budget(budget, plan, settings)
    _lock(session, account)
    earlier = _find_earlier(session, account, request)
    if earlier is not None:
        return earlier
    person = person_of(account, settings)
    _check_open(session, settings, account, person)
    _check_day(session, settings, Planner(account, person), plan)
    job = _new_job(account, request, plan, bounds)
    job.person, job.priority = person.key, next_turn(session, settings, job.queue, person)
    return _enqueue(session, job)


def _check_open(session: Session, settings: Settings, account: Account, person: Person) -> None:
    """Refuse one more job of a person who has as many as may be. Raises: QuotaExceeded."""
    open_jobs, own = count_open(session, person), account.max_open_jobs
    limit = settings.max_open_jobs_per_account if own is None else own
    if open_jobs < limit:
        return
    whose = " and of other new accounts of your network" if person.is_new else ""
    raise QuotaExceeded(f"{open_jobs} of your jobs{whose} are queued or running, expected fewer than {limit}")


def _enqueue(session: Session, job: Job) -> Job:
    session.add(job)
    session.flush()
    count_change(session, None, job.state)
    append_events(session, job.id, [("state", {"state": "queued"})])
    enqueue(session, job)
    return job


@dataclass(frozen=True)
class Planner:
    """Whose jobs of a day are counted together: an account's, or those of all that are the same person."""

    account: Account
    person: Person

    @property
    def jobs(self) -> ColumnElement[bool]:
        """The condition of those jobs."""
        if self.person.is_new:
            return Job.person == self.person.key
        return Job.account_id == self.account.id


def _check_day(session: Session, settings: Settings, planner: Planner, plan: Plan) -> None:
    """Refuse a job over what the account's jobs may plan in 24 hours. Each counts what it planned, however it
    ends; one that was cancelled before it began does not count.

    Raises:
        QuotaExceeded: with what was used, what is asked for, what may be, and when there is room.
    """
    own, now, asked = planner.account.max_flops_per_day, utc_now(), float(plan.flops)
    most = settings.max_flops_per_account_per_day if own is None else own
    counts = or_(Job.state != "cancelled", Job.started_at.is_not(None))
    query = select(Job.created_at, Job.flops).where(planner.jobs, counts)
    query = query.where(Job.created_at.between(now - DAY, now + CLOCKS_DIFFER), Job.flops > 0)
    planned = [(at, flops) for at, flops in session.execute(query.order_by(Job.created_at))]
    used = sum(flops for _, flops in planned)
    if used + asked <= most:
        return
    detail = (
        f"your jobs of the last 24 hours plan {used:.3g} flops and this one {asked:.3g}, expected at most "
        f"{most:.3g} together"
    )
    limits: Json = {"used_flops": used, "asked_flops": asked, "limit_flops": most}
    free = _find_room(planned, most - asked)
    if free is None:
        limits |= {"free_at": None, "retry_after_seconds": round(DAY.total_seconds())}
        raise QuotaExceeded(f"{detail}: it alone is over that", **limits)
    seconds = max(1, math.ceil((free - now).total_seconds()))
    limits |= {"free_at": free.isoformat(), "retry_after_seconds": seconds}
    raise QuotaExceeded(f"{detail}: there is room at {free:%Y-%m-%d %H:%M:%S} UTC", **limits)


def _find_room(planned: Sequence[tuple[datetime, float]], most: float) -> datetime | None:
    """Return when the jobs of the 24 hours before then plan no more than `most`; None: never.

    Args:
        planned: when each job was asked for and its operations, the oldest first.
    """
    if most < 0:
        return None
    left = sum(flops for _, flops in planned)
    for at, flops in planned:
        left -= flops
        if left <= most:
            return at + DAY
    return planned[-1][0] + DAY  # what rounding left of the sum


def get_job(session: Session, job_id: str) -> Job:
    """Return the job with that id.

    Raises:
        NotFound: there is none.
    """
    whole = joinedload(Job.account)
    job = session.get(Job, job_id, options=[whole], populate_existing=True)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job


def get_visible_job(session: Session, job_id: str, reader: Account | None) -> Job:
    """Return a job that `reader` may see: one whose tickets they may all see; of own ones, in quarantine too.

    Raises:
        NotFound: there is none, which is the answer for a job of somebody's private ticket too.
    """
    job = get_job(session, job_id)
    if reader is not None and reader.id == job.account_id:
        is_seen = bool(keep_visible(session, [job], reader))
    else:
        is_seen = all(is_visible(session, ticket, reader) for ticket in _tickets_of(job))
    if not is_seen:
        raise NotFound(f"no job {job_id!r}")
    return job


def keep_visible(session: Session, jobs: Sequence[Job], asker: Account) -> list[Job]:
    """Return those of an account's own jobs whose tickets it still sees: whoever has left an organisation
    sees nothing more of its private ones."""
    tickets = {
        job.id: [name for name in _tickets_of(job) if not name.startswith(f"{asker.name}/")] for job in jobs
    }
    seen = find_open(session, chain.from_iterable(tickets.values()), asker)
    return [job for job in jobs if seen.issuperset(tickets[job.id])]


def _tickets_of(job: Job) -> list[str]:
    """Return the names, or the digests, of the tickets that a job's spec names."""
    return [job.spec[name] for name in ("ticket", "own") if job.spec.get(name)]


def list_jobs(
    session: Session,
    *,
    account_id: int | None = None,
    state: str | None = None,
    kind: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = 20,
) -> list[Job]:
    """List jobs, newest first.

    Args:
        before: (created_at, id) of the last job of the page before.
    """
    query = select(Job).options(joinedload(Job.account)).limit(limit)
    query = query.order_by(Job.created_at.desc(), Job.id.desc())
    if account_id is not None:
        query = query.where(Job.account_id == account_id)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if before is not None:
        at, job_id = before
        query = query.where(or_(Job.created_at < at, and_(Job.created_at == at, Job.id < job_id)))
    return list(session.scalars(query))


def cancel_job(session: Session, account: Account, job_id: str, *, is_admin: bool = False) -> Job:
    """Cancel a job that is queued or running; its worker stops within a second.

    Raises:
        NotFound: there is no such job.
        Forbidden: it belongs to somebody else.
        JobFinished: it has ended already.
    """
    job = get_job(session, job_id)
    if job.account_id != account.id and not is_admin:
        get_visible_job(session, job_id, account)
        raise Forbidden(f"job {job_id} belongs to another account")
    if not end_job(session, job_id, "cancelled", reason="cancelled by its owner", reason_code="cancelled"):
        job = get_job(session, job_id)
        raise JobFinished(f"job {job_id} has {job.state} already", state=job.state)
    return get_job(session, job_id)


def begin_job(session: Session, job_id: str, worker: str) -> Job | None:
    """Note that a worker begins, or begins again, with a job; None when it has ended."""
    began = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(OPEN_STATES))
        .values(
            state="running",
            worker=worker,
            attempts=Job.attempts + 1,
            started_at=func.coalesce(Job.started_at, literal(utc_now(), UtcDateTime())),
        )
        .returning(Job)
    )
    job = session.scalars(began).one_or_none()
    if job is not None:
        if job.attempts == 1:
            count_change(session, "queued", "running")
        append_events(session, job_id, [("state", {"state": "running", "attempt": job.attempts})])
    return job


def end_job(
    session: Session,
    job_id: str,
    state: str,
    *,
    result: Json | None = None,
    reason: str | None = None,
    reason_code: str | None = None,
) -> bool:
    """Give an open job its end, once; False when it had one already."""
    values: Json = {"state": state, "finished_at": utc_now()}
    values |= {"reason": reason and reason[:4000], "reason_code": reason_code}
    if result is not None:
        values["result"] = result
    ended = update(Job).where(Job.id == job_id, Job.state.in_(OPEN_STATES)).values(values)
    attempts = session.execute(ended.returning(Job.attempts)).scalar_one_or_none()
    if attempts is None:
        return False
    count_change(session, "running" if attempts else "queued", state)
    body = {"state": state} | ({"reason": reason, "code": reason_code} if reason else {})
    append_events(session, job_id, [("state", body), ("done", {"state": state})])
    return True


def _lock(session: Session, account: Account) -> None:
    """Hold the account's row until the commit: two requests at once cannot both take the last place, nor
    both be the first with an idempotency key."""
    row = select(Account.id).where(Account.id == account.id)
    session.execute(row.with_for_update(key_share=True))


def _find_earlier(session: Session, account: Account, request: JobRequest) -> Job | None:
    """Return the job that an earlier request with the same key made."""
    if request.idempotency_key is None:
        return None
    query = select(Job).where(Job.account_id == account.id, Job.idempotency_key == request.idempotency_key)
    job = session.scalars(query).one_or_none()
    if job is not None and job.request_digest != request.digest:
        raise IdempotencyMismatch(f"the Idempotency-Key belongs to another request, that of job {job.id}")
    return job


def submit_reverification(
    session: Session, settings: Settings, registry: Account, exam: str, ticket: str
) -> Job | None:
    """Enqueue the verification of an exam by today's protocol, in the caller's transaction, unless there is
    one that is open, whoever asked for it, or one of ours that has succeeded.

    It is the registry's own, in a queue of its own: it costs nobody's quota, and nobody's job waits for it.

    Args:
        registry: the account that it belongs to. exam: its key. ticket: `owner/name` of a listing of it.

    Returns:
        The job; None where there is one already.

    Raises:
        InvalidJob: the ticket cannot be verified by today's rules.
    """
    _lock(session, registry)
    key = f"reverify/{PROTOCOL}/{exam}"
    of_exam = select(Job).where(Job.account_id == registry.id, Job.idempotency_key.startswith(key))
    earlier = session.scalars(of_exam).all()
    if any(job.state in (*OPEN_STATES, "succeeded") for job in earlier) or _is_being_verified(session, exam):
        return None
    request = JobRequest("verify", {"ticket": ticket}, {}, f"{key}/{len(earlier)}")
    kind = find_kind(request.kind)
    plan = kind.plan(Asker(session, settings, registry), parse(kind.spec, request.spec, "/spec"))
    bounds = check_budget(Budget(), plan, settings)
    return _enqueue(session, _new_job(registry, request, plan, bounds, REVERIFY_QUEUE))


def _is_being_verified(session: Session, exam: str) -> bool:
    """Tell whether somebody's verification of an exam is queued or running."""
    open_jobs = select(Job.id).where(Job.state.in_(OPEN_STATES), Job.kind == "verify")
    return session.scalar(open_jobs.where(Job.spec["exam"].as_string() == exam).limit(1)) is not None


def _new_job(account: Account, request: JobRequest, plan: Plan, budget: Json, queue: str = QUEUE) -> Job:
    """Make a queued job, at the first turn of its queue."""
    return Job(
        id=str(uuid.uuid4()),
        account_id=account.id,
        kind=request.kind,
        spec=plan.spec,
        budget=budget,
        state="queued",
        queue=queue,
        priority=FIRST_TURN,
        person=account_key(account),
        flops=float(plan.flops),
        progress_total=plan.rounds,
        idempotency_key=request.idempotency_key,
        request_digest=request.digest,
        created_at=utc_now(),
    )


def append_events(session: Session, job_id: str, events: Iterable[Event]) -> None:
    """Append events to a job.

    The numbers come from the job's own row, whose lock is held until the commit: a reader who has seen
    number n has seen every number below it, so that a stream can be resumed at n.
    """
    rows = [{"kind": kind, "body": body} for kind, body in events]
    if not rows:
        return
    counted = update(Job).where(Job.id == job_id).values(last_event=Job.last_event + len(rows))
    last = session.execute(counted.returning(Job.last_event)).scalar_one()
    at = utc_now()
    first = last - len(rows) + 1
    session.execute(
        insert(JobEvent),
        [row | {"job_id": job_id, "serial": first + n, "created_at": at} for n, row in enumerate(rows)],
    )


def read_events(session: Session, job_id: str, after: int, limit: int = 500) -> list[JobEvent]:
    """The job's events with a serial above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.serial > after)
    return list(session.scalars(query.order_by(JobEvent.serial).limit(limit)))
