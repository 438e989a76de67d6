"""REST routes and pages of tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.dependencies import Name, PagingDep, SessionDep
from app.pages import render
from app.pagination import MAX_LIMIT
from app.schemas import problems
from app.tasks import service
from app.tasks.schemas import TaskPage, TaskResponse
from app.tickets.schemas import TicketPage, page_of
from app.tickets.service import find_copies

router = APIRouter(tags=["tasks"])
pages = APIRouter()
BroughtIn = Annotated[
    bool, Query(description="tickets whose masks were brought in, and copies, as well as known ones")
]


@router.get("/tasks", operation_id="list_tasks")
def list_tasks(session: SessionDep) -> TaskPage:
    """Every task that this service can measure, by name."""
    return TaskPage(items=[TaskResponse(**task) for task in service.list_tasks(session)])


@router.get("/tasks/{task}", operation_id="get_task", responses=problems(404))
def get_task(task: Name, session: SessionDep) -> TaskResponse:
    """A task: its data, its splits and its margin."""
    return TaskResponse(**service.get_task(session, task))


@router.get("/tasks/{task}/leaderboard", operation_id="list_task_leaderboard", responses=problems(404, 422))
def get_leaderboard(
    task: Name, session: SessionDep, paging: PagingDep, brought_in: BroughtIn = False
) -> TicketPage:
    """The tickets of a task by measured accuracy; those not measured yet come last."""
    page = service.leaderboard(session, task, limit=paging.limit, cursor=paging.cursor, brought_in=brought_in)
    paging.link(next=page.next_cursor, prev=page.previous_cursor)
    return page_of(page, find_copies(session, page.rows))


@pages.get("/tasks", response_class=HTMLResponse)
def tasks_page(request: Request, session: SessionDep) -> HTMLResponse:
    """Every task."""
    return render(request, "tasks.html", {"tasks": service.list_tasks(session)})


@pages.get("/tasks/{task}", response_class=HTMLResponse)
def task_page(
    request: Request, task: Name, session: SessionDep, brought_in: BroughtIn = False
) -> HTMLResponse:
    """One task and the tickets for it."""
    shown = service.get_task(session, task)
    page = service.leaderboard(session, task, limit=MAX_LIMIT, cursor=None, brought_in=brought_in)
    copies = find_copies(session, page.rows)
    context = {"task": shown, "page": page, "copies": copies, "brought_in": brought_in}
    return render(request, "task.html", context)
