"""The filters of a search: one row each, and the grammar of ranges.

The rows of FILTERS make the query parameters of `GET /api/v1/tickets`, the fields of the search page, the
options of `nirvana search` and the keywords of `Client.search`. A range is written `min:0.01`, `max:0.05` or
`min:0.01,max:0.05`, with both ends included.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from nirvana.errors import InvalidQuery, Problem

End = float | datetime
Value = str | float | datetime | None
MAX_LENGTH = 200
"""Most characters of a filter's text."""


@dataclass(frozen=True)
class Filter:
    """A filter, and all that each surface needs to offer it.

    Attributes:
        name: of the query parameter, the option and the keyword. A range has also `min_NAME` and `max_NAME`:
            the fields of the form, the options and the keywords.
        kind: `equal`: the column is this text; `choice`: one of `choices`; `range`: between two ends; `flag`:
            true; `words`: words of a text.
        help: a noun phrase in lower case, without a full stop.
        column: attribute of the service's listing that is compared. "": `name`; None: the service has a
            condition of its own for this filter (`CONDITIONS` in `app.tickets.search.conditions`).
        type: of a range's ends: float, int or datetime (RFC 3339, UTC where no zone is named).
        choices: value -> its label in the form.
        default: the choice where none is made.
        label: in the form; "": the form does not show the filter, and only accepts it.
        blank: what no choice is called in the form.
        percent: where the form takes a share in percent: the name that its fields have instead of `name`.
        facet: the values of the column are counted, and offered by the form.
        is_upper: the column holds capitals, and the filter takes any case.
    """

    name: str
    kind: Literal["equal", "choice", "range", "flag", "words"]
    help: str
    column: str | None = ""
    type: type[float] | type[datetime] = float
    choices: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    label: str = ""
    blank: str = "any"
    percent: str = ""
    facet: bool = False
    is_upper: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """The keywords of a range's ends."""
        return f"min_{self.name}", f"max_{self.name}"

    @property
    def annotation(self) -> object:
        """The type of the query parameter."""
        if self.kind == "flag":
            return bool
        if self.kind != "choice":
            return str | None
        return literal(self.choices) if self.default else operator.or_(literal(self.choices), None)

    @property
    def example(self) -> str:
        """An example of a range."""
        least, most = {float: (0.01, 0.05), int: (1000, 5000)}.get(self.type, ("2026-11-21", "2026-11-28"))
        return f"min:{least},max:{most}"


def literal(values: Iterable[str]) -> object:
    """Return the type of one of these texts."""
    alias: object = Literal.__getitem__(tuple(values))
    return alias


@dataclass(frozen=True)
class Sort:
    """An order of the listings.

    Attributes:
        label: in the form.
        column: attribute of the service's listing; it has no nulls, and an index with `id`.
        order: where none is asked for.
    """

    label: str
    column: str
    order: Literal["asc", "desc"]


RELEVANCE = "relevance"
SORTS = {
    "created_at": Sort("newest", "created_at", "desc"),
    "accuracy": Sort("test accuracy", "sort_accuracy", "desc"),
    "gap": Sort("gain over dense", "sort_gap", "desc"),
    "density": Sort("fewest % left", "density", "asc"),
    "kept": Sort("fewest weights", "kept", "asc"),
    "speedup": Sort("fewest operations of dense ones", "speedup", "desc"),
    "downloads": Sort("most downloads", "downloads", "desc"),
    RELEVANCE: Sort("relevance: words in the name first", "created_at", "desc"),
}

FILTERS = (
    Filter("q", "words", "words, or their beginnings", column=None, label="Words"),
    Filter("task", "equal", "task that the ticket is for", label="Task", facet=True),
    Filter(
        "architecture", "equal", "name of the network", "architecture_name", label="Architecture", facet=True
    ),
    Filter("family", "equal", "family of the network, such as lenet", facet=True),
    Filter("method", "equal", "pruning method, such as imp or one-shot", label="Method", facet=True),
    Filter("verdict", "equal", "such as winning; in any case", label="Verdict", facet=True, is_upper=True),
    Filter(
        "origin",
        "choice",
        "where its mask came from: attested by the registry's own search, sealed (of a task with secret test "
        "rows) or brought in; with verdict=winning attested and sealed first listings, unless this says more",
        choices={
            "attested": "attested",
            "sealed": "sealed",
            "brought-in": "brought in",
            "any": "any",
        },
        label="Origin",
        blank="winners: attested or sealed",
    ),
    Filter("license", "equal", "licence of the ticket, such as CC-BY-4.0", facet=True),
    Filter("owner", "equal", "account that published the ticket", column=None),
    Filter("tag", "equal", "tag of the listing", column=None),
    Filter("similar_to", "equal", "digest of a ticket: the 100 whose masks share most with it", column=None),
    Filter(
        "init",
        "choice",
        "kind of initial values",
        "initial_kind",
        choices={"seeded": "drawn from a seed", "stored": "stored in the file"},
    ),
    Filter(
        "density",
        "range",
        "density, the share of all weights of the network that is kept",
        label="% left",
        percent="left",
    ),
    Filter("kept", "range", "number of weights kept, prunable or not", type=int),
    Filter(
        "train_bytes",
        "range",
        "bytes that training keeps: parameters with gradients and Adam's moments, and places of weights",
        type=int,
    ),
    Filter("accuracy", "range", "measured test accuracy, in [0, 1]", "sort_accuracy"),
    Filter("accuracy_gap", "range", "measured test accuracy less the dense baseline's", "sort_gap"),
    Filter("speedup", "range", "operations of the dense network / those of the ticket, in theory"),
    Filter("rewind_step", "range", "rewind step, the updates before the initial values were taken", type=int),
    Filter("created_at", "range", "time of publication", type=datetime),
    Filter("include_yanked", "flag", "yanked tickets as well", column=None),
    Filter(
        "collapse",
        "flag",
        "of the tickets that one job found, the first in the order asked for; `more` counts the others",
        column=None,
    ),
)

ORDERS = (
    Filter(
        "sort",
        "choice",
        "order of the tickets; with words relevance, else the newest first, unless this says more",
        column=None,
        choices={name: sort.label for name, sort in SORTS.items()},
        label="Order by",
        blank="newest; with words: relevance",
    ),
    Filter(
        "order",
        "choice",
        "direction of the order",
        column=None,
        choices={"asc": "ascending", "desc": "descending"},
    ),
)

PARAMETERS = FILTERS + ORDERS


@dataclass(frozen=True)
class Range:
    """A range with both ends included; None: open."""

    minimum: End | None = None
    maximum: End | None = None


def parse_range(name: str, text: str, parse: Callable[[str], End]) -> Range:
    """Return the range that a query parameter gives.

    Args:
        name: the parameter, for the complaint.
        parse: turns an end's text into a value, or raises ValueError.

    Raises:
        InvalidQuery: the text is no range, or an empty one.
    """
    ends: dict[str, End] = {}
    for part in text.split(","):
        end, colon, value = part.partition(":")
        if end not in ("min", "max") or not colon or end in ends:
            raise _refusal(name, text)
        try:
            ends[end] = parse(value)
        except ValueError:
            raise _refusal(name, text) from None
    if len(ends) == 2 and ends["min"] > ends["max"]:  # type: ignore[operator]
        raise _refusal(name, text, "is empty: its min is above its max")
    return Range(ends.get("min"), ends.get("max"))


def number(text: str) -> float:
    """Parse a finite number. Raises: ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def integer(text: str) -> int:
    """Parse a whole number that a database can hold. Raises: ValueError."""
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(text)
    return value


def instant(text: str) -> datetime:
    """Parse an RFC 3339 time or date; without a zone it is UTC. Raises: ValueError."""
    value = datetime.fromisoformat(text.replace(" ", "+"))
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None


PARSERS: dict[type, Callable[[str], End]] = {float: number, int: integer, datetime: instant}


def _refusal(
    name: str, text: str, reason: str = "is not a range such as min:1, max:2 or min:1,max:2"
) -> InvalidQuery:
    problem = Problem(f"/query/{name}", "range", f"{text[:200]!r} {reason}")
    return InvalidQuery(f"{name}={problem.detail}.", errors=[problem])


def query_of(keywords: Mapping[str, Value]) -> dict[str, str]:
    """Return the query parameters of a search's keywords: min_x and max_x become the range x.

    Args:
        keywords: PARAMETERS' names, and the ends of their ranges; None means no filter.

    Raises:
        InvalidQuery: a keyword that is none; a typo must never widen a search.
    """
    known = dict(_keywords())
    query: dict[str, str] = {}
    for keyword, value in keywords.items():
        if keyword not in known:
            detail = f"{keyword!r} is none of {', '.join(known)}"
            problem = Problem(f"/query/{keyword}", "unknown-parameter", detail)
            raise InvalidQuery(f"Query parameter {detail}.", errors=[problem])
        if value is not None:
            name, bound = known[keyword]
            query[name] = ",".join(filter(None, [query.get(name), bound + _write(value)]))
    return query


def _keywords() -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each keyword with its query parameter and the bound that it stands for."""
    for row in PARAMETERS:
        yield row.name, (row.name, "")
        if row.kind == "range":
            yield from zip(row.ends, ((row.name, "min:"), (row.name, "max:")), strict=True)


def _write(value: str | float | datetime) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)
