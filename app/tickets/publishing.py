"""Publishing a ticket: read and checked, then its file stored, then its row written.

The statistics of a listing are computed from the file; nothing that a submitter says is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.orm import Session, joinedload

from app.accounts.models import Account
from app.accounts.service import charge_storage
from app.architectures.service import keep_architecture
from app.db import Json, insert_if_absent, utc_now
from app.evaluations.models import UNMEASURED
from app.evaluations.origins import find_origin
from app.evaluations.service import exam_key, refresh_listings
from app.storage import Storage, ticket_key
from app.tickets.models import VISIBILITIES, Blob, IdempotencyKey, Listing, TicketSketch, TicketTerm
from app.tickets.search import terms_of
from app.tickets.service import get_own, touch_copies
from nirvana import tasks
from nirvana.errors import (
    Forbidden,
    IdempotencyMismatch,
    Invalid,
    InvalidName,
    InvalidTicket,
    NameTaken,
    Problem,
)
from nirvana.format.container import read_container
from nirvana.format.lint import find_warnings
from nirvana.format.reader import DEFAULT_LIMITS, Limits
from nirvana.format.ticket import MEDIA_TYPE, Ticket
from nirvana.training.schedule import check_recipe
from nirvana.verification.fingerprint import fingerprint, sketch

MOST_FLOPS = 2**63  # of one forward pass: what a column holds
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Publication:
    """The place of a ticket in the registry: its owner, its name and who may see it.

    Attributes:
        name: the ticket's, with or without its owner's before it.
        visibility: `public`, or `private`: only its owner sees it.
        job_id: the job that found it.
    """

    owner: Account
    name: str
    visibility: str = "public"
    job_id: str | None = None


@dataclass(frozen=True)
class StoredTicket:
    """A ticket whose file lies in the blob store.

    Attributes:
        fields: the statistics of its listing.
        file_digest: sha256:hex of the file's bytes.
    """

    ticket: Ticket
    fields: Json
    file_digest: str
    size_bytes: int


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
    check_name(publication.owner, publication.name)
    return insert_listing(session, store_blob(storage, data, DEFAULT_LIMITS), publication)


def check_name(owner: Account, name: str) -> str:
    """Return the ticket's name, of `name` or `owner/name`. Raises: InvalidName, Forbidden."""
    head, slash, tail = name.rpartition("/")
    if slash and head != owner.name:
        raise Forbidden(f"You are {owner.name!r} and cannot publish as {head[:200]!r}.")
    if not _NAME.fullmatch(tail):
        detail = f"{tail[:200]!r} is not a ticket's name: 1 to 100 of a-z, 0-9, '.', '_', '-'"
        raise InvalidName(f"name: {detail}.", errors=[Problem("/name", "pattern", detail)])
    return tail


def store_blob(storage: Storage, data: bytes, limits: Limits) -> StoredTicket:
    """Check a ticket file and its recipe, and store it. It needs no database, and a file without a row is
    harmless.

    Raises:
        InvalidTicket, InvalidRecipe, TooLarge: with a JSON pointer for each problem.
        StorageFull, StorageFailed: nothing was stored.
    """
    ticket = Ticket.from_bytes(data, limits)
    check_recipe(ticket)
    file_digest = "sha256:" + hashlib.sha256(data).hexdigest()
    fields = describe(ticket, data, file_digest)
    storage.put(ticket_key(file_digest), data)
    return StoredTicket(ticket, fields, file_digest, len(data))


def insert_listing(session: Session, stored: StoredTicket, publication: Publication) -> tuple[Listing, bool]:
    """List a stored ticket as `owner/name`; of two that do so at once, both get the one row.

    Returns:
        The listing, and True where it is new.

    Raises:
        InvalidName, Forbidden, Invalid, NameTaken: as in `publish_ticket`.
    """
    owner, visibility = publication.owner, publication.visibility
    name = check_name(owner, publication.name)
    if visibility not in VISIBILITIES:
        detail = f"{visibility[:100]!r} is none of {', '.join(VISIBILITIES)}"
        raise Invalid(f"visibility: {detail}.", errors=[Problem("/visibility", "unknown", detail)])
    digest = stored.ticket.digest
    values = stored.fields | {
        "owner_id": owner.id,
        "name": name,
        "visibility": visibility,
        "job_id": publication.job_id,
        "origin": find_origin(session, digest, stored.ticket.task),
        "blob_id": _keep_blob(session, stored),
        "architecture_id": keep_architecture(session, stored.ticket.architecture).id,
    }
    created = insert_if_absent(session, Listing, **values)
    if created:
        refresh_listings(session, stored.fields["exam_key"])
    row = get_own(session, owner, name)
    if row.digest != digest:
        raise NameTaken(f"{owner.name}/{name} names {row.digest}, and this ticket is {digest}.")
    if created:
        terms = [{"term": term, "ticket_id": row.id} for term in terms_of(row, owner.name)]
        session.execute(insert(TicketTerm), terms)
        _keep_sketch(session, row, stored.ticket)
        charge_storage(session, owner.id, row.blob.size_bytes)
    return row, created


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
            _keep_sketch(session, row, ticket)
            touch_copies(session, row)
    return filled


def _keep_sketch(session: Session, row: Listing, ticket: Ticket) -> None:
    for number in sketch(ticket):
        insert_if_absent(session, TicketSketch, number=number, ticket_id=row.id)


def _keep_blob(session: Session, stored: StoredTicket) -> int:
    fields = {"digest": stored.file_digest, "size_bytes": stored.size_bytes, "media_type": MEDIA_TYPE}
    insert_if_absent(session, Blob, created_at=utc_now(), **fields)
    return session.scalars(select(Blob.id).where(Blob.digest == stored.file_digest)).one()


def describe(ticket: Ticket, data: bytes, file_digest: str) -> Json:
    """Compute the column values of the listing of a ticket.

    Args:
        data: the file that the ticket was read from.
        file_digest: of those bytes.

    Raises:
        InvalidTicket: a text or a number that no database keeps.
    """
    provenance = ticket.provenance
    fields = {
        "digest": ticket.digest,
        "fingerprint": fingerprint(ticket),
        "task": ticket.task,
        "architecture_name": ticket.architecture.name,
        "family": ticket.architecture.family,
        "method": _short_text(provenance.get("method")),
        "level": _level(provenance.get("level")),
        "parent_digest": _digest(provenance.get("parent")),
        "license": ticket.license,
        "description": ticket.description,
        "initial_kind": ticket.start.kind,
        "rewind_step": ticket.start.rewind_step,
        "density": ticket.density,
        "kept": ticket.kept,
        "total": ticket.total,
        "kept_parameters": ticket.kept_parameters,
        "parameters": ticket.architecture.parameter_count,
        "flops": ticket.flops(),
    }
    _refuse_unstorable(fields)
    unset = {"tags": [], "version": 1, "sort_accuracy": UNMEASURED, "sort_gap": UNMEASURED}
    manifest = json.loads(read_container(data)[0]["manifest"])
    fields["exam_key"] = exam_key(manifest, ticket.digest, file_digest)
    lists = {"layers": ticket.layers(), "manifest": manifest, "warnings": list(warnings_of(ticket))}
    return fields | unset | lists | {"created_at": utc_now()}


def warnings_of(ticket: Ticket) -> Iterator[str]:
    """Yield the oddities of a valid ticket."""
    yield from find_warnings(ticket)
    if ticket.task not in tasks.built_in_names():
        yield f"the task {ticket.task!r} is not known here, so nobody can verify it here"


def _refuse_unstorable(fields: Json) -> None:
    """Refuse a NUL character in a text, which PostgreSQL does not keep, and operations past 64 bits.

    Raises:
        InvalidTicket: with a pointer for each.
    """
    problems = [
        Problem(f"/{name}", "nul-character", "a NUL character, which no database keeps")
        for name, value in fields.items()
        if isinstance(value, str) and "\0" in value
    ]
    if fields["flops"] >= MOST_FLOPS:
        detail = f"one forward pass takes {fields['flops']} operations, expected less than {MOST_FLOPS}"
        problems.append(Problem("/architecture", "too-large", detail))
    if problems:
        raise InvalidTicket(f"{problems[0].pointer}: {problems[0].detail}.", errors=problems)


def _short_text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 100 else None


def _level(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= 10_000 else None


def _digest(value: object) -> str | None:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None


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
