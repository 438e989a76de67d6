"""REST routes of verifications. Nobody, the ticket's owner included, can delete one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import Field

from app.accounts.service import Caller
from app.dependencies import Reader, SessionDep, SettingsDep, require
from app.evaluations.schemas import EvaluationPage, EvaluationShown, show_evaluation
from app.evaluations.service import get_evaluation, list_evaluations
from app.jobs import service as jobs
from app.jobs.schemas import JobShown
from app.lists import DEFAULT_LIMIT, Cursor, Limit, link_next
from app.schemas import Body, example, problems
from app.tickets.reference import TicketReference
from app.tickets.routes import TICKET
from app.tickets.service import get_ticket

router = APIRouter(tags=["verifications"])
JobCaller = Annotated[Caller, Depends(require("job"))]


class NewVerification(Body):
    """How to verify: more replicates give a stronger verdict. Without any: 5, topped up to 20."""

    model_config = Body.model_config | example(replicates=5, max_replicates=20)
    replicates: int | None = Field(default=None, description="training runs of each arm, at least 2")
    max_replicates: int | None = Field(
        default=None,
        description="while the verdict is open, looks follow at 2 and 4 times the replicates, up to this "
        "many; by default the replicates that were said",
    )


@router.get(f"{TICKET}/verifications", operation_id="list_verifications", responses=problems(404, 422))
def list_verifications(
    request: Request,
    response: Response,
    ticket: TicketReference,
    session: SessionDep,
    reader: Reader,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> EvaluationPage:
    """What was measured on a ticket, newest first. All listings of one digest share it."""
    digest = get_ticket(session, ticket, reader).digest
    page = list_evaluations(session, digest, limit=limit, cursor=cursor)
    link_next(request, response, page.next_cursor)
    return EvaluationPage(items=[show_evaluation(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get(
    f"{TICKET}/verifications/{{verification_id}}", operation_id="get_verification", responses=problems(404)
)
def get_verification(
    ticket: TicketReference,
    verification_id: Annotated[int, Path(ge=1, lt=2**53)],
    session: SessionDep,
    reader: Reader,
) -> EvaluationShown:
    """One verification with every replicate's numbers."""
    digest = get_ticket(session, ticket, reader).digest
    return show_evaluation(get_evaluation(session, digest, verification_id))


@router.post(
    f"{TICKET}/verifications",
    status_code=202,
    operation_id="create_verification",
    responses=problems(401, 403, 404, 409, 422, 429),
)
def create_verification(
    response: Response,
    ticket: TicketReference,
    caller: JobCaller,
    session: SessionDep,
    settings: SettingsDep,
    body: NewVerification | None = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> JobShown:
    """Ask for a verification of a ticket: a job that trains it again beside a dense baseline and controls."""
    get_ticket(session, ticket, caller.account)
    spec = {"ticket": ticket} | (body or NewVerification()).model_dump(exclude_none=True)
    asked = jobs.JobRequest("verify", spec, {}, idempotency_key)
    job = jobs.get_job(session, jobs.submit_job(session, settings, caller.account, asked).id)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobShown.of(job, jobs.queue_position(session, job))
