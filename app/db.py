"""The database: engine, sessions and the few things that SQLite and PostgreSQL do differently.

A write session begins at once (SQLite: BEGIN IMMEDIATE), so two writers wait for each other instead of
failing half-way; a read session takes no lock, and on PostgreSQL cannot write at all.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Executable,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    any_,
    create_engine,
    event,
    inspect,
    literal,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import IntegrityError, InvalidatePoolError
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.types import JSON, TypeDecorator

from app.settings import Settings
from nirvana.errors import NirvanaError

ANALYSED_ROWS = 1000  # of an index
REST_SECONDS = 1.0  # after which a connection may have been closed
_USED = "nirvana_used"
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Json = dict[str, Any]
"""A JSON object: a column of it, or one that a client sends or reads."""

Exact = String().with_variant(String(collation="C"), "postgresql")
"""A string that sorts by its bytes on both databases, so that a prefix is a range of an index."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware and in UTC in Python, on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"an instant needs a time zone, got {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The base of every table: relationships are lazy="raise", so an N+1 is an exception."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        Json: JSON,
        list[Json]: JSON,
        list[int]: JSON,
        list[str]: JSON,
    }


def utc_now() -> datetime:
    """Return this instant, aware, in UTC."""
    return datetime.now(UTC)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Return the check constraint of an enumeration that is kept as a string."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")


def make_engine(url: str, *, pool_size: int = 10, wait_seconds: float = 10) -> Engine:
    """Make an engine for SQLite (WAL, foreign keys on) or PostgreSQL (psycopg 3).

    Args:
        url: SQLAlchemy URL; `postgresql://` means psycopg 3.
        pool_size: connections kept open.
        wait_seconds: longest wait for a lock (SQLite) or for a free connection.
    """
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    make = partial(create_engine, url, pool_size=pool_size, max_overflow=pool_size, pool_timeout=wait_seconds)
    if url.startswith("sqlite"):
        engine = make(connect_args={"timeout": wait_seconds})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = make(connect_args={"connect_timeout": 10})
    event.listen(engine, "checkin", _note_time)
    event.listen(engine, "checkout", partial(_ping_after_a_rest, engine.dialect.loaded_dbapi.Error))
    return engine


def _note_time(_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()


def _ping_after_a_rest(
    broken: type[Exception],
    connection: DBAPIConnection,
    record: ConnectionPoolEntry,
    _proxy: PoolProxiedConnection,
) -> None:
    """Let a connection that the database closed meanwhile be replaced; one that was just used is believed,
    because a question before each request costs as much as the request's own."""
    used = record.info.get(_USED)
    if used is None or time.monotonic() - used < REST_SECONDS:
        return
    try:
        connection.cursor().execute("SELECT 1")
        connection.rollback()
    except broken as error:
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin: _begin_sqlite does
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")


class Database:
    """An engine with its two kinds of sessions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        readers = engine.execution_options(reads_only=True)
        if engine.dialect.name == "postgresql":
            readers = readers.execution_options(postgresql_readonly=True)
        self.make_writer = sessionmaker(engine, expire_on_commit=False)
        self.make_reader = sessionmaker(readers, expire_on_commit=False)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open one transaction that may write: committed at the end, rolled back by an exception."""
        with self.make_writer() as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open one transaction that only reads, and never waits for a writer."""
        with self.make_reader() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open one transaction that only reads, and sees one moment however long it takes."""
        with self.make_reader() as session:
            if self.engine.dialect.name == "postgresql":  # SQLite's readers do so anyway
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def analyse(self) -> None:
        """Give SQLite's planner its statistics, from some rows of each index; PostgreSQL takes its own."""
        if self.engine.dialect.name == "sqlite":
            with self.engine.begin() as connection:
                connection.exec_driver_sql(f"PRAGMA analysis_limit = {ANALYSED_ROWS}")
                connection.exec_driver_sql("ANALYZE")

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def make_database(settings: Settings) -> Database:
    """Make the database of the settings."""
    url, size, wait = settings.database_url, settings.database_pool_size, settings.database_wait_seconds
    return Database(make_engine(url, pool_size=size, wait_seconds=wait))


def insert_if_absent(session: Session, model: type[Base], **values: object) -> bool:
    """Insert a row unless a unique constraint says that it exists; return True where it was inserted.

    Two transactions that do so at once are both right: the second waits for the first, then finds its row.
    """
    return session.execute(_insert_absent(model, _dialect(session)), values).first() is not None


def insert_all_absent(
    session: Session,
    model: type[Base],
    rows: Sequence[Mapping[str, object]],
    *returned: InstrumentedAttribute[Any],
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Insert those of some rows that no unique constraint says exist, many with one statement.

    Args:
        returned: columns to give back of the rows that were inserted; none: the primary key.
    """
    if not rows:
        return []
    statement = _insert_all_absent(model, _dialect(session), returned)
    return session.connection().execute(statement, list(rows)).all()


def add_counts(session: Session, model: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    """Add each row's `count` to that of the row with its primary key, which is inserted if need be."""
    dialect = _dialect(session)
    table = inspect(model).local_table
    insert = sqlite.Insert if dialect == "sqlite" else postgresql.Insert
    assert isinstance(table, Table)
    statement = insert(table)
    added = {"count": table.c.count + statement.excluded.count}
    keys = [column.name for column in inspect(model).primary_key]
    if rows:
        session.connection().execute(
            statement.on_conflict_do_update(index_elements=keys, set_=added), list(rows)
        )


@cache
def _insert_absent(model: type[Base], dialect: str) -> Executable:
    """Return a statement that is written and compiled once: building it costs more than running it."""
    return _insert(model, dialect).returning(*inspect(model).primary_key)


@cache
def _insert_all_absent(
    model: type[Base], dialect: str, returned: tuple[InstrumentedAttribute[Any], ...]
) -> Executable:
    columns = [one.property.columns[0] for one in returned] or inspect(model).primary_key
    return _insert(model, dialect).returning(*columns)


def _insert(model: type[Base], dialect: str) -> sqlite.Insert | postgresql.Insert:
    insert = sqlite.Insert if dialect == "sqlite" else postgresql.Insert
    table = inspect(model).local_table
    assert isinstance(table, Table)
    return insert(table).on_conflict_do_nothing()


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name


def add_to_count(session: Session, model: type[Base], change: int, **key: object) -> None:
    """Add to the column `number` of the row with a key, which is made where there is none yet."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(model).values(number=change, **key)
    number = model.__table__.c.number + statement.excluded.number
    session.execute(statement.on_conflict_do_update(index_elements=list(key), set_={"number": number}))


def is_among(
    session: Session, column: InstrumentedAttribute[Any], numbers: Sequence[int]
) -> ColumnElement[bool]:
    """Return the condition that a column has one of some numbers: on PostgreSQL with all of them in one
    parameter, because a thousand of them cost its driver more than the question costs the database."""
    if _dialect(session) == "postgresql":
        return column == any_(literal(list(numbers), postgresql.ARRAY(Integer)))
    return column.in_(numbers)


def constraint_of(error: IntegrityError) -> str:
    """Return the name of the unique constraint that a statement broke, "" where the database names none."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return str(diagnosis.constraint_name or "")
    broken = re.search(r"UNIQUE constraint failed: (.+)", str(error.orig))
    if broken is None:
        return ""
    columns = [column.strip().split(".") for column in broken[1].split(",")]
    return "_".join(["uq", columns[0][0], *(column for _, column in columns)])


@contextmanager
def unique(session: Session, conflicts: Mapping[str, NirvanaError]) -> Iterator[None]:
    """Flush at the end, and turn a broken unique constraint into the error of its name."""
    try:
        yield
        session.flush()
    except IntegrityError as error:
        conflict = conflicts.get(constraint_of(error))
        if conflict is None:
            raise
        raise conflict from error
