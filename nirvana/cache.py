"""Downloaded tickets, kept by digest.

    NIRVANA_CACHE/tickets/ab/abcdef....ticket     the file whose ticket has the digest sha256:abcdef...
    NIRVANA_CACHE/refs/<service>/<owner>/<name>   the digest that a name stands for

A file is written to a temporary name and renamed, so that a reader sees a whole ticket or none; nothing is
ever a link. A name stands for one ticket for ever, so that a ref never goes stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from nirvana import environment
from nirvana.errors import InvalidName, InvalidTicket
from nirvana.files import write_atomically
from nirvana.ticket import Ticket

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*\Z")


class Cache:
    """A folder of tickets.

    Args:
        folder: None: NIRVANA_CACHE, by default NIRVANA_HOME/cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or environment.cache_folder()

    def path(self, digest: str) -> Path:
        """Where the ticket `digest` is kept, if it is."""
        if not DIGEST.match(digest):
            raise InvalidName(f"digest: found {digest!r}, expected sha256: and 64 hexadecimal digits")
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "tickets" / hexadecimal[:2] / f"{hexadecimal}.ticket"

    def find(self, digest: str) -> bytes | None:
        """The bytes kept for `digest`, or None. They are checked by whoever reads the ticket."""
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            return None

    def find_intact(self, digest: str) -> bytes | None:
        """The bytes kept for `digest`, read and checked; a damaged file is removed and is as good as none."""
        content = self.find(digest)
        if content is None:
            return None
        try:
            if Ticket.from_bytes(content).digest == digest:
                return content
        except InvalidTicket:
            pass
        self.remove(digest)
        return None

    def keep(self, digest: str, content: bytes) -> Path:
        """Keep a ticket's file; the caller has checked that it has this digest."""
        path = self.path(digest)
        write_atomically(path, content)
        return path

    def remove(self, digest: str) -> None:
        """Forget a ticket; no error when it is not here."""
        self.path(digest).unlink(missing_ok=True)

    def find_ref(self, endpoint: str, name: str) -> str | None:
        """The digest that owner/name stood for when it was last downloaded, or None."""
        try:
            digest = self._ref_path(endpoint, name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        return digest if DIGEST.match(digest) else None

    def keep_ref(self, endpoint: str, name: str, digest: str) -> None:
        write_atomically(self._ref_path(endpoint, name), digest.encode())

    def digests(self) -> Iterator[str]:
        """Every ticket that is kept."""
        for path in sorted(self.folder.glob("tickets/??/*.ticket")):
            yield f"sha256:{path.stem}"

    def _ref_path(self, endpoint: str, name: str) -> Path:
        if not NAME.match(name):
            raise InvalidName(f"ticket name: found {name!r}, expected owner/name")
        service = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(endpoint).netloc or endpoint)
        return self.folder / "refs" / service / name
