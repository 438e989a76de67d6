"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from nirvana.errors import StorageFailed, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes | Path, mode: int = 0o644) -> None:
    """Write beside `path`, then rename: nobody ever sees half a file, and a full disk leaves the old one.

    Args:
        data: the bytes, or a file that has them.
        mode: the file's permissions, exactly.

    Raises:
        StorageFull, StorageFailed: naming the file and what the system said.
    """
    try:
        _write(path, data, mode)
    except OSError as error:
        kind = StorageFull if error.errno in FULL else StorageFailed
        raise kind(f"{path} cannot be written: {error.strerror}") from error


def write_durably(path: Path, data: bytes | Path) -> None:
    """Write as `write_atomically` does, and wait until a power cut would lose neither the file nor folders
    that were made for it.

    Raises:
        StorageFull, StorageFailed: as there.
    """
    new = [folder for folder in path.parents if not folder.exists()]
    write_atomically(path, data)
    for folder in (path.parent, *(folder.parent for folder in new)):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, data: bytes | Path, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
