"""Every rule about jobs: who may have how many, in which order they run, and how they end.

A job's row and its start in the engine are one transaction (`app.jobs.engine`). Cancelling is a change of the
row alone: the worker looks at it several times a second and before every effect.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, literal, or_, select, update
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.db import UtcDateTime, utc_now
from app.jobs.engine import QUEUE, enqueue
from app.jobs.events import append_events
from app.jobs.measuring import check_transfer, check_verification, plan_transfer, plan_verification
from app.jobs.models import KINDS, OPEN_STATES, Job
from app.jobs.plan import Plan
from app.jobs.spec import check_budget, plan_pruning
from app.settings import Settings
from app.tickets.models import Ticket as Listing
from app.tickets.service import get_ticket
from nirvana import tasks
from nirvana.errors import (
    Forbidden,
    IdempotencyMismatch,
    InvalidJob,
    JobFinished,
    NotFound,
    Problem,
    QuotaExceeded,
)
from nirvana.recipe import Recipe

PRIORITY_CLASS = 1
PRIORITIES_A_CLASS = 100_000


@dataclass(frozen=True)
class JobRequest:
    """What somebody asks for.

    Attributes:
        kind: `prune`, `verify` or `transfer`.
        spec: what to do (`app.jobs.spec` and `app.jobs.measuring` have the rules).
        budget: upper bounds: `seconds`, `parameters`, `flops`; each may be left out.
        idempotency_key: the same key with the same request gives the same job again.
    """

    kind: str
    spec: dict[str, Any]
    budget: dict[str, Any]
    idempotency_key: str | None = None

    @property
    def digest(self) -> str:
        """sha256 of what is asked, without the key."""
        asked = {"kind": self.kind, "spec": self.spec, "budget": self.budget}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def submit_job(session: Session, settings: Settings, account: Account, request: JobRequest) -> Job:
    """Check a request, write its job and enqueue it, all in the caller's transaction.

    Raises:
        InvalidJob: the spec or the budget breaks a rule; each with its JSON pointer.
        QuotaExceeded: the account has too many open jobs.
        IdempotencyMismatch: the key was used for another request.
    """
    plan = _plan(session, settings, account, request)
    budget = check_budget(request.budget, plan, settings.job_deadline_seconds)
    _lock(session, account)
    earlier = _find_earlier(session, account, request)
    if earlier is not None:
        return earlier
    open_jobs = _count_open(session, account)
    own = account.max_open_jobs
    limit = settings.max_open_jobs_per_account if own is None else own
    if open_jobs >= limit:
        raise QuotaExceeded(f"{open_jobs} of your jobs are queued or running, expected fewer than {limit}")
    job = _new_job(account, request, plan, budget, open_jobs)
    session.add(job)
    session.flush()
    append_events(session, job.id, [("state", {"state": "queued"})])
    enqueue(session, job)
    return job


def get_job(session: Session, job_id: str) -> Job:
    """The job with that id.

    Raises:
        NotFound: there is none.
    """
    whole = joinedload(Job.account)
    job = session.get(Job, job_id, options=[whole], populate_existing=True)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job


def list_jobs(
    session: Session,
    *,
    account_id: Any = None,
    state: str | None = None,
    kind: str | None = None,
    before: tuple[Any, str] | None = None,
    limit: int = 20,
) -> list[Job]:
    """Jobs, newest first.

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


def queue_position(session: Session, job: Job) -> int | None:
    """How many queued jobs go before this one, plus one; None once it has left the queue."""
    if job.state != "queued":
        return None
    first = or_(
        Job.priority < job.priority,
        and_(Job.priority == job.priority, Job.created_at < job.created_at),
    )
    ahead = select(func.count()).where(Job.state == "queued", Job.queue == job.queue, first)
    return session.execute(ahead).scalar_one() + 1


def cancel_job(session: Session, account: Account, job_id: str, *, is_admin: bool = False) -> Job:
    """Cancel a job that is queued or running; its worker stops within a second.

    Raises:
        NotFound: there is no such job.
        Forbidden: it belongs to somebody else.
        JobFinished: it has ended already.
    """
    job = get_job(session, job_id)
    if job.account_id != account.id and not is_admin:
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
        append_events(session, job_id, [("state", {"state": "running", "attempt": job.attempts})])
    return job


def end_job(
    session: Session,
    job_id: str,
    state: str,
    *,
    result: dict[str, Any] | None = None,
    reason: str | None = None,
    reason_code: str | None = None,
) -> bool:
    """Give an open job its end, once; False when it had one already."""
    values: dict[str, Any] = {"state": state, "finished_at": utc_now()}
    values |= {"reason": reason and reason[:4000], "reason_code": reason_code}
    if result is not None:
        values["result"] = result
    ended = update(Job).where(Job.id == job_id, Job.state.in_(OPEN_STATES)).values(values)
    if session.execute(ended.returning(Job.id)).scalar_one_or_none() is None:
        return False
    body = {"state": state} | ({"reason": reason, "code": reason_code} if reason else {})
    append_events(session, job_id, [("state", body), ("done", {"state": state})])
    return True


def _plan(session: Session, settings: Settings, account: Account, request: JobRequest) -> Plan:
    if request.kind not in KINDS:
        detail = f"kind {request.kind!r} is unknown, expected one of {', '.join(KINDS)}"
        raise InvalidJob(detail, errors=[Problem("/kind", "unknown", detail)])
    if request.kind == "prune":
        return plan_pruning(request.spec, settings.max_parameters)
    if request.kind == "transfer":
        return _plan_transfer(session, account, request.spec)
    return _plan_verification(session, account, request.spec)


def _plan_verification(session: Session, account: Account, spec: dict[str, Any]) -> Plan:
    check_verification(spec)
    ticket = _find_ticket(session, account, spec, "ticket")
    found = {"digest": ticket.digest, "file": ticket.blob.digest}
    return plan_verification(spec | found, ticket.architecture, Recipe.from_dict(ticket.recipe))


def _plan_transfer(session: Session, account: Account, spec: dict[str, Any]) -> Plan:
    target = check_transfer(spec)
    ticket = _find_ticket(session, account, spec, "ticket")
    found, own = {"digest": ticket.digest, "file": ticket.blob.digest}, None
    if spec.get("own") is not None:
        row = _find_ticket(session, account, spec, "own")
        found, own = found | {"own_file": row.blob.digest}, row.task
    return plan_transfer(spec | found, ticket.architecture, ticket.task, own, target)


def _find_ticket(session: Session, account: Account, spec: dict[str, Any], field: str) -> Listing:
    """The ticket that a field of the spec names, of a task that is known here. Raises: InvalidJob."""
    try:
        ticket = get_ticket(session, spec[field], account)
        tasks.get(ticket.task)
    except NotFound as error:
        raise InvalidJob(error.detail, errors=[Problem(f"/spec/{field}", "unknown", error.detail)]) from None
    return ticket


def _lock(session: Session, account: Account) -> None:
    """Hold the account's row until the commit: two requests at once cannot both take the last place, nor
    both be the first with an idempotency key."""
    row = select(Account.id).where(Account.id == account.id)
    session.execute(row.with_for_update(key_share=True))


def _find_earlier(session: Session, account: Account, request: JobRequest) -> Job | None:
    """The job that an earlier request with the same key made."""
    if request.idempotency_key is None:
        return None
    query = select(Job).where(Job.account_id == account.id, Job.idempotency_key == request.idempotency_key)
    job = session.scalars(query).one_or_none()
    if job is not None and job.request_digest != request.digest:
        raise IdempotencyMismatch(f"the Idempotency-Key belongs to another request, that of job {job.id}")
    return job


def _count_open(session: Session, account: Account) -> int:
    query = select(func.count()).where(Job.account_id == account.id, Job.state.in_(OPEN_STATES))
    return session.execute(query).scalar_one()


def _new_job(
    account: Account, request: JobRequest, plan: Plan, budget: dict[str, Any], open_jobs: int
) -> Job:
    """A queued job. Its priority falls with the owner's open jobs: nobody waits behind another's flood."""
    return Job(
        id=str(uuid.uuid4()),
        account_id=account.id,
        kind=request.kind,
        spec=plan.spec,
        budget=budget,
        state="queued",
        queue=QUEUE,
        priority=PRIORITY_CLASS * PRIORITIES_A_CLASS + min(open_jobs, PRIORITIES_A_CLASS - 1),
        progress_total=plan.rounds,
        idempotency_key=request.idempotency_key,
        request_digest=request.digest,
        created_at=utc_now(),
    )
