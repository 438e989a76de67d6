"""The query parameters of a search, as a Search."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from app.ranges import Range, instant, integer, number, parse_range
from app.tickets.search import FACETS, Search
from nirvana.errors import InvalidQuery, Problem

Text = Annotated[str | None, Query(max_length=200)]
Numbers = Annotated[str | None, Query(max_length=200, examples=["min:0.01,max:0.05"])]
PARSERS = {
    "density": number,
    "kept": integer,
    "accuracy": number,
    "accuracy_gap": number,
    "rewind_step": integer,
    "created_at": instant,
}


def read_search(
    q: Annotated[str | None, Query(max_length=200, description="words, or their beginnings")] = None,
    task: Text = None,
    architecture: Text = None,
    family: Text = None,
    method: Text = None,
    verdict: Annotated[str | None, Query(description="such as winning; in any case")] = None,
    license: Text = None,
    owner: Text = None,
    tag: Text = None,
    init: Annotated[Literal["seeded", "stored"] | None, Query(description="kind of initial values")] = None,
    density: Numbers = None,
    kept: Numbers = None,
    accuracy: Annotated[str | None, Query(max_length=200, description="measured, in [0, 1]")] = None,
    accuracy_gap: Numbers = None,
    rewind_step: Numbers = None,
    created_at: Numbers = None,
    include_yanked: bool = False,
    sort: Literal["created_at", "accuracy", "gap", "density", "kept"] = "created_at",
    order: Literal["asc", "desc"] | None = None,
) -> Search:
    """What the query asks for. Raises: InvalidQuery."""
    equal = {"task": task, "architecture": architecture, "family": family, "method": method}
    equal |= {"verdict": verdict.upper() if verdict else None, "license": license}
    ranges = {"density": density, "kept": kept, "accuracy": accuracy, "accuracy_gap": accuracy_gap}
    ranges |= {"rewind_step": rewind_step, "created_at": created_at}
    return Search(
        q=q or "",
        equal={name: value for name, value in equal.items() if value},
        owner=owner,
        tag=tag,
        initial=init,
        ranges=_ranges(ranges),
        include_yanked=include_yanked,
        sort=sort,
        order=order,
    )


def _ranges(texts: dict[str, str | None]) -> dict[str, Range]:
    return {name: parse_range(name, text, PARSERS[name]) for name, text in texts.items() if text}


def read_facets(
    facets: Annotated[str | None, Query(description=f"comma-separated: {', '.join(FACETS)}")] = None,
) -> tuple[str, ...]:
    """Which facets to count. Raises: InvalidQuery."""
    names = tuple(dict.fromkeys(facets.split(","))) if facets else ()
    for name in names:
        if name not in FACETS:
            detail = f"{name[:100]!r} is none of {', '.join(FACETS)}"
            raise InvalidQuery(
                f"facets: {detail}.", errors=[Problem("/query/facets", "unknown-facet", detail)]
            )
    return names
