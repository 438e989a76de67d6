"""REST route of the log of changes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.changes.service import KINDS, list_changes
from app.db import Json
from app.dependencies import SessionDep
from app.schemas import Instant, ResponseModel, example, problems

router = APIRouter(tags=["changes"])
MAX_CHANGES = 1000
_CHANGE = {
    "serial": 7,
    "kind": "published",
    "listing": 3,
    "owner": "ada",
    "name": "lenet-300-100-digits-07",
    "digest": "sha256:" + "5f" * 32,
    "file_sha256": "sha256:" + "5f" * 32,
    "created_at": "2026-11-21T09:00:00Z",
}


class ChangeResponse(ResponseModel):
    """Something that happened to a listing."""

    model_config = ResponseModel.model_config | example(**_CHANGE)
    serial: int
    kind: Annotated[
        str,
        Field(
            description=f"one of {', '.join(KINDS)}; hidden: it is private now, and only its number is said"
        ),
    ]
    listing: Annotated[int, Field(description="the same number for the same owner/name, for ever")]
    owner: str | None
    name: str | None
    digest: str | None
    file_sha256: str | None
    created_at: Instant


class ChangePage(ResponseModel):
    """Changes in the order in which they happened."""

    model_config = ResponseModel.model_config | example(items=[_CHANGE], last_serial=7, has_more=False)
    items: list[ChangeResponse]
    last_serial: Annotated[int, Field(description="to ask for what comes after")]
    has_more: bool


@router.get("/changes", operation_id="list_changes", responses=problems(422))
def changes(
    session: SessionDep,
    since: Annotated[int, Query(ge=0, lt=2**31, description="serial of the last change that you know")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHANGES, description="most changes to return")] = 100,
) -> ChangePage:
    """What happened to listings after a serial: all that a mirror must follow. Nothing ever disappears from
    the log but what it says of listings that are private now."""
    rows = list_changes(session, since, limit + 1)
    items = list[ChangeResponse]()
    for serial, kind, listing, created_at, *about, visibility in rows[:limit]:
        owner, name, digest, file_digest = about if visibility == "public" else [None] * 4
        item: Json = {"owner": owner, "name": name, "digest": digest, "file_sha256": file_digest}
        item |= {"serial": serial, "kind": kind, "listing": listing, "created_at": created_at}
        items.append(ChangeResponse.model_validate(item))
    newest = items[-1].serial if items else since
    return ChangePage(items=items, last_serial=newest, has_more=len(rows) > limit)
