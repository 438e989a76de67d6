"""Downloads a day, without robots: counted in memory, and written every few seconds."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from datetime import date
from threading import Lock

from fastapi import Request, Response
from sqlalchemy import ForeignKey, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base, Database, add_counts, utc_now
from app.tickets.files.serving import is_head
from app.tickets.models import Listing

log = logging.getLogger("nirvana.app")
WRITE_SECONDS = 10.0
ROBOT = re.compile(r"bot|crawl|spider|slurp|preview|monitor|nirvana-mirror|^$", re.IGNORECASE)


class DownloadCount(Base):
    """Downloads of a listing's file on a day (UTC)."""

    __tablename__ = "download_count"

    listing_id: Mapped[int] = mapped_column(ForeignKey("ticket.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    count: Mapped[int]


class Downloads:
    """The downloads that are not yet written down. A killed service loses the last seconds of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._counts: Counter[tuple[int, date]] = Counter()
        self._lock = Lock()
        self._written = time.monotonic()

    def note(self, request: Request, response: Response, listing_id: int) -> bool:
        """Count an answer that hands a file out from its first byte on; tell whether it is time to write."""
        is_whole = response.status_code == 200 or request.headers.get("range", "").startswith("bytes=0-")
        is_sent = not is_head(request) and response.status_code in (200, 206, 307)
        if is_sent and is_whole and not ROBOT.search(request.headers.get("user-agent", "")):
            with self._lock:
                self._counts[listing_id, utc_now().date()] += 1
        return bool(self._counts) and time.monotonic() - self._written > WRITE_SECONDS

    def write(self) -> None:
        """Write the counts down; where the database does not take them, another time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            self._written = time.monotonic()
        rows = [{"listing_id": one, "day": day, "count": count} for (one, day), count in counts.items()]
        try:
            with self.database.write() as session:
                add_counts(session, DownloadCount, rows)
                for listing_id, count in _of_listings(counts).items():
                    added = update(Listing).where(Listing.id == listing_id)
                    session.execute(added.values(downloads=Listing.downloads + count))
        except SQLAlchemyError as error:
            log.warning("downloads were not written down (%s)", type(error).__name__)
            with self._lock:
                self._counts.update(counts)


def _of_listings(counts: Counter[tuple[int, date]]) -> Counter[int]:
    """Return the counts of all days together, in order of the listings, so that no two writers deadlock."""
    totals: Counter[int] = Counter()
    for (listing_id, _), count in sorted(counts.items()):
        totals[listing_id] += count
    return totals


def list_downloads(session: Session, listing_id: int, days: int) -> tuple[int, list[DownloadCount]]:
    """Return a listing's downloads of all time, and its newest days that had any, the newest first."""
    query = select(DownloadCount).where(DownloadCount.listing_id == listing_id)
    total = select(func.coalesce(func.sum(DownloadCount.count), 0))
    rows = session.scalars(query.order_by(DownloadCount.day.desc()).limit(days)).all()
    return session.scalar(total.where(DownloadCount.listing_id == listing_id)) or 0, list(rows)
