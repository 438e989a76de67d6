"""The table of architectures, and its rules: a row for every graph that a published ticket was cut from."""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import BigInteger, Index, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column, undefer

from app.db import Base, Json, insert_if_absent, utc_now
from app.pagination import Page, binding, cut_page, read_cursor
from nirvana.errors import InvalidArchitecture, NotFound, Problem
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._+ -]{0,98}[A-Za-z0-9_+])?")


class ArchitectureRow(Base):
    """A graph that some ticket has; one row a digest, under the name that it came with first."""

    __tablename__ = "architecture"
    __table_args__ = (UniqueConstraint("digest"), Index("ix_architecture_name_id", "name", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(71))
    name: Mapped[str] = mapped_column(String(200))
    family: Mapped[str] = mapped_column(String(200), index=True)
    input_shape: Mapped[list[int]]
    parameters: Mapped[int] = mapped_column(BigInteger)
    prunable: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[int] = mapped_column(BigInteger)
    graph: Mapped[Json] = mapped_column(deferred=True, deferred_raiseload=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def check_name(name: str, at: str) -> str:
    """Return a network's name, which people must be able to tell from another one: plain ASCII.

    Args:
        at: JSON pointer of the name.

    Raises:
        InvalidArchitecture: a character that may look like another one, or like none.
    """
    if not _NAME.fullmatch(name):
        detail = f"{name[:100]!a} is not a network's name: 1 to 100 of A-Z, a-z, 0-9, spaces and '._+-'"
        raise InvalidArchitecture(f"name: {detail}.", errors=[Problem(at, "pattern", detail)])
    return name


def keep_architecture(session: Session, architecture: Architecture) -> int:
    """Return the id of a graph's row, added if it is new."""
    query = select(ArchitectureRow.id).where(ArchitectureRow.digest == architecture.digest)
    known = session.scalar(query)
    if known is not None:
        return known
    insert_if_absent(
        session,
        ArchitectureRow,
        digest=architecture.digest,
        name=architecture.name,
        family=architecture.family,
        input_shape=list(architecture.input),
        parameters=architecture.parameter_count,
        prunable=architecture.prunable_total,
        flops=architecture.flops(),
        graph=architecture.to_manifest(),
        created_at=utc_now(),
    )
    return session.scalars(query).one()


def list_architectures(session: Session, *, limit: int, cursor: str | None) -> Page[ArchitectureRow]:
    """Return the architectures of published tickets, by name. Raises: InvalidCursor."""
    bound_to = binding("architectures")
    query = select(ArchitectureRow).order_by(ArchitectureRow.name, ArchitectureRow.id).limit(limit + 1)
    if cursor is not None:
        name, after = read_cursor(cursor, bound_to, (str, int))
        later = (ArchitectureRow.name > name) | (
            (ArchitectureRow.name == name) & (ArchitectureRow.id > after)
        )
        query = query.where(later)
    return cut_page(session.scalars(query).all(), limit, bound_to, lambda row: (row.name, row.id))


def get_architecture(session: Session, name: str) -> ArchitectureRow:
    """Return an architecture by its digest, or the oldest one of that name.

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
