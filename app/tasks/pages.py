"""Pages of tasks."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.dependencies import SessionDep
from app.lists import MAX_LIMIT
from app.pages import render
from app.tasks.service import get_task, leaderboard, list_tasks

router = APIRouter()


@router.get("/tasks", response_class=HTMLResponse)
def tasks_page(request: Request, session: SessionDep) -> HTMLResponse:
    """Every task."""
    return render(request, "tasks.html", {"tasks": list_tasks(session)})


@router.get("/tasks/{task}", response_class=HTMLResponse)
def task_page(request: Request, task: str, session: SessionDep) -> HTMLResponse:
    """One task and the tickets for it."""
    context = {"task": get_task(session, task)}
    page = leaderboard(session, task, limit=MAX_LIMIT, cursor=None)
    return render(request, "task.html", context | {"page": page})
