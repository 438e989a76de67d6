"""Bodies of changes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from sqlalchemy.orm import Session

from app.changes.service import KINDS, list_changes
from app.db import Json
from app.schemas import Instant, ResponseModel, example

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
            description=f"one of {', '.join(KINDS)}; hidden: it is private or in quarantine now, "
            "and only its number is said"
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


def changes_after(session: Session, since: int, limit: int) -> list[ChangeResponse]:
    """Return the changes after a serial, as anybody may read them."""
    items = list[ChangeResponse]()
    for serial, kind, listing, created_at, *about, is_open in list_changes(session, since, limit):
        owner, name, digest, file_digest = about if is_open else [None] * 4
        item: Json = {"owner": owner, "name": name, "digest": digest, "file_sha256": file_digest}
        item |= {"serial": serial, "kind": kind, "listing": listing, "created_at": created_at}
        items.append(ChangeResponse.model_validate(item))
    return items
