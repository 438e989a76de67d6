"""Publishing a ticket: read and checked, then its file stored, then its row written.

The statistics of a listing are computed from the file; nothing that a submitter says is believed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from app.accounts.models import Account
from app.accounts.service import charge_storage
from app.architectures.service import bound_name, keep_architecture
from app.changes.service import note_change
from app.db import Json, insert_all_absent, insert_if_absent, utc_now
from app.evaluations.models import UNMEASURED, UNMEASURED_BAND
from app.evaluations.origins import find_origins, knows_task
from app.evaluations.service import exam_key, find_examined, refresh_listings
from app.storage import Storage, ticket_key
from app.tickets.files.checking import CheckedTicket, check_file
from app.tickets.models import (
    VISIBILITIES,
    Blob,
    IdempotencyKey,
    Listing,
    TicketSketch,
    band_of_density,
    bytes_to_train,
    class_of_kept,
)
from app.tickets.search.text import keep_words
from app.tickets.service import (
    get_own,
    lock_all_copies,
    mark_copies,
    refuse_quarantined,
    touch_copies,
)
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

    @property
    def payer(self) -> Account:
        """Who publishes: its owner, or a member of it."""
        return self.publisher or self.owner


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
    owner, name = publication.owner, name_in(publication.owner, publication.name)
    if (publication.visibility or "public") not in VISIBILITIES:
        detail = f"{str(publication.visibility)[:100]!r} is none of {', '.join(VISIBILITIES)}"
        raise Invalid(f"visibility: {detail}.", errors=[Problem("/visibility", "unknown", detail)])
    created = bool(insert_new(session, [(checked, publication)]))
    row, digest = get_own(session, owner, name), checked.fields["digest"]
    refuse_quarantined(row, f"{owner.name}/{name}")
    if row.digest != digest:
        raise NameTaken(f"{owner.name}/{name} names {row.digest}, and this ticket is {digest}.")
    if not created and publication.visibility is not None:
        change_visibility(session, row, publication.visibility)
        row = get_own(session, owner, name)
    return row, created


def insert_new(
    session: Session, entries: Sequence[tuple[CheckedTicket, Publication]]
) -> dict[tuple[int, str], Listing]:
    """List those of some stored tickets whose names are free, all with the same few statements.

    Everybody inserts into one table after the other and in the same order, so that nobody who publishes waits
    for somebody who waits for him.

    Args:
        entries: each of another name, which was checked.

    Returns:
        (owner's id, name) -> the listing as it was inserted, not of the session. It is not known yet whether
        it is a copy or has a verdict: `app.tickets.service.find_related`.
    """
    checked = [one for one, _ in entries]
    lock_all_copies(
        session, (one.fields["digest"] for one in checked), (one.fields["fingerprint"] for one in checked)
    )
    blobs = _keep_blobs(session, checked)
    about = [(one.fields["digest"], one.fields["task"], place.owner.id) for one, place in entries]
    origins = find_origins(session, about)
    graphs: dict[tuple[str, str, bool], int] = {}
    rows = [
        _columns(session, one, publication, graphs)
        | {"blob_id": blobs[one.file_digest], "origin": origins[ticket]}
        for (one, publication), ticket in zip(entries, about, strict=True)
    ]
    rows.sort(key=lambda row: (row["owner_id"], row["name"]))
    place = (Listing.owner_id, Listing.name)
    ids = {
        (owner, name): number
        for owner, name, number in insert_all_absent(session, Listing, rows, *place, Listing.id)
    }
    new = {
        (row["owner_id"], row["name"]): Listing(id=ids[row["owner_id"], row["name"]], **row)
        for row in rows
        if (row["owner_id"], row["name"]) in ids
    }
    for one, publication in entries:
        row = new.get((publication.owner.id, _tail(publication)))
        if row is not None:
            _complete(row, one, publication.owner)
    _keep_about(session, new.values(), {one.fields["digest"]: one.sketch for one in checked})
    _charge(session, entries, new.keys())
    return new


def _tail(publication: Publication) -> str:
    return publication.name.rpartition("/")[2]


def _complete(row: Listing, checked: CheckedTicket, owner: Account) -> None:
    """Give a listing that was not loaded what loading would."""
    blob = Blob(id=row.blob_id, digest=checked.file_digest, size_bytes=checked.size_bytes)
    loaded = {"owner": owner, "blob": blob, "train_bytes": bytes_to_train(row.kept_parameters, row.kept)}
    for name, value in loaded.items():
        set_committed_value(row, name, value)


def _columns(
    session: Session,
    checked: CheckedTicket,
    publication: Publication,
    graphs: dict[tuple[str, str, bool], int],
) -> Json:
    """Return the columns of a new listing that follow from its file, its owner and who may see it.

    Args:
        graphs: ids of the graphs that were kept a moment ago, and of this one afterwards.
    """
    fields, graph, owner = checked.fields, checked.architecture, publication.owner
    visibility = publication.visibility or "public"
    network, family = bound_name(graph, owner.name)
    is_public = visibility == "public"
    known = graph.digest, network, is_public
    if known not in graphs:
        graphs[known] = keep_architecture(session, graph, network, family, is_public=is_public)
    return fields | {
        "owner_id": owner.id,
        "name": _tail(publication),
        "visibility": visibility,
        "job_id": publication.job_id,
        "exam_key": exam_key(fields["manifest"], fields["digest"], checked.file_digest),
        "kept_class": class_of_kept(fields["kept"]),
        "warnings": [*fields["warnings"], *_task_warnings(session, fields["task"])],
        "architecture_id": graphs[known],
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


def _keep_about(session: Session, rows: Collection[Listing], sketches: Mapping[str, Sequence[int]]) -> None:
    """Write what other tables have of new listings.

    Args:
        sketches: by the tickets' digests.
    """
    if not rows:
        return
    for exam in sorted(find_examined(session, (row.exam_key for row in rows))):
        refresh_listings(session, exam)
    ids = [row.id for row in rows]
    mark_copies(session, ids)
    note_change(session, "published", ids)
    keep_words(session, [(row, row.owner.name) for row in rows])
    numbers = [{"number": one, "ticket_id": row.id} for row in rows for one in sketches[row.digest]]
    insert_all_absent(session, TicketSketch, numbers)


def _charge(
    session: Session, entries: Sequence[tuple[CheckedTicket, Publication]], rows: Collection[tuple[int, str]]
) -> None:
    """Count the new ones of some listings, and their files, for those who publish them."""
    sizes: dict[int, list[int]] = {}
    for checked, publication in entries:
        if (publication.owner.id, _tail(publication)) in rows:
            sizes.setdefault(publication.payer.id, []).append(checked.size_bytes)
    for account in sorted(sizes):
        charge_storage(session, account, sum(sizes[account]), tickets=len(sizes[account]))


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
            numbers = [{"number": one, "ticket_id": row.id} for one in sketch(ticket)]
            insert_all_absent(session, TicketSketch, numbers)
            touch_copies(session, row)
    return filled


def _keep_blobs(session: Session, checked: Sequence[CheckedTicket]) -> dict[str, int]:
    """Return the ids of the blobs of some files: digest -> id."""
    digests = {one.file_digest: one.size_bytes for one in checked}
    about = {"media_type": MEDIA_TYPE, "created_at": utc_now()}
    rows = [{"digest": digest, "size_bytes": digests[digest]} | about for digest in sorted(digests)]
    known = dict(insert_all_absent(session, Blob, rows, Blob.digest, Blob.id))
    if there := digests.keys() - known.keys():
        known |= dict(session.execute(select(Blob.digest, Blob.id).where(Blob.digest.in_(there))).all())
    return known


def check_key(session: Session, account: Account, key: str | None, request: Mapping[str, str]) -> None:
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
