"""Pages of a list, by keyset: a cursor says after which row the next page begins.

A cursor carries the row's sort values and a digest of the query that it belongs to. It is not signed: with
another value in it one reads the same public list from another place, which any filter does as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from nirvana.errors import InvalidCursor, Problem

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows of one page, and the cursor of the next."""

    rows: list[Row]
    next_cursor: str | None = None
    total: int | None = None
    facets: dict[str, dict[str, int]] = field(default_factory=dict)


def binding(*parts: Any) -> str:
    """A short digest of what a cursor belongs to."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def write_cursor(bound_to: str, values: Sequence[Any]) -> str:
    """The cursor after the row with these sort values."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([bound_to, *plain], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str, bound_to: str, kinds: Sequence[type]) -> list[Any]:
    """The sort values of a cursor.

    Args:
        bound_to: the binding of the query at hand.
        kinds: type of each value: int, float, str or datetime.

    Raises:
        InvalidCursor: it is not ours, or belongs to another query.
    """
    try:
        padded = text.encode() + b"=" * (-len(text) % 4)
        found, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if found == bound_to and len(values) == len(kinds):
            return [_read_value(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError):
        pass
    detail = "The cursor is not of this list with these filters; begin without one."
    raise InvalidCursor(detail, errors=[Problem("/query/cursor", "invalid-cursor", detail)])


def _read_value(value: Any, kind: Any) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)
    if kind is str and "\0" in value:
        raise ValueError(value)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise ValueError(value)
    if kind is int and not -(2**63) < value < 2**63:
        raise ValueError(value)
    return kind(value)
