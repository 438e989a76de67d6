"""Rules of tickets: lookup by name or digest, cards, yanking, gauges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import Session, aliased, joinedload, undefer

from app.accounts.models import Account
from app.accounts.organisations.roles import may_act_for
from app.changes.service import note_change
from app.db import Json, utc_now
from app.evaluations.models import Evaluation
from app.pagination import Page, binding, cut_page, read_cursor
from app.telemetry import Gauge
from app.tickets.models import YANK_REASONS, BlobCount, Listing, TicketSketch, TicketTag
from app.tickets.search.conditions import open_to, visible_to
from app.tickets.search.counts import SHOWN, count_by
from app.tickets.search.text import keep_words
from nirvana.errors import Forbidden, Gone, Invalid, InvalidCursor, NotFound, PreconditionFailed, Problem

MAX_TAGS = 20
UNSYNCHRONISED = {"synchronize_session": False}  # no listing of the session is changed by it
_TAG = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


WHOLE = (
    joinedload(Listing.owner),
    joinedload(Listing.blob),
    undefer(Listing.manifest),
    undefer(Listing.layers),
)


def get_ticket(session: Session, reference: str, reader: Account | None = None) -> Listing:
    """Return a listing, whole, by `owner/name` or by `sha256:hex` (then the first public one).

    Raises:
        NotFound: there is none that `reader` may see.
        Gone: it is in quarantine.
    """
    row = session.scalars(_named(reference, reader).options(*WHOLE)).one_or_none()
    if row is None:
        raise NotFound(f"There is no ticket {reference[:200]!r}.")
    refuse_quarantined(row, reference)
    return row


def refuse_quarantined(row: Listing, reference: str) -> None:
    """Check that a listing is not in quarantine. Raises: Gone."""
    if row.quarantined_at is not None:
        raise Gone(f"{reference} is in quarantine since {row.quarantined_at:%Y-%m-%d}: an admin hid it.")


def is_visible(session: Session, reference: str, reader: Account | None) -> bool:
    """Tell whether there is a listing, by name or by digest, that `reader` may see."""
    query = _named(reference, reader).where(visible_to(reader))
    return session.scalar(query.with_only_columns(Listing.id)) is not None


def find_open(session: Session, references: Iterable[str], reader: Account) -> set[str]:
    """Return those of some names and digests of which there is a listing that `reader` may see, in quarantine
    or not."""
    wanted = set(references)
    names = [tuple(one.split("/")) for one in wanted if one.count("/") == 1]
    digests = [one for one in wanted if is_digest(one)]
    named = select(Account.name, Listing.name).join(Listing.owner).where(open_to(reader))
    rows = session.execute(named.where(tuple_(Account.name, Listing.name).in_(names))) if names else ()
    of_digest = select(Listing.digest).where(Listing.digest.in_(digests), open_to(reader))
    return {"/".join(row) for row in rows} | set(session.scalars(of_digest) if digests else ())


def _named(reference: str, reader: Account | None) -> Select[Listing]:
    """Select the listing that a reference means, in quarantine or not; of a digest, one that is not."""
    query = select(Listing).where(open_to(reader))
    if _DIGEST.fullmatch(reference):
        query = query.where(Listing.digest == reference, Listing.quarantined_at.is_(None))
        return query.order_by(Listing.visibility.desc(), Listing.id).limit(1)
    owner, _, name = reference.partition("/")
    return query.join(Listing.owner).where(Account.name == owner, Listing.name == name)


def list_of_digest(
    session: Session, digest: str, reader: Account | None, *, limit: int, cursor: str | None = None
) -> Page[Listing]:
    """Return the listings of a ticket that a reader may see, whole, the public ones first, oldest first.

    Raises:
        NotFound: there is none.
        InvalidCursor: the cursor is of another list.
    """
    bound_to = binding("listings", digest)
    query = select(Listing).options(*WHOLE).where(Listing.digest == digest, visible_to(reader))
    query = query.order_by(Listing.visibility.desc(), Listing.id).limit(limit + 1)
    if cursor is not None:
        visibility, after = read_cursor(cursor, bound_to, (str, int))
        later = and_(Listing.visibility == visibility, Listing.id > after)
        query = query.where(or_(Listing.visibility < visibility, later))
    rows = session.scalars(query).all()
    if not rows and cursor is not None:
        raise InvalidCursor("cursor: there is nothing after it.")
    if not rows:
        raise NotFound(f"There is no ticket {digest!r}.")
    return cut_page(rows, limit, bound_to, lambda row: (row.visibility, row.id))


def is_digest(reference: str) -> bool:
    """Tell whether a reference is sha256:hex and no name."""
    return bool(_DIGEST.fullmatch(reference))


def list_known(session: Session, digest: str, limit: int, most_bytes: int) -> list[tuple[str, str]]:
    """Return other public tickets of a ticket's architecture, under the first name of each: those first that
    share most of its sketch, so that what it nearly copies is among them, then the newest.

    Args:
        digest: the ticket's; it is none of them.
        limit: the most to give.
        most_bytes: of their files together.

    Returns:
        (owner/name, digest of the file) of each.
    """
    own = select(Listing.id).where(Listing.digest == digest).order_by(Listing.id).limit(1).scalar_subquery()
    numbers = select(TicketSketch.number).where(TicketSketch.ticket_id == own)
    alike = select(TicketSketch.ticket_id, func.count().label("shared"))
    shared = alike.where(TicketSketch.number.in_(numbers)).group_by(TicketSketch.ticket_id).subquery()
    same = select(Listing.architecture_id).where(Listing.digest == digest).limit(1).scalar_subquery()
    first = (
        select(func.min(Listing.id))
        .where(Listing.architecture_id == same, Listing.digest != digest)
        .where(visible_to(None), Listing.yanked_at.is_(None))
        .group_by(Listing.digest)
    )
    query = select(Listing).options(*WHOLE[:2]).outerjoin(shared, shared.c.ticket_id == Listing.id)
    query = query.where(Listing.id.in_(first))
    oldest_of_alike = case((shared.c.shared.is_not(None), -Listing.id), else_=Listing.id)
    query = query.order_by(func.coalesce(shared.c.shared, 0).desc(), oldest_of_alike.desc())
    known, left = list[tuple[str, str]](), most_bytes
    for row in session.scalars(query.limit(limit)):
        left -= row.blob.size_bytes
        if left >= 0:
            known.append((f"{row.owner.name}/{row.name}", row.blob.digest))
    return known


def find_copies(session: Session, rows: Iterable[Listing]) -> dict[int, str]:
    """Return, for each listing whose ticket was listed before, `owner/name` of the first listing of it.

    The same ticket has the same digest or, with its units in another order, the same fingerprint. Only public
    listings that are not yanked are ever named, whoever asks.
    """
    copies = [row for row in rows if row.is_copy]
    if not copies:
        return {}
    first_of: dict[str, Listing] = {}
    for name in ("digest", "fingerprint"):
        column = getattr(Listing, name)
        values = {getattr(row, name) for row in copies} - {None}
        first = select(func.min(Listing.id)).where(column.in_(values), visible_to(None))
        first = first.where(Listing.yanked_at.is_(None)).group_by(column)
        query = select(Listing).options(joinedload(Listing.owner)).where(Listing.id.in_(first))
        for one in session.scalars(query) if values else ():
            first_of[getattr(one, name)] = one
    named: dict[int, str] = {}
    for row in copies:
        known = [first_of[key] for key in (row.digest, row.fingerprint) if key in first_of]
        first_one = min(known, key=lambda one: one.id, default=row)
        if first_one.id < row.id:
            named[row.id] = f"{first_one.owner.name}/{first_one.name}"
    return named


def touch_copies(session: Session, row: Listing) -> None:
    """Bring every listing of a ticket up to date, in whatever order of its units: which of them is the first
    one may have changed."""
    session.flush()
    changed = {"version": Listing.version + 1, "is_copy": is_copy()}
    session.execute(update(Listing).where(_is_same(row.digest, row.fingerprint)).values(changed))


def lock_copies(session: Session, digest: str, fingerprint: str | None) -> None:
    """Lock every listing of a ticket, in one order and before any kept count, so that nobody who changes some
    of them waits for somebody who waits for him."""
    lock_all_copies(session, [digest], [fingerprint])


def lock_all_copies(session: Session, digests: Iterable[str], fingerprints: Iterable[str | None]) -> None:
    """Lock every listing of some tickets, as `lock_copies` does."""
    known = {"digests": list(digests), "fingerprints": [one for one in fingerprints if one is not None]}
    session.execute(_select_copies(), known)


@cache
def _select_copies() -> Select[int]:
    """Return a statement that is built once: building it costs more than running it."""
    of_digest = Listing.digest.in_(bindparam("digests", expanding=True))
    of_print = Listing.fingerprint.in_(bindparam("fingerprints", expanding=True))
    return select(Listing.id).where(or_(of_digest, of_print)).order_by(Listing.id).with_for_update()


def find_related(session: Session, rows: Sequence[Listing]) -> set[str]:
    """Return those digests and fingerprints of some listings that others here have too, that were examined,
    or that a ticket was pruned from. Where there are none, nothing is to be said of a listing but itself."""
    digests = [row.digest for row in rows]
    prints = [row.fingerprint for row in rows if row.fingerprint is not None]
    return set(session.scalars(_select_related(), {"digests": digests, "fingerprints": prints}))


@cache
def _select_related() -> Executable:
    digests: BindParameter[str] = bindparam("digests", expanding=True)
    prints: BindParameter[str] = bindparam("fingerprints", expanding=True)
    is_twice = func.count() > 1
    return union_all(
        select(Listing.digest).where(Listing.digest.in_(digests)).group_by(Listing.digest).having(is_twice),
        select(Listing.fingerprint)
        .where(Listing.fingerprint.in_(prints))
        .group_by(Listing.fingerprint)
        .having(is_twice),
        select(Listing.parent_digest).where(Listing.parent_digest.in_(digests)),
        select(Evaluation.ticket_digest).where(Evaluation.ticket_digest.in_(digests)),
    )


def _is_same(digest: str, fingerprint: str | None) -> ColumnElement[bool]:
    same = Listing.digest == digest
    return same if fingerprint is None else or_(same, Listing.fingerprint == fingerprint)


def mark_copies(session: Session, listing_ids: Iterable[int]) -> None:
    """Mark those of some new listings that are copies."""
    session.execute(_mark_copies(), {"ids": list(listing_ids)}, execution_options=UNSYNCHRONISED)


@cache
def _mark_copies() -> Executable:
    new = Listing.id.in_(bindparam("ids", expanding=True))
    return update(Listing).where(new, is_copy()).values(is_copy=True)


def is_copy() -> ColumnElement[bool]:
    """Return the condition that an earlier open listing is of the same ticket, in whatever order of units."""
    other = aliased(Listing)
    is_same = or_(other.digest == Listing.digest, other.fingerprint == Listing.fingerprint)
    is_open = and_(visible_to(None, other), other.yanked_at.is_(None), other.id < Listing.id)
    return select(other.id).where(is_same, is_open).exists()


def get_own(session: Session, owner: Account, name: str) -> Listing:
    """Return the listing `owner/name`, whole and as the database has it now."""
    query = select(Listing).where(Listing.owner_id == owner.id, Listing.name == name)
    return session.scalars(query.options(*WHOLE).execution_options(populate_existing=True)).one()


def get_own_ticket(session: Session, reference: str, account: Account, *, admin: bool = False) -> Listing:
    """Return a listing that an account may change: its own, or an organisation's that it writes for.

    Raises:
        NotFound, Forbidden.
    """
    row = get_ticket(session, reference, account)
    if not admin and not may_act_for(session, account, row.owner, hold=True):
        raise Forbidden(f"{reference} belongs to {row.owner.name}, and you are {account.name}.")
    return row


def update_card(session: Session, row: Listing, changes: Json, if_match: str | None) -> None:
    """Change a listing's card or tags.

    Args:
        changes: `card` (markdown or None) and `tags`, each may be left out.
        if_match: the If-Match header: the change is made only on that version.

    Raises:
        PreconditionFailed: somebody changed it meanwhile.
        Invalid: a tag that breaks the rules, or too many.
    """
    session.refresh(row, ["version"], with_for_update=True)
    check_version(row, if_match)
    if "card" in changes:
        row.card = changes["card"]
    if "tags" in changes:
        row.tags = _check_tags(changes["tags"])
        session.execute(delete(TicketTag).where(TicketTag.ticket_id == row.id))
        session.add_all(TicketTag(tag=tag, ticket_id=row.id) for tag in row.tags)
    keep_words(session, [(row, row.owner.name)])
    row.version += 1
    note_change(session, "card", [row.id])
    session.flush()


def check_version(row: Listing, if_match: str | None) -> None:
    """Check that a listing is the version of an If-Match header. Raises: PreconditionFailed."""
    wanted = [tag.strip().removeprefix("W/").strip('"') for tag in (if_match or "*").split(",")]
    version = _version(row)
    if "*" not in wanted and version not in [tag.partition("+")[0] for tag in wanted]:
        raise PreconditionFailed(f'The ticket is "{version}" now, not {if_match}; read it again.')


def etag(body: str, row: Listing | None = None) -> str:
    """Return the entity tag of what is shown of a ticket: that of its bytes, because they change with much
    that is not the listing's own (copies, other exams, lineage), and may depend on the reader.

    Args:
        body: JSON. row: the listing that it is of, whose version goes before: If-Match looks at that alone.
    """
    shown = hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f'"{_version(row) if row is not None else ""}+{shown}"'


def _version(row: Listing) -> str:
    return f"{row.digest[7:23]}-{row.id}.{row.version}"


def _check_tags(tags: Iterable[str]) -> list[str]:
    chosen = sorted(set(tags))
    problems = [
        Problem(f"/tags/{i}", "pattern", f"{tag[:100]!r} is not a tag: 1 to 40 of a-z, 0-9 and '-'")
        for i, tag in enumerate(tags)
        if not _TAG.fullmatch(tag)
    ]
    if len(chosen) > MAX_TAGS:
        problems.append(Problem("/tags", "too-many", f"{len(chosen)} tags, expected at most {MAX_TAGS}"))
    if problems:
        raise Invalid(f"tags: {problems[0].detail}.", errors=problems)
    return chosen


def yank_ticket(session: Session, row: Listing, reason: str, detail: str | None) -> None:
    """Hide a listing from search, with a reason; who knows it still gets it. Again: a new reason."""
    assert reason in YANK_REASONS
    lock_copies(session, row.digest, row.fingerprint)
    row.yanked_at, row.yank_reason, row.yank_detail = utc_now(), reason, detail
    note_change(session, "yanked", [row.id])
    touch_copies(session, row)


def unyank_ticket(session: Session, row: Listing) -> None:
    """Show a yanked listing in search again."""
    if row.yanked_at is not None:
        lock_copies(session, row.digest, row.fingerprint)
        row.yanked_at = row.yank_reason = row.yank_detail = None
        note_change(session, "unyanked", [row.id])
        touch_copies(session, row)


def read_gauges(session: Session) -> Iterator[Gauge]:
    """Yield the gauges of public listings by verdict, of all by who sees them, and of the files of all."""
    public = count_by(session, "verdict", SHOWN[:1])
    counts = {verdict or "none": number for verdict, number in public.items()}
    yield Gauge("nirvana_tickets", "Public listings", "verdict", counts or {"none": 0})
    yield Gauge("nirvana_listings", "Listings", "visibility", count_by(session, "visibility", ()))
    files, size = session.execute(select(func.sum(BlobCount.blobs), func.sum(BlobCount.size_bytes))).one()
    yield Gauge("nirvana_ticket_files", "Ticket files", values={"": float(files or 0)})
    yield Gauge("nirvana_ticket_file_bytes", "Bytes of ticket files", values={"": float(size or 0)})
