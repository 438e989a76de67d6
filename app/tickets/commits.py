"""Publishes that come at the same time, in one transaction.

A commit waits for the disk, and a statement costs more than a row. So whoever publishes while a commit is
under way joins the next one; nobody waits for company. Only what is plain goes together: names that are
free, each once. All else, and everybody once the transaction fails, goes alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import anyio
import anyio.to_thread
from sqlalchemy import BindParameter, Executable, bindparam, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.accounts.organisations.roles import get_owner
from app.db import Database
from app.limits.service import BUSY_SECONDS
from app.tickets.files.checking import CheckedTicket
from app.tickets.models import Listing
from app.tickets.publishing import Publication, check_key, insert_listing, insert_new
from app.tickets.service import find_related
from nirvana.errors import IdempotencyMismatch, NirvanaError, Unavailable

log = logging.getLogger("nirvana.app")
MOST_TOGETHER = 32


@dataclass(frozen=True)
class Entry:
    """A checked ticket whose file is stored, and the place that it shall have.

    Attributes:
        publication: its name was checked, and that its publisher may publish for its owner.
        key: the Idempotency-Key.
        request: what the key stands for.
    """

    checked: CheckedTicket
    publication: Publication
    key: str | None = None
    request: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, str]:
        return self.publication.owner.id, self.publication.name

    @property
    def is_own(self) -> bool:
        """False for a member of an organisation, who may have been removed meanwhile."""
        return self.publication.payer.id == self.publication.owner.id


@dataclass(frozen=True)
class Published:
    """What became of an entry.

    Attributes:
        row: as it was committed, not of a session.
        is_new: nobody had published it before.
        is_lone: nothing else here has anything to do with it, so that `row` says all.
    """

    row: Listing
    is_new: bool
    is_lone: bool = False


class Raced(Exception):
    """Somebody else took a name meanwhile."""


class Commits:
    """The one thread of a service that commits what is published.

    Args:
        most_waiting: whoever comes when so many wait is refused.
    """

    def __init__(self, database: Database, most_waiting: int) -> None:
        self.database, self.most_waiting = database, most_waiting
        self._waiting: deque[tuple[Entry, asyncio.Future[Published]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._thread = anyio.CapacityLimiter(1)

    async def publish(self, entry: Entry) -> Published:
        """Publish a stored ticket, with whoever else is there.

        Raises:
            Unavailable: too many wait.
            NameTaken, Conflict, IdempotencyMismatch: as in `publishing`.
        """
        self.check()
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    def check(self) -> None:
        """Refuse one more in the line, before its body is read. Raises: Unavailable: it is too long."""
        if len(self._waiting) >= self.most_waiting:
            detail = f"{self.most_waiting} others wait for this already; try again."
            raise Unavailable(detail, retry_after_seconds=BUSY_SECONDS)

    async def _run(self) -> None:
        try:
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
                await self._commit(some)
        finally:
            self._running = None

    async def _commit(self, some: Sequence[tuple[Entry, asyncio.Future[Published]]]) -> None:
        entries, outcomes = [entry for entry, _ in some], list[Published | Exception]()
        try:
            outcomes = await anyio.to_thread.run_sync(
                publish_all, self.database, entries, limiter=self._thread
            )
        finally:
            lost = Unavailable("The service ends; nothing is known of what it was publishing.")
            for number, (_, future) in enumerate(some):
                outcome = outcomes[number] if outcomes else lost
                if future.done():  # whoever asked went away
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)


def publish_all(database: Database, entries: Sequence[Entry]) -> list[Published | Exception]:
    """Publish stored tickets; return what became of each."""
    try:
        with database.write() as session:
            together = publish_plain(session, entries)
    except (SQLAlchemyError, NirvanaError, Raced) as error:
        log.info("%d publishes go one by one: %s", len(entries), type(error).__name__)
        together = {}
    return [together.get(number) or _publish_alone(database, entry) for number, entry in enumerate(entries)]


def publish_plain(session: Session, entries: Sequence[Entry]) -> dict[int, Published]:
    """Publish those of some entries whose names are free and theirs alone; return them by their numbers.

    Raises:
        Raced: a name was taken meanwhile; then all is to be rolled back.
    """
    places = Counter(entry.place for entry in entries)
    taken = {(owner, name) for owner, name in session.execute(_select_taken(), {"places": list(places)})}
    plain = {
        number: entry
        for number, entry in enumerate(entries)
        if places[entry.place] == 1 and entry.place not in taken and entry.is_own and _may_go(session, entry)
    }
    rows = insert_new(session, [(entry.checked, entry.publication) for entry in plain.values()])
    if len(rows) < len(plain):
        raise Raced
    related = find_related(session, list(rows.values())) if rows else set()
    return {number: _published(rows[entry.place], related) for number, entry in plain.items()}


@cache
def _select_taken() -> Executable:
    places: BindParameter[tuple[int, str]] = bindparam("places", expanding=True)
    return select(Listing.owner_id, Listing.name).where(tuple_(Listing.owner_id, Listing.name).in_(places))


def _may_go(session: Session, entry: Entry) -> bool:
    """Keep what an entry's key stands for; False where it stands for another request."""
    try:
        check_key(session, entry.publication.owner, entry.key, entry.request)
    except IdempotencyMismatch:
        return False
    return True


def _published(row: Listing, related: set[str]) -> Published:
    about = {row.digest, row.fingerprint}
    return Published(row, True, row.parent_digest is None and not about & related)


def _publish_alone(database: Database, entry: Entry) -> Published | Exception:
    try:
        with database.write() as session:
            payer, owner = entry.publication.payer, entry.publication.owner
            check_key(session, payer, entry.key, entry.request)
            get_owner(session, payer, owner.name, hold=True)  # who was removed meanwhile may not
            row, is_new = insert_listing(session, entry.checked, entry.publication)
    except Exception as error:  # its own request answers it
        return error
    return Published(row, is_new)
