"""What the routes of lists have in common: `limit`, `cursor`, and the Link header."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response

MAX_LIMIT = 100
DEFAULT_LIMIT = 25

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="most items on the page")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before, of the same query")]


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Say where the next page is: Link: <...>; rel="next"."""
    if cursor is None:
        return
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    url = request.url.replace(query=urlencode([*query, ("cursor", cursor)]))
    response.headers["Link"] = f'<{url}>; rel="next"'
