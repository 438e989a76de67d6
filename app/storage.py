"""Blobs: bytes under a key, in a folder by default and in an object store by URL (obstore)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import obstore.store as stores
from obstore.exceptions import BaseError
from sqlalchemy import make_url

from app.settings import Settings
from nirvana.errors import NotFound, StorageFailed, StorageFull
from nirvana.files import FULL, write_durably

CHUNK_BYTES = 256 * 1024
SIGNING = (stores.S3Store, stores.GCSStore, stores.AzureStore)


class Storage:
    """A blob store. A blob appears whole under its key or not at all."""

    def __init__(self, store: stores.ObjectStore, folder: Path | None = None) -> None:
        self._store, self._folder = store, folder

    def put(self, key: str, content: bytes | Path, *, durable: bool = False) -> None:
        """Store bytes, or a file's, under `key`; the same key again is overwritten.

        Args:
            durable: a power cut after this loses nothing (an object store promises so by itself).

        Raises:
            StorageFull: the disk or the quota is full.
            StorageFailed: the store failed in another way.
        """
        with _errors(key):
            if durable and self._folder is not None:
                write_durably(self._folder / key, content)
            else:
                self._store.put(key, content)

    def get(self, key: str) -> bytes:
        """Return the whole blob. Raises: NotFound, StorageFailed."""
        with _errors(key):
            return bytes(self._store.get(key).bytes())

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield bytes `start` to `end` (exclusive, within the blob; None: all) in pieces.

        Raises:
            NotFound, StorageFailed: the blob is not there, or cannot be read.
        """
        if self._folder is not None:
            yield from _read_file(self._folder / key, key, start, end)
            return
        if end is None:
            with _errors(key):
                end = int(self._store.head(key)["size"])
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

    def sign(self, key: str, seconds: int) -> str | None:
        """Return an address that gives the blob to anybody for some time; None where the store cannot.

        Raises:
            StorageFailed: the store has no key to sign with.
        """
        if not isinstance(self._store, SIGNING):
            return None
        with _errors(key):
            return obstore.sign(self._store, "GET", key, timedelta(seconds=seconds))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, in order. Raises: StorageFailed."""
        with _errors(prefix):
            pages = obstore.list(self._store, prefix)
            return sorted(str(item["path"]) for page in pages for item in page)

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
        return Storage(stores.LocalStore(folder), folder)
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


def _read_file(path: Path, key: str, start: int, end: int | None) -> Iterator[bytes]:
    """Yield bytes of a file in pieces: opened once, so that whoever reads it does so to its end though it is
    removed."""
    with _errors(key):
        file = path.open("rb")
    with file:
        end = os.fstat(file.fileno()).st_size if end is None else end
        file.seek(start)
        while start < end:
            with _errors(key):
                piece = file.read(min(CHUNK_BYTES, end - start))
            if not piece:
                raise StorageFailed(f"The blob {key} ends at {start} bytes, before {end}.")
            yield piece
            start += len(piece)


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
