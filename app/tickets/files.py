"""Handing out files: ETag, ranges, caching, and exports that are made once."""

from __future__ import annotations

import re

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.settings import Settings
from app.storage import Storage, ticket_key
from app.tickets.models import Ticket as Listing
from nirvana.errors import RangeNotSatisfiable, StorageFailed
from nirvana.ticket import MEDIA_TYPE, Limits, Ticket

YEAR_SECONDS = 31_536_000
EXPORTS = "2"  # raise it when an export's bytes change, so that cached ones are made again
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def ticket_file(request: Request, storage: Storage, row: Listing) -> Response:
    """The .ticket file of a listing, or a part of it."""
    key = ticket_key(row.blob.digest)
    return _serve(request, storage, row, key, row.digest, MEDIA_TYPE, f"{row.owner.name}-{row.name}.ticket")


def export_file(request: Request, storage: Storage, settings: Settings, row: Listing, form: str) -> Response:
    """A listing in another form, made when it is first asked for. Raises: Invalid."""
    from nirvana.exports import FORMATS, export_ticket

    file_digest = row.blob.digest.removeprefix("sha256:")
    key = f"exports/{EXPORTS}/{file_digest[:2]}/{file_digest}-{form}"
    if form not in FORMATS or storage.size(key) is None:
        limits = Limits(settings.max_upload_bytes, settings.max_parameters)
        ticket = Ticket.from_bytes(storage.get(ticket_key(row.blob.digest)), limits)
        storage.put(key, export_ticket(ticket, form).content)
    _, suffix, media_type = FORMATS[form]
    name = f"{row.owner.name}-{row.name}{suffix}"
    return _serve(request, storage, row, key, f"{file_digest}-{form}-{EXPORTS}", media_type, name)


def _serve(
    request: Request, storage: Storage, row: Listing, key: str, tag: str, media_type: str, name: str
) -> Response:
    etag = f'"{tag}"'
    scope = "public" if row.visibility == "public" else "private"
    headers = {
        "ETag": etag,
        "Cache-Control": f"{scope}, max-age={YEAR_SECONDS}, immutable",
        "Accept-Ranges": "bytes",
        "Vary": "Authorization",
    }
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    size = storage.size(key)
    if size is None:
        raise StorageFailed(f"The file of {row.owner.name}/{row.name} is missing from the blob store.")
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    start, end = _range(request, etag, size)
    status = 200 if (start, end) == (0, size) else 206
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = storage.stream(key, start, end)
    return StreamingResponse(body, status, headers=headers, media_type=media_type)


def matches(header: str | None, etag: str) -> bool:
    """Does an If-None-Match header name this entity?"""
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags


def _range(request: Request, etag: str, size: int) -> tuple[int, int]:
    """First byte and the one after the last; the whole file where no single range is asked for.

    Raises:
        RangeNotSatisfiable: the range lies outside.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or found[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return 0, size
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < start:
        return 0, size
    if start >= size:
        detail = f"The file has {size} bytes, and the range {found[0]!r} lies outside."
        raise RangeNotSatisfiable(detail, size=size)
    return start, end
