"""REST routes of tasks."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dependencies import SessionDep
from app.lists import DEFAULT_LIMIT, Cursor, Limit, link_next
from app.schemas import problems
from app.tasks import service
from app.tasks.schemas import TaskPage, TaskShown
from app.tickets.schemas import TicketPage, summarise

router = APIRouter(tags=["tasks"])


@router.get("/tasks", operation_id="list_tasks")
def list_tasks(session: SessionDep) -> TaskPage:
    """Every task that this service can measure, by name."""
    return TaskPage(items=[TaskShown(**task) for task in service.list_tasks(session)])


@router.get("/tasks/{task}", operation_id="get_task", responses=problems(404))
def get_task(task: str, session: SessionDep) -> TaskShown:
    """A task: its data, its splits and its margin."""
    return TaskShown(**service.get_task(session, task))


@router.get("/tasks/{task}/leaderboard", operation_id="list_task_leaderboard", responses=problems(404, 422))
def get_leaderboard(
    request: Request,
    response: Response,
    task: str,
    session: SessionDep,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> TicketPage:
    """The tickets of a task by measured accuracy; those not measured yet come last."""
    page = service.leaderboard(session, task, limit=limit, cursor=cursor)
    link_next(request, response, page.next_cursor)
    items = [summarise(row) for row in page.rows]
    return TicketPage(items=items, next_cursor=page.next_cursor, total=page.total, facets={})
