"""What the service knows about tasks: the library's own, and the tickets published for each."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.db import insert_if_absent, utc_now
from app.paging import Page
from app.tasks.models import TaskRow
from app.tickets.models import Ticket
from app.tickets.search import Search, search_tickets
from nirvana import tasks
from nirvana.errors import NotFound
from nirvana.tasks import Task


def sync_tasks(session: Session) -> None:
    """Bring the rows in line with the library's own tasks (what a user added here stays hers); safe to
    repeat."""
    bodies = {name: describe(tasks.get(name)) for name in tasks.built_in_names()}
    for name, body in bodies.items():
        insert_if_absent(session, TaskRow, name=name, body=body, updated_at=utc_now())
    for row in session.scalars(select(TaskRow).where(TaskRow.name.in_(bodies))):
        if row.body != bodies[row.name]:
            row.body, row.updated_at = bodies[row.name], utc_now()
    session.execute(delete(TaskRow).where(TaskRow.name.not_in(bodies)))


def describe(task: Task) -> dict[str, Any]:
    """A task as JSON."""
    same = ("name", "title", "description", "classes", "metric", "margin", "margin_reason", "split")
    more = ("license", "source", "data_sha256")
    lists = {"input_shape": list(task.input_shape), "class_names": list(task.class_names)}
    lists |= {"normalisation": list(task.normalisation)}
    return {name: getattr(task, name) for name in (*same, *more)} | lists | {"sizes": dict(task.sizes)}


def list_tasks(session: Session) -> list[dict[str, Any]]:
    """Every task, by name, with the number of public tickets for it."""
    counts = _count_tickets(session)
    rows = session.scalars(select(TaskRow).order_by(TaskRow.name))
    return [row.body | {"tickets": counts.get(row.name, 0)} for row in rows]


def _count_tickets(session: Session) -> dict[str, int]:
    public = (Ticket.visibility == "public", Ticket.yanked_at.is_(None))
    query = select(Ticket.task, func.count()).where(*public).group_by(Ticket.task)
    return dict(session.execute(query).all())


def get_task(session: Session, name: str) -> dict[str, Any]:
    """One task. Raises: NotFound, naming those there are."""
    row = session.scalars(select(TaskRow).where(TaskRow.name == name)).one_or_none()
    if row is None:
        known = ", ".join(session.scalars(select(TaskRow.name).order_by(TaskRow.name)))
        raise NotFound(f"There is no task {name[:100]!r}; there are {known}.")
    return row.body | {"tickets": _count_tickets(session).get(name, 0)}


def leaderboard(session: Session, name: str, *, limit: int, cursor: str | None) -> Page[Ticket]:
    """The public tickets of a task by measured accuracy; those not measured yet come last.

    Raises:
        NotFound: there is no such task.
    """
    get_task(session, name)
    search = Search(equal={"task": name}, sort="accuracy")
    return search_tickets(session, search, limit=limit, cursor=cursor)
