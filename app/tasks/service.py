"""The table of tasks, and its rules: the library's own tasks, and the tickets published for each."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import String, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base, Json, insert_if_absent, utc_now
from app.pagination import Page
from app.tickets.models import Listing, ListingGroup
from app.tickets.search.conditions import Search
from app.tickets.search.counts import SHOWN, count_by
from app.tickets.search.results import search_tickets
from nirvana import tasks
from nirvana.errors import NotFound
from nirvana.tasks import Task


class TaskRow(Base):
    """A task that this service's workers can measure: a copy of the library's own, kept for joins."""

    __tablename__ = "task"
    __table_args__ = (UniqueConstraint("name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    body: Mapped[Json]
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


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


def describe(task: Task) -> Json:
    """Return a task as JSON."""
    same = ("name", "title", "description", "classes", "metric", "margin", "margin_reason", "split")
    more = ("license", "source", "data_sha256")
    lists = {"input_shape": list(task.input_shape), "class_names": list(task.class_names)}
    lists |= {"normalisation": list(task.normalisation)}
    parts = {"sizes": dict(task.sizes), "seal": asdict(task.seal) if task.seal else None}
    return {name: getattr(task, name) for name in (*same, *more)} | lists | parts


def list_tasks(session: Session) -> list[Json]:
    """Return every task, by name, with the number of public tickets for it."""
    counts = count_by(session, "task", SHOWN)
    rows = session.scalars(select(TaskRow).order_by(TaskRow.name))
    return [row.body | {"tickets": counts.get(row.name, 0)} for row in rows]


def get_task(session: Session, name: str) -> Json:
    """Return one task. Raises: NotFound, naming those there are."""
    row = session.scalars(select(TaskRow).where(TaskRow.name == name)).one_or_none()
    if row is None:
        known = ", ".join(session.scalars(select(TaskRow.name).order_by(TaskRow.name)))
        raise NotFound(f"There is no task {name[:100]!r}; there are {known}.")
    counts = count_by(session, "task", (*SHOWN, ListingGroup.task == name))
    return row.body | {"tickets": counts.get(name, 0)}


def leaderboard(
    session: Session, name: str, *, limit: int, cursor: str | None, brought_in: bool = False
) -> Page[Listing]:
    """Return the public tickets of a task by measured accuracy; those not measured yet come last.

    Args:
        brought_in: those whose masks were brought in, and copies, as well.

    Raises:
        NotFound: there is no such task.
    """
    get_task(session, name)
    search = Search({"task": name}, sort="accuracy", known_only=not brought_in)
    return search_tickets(session, search, limit=limit, cursor=cursor)
