"""Bodies of search pages, from summaries that are kept as JSON.

A listing's version is raised by everything that changes what is shown of it, save downloads, which are
counted apart. So a summary is made once for each version, and a page reads of a listing whether it changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from app.pagination import Page
from app.tickets.schemas import TicketPage, TicketSummary, summary_of
from app.tickets.search.plans import Hit
from app.tickets.search.results import load
from app.tickets.service import find_copies

KEPT = 4096  # of about 800 bytes
_NO_ITEMS = b'{"items":[]'


class Summaries:
    """The summaries that were shown last, by the listing's id and version."""

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def page_body(self, session: Session, page: Page[Hit]) -> bytes:
        """Return the JSON of a `TicketPage`."""
        summaries = self.summarise(session, page.rows)
        items = (
            b'%b,"downloads":%d,"more":%d}' % (summary[:-1], hit.downloads, page.more.get(hit.id, 0))
            for hit, summary in zip(page.rows, summaries, strict=True)
        )
        others = {name: getattr(page, name) for name in TicketPage.model_fields.keys() - {"items"}}
        rest = TicketPage(items=[], **others).model_dump_json().encode().removeprefix(_NO_ITEMS)
        return b'{"items":[%b]%b' % (b",".join(items), rest)

    def summarise(self, session: Session, hits: Sequence[Hit]) -> Iterable[bytes]:
        """Return the summaries of hits, in their order, without the number of downloads."""
        keys = [(hit.id, hit.version) for hit in hits]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = {number: version for number, version in keys if (number, version) not in found}
        rows = load(session, list(missing)) if missing else []
        copies = find_copies(session, rows)  # read after the version: what is newer than it is never found
        for row in rows:
            summary = TicketSummary.model_validate(summary_of(row, copies))
            found[row.id, missing[row.id]] = summary.model_dump_json(exclude={"downloads"}).encode()
        with self._lock:
            self._kept |= {(row.id, missing[row.id]): found[row.id, missing[row.id]] for row in rows}
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return [found[key] for key in keys]
