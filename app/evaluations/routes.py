"""REST routes of verifications and attestations. Nobody, the ticket's owner included, can delete one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from app.accounts.service import Caller
from app.dependencies import (
    TICKET,
    IdempotencyKey,
    PagingDep,
    Reader,
    RowId,
    SessionDep,
    SettingsDep,
    StorageDep,
    TicketReference,
    require,
)
from app.evaluations.origins import list_attestations
from app.evaluations.schemas import (
    AttestationPage,
    EvaluationPage,
    EvaluationResponse,
    KeySet,
    SignedVerdict,
    attestation_response,
    evaluation_response,
)
from app.evaluations.service import get_evaluation, list_evaluations
from app.evaluations.signing import list_keys, sign_verdict, signed_key
from app.jobs import service as jobs
from app.jobs.kinds import MostReplicates, Replicates
from app.jobs.queue import queue_position
from app.jobs.schemas import JobResponse
from app.schemas import RequestModel, example, problems
from app.settings import Settings
from app.tickets.service import get_ticket
from nirvana.errors import Conflict

router = APIRouter(tags=["verifications"])
well_known = APIRouter(tags=["verifications"])
JobCaller = Annotated[Caller, Depends(require("job"))]


class NewVerification(RequestModel):
    """A verification to run: more replicates give a stronger verdict. Without any: 5, topped up to 20."""

    model_config = RequestModel.model_config | example(replicates=5, max_replicates=20)
    replicates: Replicates | None = Field(default=None, description="training runs of each arm")
    max_replicates: MostReplicates | None = Field(
        default=None,
        description="while the verdict is open, looks follow at 2 and 4 times the replicates, up to this "
        "many; by default the replicates that were said",
    )


@router.get(f"{TICKET}/verifications", operation_id="list_verifications", responses=problems(404, 422))
def list_verifications(
    ticket: TicketReference, session: SessionDep, reader: Reader, paging: PagingDep
) -> EvaluationPage:
    """The evaluations of a ticket, newest first. Each is of an exam; a listing's verdict is that of its own
    `exam`, and the others, by another recipe or on another task, are shown beside it."""
    digest = get_ticket(session, ticket, reader).digest
    page = list_evaluations(session, digest, reader, limit=paging.limit, cursor=paging.cursor)
    paging.link(next=page.next_cursor)
    items = [evaluation_response(row) for row in page.rows]
    return EvaluationPage(items=items, next_cursor=page.next_cursor)


@router.get(
    f"{TICKET}/verifications/{{verification_id}}", operation_id="get_verification", responses=problems(404)
)
def get_verification(
    ticket: TicketReference,
    verification_id: RowId,
    session: SessionDep,
    reader: Reader,
) -> EvaluationResponse:
    """One verification with every replicate's numbers."""
    digest = get_ticket(session, ticket, reader).digest
    return evaluation_response(get_evaluation(session, digest, reader, verification_id))


@router.get(
    f"{TICKET}/verifications/{{verification_id}}/signed",
    operation_id="get_signed_verification",
    responses=problems(404),
)
def get_signed_verification(
    request: Request,
    ticket: TicketReference,
    verification_id: RowId,
    session: SessionDep,
    settings: SettingsDep,
    storage: StorageDep,
    reader: Reader,
) -> SignedVerdict:
    """The same, signed: it says what was measured here wherever it is copied. `nirvana verify-signature`, or
    any library for JWS, checks it with the keys at /.well-known/jwks.json."""
    shown = get_verification(ticket, verification_id, session, reader)
    if settings.mirror_of:  # who measured it has signed it
        return SignedVerdict.model_validate_json(storage.get(signed_key(verification_id)))
    signed = sign_verdict(request.app.state.signing_key, settings.public_url, shown.model_dump(mode="json"))
    return SignedVerdict.model_validate(signed)


@well_known.get("/.well-known/jwks.json", operation_id="list_keys")
def get_keys(session: SessionDep) -> KeySet:
    """The public keys by which verdicts of this registry are signed, old ones too (RFC 7517)."""
    return KeySet.model_validate(list_keys(session))


@router.get(f"{TICKET}/attestations", operation_id="list_attestations", responses=problems(404))
def get_attestations(ticket: TicketReference, session: SessionDep, reader: Reader) -> AttestationPage:
    """What came out when the registry's worker found the ticket, or ran its search again; newest first."""
    row = get_ticket(session, ticket, reader)
    found = list_attestations(session, row.digest, row.task)
    return AttestationPage(items=[attestation_response(one) for one in found])


@router.post(
    f"{TICKET}/attestations",
    status_code=202,
    operation_id="create_attestation",
    responses=problems(401, 403, 404, 409, 422, 429),
)
def create_attestation(
    response: Response,
    ticket: TicketReference,
    caller: JobCaller,
    session: SessionDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKey = None,
) -> JobResponse:
    """Ask for a ticket's search to be run again, by the method, recipe and seed that its file names: where it
    gives the ticket, its mask is attested, for every listing of it on its task."""
    row = get_ticket(session, ticket, caller.account)
    if row.origin == "attested":
        raise Conflict(f"{ticket} is attested already: see its attestations.")
    request = jobs.JobRequest("attest", {"ticket": ticket}, {}, idempotency_key)
    return _submit(session, settings, caller, request, response)


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
    idempotency_key: IdempotencyKey = None,
) -> JobResponse:
    """Ask for a verification of a ticket: a job that trains it again beside a dense baseline and controls."""
    get_ticket(session, ticket, caller.account)
    spec = {"ticket": ticket} | (body or NewVerification()).model_dump(exclude_none=True)
    request = jobs.JobRequest("verify", spec, {}, idempotency_key)
    return _submit(session, settings, caller, request, response)


def _submit(
    session: Session, settings: Settings, caller: Caller, request: jobs.JobRequest, response: Response
) -> JobResponse:
    """Submit a job, and say where it is."""
    job = jobs.get_job(session, jobs.submit_job(session, settings, caller.account, request).id)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobResponse.of(job, queue_position(session, job))
