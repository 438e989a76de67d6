"""Downloaded tickets, kept by digest.

    NIRVANA_CACHE/tickets/ab/abcdef.../0123....ticket   a file whose ticket has the digest sha256:abcdef...
    NIRVANA_CACHE/refs/<service>/<owner>/<name>         the digests of the ticket and file that a name means

Files of one ticket may differ in recipe, task, laws and claims: each is kept under the sha256 of its bytes.
A file is written to a temporary name and renamed, so that a reader sees a whole ticket or none; nothing is
ever a link. A name stands for one file for ever, so that a ref never goes stale.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from nirvana import environment
from nirvana.errors import InvalidName, InvalidTicket
from nirvana.files import write_atomically
from nirvana.format.ticket import Ticket

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*\Z")


class Cache:
    """A folder of tickets.

    Args:
        folder: None: NIRVANA_CACHE, by default NIRVANA_HOME/cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or environment.cache_folder()

    def find_intact(self, digest: str, file_digest: str | None = None) -> bytes | None:
        """Return a file of the ticket `digest`, checked; a damaged one is removed and is as good as none.

        Args:
            file_digest: sha256:hex of its bytes; None: whichever is kept, for they mean the same ticket.
        """
        for path in self._files(digest):
            if file_digest is not None and path.stem != file_digest.removeprefix("sha256:"):
                continue
            content = path.read_bytes()
            if _is_intact(content, digest, path.stem):
                return content
            path.unlink(missing_ok=True)
        return None

    def keep(self, digest: str, content: bytes) -> Path:
        """Keep a ticket's file; the caller has checked that it has this digest."""
        path = self._folder(digest) / f"{sha256(content).hexdigest()}.ticket"
        write_atomically(path, content)
        return path

    def remove(self, digest: str) -> None:
        """Forget a ticket; no error when it is not here."""
        shutil.rmtree(self._folder(digest), ignore_errors=True)

    def size_bytes(self, digest: str) -> int:
        """Return the bytes of a ticket's files together."""
        return sum(path.stat().st_size for path in self._files(digest))

    def find_ref(self, endpoint: str, name: str) -> tuple[str, str] | None:
        """Return the digests of the ticket and of the file that owner/name stood for when it was last
        downloaded, or None."""
        try:
            digests = self._ref_path(endpoint, name).read_text(encoding="ascii").split()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        if len(digests) != 2 or not all(map(DIGEST.match, digests)):
            return None
        return digests[0], digests[1]

    def keep_ref(self, endpoint: str, name: str, digest: str, file_digest: str) -> None:
        write_atomically(self._ref_path(endpoint, name), f"{digest} {file_digest}\n".encode())

    def digests(self) -> Iterator[str]:
        """List every ticket that is kept."""
        for path in sorted(self.folder.glob("tickets/??/*/")):
            if any(path.glob("*.ticket")):
                yield f"sha256:{path.name}"

    def _folder(self, digest: str) -> Path:
        if not DIGEST.match(digest):
            raise InvalidName(f"digest: found {digest!r}, expected sha256: and 64 hexadecimal digits")
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "tickets" / hexadecimal[:2] / hexadecimal

    def _files(self, digest: str) -> list[Path]:
        return sorted(self._folder(digest).glob("*.ticket"))

    def _ref_path(self, endpoint: str, name: str) -> Path:
        if not NAME.match(name):
            raise InvalidName(f"ticket name: found {name!r}, expected owner/name")
        service = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(endpoint).netloc or endpoint)
        return self.folder / "refs" / service / name


def _is_intact(content: bytes, digest: str, file_hex: str) -> bool:
    """Tell whether these are the bytes that were kept, and a file of the ticket."""
    if sha256(content).hexdigest() != file_hex:
        return False
    try:
        return Ticket.from_bytes(content).digest == digest
    except InvalidTicket:
        return False
