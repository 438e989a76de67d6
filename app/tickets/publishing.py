"""Publishing a ticket: read and checked, then its file stored, then its row written."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.architectures.service import keep_architecture
from app.db import insert_if_absent, utc_now
from app.evaluations.service import refresh_listings
from app.storage import Storage, ticket_key
from app.tickets.models import VISIBILITIES, Blob, TicketTerm
from app.tickets.models import Ticket as Listing
from app.tickets.service import get_own
from app.tickets.statistics import describe, terms_of
from nirvana.errors import Forbidden, Invalid, InvalidName, NameTaken, Problem
from nirvana.ticket import MEDIA_TYPE, Limits, Ticket

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")


@dataclass(frozen=True)
class StoredTicket:
    """A ticket whose file lies in the blob store.

    Attributes:
        fields: the statistics of its listing.
        file_digest: sha256:hex of the file's bytes.
    """

    ticket: Ticket
    fields: dict[str, Any]
    file_digest: str
    size_bytes: int


def publish_ticket(
    session: Session,
    storage: Storage,
    *,
    owner: Account,
    name: str,
    data: bytes,
    job_id: str | None = None,
    visibility: str = "public",
    limits: Limits = Limits(),  # noqa: B008
) -> tuple[Listing, bool]:
    """Publish a ticket file as `owner/name`.

    Args:
        data: the .ticket file.
        job_id: the job that found it.
        visibility: `public`, or `private`: only its owner sees it.
        limits: what is read at most.

    Returns:
        The listing, and whether it is new: the same ticket under the same name again is the old one.

    Raises:
        InvalidName, InvalidTicket, TooLarge: with a JSON pointer for each problem.
        NameTaken: the name names another ticket.
        StorageFull, StorageFailed: nothing was written.
    """
    check_name(owner, name)
    stored = store_ticket(storage, data, limits)
    return list_ticket(session, stored, owner=owner, name=name, visibility=visibility, job_id=job_id)


def check_name(owner: Account, name: str) -> str:
    """The ticket's name, of `name` or `owner/name`. Raises: InvalidName, Forbidden."""
    head, slash, tail = name.rpartition("/")
    if slash and head != owner.name:
        raise Forbidden(f"You are {owner.name!r} and cannot publish as {head[:200]!r}.")
    if not _NAME.fullmatch(tail):
        detail = f"{tail[:200]!r} is not a ticket's name: 1 to 100 of a-z, 0-9, '.', '_', '-'"
        raise InvalidName(f"name: {detail}.", errors=[Problem("/name", "pattern", detail)])
    return tail


def store_ticket(storage: Storage, data: bytes, limits: Limits) -> StoredTicket:
    """Check a ticket file and store it. It needs no database, and a file without a row is harmless.

    Raises:
        InvalidTicket, TooLarge: what is wrong with it.
        StorageFull, StorageFailed: nothing was stored.
    """
    ticket = Ticket.from_bytes(data, limits)
    fields = describe(ticket, data)
    file_digest = "sha256:" + hashlib.sha256(data).hexdigest()
    storage.put(ticket_key(file_digest), data)
    return StoredTicket(ticket, fields, file_digest, len(data))


def list_ticket(
    session: Session,
    stored: StoredTicket,
    *,
    owner: Account,
    name: str,
    visibility: str = "public",
    job_id: str | None = None,
) -> tuple[Listing, bool]:
    """List a stored ticket as `owner/name`; of two that do so at once, both get the one row.

    Raises:
        InvalidName, Forbidden, Invalid, NameTaken: as in `publish_ticket`.
    """
    name = check_name(owner, name)
    if visibility not in VISIBILITIES:
        detail = f"{visibility[:100]!r} is none of {', '.join(VISIBILITIES)}"
        raise Invalid(f"visibility: {detail}.", errors=[Problem("/visibility", "unknown", detail)])
    digest = stored.ticket.digest
    place = {"owner_id": owner.id, "name": name, "visibility": visibility, "job_id": job_id}
    place["blob_id"] = _keep_blob(session, stored)
    place["architecture_id"] = keep_architecture(session, stored.ticket.architecture).id
    created = insert_if_absent(session, Listing, **stored.fields, **place)
    if created:
        refresh_listings(session, digest)
    row = get_own(session, owner, name)
    if row.digest != digest:
        raise NameTaken(f"{owner.name}/{name} names {row.digest}, and this ticket is {digest}.")
    if created:
        terms = [{"term": term, "ticket_id": row.id} for term in terms_of(row, owner.name)]
        session.execute(insert(TicketTerm), terms)
    return row, created


def _keep_blob(session: Session, stored: StoredTicket) -> int:
    fields = {"digest": stored.file_digest, "size_bytes": stored.size_bytes, "media_type": MEDIA_TYPE}
    insert_if_absent(session, Blob, created_at=utc_now(), **fields)
    return session.scalars(select(Blob.id).where(Blob.digest == stored.file_digest)).one()
