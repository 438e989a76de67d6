"""What metrics say about tickets."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.metrics import Gauge
from app.tickets.models import Blob, Ticket


def read_gauges(session: Session) -> Iterator[Gauge]:
    """Listings by verdict, and the files behind them."""
    verdict = func.coalesce(Ticket.verdict, "none")
    counts = dict(session.execute(select(verdict, func.count()).group_by(verdict)).all())
    yield Gauge("nirvana_tickets", "Listings", "verdict", counts or {"none": 0})
    files, size = session.execute(select(func.count(), func.coalesce(func.sum(Blob.size_bytes), 0))).one()
    yield Gauge("nirvana_ticket_files", "Ticket files", values={"": files})
    yield Gauge("nirvana_ticket_file_bytes", "Bytes of ticket files", values={"": float(size)})
