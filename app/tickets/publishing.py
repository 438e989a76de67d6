"""Publishing a ticket: read and checked, then its file stored, then its row written.

The statistics of a listing are computed from the file; nothing that a submitter says is believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.accounts.service import charge_storage
from app.architectures.service import bound_name, keep_architecture
from app.changes.service import note_change
from app.db import Json, insert_all_absent, insert_if_absent, utc_now
from app.evaluations.models import UNMEASURED, UNMEASURED_BAND
from app.evaluations.origins import find_origin, knows_task
from app.evaluations.service import exam_key, refresh_listings
from app.storage import Storage, ticket_key
from app.tickets.files.checking import CheckedTicket, check_file
from app.tickets.models import (
    VISIBILITIES,
    Blob,
    IdempotencyKey,
    Listing,
    TicketSketch,
    band_of_density,
)
from app.tickets.search.text import keep_words
from app.tickets.service import get_own, is_copy, lock_copies, refuse_quarantined, touch_copies
from app.tickets.visibility import change_visibility
from nirvana.errors import Forbidden, IdempotencyMismatch, Invalid, InvalidName, NameTaken, Problem
from nirvana.format.reader import DEFAULT_LIMITS, Limits
from nirvana.format.ticket import MEDIA_TYPE, Ticket
from nirvana.verification.fingerprint import fingerprint, sketch

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")


@dataclass(frozen=True)
class Publication:
    """The place of a ticket in the registry: its owner, its name and who may see it.

    Attributes:
        owner: an account, or an organisation that its publisher may publish for.
        name: the ticket's, with or without its owner's before it.
        visibility: `public`, or `private`: only its owner sees it; None: as it is, public where it is new.
        job_id: the job that found it.
        publisher: who pays for its room; None: its owner.
    """

    owner: Account
    name: str
    visibility: str | None = None
    job_id: str | None = None
    publisher: Account | None = None


def publish_ticket(
    session: Session, storage: Storage, data: bytes, publication: Publication
) -> tuple[Listing, bool]:
    """Publish a ticket file as `owner/name`.

    Args:
        data: the .ticket file.

    Returns:
        The listing, and True where it is new: the same ticket under the same name again is the old one.

    Raises:
        InvalidName, InvalidTicket, InvalidRecipe, TooLarge: with a JSON pointer for each problem.
        NameTaken: the name names another ticket.
        StorageFull, StorageFailed: nothing was written.
    """
    name_in(publication.owner, publication.name)
    checked = check_file(data, DEFAULT_LIMITS)
    store_blob(storage, data, checked)
    return insert_listing(session, checked, publication)


def split_name(account: Account, name: str) -> tuple[str, str]:
    """Return the names of the owner and of the ticket, of `name` or `owner/name`. Raises: InvalidName."""
    head, slash, tail = name.rpartition("/")
    if not _NAME.fullmatch(tail):
        detail = f"{tail[:200]!r} is not a ticket's name: 1 to 100 of a-z, 0-9, '.', '_', '-'"
        raise InvalidName(f"name: {detail}.", errors=[Problem("/name", "pattern", detail)])
    return head if slash else account.name, tail


def name_in(owner: Account, name: str) -> str:
    """Return the name of the owner's ticket, of `name` or `owner/name`. Raises: InvalidName, Forbidden."""
    head, tail = split_name(owner, name)
    if head != owner.name:
        raise Forbidden(f"{name[:200]!r} is not a name of {owner.name}.")
    return tail


def store_blob(storage: Storage, data: bytes, checked: CheckedTicket) -> None:
    """Store a checked ticket file; it is on the disk when this returns. It needs no database, and a file
    without a row is harmless.

    Raises:
        StorageFull, StorageFailed: nothing was stored.
    """
    storage.put(ticket_key(checked.file_digest), data, durable=True)


def insert_listing(
    session: Session, checked: CheckedTicket, publication: Publication
) -> tuple[Listing, bool]:
    """List a stored ticket as `owner/name`; of two that do so at once, both get the one row.

    Returns:
        The listing, and True where it is new.

    Raises:
        InvalidName, Forbidden, Invalid, NameTaken: as in `publish_ticket`.
        Conflict: it is there and stays public, whatever visibility is asked for.
        Gone: it is there, in quarantine.
    """
    owner, visibility = publication.owner, publication.visibility or "public"
    name = name_in(owner, publication.name)
    if visibility not in VISIBILITIES:
        detail = f"{visibility[:100]!r} is none of {', '.join(VISIBILITIES)}"
        raise Invalid(f"visibility: {detail}.", errors=[Problem("/visibility", "unknown", detail)])
    digest, place = checked.fields["digest"], {"name": name, "visibility": visibility}
    lock_copies(session, digest, checked.fields["fingerprint"])
    columns = _columns(session, checked, owner, visibility) | place | {"job_id": publication.job_id}
    created = insert_if_absent(session, Listing, **columns)
    if created:
        refresh_listings(session, columns["exam_key"])
    row = get_own(session, owner, name)
    refuse_quarantined(row, f"{owner.name}/{name}")
    if row.digest != digest:
        raise NameTaken(f"{owner.name}/{name} names {row.digest}, and this ticket is {digest}.")
    if created:
        _keep_about(session, row, checked)
        charge_storage(session, (publication.publisher or owner).id, row.blob.size_bytes)
    elif publication.visibility is not None:
        change_visibility(session, row, visibility)
        row = get_own(session, owner, name)
    return row, created


def _columns(session: Session, checked: CheckedTicket, owner: Account, visibility: str) -> Json:
    """Return the columns of a new listing that follow from its file, its owner and who may see it."""
    fields, graph = checked.fields, checked.architecture
    network, family = bound_name(graph, owner.name)
    is_public = visibility == "public"
    return fields | {
        "owner_id": owner.id,
        "exam_key": exam_key(fields["manifest"], fields["digest"], checked.file_digest),
        "origin": find_origin(session, fields["digest"], fields["task"], owner.id),
        "warnings": [*fields["warnings"], *_task_warnings(session, fields["task"])],
        "blob_id": _keep_blob(session, checked),
        "architecture_id": keep_architecture(session, graph, network, family, is_public=is_public),
        "architecture_name": network,
        "family": family,
        "sort_accuracy": UNMEASURED,
        "sort_gap": UNMEASURED,
        "accuracy_band": UNMEASURED_BAND,
        "density_band": band_of_density(fields["density"]),
        "is_copy": False,
        "downloads": 0,
        "tags": [],
        "version": 1,
        "created_at": utc_now(),
    }


def _task_warnings(session: Session, task: str) -> list[str]:
    if knows_task(session, task):
        return []
    return [f"the task {task!r} is not known here, so nobody can verify it here"]


def _keep_about(session: Session, row: Listing, checked: CheckedTicket) -> None:
    """Write what other tables have of a new listing."""
    session.execute(update(Listing).where(Listing.id == row.id, is_copy()).values(is_copy=True))
    note_change(session, "published", [row.id])
    keep_words(session, row, row.owner.name)
    _keep_sketch(session, row, checked.sketch)


def find_left_out(row: Listing, checked: CheckedTicket) -> list[str]:
    """Return the members of a file's manifest that a listing does not take over when its ticket is published
    again: they are those of the file that came first."""
    if row.blob.digest == checked.file_digest:
        return []
    new, old = checked.fields["manifest"], row.manifest
    return sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))


def fill_fingerprints(session: Session, storage: Storage, limits: Limits) -> int:
    """Give the listings of an older version their fingerprints and sketches, from their files; return how
    many got one."""
    query = select(Listing).where(Listing.fingerprint.is_(None)).options(joinedload(Listing.blob))
    filled = 0
    for row in session.scalars(query.order_by(Listing.id)).all():
        ticket = Ticket.from_bytes(storage.get(ticket_key(row.blob.digest)), limits)
        row.fingerprint = fingerprint(ticket)
        if row.fingerprint is not None:
            filled += 1
            _keep_sketch(session, row, sketch(ticket))
            touch_copies(session, row)
    return filled


def _keep_sketch(session: Session, row: Listing, numbers: Sequence[int]) -> None:
    insert_all_absent(session, TicketSketch, [{"number": one, "ticket_id": row.id} for one in numbers])


def _keep_blob(session: Session, checked: CheckedTicket) -> int:
    fields = {"digest": checked.file_digest, "size_bytes": checked.size_bytes, "media_type": MEDIA_TYPE}
    insert_if_absent(session, Blob, created_at=utc_now(), **fields)
    return session.scalars(select(Blob.id).where(Blob.digest == checked.file_digest)).one()


def check_key(session: Session, account: Account, key: str | None, request: dict[str, str]) -> None:
    """Keep what a key is used for, or compare it with what it was used for.

    Args:
        key: None: nothing to do.
        request: what the key stands for: the fields, and the file's digest.

    Raises:
        IdempotencyMismatch: the account used the key for another request.
    """
    if key is None:
        return
    digest = hashlib.sha256(repr(sorted(request.items())).encode()).hexdigest()
    row = {"account_id": account.id, "key": key, "request_sha256": digest, "created_at": utc_now()}
    if insert_if_absent(session, IdempotencyKey, **row):
        return
    query = select(IdempotencyKey.request_sha256)
    where = (IdempotencyKey.account_id == account.id, IdempotencyKey.key == key)
    if session.scalars(query.where(*where)).one() != digest:
        raise IdempotencyMismatch(f"The Idempotency-Key {key!r} was used for another ticket or name.")
