"""Atom feeds (RFC 4287) of new tickets and verdicts, of all tasks or of one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.changes.service import IS_OPEN, LISTING, OWNER, Change, last_serial
from app.dependencies import SessionDep, SettingsDep
from app.schemas import binary, problems

router = APIRouter(tags=["changes"])
MEDIA_TYPE = "application/atom+xml"
ENTRIES = 50
LOOKED_AT = 10_000  # newest changes: a feed of a task costs no more, however long the log is
Task = Annotated[str, Path(pattern=r"^([a-z0-9-]{1,39}/)?[A-Za-z0-9._-]{1,100}$")]
"""A name that XML has a place for."""
NAMESPACE = "http://www.w3.org/2005/Atom"


class Entry(NamedTuple):
    """A new ticket, or a new verdict on one."""

    serial: int
    kind: str
    at: datetime
    owner: str
    name: str
    task: str
    verdict: str | None

    @property
    def title(self) -> str:
        what = "new ticket" if self.kind == "published" else str(self.verdict).replace("_", " ").lower()
        return f"{self.owner}/{self.name} ({self.task}): {what}"


@router.get("/feeds/tickets.atom", operation_id="get_feed", response_class=Response, responses={
    200: binary(MEDIA_TYPE, "The newest 50."), 304: {"description": "Not modified"}
})  # fmt: skip
def feed(request: Request, session: SessionDep, settings: SettingsDep) -> Response:
    """New tickets and verdicts, the newest first."""
    return _respond(request, settings.public_url, list_entries(session, None), "Nirvana")


@router.get("/feeds/tasks/{task:task}.atom", operation_id="get_task_feed",
    response_class=Response, responses={
    200: binary(MEDIA_TYPE, "The newest 50."), 304: {"description": "Not modified"}, **problems(422)
})  # fmt: skip
def task_feed(request: Request, task: Task, session: SessionDep, settings: SettingsDep) -> Response:
    """New tickets and verdicts of a task, the newest first; none of a task that nobody has."""
    return _respond(request, settings.public_url, list_entries(session, task), f"Nirvana: {task}")


def list_entries(session: Session, task: str | None) -> list[Entry]:
    """Return the newest entries of public listings, the newest first."""
    query = (
        select(Change.id, Change.kind, Change.created_at, OWNER.c.name)
        .add_columns(LISTING.c.name, LISTING.c.task, LISTING.c.verdict)
        .join_from(Change, LISTING, LISTING.c.id == Change.listing_id)
        .join(OWNER, OWNER.c.id == LISTING.c.owner_id)
        .where(Change.kind.in_(("published", "verdict")), Change.id > last_serial(session) - LOOKED_AT)
        .where(IS_OPEN)
    )
    if task is not None:
        query = query.where(LISTING.c.task == task)
    return [Entry(*row) for row in session.execute(query.order_by(Change.id.desc()).limit(ENTRIES))]


def _respond(request: Request, address: str, entries: list[Entry], title: str) -> Response:
    body = write_feed(f"{address}{request.url.path}", address, entries, title)
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "Cache-Control": "max-age=300"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=MEDIA_TYPE)


def write_feed(own: str, address: str, entries: Iterable[Entry], title: str) -> bytes:
    """Return a feed as XML.

    Args:
        own: the feed's address.
        address: the service's.
    """
    root = ElementTree.Element("feed", xmlns=NAMESPACE)
    listed = list(entries)
    updated = listed[0].at if listed else datetime.fromtimestamp(0, UTC)
    _add(root, id=own, title=title, updated=updated.isoformat())
    ElementTree.SubElement(root, "link", rel="self", href=own)
    for entry in listed:
        node = ElementTree.SubElement(root, "entry")
        _add(node, id=f"{address}/api/v1/changes#{entry.serial}", title=entry.title)
        _add(node, updated=entry.at.isoformat())
        _add(ElementTree.SubElement(node, "author"), name=entry.owner)
        href = f"{address}/tickets/{quote(entry.owner)}/{quote(entry.name)}"
        ElementTree.SubElement(node, "link", href=href)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _add(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = text
