"""Pages of a list, by keyset: a cursor says after which row the next page begins.

A cursor carries the row's sort values and a digest of the query that it belongs to. It is not signed: with
another value in it one reads the same public list from another place, which any filter does as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar, overload

from nirvana.errors import InvalidCursor, Problem

MAX_LIMIT = 100
DEFAULT_LIMIT = 25

Row = TypeVar("Row")
SortValue = int | float | str | datetime
First = TypeVar("First")
Second = TypeVar("Second")
Third = TypeVar("Third")
Fourth = TypeVar("Fourth")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows of one page, and the cursors of those around it.

    Attributes:
        total: of all pages; None: nobody counted.
        total_is_exact, facets_are_exact: False: estimates.
        more: id of a row -> how many others it stands for.
    """

    rows: list[Row]
    next_cursor: str | None = None
    previous_cursor: str | None = None
    total: int | None = None
    total_is_exact: bool = True
    facets: dict[str, dict[str, int]] = field(default_factory=dict)
    facets_are_exact: bool = True
    more: Mapping[int, int] = field(default_factory=dict)


def cut_page(
    rows: Sequence[Row], limit: int, bound_to: str, key: Callable[[Row], Sequence[SortValue]]
) -> Page[Row]:
    """Return the first `limit` rows as a page.

    Args:
        rows: one more than `limit` where there is a next page.
        bound_to: the binding of the query.
        key: the sort values of a row.
    """
    shown = list(rows[:limit])
    return Page(shown, write_cursor(bound_to, key(shown[-1])) if len(rows) > limit else None)


def cut_both(
    rows: Sequence[Row],
    limit: int,
    bound_to: str,
    key: Callable[[Row], Sequence[SortValue]],
    came: tuple[bool, bool],
) -> Page[Row]:
    """Return the first `limit` rows as a page that says what is before it, too. Its cursors begin with 1, for
    what follows a row, or with 0, for what goes before it.

    Args:
        came: by a cursor; and backwards, so that the rows are in the opposite order.
    """
    by_cursor, backwards = came
    shown, is_cut = list(rows[:limit]), len(rows) > limit
    if backwards:
        shown.reverse()
    if not shown:
        return Page(shown)
    follows, precedes = (backwards, is_cut) if backwards else (is_cut, by_cursor)
    return Page(
        shown,
        write_cursor(bound_to, (1, *key(shown[-1]))) if follows else None,
        write_cursor(bound_to, (0, *key(shown[0]))) if precedes else None,
    )


def binding(*parts: object) -> str:
    """Return a short digest of the query that a cursor belongs to."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def write_cursor(bound_to: str, values: Sequence[SortValue]) -> str:
    """Return the cursor after the row with these sort values."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([bound_to, *plain], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@overload
def read_cursor(text: str, bound_to: str, kinds: tuple[type[First]]) -> tuple[First]: ...
@overload
def read_cursor(
    text: str, bound_to: str, kinds: tuple[type[First], type[Second]]
) -> tuple[First, Second]: ...
@overload
def read_cursor(
    text: str, bound_to: str, kinds: tuple[type[First], type[Second], type[Third]]
) -> tuple[First, Second, Third]: ...
@overload
def read_cursor(
    text: str, bound_to: str, kinds: tuple[type[First], type[Second], type[Third], type[Fourth]]
) -> tuple[First, Second, Third, Fourth]: ...
def read_cursor(text: str, bound_to: str, kinds: tuple[type[object], ...]) -> tuple[object, ...]:
    """Return the sort values of a cursor.

    Args:
        bound_to: the binding of the query at hand.
        kinds: type of each value: int, float, str or datetime.

    Raises:
        InvalidCursor: it is not ours, or belongs to another query.
    """
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        written_for, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if written_for == bound_to and len(values) == len(kinds):
            return tuple(_read_value(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError):
        pass
    detail = "The cursor is not of this list with these filters; begin without one."
    raise InvalidCursor(detail, errors=[Problem("/query/cursor", "invalid-cursor", detail)])


def _read_value(value: object, kind: type[object]) -> SortValue:
    """Return a value of a cursor's JSON as its type. Raises: ValueError, OverflowError."""
    if isinstance(value, str):
        if kind is datetime:
            return datetime.fromisoformat(value).astimezone(UTC)
        if kind is str and "\0" not in value and value.encode():  # half a character is a ValueError
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if kind is float:
            return float(value)
        if kind is int and isinstance(value, int) and -(2**63) < value < 2**63:
            return value
    raise ValueError(value)
