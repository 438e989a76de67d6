"""What the service knows about architectures."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.architectures.models import ArchitectureRow
from app.db import insert_if_absent, utc_now
from app.paging import Page, binding, read_cursor, write_cursor
from nirvana import zoo
from nirvana.architecture import Architecture
from nirvana.errors import NotFound


def keep_architecture(session: Session, architecture: Architecture) -> ArchitectureRow:
    """The row of a graph, added if it is new."""
    insert_if_absent(
        session,
        ArchitectureRow,
        digest=architecture.digest,
        name=architecture.name,
        family=architecture.family,
        input_shape=list(architecture.input),
        parameters=architecture.parameter_count,
        prunable=architecture.total,
        flops=architecture.flops(),
        graph=architecture.to_manifest(),
        created_at=utc_now(),
    )
    query = select(ArchitectureRow).where(ArchitectureRow.digest == architecture.digest)
    return session.scalars(query).one()


def list_architectures(session: Session, *, limit: int, cursor: str | None) -> Page[ArchitectureRow]:
    """Architectures of published tickets, by name. Raises: InvalidCursor."""
    bound_to = binding("architectures")
    query = select(ArchitectureRow).order_by(ArchitectureRow.name, ArchitectureRow.id).limit(limit + 1)
    if cursor is not None:
        name, after = read_cursor(cursor, bound_to, (str, int))
        later = (ArchitectureRow.name > name) | (
            (ArchitectureRow.name == name) & (ArchitectureRow.id > after)
        )
        query = query.where(later)
    rows = list(session.scalars(query))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, write_cursor(bound_to, (rows[-1].name, rows[-1].id)) if more else None)


def get_architecture(session: Session, name: str) -> ArchitectureRow:
    """An architecture by its digest, or the oldest one of that name.

    Raises:
        NotFound: no published ticket has it.
    """
    query = select(ArchitectureRow).options(undefer(ArchitectureRow.graph)).order_by(ArchitectureRow.id)
    column = ArchitectureRow.digest if name.startswith("sha256:") else ArchitectureRow.name
    row = session.scalars(query.where(column == name).limit(1)).one_or_none()
    if row is None:
        known = ", ".join(zoo.names())
        raise NotFound(f"No published ticket has the architecture {name!r}; the zoo builds {known}.")
    return row
