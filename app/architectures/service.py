"""The table of architectures, and its rules: a row for every graph that a published ticket was cut from."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    String,
    UniqueConstraint,
    and_,
    column,
    exists,
    or_,
    select,
    table,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, undefer

from app.accounts.models import Account
from app.accounts.organisations.roles import may_see
from app.architectures.names import check_name
from app.db import Base, Json, insert_if_absent, utc_now
from app.pagination import Page, binding, cut_page, read_cursor
from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import Shape

# `app.tickets` knows architectures, not the other way round, so its table is named here and not imported.
LISTING = table(
    "ticket",
    *(column(name) for name in ("id", "owner_id", "visibility", "architecture_id")),
    *(column(name) for name in ("architecture_name", "family", "quarantined_at")),
)


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


def bound_name(architecture: Architecture, owner: str) -> tuple[str, str]:
    """Return the name and the family that a graph is listed by: its own where it is the zoo's graph of that
    name, else with its owner's name before them, so that nobody's network goes by another's.

    Raises:
        InvalidArchitecture: the name has a character that may look like another one.
    """
    name = check_name(architecture.name, "/architecture/name")
    if _zoo_digest(name, architecture.input, architecture.output_shape[-1]) == architecture.digest:
        return name, architecture.family
    return f"{owner}/{name}", f"{owner}/{architecture.family}"


@lru_cache(maxsize=1024)
def _zoo_digest(name: str, input_shape: Shape, classes: int) -> str | None:
    try:
        return zoo.build(name, input_shape, classes).digest
    except (NotFound, InvalidArchitecture):
        return None


def keep_architecture(
    session: Session, architecture: Architecture, name: str, family: str, *, is_public: bool
) -> int:
    """Return the id of a graph's row, added if it is new. The zoo's name goes before an owner's, and a
    graph that is only in private listings has its digest for a name: theirs would tell of them.

    Args:
        name, family: of `bound_name`.
    """
    is_zoos = "/" not in name
    if not (is_zoos or is_public):
        name = family = architecture.digest
    query = select(ArchitectureRow).where(ArchitectureRow.digest == architecture.digest)
    row = session.scalars(query).one_or_none()
    if row is None:
        _insert(session, architecture, name, family)
        row = session.scalars(query).one()
    is_better = is_zoos or (is_public and row.name == row.digest)
    if is_better and row.name != name:
        row.name, row.family = name, family
    return row.id


def _insert(session: Session, architecture: Architecture, name: str, family: str) -> None:
    insert_if_absent(
        session,
        ArchitectureRow,
        digest=architecture.digest,
        name=name,
        family=family,
        input_shape=list(architecture.input),
        parameters=architecture.parameter_count,
        prunable=architecture.prunable_total,
        flops=architecture.flops(),
        graph=architecture.to_manifest(),
        created_at=utc_now(),
    )


def rename_architecture(session: Session, architecture_id: int) -> None:
    """Give a graph that is not the zoo's the name of a public listing, after one was shown or hidden."""
    row = session.get_one(ArchitectureRow, architecture_id)
    if row.name != row.digest and "/" not in row.name:
        return
    session.flush()
    of_graph = (LISTING.c.architecture_id == architecture_id, _may_see(None))
    kept = select(LISTING.c.id).where(*of_graph, LISTING.c.architecture_name == row.name).limit(1)
    if session.scalar(kept) is None:
        names = select(LISTING.c.architecture_name, LISTING.c.family).where(*of_graph)
        first = session.execute(names.order_by(LISTING.c.id).limit(1)).one_or_none()
        row.name, row.family = first or (row.digest, row.digest)
        session.flush()


def _visible_to(reader: Account | None) -> ColumnElement[bool]:
    """Return the condition of the graphs of listings that a reader may see, yanked or not."""
    return exists().where(LISTING.c.architecture_id == ArchitectureRow.id, _may_see(reader))


def _may_see(reader: Account | None) -> ColumnElement[bool]:
    seen = may_see(LISTING.c.visibility, LISTING.c.owner_id, reader)
    return and_(seen, LISTING.c.quarantined_at.is_(None))


def list_architectures(
    session: Session, reader: Account | None, *, limit: int, cursor: str | None
) -> Page[ArchitectureRow]:
    """Return the architectures of the tickets that a reader may see, by name. Raises: InvalidCursor."""
    bound_to = binding("architectures")
    query = select(ArchitectureRow).where(_visible_to(reader)).limit(limit + 1)
    query = query.order_by(ArchitectureRow.name, ArchitectureRow.id)
    if cursor is not None:
        name, after = read_cursor(cursor, bound_to, (str, int))
        later = (ArchitectureRow.name > name) | (
            (ArchitectureRow.name == name) & (ArchitectureRow.id > after)
        )
        query = query.where(later)
    return cut_page(session.scalars(query).all(), limit, bound_to, lambda row: (row.name, row.id))


def get_architecture(session: Session, name: str, reader: Account | None) -> ArchitectureRow:
    """Return an architecture by its digest, or the oldest one of that name (a name of the zoo has a graph for
    each shape of input and number of classes).

    Raises:
        NotFound: no ticket that the reader may see has it.
    """
    query = select(ArchitectureRow).options(undefer(ArchitectureRow.graph)).order_by(ArchitectureRow.id)
    query = query.where(_visible_to(reader))
    listed = select(LISTING.c.architecture_id).where(LISTING.c.architecture_name == name, _may_see(reader))
    named = or_(ArchitectureRow.name == name, ArchitectureRow.id == listed.limit(1).scalar_subquery())
    is_named = ArchitectureRow.digest == name if name.startswith("sha256:") else named
    row = session.scalars(query.where(is_named).limit(1)).one_or_none()
    if row is None:
        known = ", ".join(zoo.names())
        raise NotFound(f"No published ticket has the architecture {name!r}; the zoo builds {known}.")
    return row
