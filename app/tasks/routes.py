"""REST routes and pages of tasks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.accounts.service import Caller
from app.db import Json
from app.dependencies import (
    TASK,
    DatabaseDep,
    PagingDep,
    PayerDep,
    Ranged,
    SessionDep,
    SettingsDep,
    StorageDep,
    TaskName,
    require,
)
from app.limits.service import Line, Places
from app.pages import render
from app.pagination import MAX_LIMIT
from app.schemas import binary, problems
from app.tasks import service, uploads
from app.tasks.boards import entries, frontier, leaderboard, references
from app.tasks.croissant import MEDIA_TYPE as CROISSANT
from app.tasks.croissant import describe_data
from app.tasks.drawing import draw
from app.tasks.models import TaskRow
from app.tasks.schemas import (
    BoardPage,
    FrontierResponse,
    MadeResponse,
    NewTask,
    TaskDetail,
    TaskPage,
    TaskResponse,
    board_page,
    frontier_response,
)
from app.tickets.files.serving import FORM, Download, exits_of, serve
from app.tickets.schemas import Yank
from app.tickets.service import find_copies
from nirvana.errors import NotFound

router = APIRouter(tags=["tasks"])
pages = APIRouter()
DATA_TYPE = "application/octet-stream"
DOCUMENT: Json = {CROISSANT: {"schema": {"type": "object"}, "example": {"@type": "sc:Dataset"}}}
Publisher = Annotated[Caller, Depends(require("publish"))]
Yanker = Annotated[Caller, Depends(require("yank"))]
BroughtIn = Annotated[
    bool, Query(description="tickets whose masks were brought in, and copies, as well as known ones")
]
OfOwner = Annotated[str | None, Query(max_length=39, description="tasks that this account made, alone")]


def _describe_form() -> Json:
    """Return the OpenAPI request body of a task's upload."""
    fields = NewTask.model_json_schema()
    file = {"type": "string", "format": "binary", "description": ".csv, .tsv, .parquet, .npz or .zip"}
    schema = {
        "type": "object",
        "required": ["file", *fields["required"]],
        "properties": {"file": file} | fields["properties"],
    }
    shown = {"schema": schema, "example": {"file": "(bytes)"} | fields["examples"][0]}
    return {"requestBody": {"required": True, "content": {FORM: shown}}}


@router.get("/tasks", operation_id="list_tasks", responses=problems(422))
def list_tasks(session: SessionDep, paging: PagingDep, owner: OfOwner = None) -> TaskPage:
    """The tasks that this service can measure, by name: the library's, and `owner/name` of those that people
    made here. Those that were yanked are left out."""
    page = service.list_tasks(session, limit=paging.limit, cursor=paging.cursor, owner=owner)
    paging.link(next=page.next_cursor)
    return TaskPage(items=[TaskResponse(**task) for task in page.rows], next_cursor=page.next_cursor)


@router.post(
    "/tasks",
    operation_id="create_task",
    status_code=201,
    response_model=MadeResponse,
    responses={
        200: {"description": "It was made before, of the same file", "model": MadeResponse},
        **problems(400, 401, 403, 409, 410, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra=_describe_form(),
)
async def create_task(
    request: Request,
    caller: Publisher,
    payer: PayerDep,
    settings: SettingsDep,
    storage: StorageDep,
    database: DatabaseDep,
) -> Response:
    """Make a task, `owner/name`, of a table, arrays, or a zip file with a folder of images for each class.

    A fifth of its rows are sealed unless `sealed_share` says otherwise: they are in no download, and only
    verifications read them. Its data and its name are public, and never change.
    """
    line: Line = request.app.state.making
    places: Places = request.app.state.task_uploads
    line.check()
    with database.read() as session:
        service.check_quota(session, settings, caller.account, 0)
    with places.hold(payer), tempfile.TemporaryDirectory(prefix="nirvana-task-") as folder:
        path, form = await uploads.receive(request, settings, Path(folder))
        fields = _read_fields(form)
        name = uploads.check_name(caller.account.name, fields.name)
        caller.need_name(*name.split("/", 1))

        def make() -> Response:
            made = uploads.make(settings, path, name, fields)
            created = service.keep_task(database, storage, settings, caller.account, made)
            with database.read() as session:
                body = MadeResponse(**service.get_task(session, name), warnings=list(made.warnings))
            where = {"Location": f"/api/v1/tasks/{name}"} if created else {}
            return Response(body.model_dump_json(), 201 if created else 200, where, "application/json")

        return await line.run(make)


def _read_fields(form: Json) -> NewTask:
    """Return the fields of a form. Raises: RequestValidationError."""
    try:
        return NewTask.model_validate(form)
    except ValidationError as error:
        raise RequestValidationError(
            [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        ) from None


@router.get(f"{TASK}/leaderboard", operation_id="list_task_leaderboard", responses=problems(404, 422))
def get_leaderboard(
    task: TaskName, session: SessionDep, paging: PagingDep, brought_in: BroughtIn = False
) -> BoardPage:
    """The tickets of a task by measured accuracy, each with its interval, its n, and the engine and cost of
    its verification; those not measured yet come last. Attested and sealed ones unless more are asked for."""
    page = leaderboard(session, task, limit=paging.limit, cursor=paging.cursor, brought_in=brought_in)
    paging.link(next=page.next_cursor, prev=page.previous_cursor)
    return board_page(page, entries(session, page.rows), find_copies(session, page.rows))


@router.get(f"{TASK}/frontier", operation_id="get_task_frontier", responses=problems(404, 422))
def get_frontier(task: TaskName, session: SessionDep, brought_in: BroughtIn = False) -> FrontierResponse:
    """The frontier of accuracy against kept weights, with 95 % intervals, each point beside the dense network
    and the controls with as many weights. Attested and sealed tickets unless more are asked for."""
    return frontier_response(task, frontier(session, task, brought_in=brought_in))


@router.get(f"{TASK}/croissant", operation_id="get_task_croissant", response_class=Response, responses={
    200: {"description": "The document", "content": DOCUMENT},
    **problems(404),
})  # fmt: skip
def get_croissant(task: TaskName, session: SessionDep, settings: SettingsDep) -> Response:
    """A task's metadata as Croissant 1.0 (mlcommons), JSON-LD."""
    document = describe_data(service.get_task(session, task), settings)
    return Response(json.dumps(document, indent=1), media_type=CROISSANT)


@router.get(f"{TASK}/data", operation_id="get_task_data", response_class=Response,
    dependencies=Ranged, responses={
    200: binary(DATA_TYPE, "The file; its ETag is the sha256 of its bytes."),
    206: binary(DATA_TYPE, "The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 410, 416),
})  # fmt: skip
def get_data(
    request: Request, task: TaskName, session: SessionDep, storage: StorageDep, settings: SettingsDep
) -> Response:
    """The public examples of a task that was made here, as an .npz of x, y and part; never its sealed
    rows."""
    row = service.get_row(session, task)
    if row.storage_key is None:
        raise NotFound(
            f"The data of {row.name} are the library's, not this registry's: {row.body['source']}."
        )
    service.refuse_removed(row)
    name = f"{row.name.replace('/', '-')}.npz"
    download = Download(row.data_key, row.body["data_sha256"], DATA_TYPE, name)
    return serve(request, storage, download, exits_of(settings))


@router.post(f"{TASK}/yank", operation_id="yank_task", responses=problems(401, 403, 404, 422))
def yank_task(body: Yank, task: TaskName, caller: Yanker, session: SessionDep) -> TaskResponse:
    """Hide your task: lists leave it out and no search begins on it; what is there goes on."""
    service.yank_task(_get_own(session, task, caller), body.reason, body.detail)
    return TaskResponse(**service.get_task(session, task))


@router.post(f"{TASK}/unyank", operation_id="unyank_task", responses=problems(401, 403, 404))
def unyank_task(task: TaskName, caller: Yanker, session: SessionDep) -> TaskResponse:
    """Show your task again."""
    service.unyank_task(_get_own(session, task, caller))
    return TaskResponse(**service.get_task(session, task))


def _get_own(session: Session, task: str, caller: Caller) -> TaskRow:
    row = service.get_own_task(session, task, caller.account, admin="admin" in caller.token.scopes)
    caller.need_name(*row.name.split("/", 1))
    return row


@router.get(TASK, operation_id="get_task", responses=problems(404))
def get_task(task: TaskName, session: SessionDep) -> TaskDetail:
    """A task: its data, its splits and its margin, and the registry's own dense figures on it."""
    shown = service.get_task(session, task)
    return TaskDetail.model_validate(shown | {"references": references(session, task)})


@router.delete(TASK, operation_id="delete_task", status_code=204, responses=problems(401, 403, 404, 409))
def delete_task(task: TaskName, caller: Yanker, database: DatabaseDep, storage: StorageDep) -> None:
    """Take the data of your task away, as long as nothing depends on it: no ticket, transfer or open job. Its
    name stays taken. An admin can do so whatever depends on it: then nobody can verify its tickets."""
    with database.write() as session:
        row = _get_own(session, task, caller)
        service.remove_task(session, row, admin="admin" in caller.token.scopes)
    service.delete_blobs(storage, row)


@pages.get("/tasks", response_class=HTMLResponse)
def tasks_page(request: Request, session: SessionDep, paging: PagingDep) -> HTMLResponse:
    """The tasks."""
    page = service.list_tasks(session, limit=MAX_LIMIT, cursor=paging.cursor)
    return render(request, "tasks.html", {"tasks": page.rows, "next_cursor": page.next_cursor})


@pages.get(TASK, response_class=HTMLResponse)
def task_page(
    request: Request, task: TaskName, session: SessionDep, brought_in: BroughtIn = False
) -> HTMLResponse:
    """One task: its frontier, the registry's dense figures and its tickets."""
    shown = service.get_task(session, task)
    page = leaderboard(session, task, limit=MAX_LIMIT, cursor=None, brought_in=brought_in)
    points = frontier(session, task, brought_in=brought_in)
    context = {
        "task": shown,
        "page": page,
        "copies": find_copies(session, page.rows),
        "brought_in": brought_in,
        "points": points,
        "drawing": draw(points),
        "references": references(session, task),
    }
    return render(request, "task.html", context)
