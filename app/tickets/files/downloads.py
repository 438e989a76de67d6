"""Files of tickets, found by one narrow query, and handed out to anybody before the framework is asked.

A file's bytes never change, so small ones are kept in memory under their digest for as long as there is room.
Whose they are may change (a listing can be made private), so that is kept for KNOWN_SECONDS only.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from types import SimpleNamespace

import anyio.to_thread
from fastapi import Request, Response
from sqlalchemy import Select, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accounts.models import Account
from app.problems import problem_response
from app.storage import Storage, ticket_key
from app.tickets.files.counting import Downloads
from app.tickets.files.serving import Download, Exits, headers_of, matches, serve
from app.tickets.models import Blob, Listing
from app.tickets.search.conditions import visible_to
from app.tickets.service import get_ticket, is_digest
from nirvana.errors import NirvanaError, NotFound
from nirvana.format.ticket import MEDIA_TYPE

KNOWN_SECONDS = 1.0
MOST_KNOWN = 10_000
KEPT_BYTES = 32 * 2**20
LARGEST_KEPT = 256 * 2**10
_PATH = re.compile(
    r"/api/v1/(?:tickets/(sha256:[0-9a-f]{64}|[a-z0-9-]+/[a-z0-9._-]+)/file|files/(sha256:[0-9a-f]{64}))"
)
_ROUTES = ("/api/v1/tickets/{ticket:ticket}/file", "/api/v1/files/{file_sha256}")


@dataclass(frozen=True)
class TicketFile:
    """A ticket's file, as far as handing it out needs it.

    Attributes:
        listing_id: of the listing that it is handed out for.
    """

    listing_id: int
    download: Download
    size_bytes: int


def find_file(session: Session, reference: str, reader: Account | None) -> TicketFile:
    """Return the file of `owner/name` or of `sha256:hex` (then of the first public listing).

    Raises:
        NotFound: there is none that `reader` may see.
        Gone: it is in quarantine.
    """
    if is_digest(reference):
        query = _files(reader).where(Listing.digest == reference)
        query = query.order_by(Listing.visibility.desc(), Listing.id).limit(1)
    else:
        owner, _, name = reference.partition("/")
        query = _files(reader).where(Account.name == owner, Listing.name == name)
    try:
        return _read(session, query, f"There is no ticket {reference[:200]!r}.", is_digest(reference))
    except NotFound:
        get_ticket(session, reference, reader)  # which says whether it is in quarantine
        raise


def find_bytes(session: Session, digest: str, reader: Account | None) -> TicketFile:
    """Return the file whose bytes have a sha256, for the first listing of it.

    Raises:
        NotFound: there is none that `reader` may see.
    """
    query = _files(reader).where(Blob.digest == digest)
    query = query.order_by(Listing.visibility.desc(), Listing.id).limit(1)
    return _read(session, query, f"There is no file {digest[:200]!r}.", False)


def _files(reader: Account | None) -> Select[int, str, int, str, str, str]:
    columns = (Listing.id, Blob.digest, Blob.size_bytes, Account.name, Listing.name, Listing.visibility)
    query = select(*columns).join(Listing.blob).join(Listing.owner)
    return query.where(visible_to(reader))


def _read(
    session: Session, query: Select[int, str, int, str, str, str], missing: str, may_change: bool
) -> TicketFile:
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(missing)
    listing_id, digest, size, owner, name, visibility = row
    shown = f"{owner}-{name}.ticket"
    is_public = visibility == "public"
    download = Download(ticket_key(digest), digest, MEDIA_TYPE, shown, is_public, not may_change)
    return TicketFile(listing_id, download, size)


class FileGate:
    """The layer that answers requests for public files from who shows no token; all others go on inwards."""

    def __init__(self, app: ASGIApp, downloads: Downloads, storage: Storage, exits: Exits) -> None:
        self.app, self.storage, self.exits = app, storage, exits
        self.database, self.downloads = downloads.database, downloads
        self._known: dict[str, tuple[float, TicketFile]] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = _wanted(scope)
        response = None if wanted is None else await self._answer(Request(scope), *wanted.groups())
        await (response or self.app)(scope, receive, send)

    async def _answer(self, request: Request, ticket: str | None, file_digest: str | None) -> Response | None:
        """Return the answer; None where there is no such public file."""
        request.scope["route"] = SimpleNamespace(path=_ROUTES[ticket is None])  # for the metrics
        if file_digest is not None and matches(request.headers.get("if-none-match"), f'"{file_digest}"'):
            return _still_the_same(file_digest)
        reference = ticket or f"bytes {file_digest}"
        try:
            file = self._find_known(reference)
            if file is None:
                file = await anyio.to_thread.run_sync(self._look_up, reference)
                self._remember(reference, file)
            if file.download.content is not None:
                response = serve(request, self.storage, file.download)
            else:
                response = await anyio.to_thread.run_sync(
                    serve, request, self.storage, file.download, self.exits
                )
            if self.downloads.note(request, response, file.listing_id):
                await anyio.to_thread.run_sync(self.downloads.write)
            return response
        except (NotFound, OperationalError, PoolTimeout):
            return None  # the route says it in its own words
        except NirvanaError as error:
            return problem_response(request, error)

    def _find_known(self, reference: str) -> TicketFile | None:
        """Return what was found a moment ago, with its bytes where they are few."""
        until, file = self._known.get(reference, (0.0, None))
        if file is None or until < time.monotonic():
            return None
        if file.size_bytes > LARGEST_KEPT:
            return file
        content = self._kept.get(file.download.tag)
        if content is None:
            return None
        self._kept.move_to_end(file.download.tag)
        return replace(file, download=replace(file.download, content=content))

    def _look_up(self, reference: str) -> TicketFile:
        """Return a file, with its bytes where they are few. Raises: NotFound, StorageFailed."""
        find = find_bytes if reference.startswith("bytes ") else find_file
        with self.database.read() as session:
            file = find(session, reference.removeprefix("bytes "), None)
        if file.size_bytes > LARGEST_KEPT:
            return file
        content = self._kept.get(file.download.tag) or self.storage.get(file.download.key)
        return replace(file, download=replace(file.download, content=content))

    def _remember(self, reference: str, file: TicketFile) -> None:
        """Keep what was found, the oldest bytes making room."""
        content, tag = file.download.content, file.download.tag
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        bare = replace(file, download=replace(file.download, content=None))
        self._known[reference] = time.monotonic() + KNOWN_SECONDS, bare
        if content is None or tag in self._kept:
            return
        self._kept[tag] = content
        self._kept_bytes += len(content)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def _wanted(scope: Scope) -> re.Match[str] | None:
    """Return the match of a request for a file by GET or HEAD, without a query and without a token."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or scope["query_string"]:
        return None
    match = _PATH.fullmatch(scope["path"])
    if match is None or any(name == b"authorization" for name, _ in scope["headers"]):
        return None
    return match


def _still_the_same(digest: str) -> Response:
    """Return 304 without a look at the database: who names the digest has the bytes, wherever from."""
    download = Download("", digest, MEDIA_TYPE, "")
    return Response(status_code=304, headers=headers_of(download))
