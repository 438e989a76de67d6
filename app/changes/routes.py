"""REST route of the log of changes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.changes.schemas import ChangePage, changes_after
from app.dependencies import SessionDep
from app.schemas import problems

router = APIRouter(tags=["changes"])
MAX_CHANGES = 1000


@router.get("/changes", operation_id="list_changes", responses=problems(422))
def changes(
    session: SessionDep,
    since: Annotated[int, Query(ge=0, lt=2**31, description="serial of the last change that you know")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHANGES, description="most changes to return")] = 100,
) -> ChangePage:
    """What happened to listings after a serial: all that a mirror must follow. Nothing ever disappears from
    the log but what it says of listings that are private or in quarantine now."""
    items = changes_after(session, since, limit + 1)
    shown, has_more = items[:limit], len(items) > limit
    newest = shown[-1].serial if shown else since
    return ChangePage(items=shown, last_serial=newest, has_more=has_more)
