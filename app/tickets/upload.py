"""Receiving a ticket file: streamed to a temporary file, never past the cap, and never unpickled."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import IO

import anyio
from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser

from app.settings import Settings
from nirvana.container import PICKLE, is_pickle
from nirvana.errors import Invalid, Malformed, Problem, StorageFull, TooLarge, UnsupportedMedia
from nirvana.ticket import MEDIA_TYPE

FORM = "multipart/form-data"
ENVELOPE_BYTES = 64 * 1024  # what a multipart body may have besides the file


@dataclass(frozen=True)
class Upload:
    """A file that was received whole, and the form fields that came with it."""

    data: bytes
    fields: dict[str, str] = field(default_factory=dict)


async def receive_ticket(request: Request, settings: Settings) -> Upload:
    """The ticket file of a request, as its body or as the part `file` of a form.

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
    body = _capped(request, cap + ENVELOPE_BYTES, cap)
    try:
        parser = MultiPartParser(request.headers, body, max_files=1, max_fields=10)
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise Malformed(f"The form cannot be read: {getattr(error, 'message', 'no boundary')}.") from None
    try:
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        files = {name: value for name, value in form.multi_items() if not isinstance(value, str)}
        if set(files) != {"file"}:
            detail = f"the form has the files {sorted(files)}, expected one: file"
            raise Invalid(f"file: {detail}.", errors=[Problem("/file", "missing", detail)])
        return Upload(_read_all(files["file"].file, cap), fields)
    finally:
        await form.close()


def _read_all(file: IO[bytes], cap: int | None = None) -> bytes:
    file.seek(0)
    data = file.read() if cap is None else file.read(cap + 1)
    if cap is not None and len(data) > cap:
        raise _too_large(cap)
    return data


async def _capped(request: Request, cap: int, said: int) -> AsyncGenerator[bytes]:
    """The body in pieces, refused as soon as it is known to be over `cap`."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > cap:
        raise _too_large(said, int(announced))
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > cap:
            raise _too_large(said)
        yield chunk


def _too_large(cap: int, found: int | None = None) -> TooLarge:
    size = f"{found} bytes" if found else "more bytes than that"
    return TooLarge(f"A ticket file may have {cap} bytes, and this has {size}.", limit_bytes=cap)


def refuse_pickle(data: bytes) -> None:
    """Raises: UnsupportedMedia."""
    if is_pickle(data):
        raise UnsupportedMedia(f"This is {PICKLE}. Expected a ticket, {MEDIA_TYPE}.")
