"""Routes of jobs: REST, and a page. What a job shows is open to whoever may see the tickets that it names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator

from app.accounts.service import Caller
from app.dependencies import (
    AnyCaller,
    Cursor,
    DatabaseDep,
    IdempotencyKey,
    Limit,
    Name,
    Reader,
    SessionDep,
    SettingsDep,
    hold_stream,
    link_pages,
    require,
)
from app.jobs import service
from app.jobs.kinds import invalid_job, kinds, problems_of
from app.jobs.models import OPEN_STATES
from app.jobs.queue import PLACES, queue_places, queue_position
from app.jobs.schemas import JobPage, JobResponse, NewJob
from app.jobs.streams import JobWatch
from app.pages import render
from app.pagination import DEFAULT_LIMIT, binding, read_cursor, write_cursor
from app.schemas import problems


class JobRoute(APIRoute):
    """A route whose body is a job: what is wrong with it is an invalid job."""

    def get_route_handler(self) -> Handler:
        """See `APIRoute`."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                errors = [item for item in error.errors() if item["loc"][0] == "body"]
                if not errors or any(item["type"] == "json_invalid" for item in errors):
                    raise
                for item in errors:  # without `body`, and the kind of the tagged union
                    item["loc"] = item["loc"][2 if item["loc"][1:2] and item["loc"][1] in kinds() else 1 :]
                raise invalid_job(problems_of(errors)) from None

        return handler


Handler = Callable[[Request], Coroutine[None, None, Response]]
router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=JobRoute)
pages = APIRouter()

SHOWN_EVENTS = 50
REFRESH_SECONDS = 3  # of the page, which needs no script


def known_kind(name: str | None) -> str | None:
    """Check a kind to filter by. Raises: ValueError."""
    if name is not None and name not in kinds():
        raise ValueError(f"expected one of {', '.join(kinds())}")
    return name


JobCaller = Annotated[Caller, Depends(require("job"))]
LastEventId = Annotated[int, Header(ge=0, lt=2**31, description="go on after this event")]
KindFilter = Annotated[
    str | None, Query(json_schema_extra={"enum": list(kinds())}), AfterValidator(known_kind)
]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@router.post("", status_code=202, operation_id="submit_job", responses=problems(401, 403, 409, 422, 429))
def submit_job(
    body: NewJob,
    caller: JobCaller,
    session: SessionDep,
    settings: SettingsDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobResponse:
    """Ask for a job. Once this has answered, the job runs, whatever happens to the service."""
    spec, budget = (part.model_dump(exclude_unset=True) for part in (body.spec, body.budget))
    asked = service.JobRequest(body.kind, spec, budget, idempotency_key, caller.token.names)
    job_id = service.submit_job(session, settings, caller.account, asked).id
    job = service.get_job(session, job_id)
    response.headers["Location"] = request.app.url_path_for("get_job", job_id=job_id)
    return JobResponse.of(job, queue_position(session, job))


@router.get("", operation_id="list_jobs", responses=problems(401, 422))
def list_jobs(
    caller: AnyCaller,
    session: SessionDep,
    request: Request,
    response: Response,
    state: State | None = None,
    kind: KindFilter = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> JobPage:
    """Your jobs, newest first."""
    bound = binding("jobs", caller.account.id, state, kind)
    before = read_cursor(cursor, bound, (datetime, str)) if cursor else None
    jobs = service.list_jobs(
        session,
        account_id=caller.account.id,
        state=state,
        kind=kind,
        before=(before[0], before[1]) if before else None,
        limit=limit + 1,
    )
    is_more, jobs = len(jobs) > limit, jobs[:limit]
    following = write_cursor(bound, (jobs[-1].created_at, jobs[-1].id)) if is_more else None
    link_pages(request, response, {"next": following})
    jobs = service.keep_visible(session, jobs, caller.account)
    places = queue_places(session, jobs)
    shown = [JobResponse.of(job, places.get(job.id)) for job in jobs]
    return JobPage(items=shown, next_cursor=following)


@router.get("/{job_id}", operation_id="get_job", name="get_job", responses=problems(404))
def get_job(job_id: Name, session: SessionDep, reader: Reader) -> JobResponse:
    """One job."""
    job = service.get_visible_job(session, job_id, reader)
    return JobResponse.of(job, queue_position(session, job))


@router.post("/{job_id}/cancel", operation_id="cancel_job", responses=problems(401, 403, 404, 409))
def cancel_job(job_id: Name, caller: JobCaller, session: SessionDep) -> JobResponse:
    """Cancel a job of yours; it stops within a second, and what it has published stays."""
    is_admin = "admin" in caller.token.scopes
    job = service.cancel_job(session, caller.account, job_id, is_admin=is_admin)
    return JobResponse.of(job, None)


def find_job_id(job_id: Name, database: DatabaseDep, reader: Reader) -> str:
    """The id of a job that is there: an answer that streams cannot say 404 any more. Raises: NotFound."""
    with database.read() as session:
        return service.get_visible_job(session, job_id, reader).id


@router.get(
    "/{job_id}/events",
    operation_id="stream_job_events",
    response_class=EventSourceResponse,
    responses=problems(404, 429, 503),
    dependencies=[Depends(hold_stream)],
)
async def stream_events(
    request: Request,
    job_id: Annotated[str, Depends(find_job_id)],
    reader: Reader,
    last_event_id: LastEventId = 0,
) -> AsyncIterator[ServerSentEvent]:
    """A job's events as they happen: state, progress, points of the training curves, levels, log lines.

    The last one is `done`. Send the id of the last one you saw as Last-Event-ID to go on after it.
    """
    watch: JobWatch = request.app.state.job_watch
    async for event in watch.follow(job_id, last_event_id, reader):
        yield ServerSentEvent(event=event.kind, id=str(event.serial), data=event.body)


@pages.get("/jobs/{job_id}", response_class=HTMLResponse)
def job_page(request: Request, job_id: Name, session: SessionDep, reader: Reader) -> HTMLResponse:
    """One job: state, progress, what it has found, its last events."""
    job = service.get_visible_job(session, job_id, reader)
    events = service.read_events(session, job.id, max(0, job.last_event - SHOWN_EVENTS), SHOWN_EVENTS)
    refresh = REFRESH_SECONDS if job.state in OPEN_STATES else None
    position = queue_position(session, job)
    context = {"job": job, "events": events, "position": position, "places": PLACES}
    context["refresh"] = refresh
    return render(request, "job.html", context)
