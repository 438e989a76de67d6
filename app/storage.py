"""Blobs: bytes under a key, in a folder by default and in an object store by URL (obstore)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore.store as stores
from obstore.exceptions import BaseError
from sqlalchemy import make_url

from app.settings import Settings
from nirvana.errors import NotFound, StorageFailed, StorageFull
from nirvana.files import FULL

CHUNK_BYTES = 256 * 1024


class Storage:
    """A blob store. A blob appears whole under its key or not at all."""

    def __init__(self, store: stores.ObjectStore) -> None:
        self._store = store

    def put(self, key: str, content: bytes | Path) -> None:
        """Store bytes, or a file's, under `key`; the same key again is overwritten.

        Raises:
            StorageFull: the disk or the quota is full.
            StorageFailed: the store failed in another way.
        """
        with _errors(key):
            self._store.put(key, content)

    def get(self, key: str) -> bytes:
        """Return the whole blob. Raises: NotFound, StorageFailed."""
        with _errors(key):
            return bytes(self._store.get(key).bytes())

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield bytes `start` to `end` (exclusive; None: all) in pieces. Raises: NotFound, StorageFailed."""
        with _errors(key):
            size = int(self._store.head(key)["size"])
        end = size if end is None else min(end, size)
        while start < end:
            stop = min(start + CHUNK_BYTES, end)
            with _errors(key):
                yield bytes(self._store.get_range(key, start=start, end=stop))
            start = stop

    def size(self, key: str) -> int | None:
        """Return the blob's size in bytes, or None where there is none. Raises: StorageFailed."""
        try:
            with _errors(key):
                return int(self._store.head(key)["size"])
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove a blob, if it is there. Raises: StorageFailed."""
        try:
            with _errors(key):
                self._store.delete(key)
        except NotFound:
            return

    def check(self) -> None:
        """Prove that the store answers, and takes a blob. Raises: StorageFull, StorageFailed."""
        self.put("health", b"ok")
        self.delete("health")


def make_storage(settings: Settings) -> Storage:
    """Make the blob store of the settings: a folder (made if need be), or an object store."""
    parts = urlsplit(settings.blob_url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Storage(stores.LocalStore(folder))
    if parts.scheme == "memory":
        return Storage(stores.MemoryStore())
    return Storage(stores.from_url(settings.blob_url))


def free_bytes(settings: Settings) -> Iterator[int]:
    """Yield the free room of each disk of ours: that of the embedded database, and that of a blob folder."""
    if settings.database_url.startswith("sqlite"):
        yield shutil.disk_usage(Path(make_url(settings.database_url).database or ".").parent).free
    parts = urlsplit(settings.blob_url)
    if parts.scheme == "file":
        yield shutil.disk_usage(unquote(parts.path)).free


@contextmanager
def _errors(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"There is no blob {key}.") from error
    except (BaseError, OSError) as error:
        if getattr(error, "errno", None) in FULL or _says_full(error):
            raise StorageFull("The blob store is full; nothing was stored.") from error
        raise StorageFailed(f"The blob store failed ({type(error).__name__}); try again.") from error


def _says_full(error: Exception) -> bool:
    """Tell whether the store is full: obstore reports the system's error as text only."""
    text = str(error)
    return any(f"os error {number}" in text or f"code: {number}," in text for number in FULL)


def ticket_key(file_digest: str) -> str:
    """Return the key of a .ticket file: the sha256 of its bytes (not the ticket's digest: two files can hold
    one ticket and differ in their descriptions of it)."""
    hexadecimal = file_digest.removeprefix("sha256:")
    return f"tickets/{hexadecimal[:2]}/{hexadecimal}.ticket"
