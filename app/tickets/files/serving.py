"""Files over HTTP: receiving an upload, and handing out a ticket or an export of it.

An upload is streamed to a temporary file, never past the cap, and never unpickled. Files are handed out with
ETag, ranges and caching; an export is made once.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import IO

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.db import Json
from app.limits.rates import Payer
from app.settings import Settings
from app.storage import Storage, ticket_key
from app.tickets.files.exporting import Exporter, Making
from app.tickets.models import Listing
from nirvana.errors import (
    Invalid,
    Malformed,
    Problem,
    RangeNotSatisfiable,
    StorageFailed,
    StorageFull,
    TooLarge,
    UnsupportedMedia,
)
from nirvana.format.container import PICKLE, is_pickle
from nirvana.format.reader import Limits
from nirvana.format.ticket import MEDIA_TYPE

FORM = "multipart/form-data"
ENVELOPE_BYTES = 64 * 1024  # a multipart body's parts besides the file
YEAR_SECONDS = 31_536_000
EXPORTS = "3"  # raise it when an export's bytes change, so that cached ones are made again
SUFFIXES = {  # of `nirvana.exports.FORMATS`, which is not loaded to hand out what is there
    "safetensors": (".safetensors", "application/octet-stream"),
    "numpy": (".npz", "application/octet-stream"),
    "csr": (".csr.npz", "application/octet-stream"),
    "onnx": (".onnx", "application/octet-stream"),
    "script": (".py", "text/x-python"),
}
_FILE = {"type": "string", "format": "binary"}
_RAW = {MEDIA_TYPE: {"schema": _FILE, "example": "(bytes)"}}
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_DIGITS = 18  # of a place in a file; more are past the end of any


@dataclass(frozen=True)
class Upload:
    """A file that was received whole, and the form fields that came with it."""

    data: bytes
    fields: dict[str, str] = field(default_factory=dict)


def describe_upload(fields: type[BaseModel] | None = None) -> Json:
    """Return the OpenAPI request body of an upload: the file itself, or a form with a model's fields."""
    form = fields.model_json_schema() if fields else {"examples": [{}]}
    schema = {
        "type": "object",
        "required": ["file", *form.get("required", [])],
        "properties": {"file": _FILE} | form.get("properties", {}),
    }
    content = _RAW | {FORM: {"schema": schema, "example": {"file": "(bytes)"} | form["examples"][0]}}
    return {"requestBody": {"required": True, "content": content}}


async def receive_ticket(request: Request, settings: Settings) -> Upload:
    """Receive the ticket file of a request, as its body or as the part `file` of a form.

    Raises:
        UnsupportedMedia: another media type, or a pickle.
        TooLarge: over the cap.
        Malformed: a broken form, or an upload that takes too long.
        StorageFull: no room for the temporary file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (MEDIA_TYPE, FORM):
        pickled = " A pickle is never read here." if "pickle" in kind or "torch" in kind else ""
        raise UnsupportedMedia(f"{kind or 'no media type'}: expected {MEDIA_TYPE} or {FORM}.{pickled}")
    try:
        with anyio.fail_after(settings.upload_seconds):
            upload = await (_read_form if kind == FORM else _read_body)(request, settings.max_upload_bytes)
    except TimeoutError:
        raise Malformed(f"The upload took more than {settings.upload_seconds:g} s.") from None
    except OSError as error:
        raise StorageFull("There is no room for the upload; nothing was stored.") from error
    refuse_pickle(upload.data)
    return upload


async def _read_body(request: Request, cap: int) -> Upload:
    with tempfile.TemporaryFile() as file:
        async for chunk in _capped(request, cap, cap):
            file.write(chunk)
        return Upload(_read_all(file))


async def _read_form(request: Request, cap: int) -> Upload:
    async with open_form(request, cap, max_fields=10) as (file, items):
        return Upload(_read_all(file.file, cap), dict(items))


@asynccontextmanager
async def open_form(
    request: Request, cap: int, *, max_fields: int
) -> AsyncIterator[tuple[UploadFile, list[tuple[str, str]]]]:
    """Receive a form with one file, `file`; yield it and the other fields. It is no longer than the cap, and
    on the disk where it is long.

    Raises:
        TooLarge: over the cap. Malformed: a broken form. Invalid: no file, or others.
    """
    body = _capped(request, cap + ENVELOPE_BYTES, cap)
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=max_fields).parse()
    except (MultiPartException, KeyError) as error:
        raise Malformed(f"The form cannot be read: {getattr(error, 'message', 'no boundary')}.") from None
    try:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        files = {name: value for name, value in form.multi_items() if not isinstance(value, str)}
        if set(files) != {"file"}:
            detail = f"the form has the files {sorted(files)}, expected one: file"
            raise Invalid(f"file: {detail}.", errors=[Problem("/file", "missing", detail)])
        if (files["file"].size or 0) > cap:
            raise _too_large(cap)
        yield files["file"], fields
    finally:
        await form.close()


def _read_all(file: IO[bytes], cap: int | None = None) -> bytes:
    file.seek(0)
    data = file.read() if cap is None else file.read(cap + 1)
    if cap is not None and len(data) > cap:
        raise _too_large(cap)
    return data


async def _capped(request: Request, cap: int, stated: int) -> AsyncGenerator[bytes]:
    """Yield the body in pieces; refuse it as soon as it is known to be over `cap`.

    Args:
        stated: the cap of the file alone, for the complaint.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > cap:
        raise _too_large(stated, int(announced))
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > cap:
            raise _too_large(stated)
        yield chunk


def _too_large(cap: int, announced: int | None = None) -> TooLarge:
    size = f"{announced} bytes" if announced else "more bytes than that"
    return TooLarge(f"The file may have {cap} bytes, and this has {size}.", limit_bytes=cap)


def refuse_pickle(data: bytes) -> None:
    """Refuse a file that is a pickle. Raises: UnsupportedMedia."""
    if is_pickle(data):
        raise UnsupportedMedia(f"This is {PICKLE}. Expected a ticket, {MEDIA_TYPE}.")


@dataclass(frozen=True)
class Download:
    """A file to hand out.

    Attributes:
        key: of the blob.
        tag: its entity tag, without quotes.
        name: the file's, for whom saves it.
        is_public: anybody may keep it.
        is_immutable: the address gives these bytes for ever.
        content: the bytes, where they are at hand.
    """

    key: str
    tag: str
    media_type: str
    name: str
    is_public: bool = True
    is_immutable: bool = True
    content: bytes | None = None


@dataclass(frozen=True)
class Exits:
    """Other servers that may hand out a blob in the service's place.

    Attributes:
        accel_prefix: NIRVANA_ACCEL_PREFIX.
        presign_seconds: NIRVANA_PRESIGN_SECONDS.
    """

    accel_prefix: str = ""
    presign_seconds: int = 0


NO_EXITS = Exits()


@dataclass(frozen=True)
class Export:
    """A listing in another form.

    Attributes:
        form: one of `nirvana.exports.FORMATS`.
        is_immutable: the address that asks for it means this listing for ever.
    """

    row: Listing
    form: str
    is_immutable: bool = True


async def export_file(request: Request, exporter: Exporter, payer: Payer, export: Export) -> Response:
    """Return a listing in another form, made when it is first asked for. Raises: Invalid, RateLimited."""
    row, form = export.row, export.form
    file_digest = row.blob.digest.removeprefix("sha256:")
    key = f"exports/{EXPORTS}/{file_digest[:2]}/{file_digest}-{form}"
    suffix, media_type = SUFFIXES[form]
    name, tag = f"{row.owner.name}-{row.name}{suffix}", f"{file_digest}-{form}-{EXPORTS}"
    if not matches(request.headers.get("if-none-match"), f'"{tag}"'):
        making = Making(ticket_key(row.blob.digest), form, key, row.parameters)
        await exporter.ensure(making, payer)
    download = Download(key, tag, media_type, name, row.visibility == "public", export.is_immutable)
    return await run_in_threadpool(serve, request, exporter.storage, download, exits_of(exporter.settings))


def limits_of(settings: Settings) -> Limits:
    """Return the limits of the ticket files that the service reads."""
    return Limits(settings.max_upload_bytes, settings.max_parameters)


def exits_of(settings: Settings) -> Exits:
    """Return the other servers that the settings name."""
    return Exits(settings.accel_prefix, settings.presign_seconds)


def serve(request: Request, storage: Storage, download: Download, exits: Exits = NO_EXITS) -> Response:
    """Return a file, a part of it, 304, or the way to the server that has it.

    Raises:
        RangeNotSatisfiable: the range lies outside.
        StorageFailed: the file is missing.
    """
    headers = headers_of(download)
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{download.name}"'
    content = download.content
    if content is None and not is_head(request):
        elsewhere = _send_elsewhere(storage, download, exits, headers)
        if elsewhere is not None:  # which says itself when it is missing: the store is not asked twice
            return elsewhere
    size = storage.size(download.key) if content is None else len(content)
    if size is None:
        raise StorageFailed(f"The file {download.name} is missing from the blob store.")
    start, end = _range(request, headers["ETag"], size)
    status = 200 if (start, end) == (0, size) else 206
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if is_head(request):
        return Response(status_code=status, headers=headers, media_type=download.media_type)
    if content is not None:
        return Response(content[start:end], status, headers, download.media_type)
    body = storage.stream(download.key, start, end)
    return StreamingResponse(body, status, headers=headers, media_type=download.media_type)


def is_head(request: Request) -> bool:
    """Tell whether a request is HEAD, which `RequestMiddleware` answers by GET without the body."""
    return getattr(request.state, "is_head", False)


def headers_of(download: Download) -> dict[str, str]:
    """Return the headers of every answer about a file."""
    scope = "public" if download.is_public else "private"
    lasting = f"{scope}, max-age={YEAR_SECONDS}, immutable" if download.is_immutable else "no-cache"
    common = {"Accept-Ranges": "bytes", "Vary": "Authorization"}
    return {"ETag": f'"{download.tag}"', "Cache-Control": lasting} | common


def _send_elsewhere(
    storage: Storage, download: Download, exits: Exits, headers: dict[str, str]
) -> Response | None:
    """Return the way to the server that hands out the blob; None where there is no other."""
    if exits.accel_prefix:
        internal = {"X-Accel-Redirect": f"{exits.accel_prefix.rstrip('/')}/{download.key}"}
        return Response(headers=headers | internal, media_type=download.media_type)
    signed = storage.sign(download.key, exits.presign_seconds) if exits.presign_seconds else None
    if signed is None:
        return None
    return Response(status_code=307, headers={"Location": signed, "Cache-Control": "no-store"})


def matches(header: str | None, etag: str) -> bool:
    """Tell whether an If-None-Match header names this entity."""
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags


def _range(request: Request, etag: str, size: int) -> tuple[int, int]:
    """Return the first byte and the one after the last; the whole file where no single range is asked for.

    Raises:
        RangeNotSatisfiable: the range lies outside.
    """
    wanted = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if wanted is None or wanted[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return 0, size
    first, last = map(_place, wanted.groups())
    start = first if first is not None else max(0, size - (last or 0))
    end = min(last + 1, size) if first is not None and last is not None else size
    if first is not None and last is not None and last < first:
        return 0, size
    if start >= size:
        detail = f"The file has {size} bytes, and the range {wanted[0][:100]!r} lies outside."
        raise RangeNotSatisfiable(detail, size=size)
    return start, end


def _place(digits: str) -> int | None:
    """Return a place in a file, whatever its number of digits; None: it is left out."""
    return int(digits.lstrip("0")[:_DIGITS] or "0") if digits else None
