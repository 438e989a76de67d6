"""Full text of listings by the database's own engine: SQLite's FTS5, PostgreSQL's tsvector with a GIN index.

A word is a run of letters and digits in lower case, the same on both databases; it is found by its beginning
too. Each is kept with the ranks that it counts for: `1lenet` where the name has it, `2lenet` where the name,
the owner, the task, the architecture, the method or a tag has it, `3lenet` wherever it stands. So one index
answers for each rank, and no engine has to read every hit to find the best ones.

The table `ticket_text` is not among the models, because on SQLite it is a virtual one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    TextClause,
    bindparam,
    column,
    delete,
    exists,
    false,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.tickets.models import Listing

MAX_WORD_LENGTH = 40
MAX_PROSE_WORDS = 5000
MOST_TRIED = 3  # words by themselves
RANKS = (1, 2, 3)
ANYWHERE = 3
_WORD = re.compile(r"[^\W_]+")
_INSERT_SQLITE = text("INSERT INTO ticket_text (rowid, words) VALUES (:id, :words)")
_INSERT_POSTGRES = text(
    "INSERT INTO ticket_text (ticket_id, words) VALUES (:id, CAST(:words AS tsvector)) "
    "ON CONFLICT (ticket_id) DO UPDATE SET words = excluded.words"
)


def words(text: str) -> Iterator[str]:
    """Yield the words of a text: runs of letters and digits, lower case, cut at 40 characters."""
    for word in _WORD.finditer(text.lower()):
        yield word[0][:MAX_WORD_LENGTH]


def keep_words(session: Session, owned: Iterable[tuple[Listing, str]]) -> None:
    """Write the words by which listings are found.

    Args:
        owned: each, whose card must be loaded, with its owner's name.
    """
    is_sqlite = _is_sqlite(session)
    pattern = "{}" if is_sqlite else "'{}'"
    rows = [
        {"id": row.id, "words": " ".join(pattern.format(word) for word in _ranked(row, owner))}
        for row, owner in owned
    ]
    if is_sqlite:
        there = literal_column("rowid").in_([row["id"] for row in rows])
        session.execute(delete(table("ticket_text")).where(there))
    session.connection().execute(_INSERT_SQLITE if is_sqlite else _INSERT_POSTGRES, rows)


def _ranked(row: Listing, owner: str) -> Iterable[str]:
    """Return the words of a listing with the ranks that each counts for."""
    about = (owner, row.task, row.architecture_name, row.method, *row.tags)
    parts = [_words_of(row.name), _words_of(*about), _words_of(row.description, row.card)[:MAX_PROSE_WORDS]]
    return dict.fromkeys(f"{rank}{word}" for rank in RANKS for part in parts[:rank] for word in part)


def _words_of(*texts: str | None) -> list[str]:
    return list(dict.fromkeys(words(" ".join(text for text in texts if text))))


@dataclass(frozen=True)
class Words:
    """The words of a query on a database. Without one it finds nothing.

    Attributes:
        is_sqlite: else PostgreSQL.
    """

    words: tuple[str, ...]
    is_sqlite: bool

    @classmethod
    def of(cls, session: Session, query: str) -> Words:
        return cls(tuple(_words_of(query)), _is_sqlite(session))

    def likely_rare(self) -> Iterator[Words]:
        """Yield the words by themselves that are likely to be in few listings: of several, the longest ones,
        the last ones first. A rare one spares the database all hits of the common ones."""
        order = sorted(self.words, key=len)[::-1] if len(self.words) > 1 else []
        yield from (Words((word,), self.is_sqlite) for word in order[:MOST_TRIED])

    def find(
        self, session: Session, rank: int, *, most: int, after: int | None = None, descending: bool = True
    ) -> list[int]:
        """Return the ids of the listings that have every word, in order.

        Args:
            rank: one of RANKS, where the words may stand.
            most: ids to give.
            after: the id that the ones before ended with.
        """
        if not self.words:
            return []
        number: ColumnElement[int] = literal_column(self._id)
        query = select(number).select_from(table("ticket_text")).where(self._match(rank))
        if after is not None:
            query = query.where(number < after if descending else number > after)
        order = number.desc() if descending else number
        return list(session.scalars(query.order_by(order).limit(most)))

    def is_in(self, ticket_id: InstrumentedAttribute[int], rank: int = ANYWHERE) -> ColumnElement[bool]:
        """Return the condition that a listing has every word, checked for one listing after the other."""
        if not self.words:
            return false()
        number: ColumnElement[int] = literal_column(f"ticket_text.{self._id}")
        if not self.is_sqlite:  # a scalar, because PostgreSQL would look up all hits of an EXISTS first
            matches = select(self._match(rank)).select_from(table("ticket_text")).where(number == ticket_id)
            return func.coalesce(matches.scalar_subquery(), false())
        written: ColumnElement[str] = literal(" ") + column("words")
        checks = [number == ticket_id, *(func.instr(written, f" {rank}{word}") > 0 for word in self.words)]
        return exists(select(literal(1)).select_from(table("ticket_text")).where(*checks))

    @property
    def _id(self) -> str:
        return "rowid" if self.is_sqlite else "ticket_id"

    def _match(self, rank: int) -> TextClause:
        if self.is_sqlite:
            clause, query = "ticket_text MATCH :match", _join('"{}" *', rank, self.words, " AND ")
        else:
            clause, query = "words @@ CAST(:match AS tsquery)", _join("'{}':*", rank, self.words, " & ")
        return text(clause).bindparams(bindparam("match", query, unique=True))


def _join(pattern: str, rank: int, wanted: Iterable[str], glue: str) -> str:
    return glue.join(pattern.format(f"{rank}{word}") for word in wanted)


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"
