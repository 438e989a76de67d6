"""The grammar of ranges in a query: `min:0.01`, `max:0.05` or `min:0.01,max:0.05`, ends included."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nirvana.errors import InvalidQuery, Problem


@dataclass(frozen=True)
class Range:
    """A range with both ends included; None: open."""

    minimum: Any = None
    maximum: Any = None


def parse_range(name: str, text: str, parse: Callable[[str], Any]) -> Range:
    """The range that a query parameter gives.

    Args:
        name: the parameter, for the complaint.
        parse: turns an end's text into a value, or raises ValueError.

    Raises:
        InvalidQuery: what was found and what was expected.
    """
    ends: dict[str, Any] = {}
    for part in text.split(","):
        end, colon, value = part.partition(":")
        if end not in ("min", "max") or not colon or end in ends:
            raise _refusal(name, text)
        try:
            ends[end] = parse(value)
        except ValueError:
            raise _refusal(name, text) from None
    if len(ends) == 2 and ends["min"] > ends["max"]:
        raise _refusal(name, text, "is empty: its min is above its max")
    return Range(ends.get("min"), ends.get("max"))


def number(text: str) -> float:
    """A finite number. Raises: ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def integer(text: str) -> int:
    """A whole number that the database can hold. Raises: ValueError."""
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(text)
    return value


def instant(text: str) -> datetime:
    """An RFC 3339 time or date; without a zone it is UTC. Raises: ValueError."""
    value = datetime.fromisoformat(text.replace(" ", "+"))
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None


def _refusal(
    name: str, text: str, what: str = "is not a range such as min:1, max:2 or min:1,max:2"
) -> InvalidQuery:
    problem = Problem(f"/query/{name}", "range", f"{text[:200]!r} {what}")
    return InvalidQuery(f"{name}={problem.detail}.", errors=[problem])
