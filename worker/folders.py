"""The folders of this worker's rounds, and those that killed workers left.

A worker locks its folder as long as it lives, whatever ends it, so that a lock that can be had says that the
folder belongs to nobody. That holds between containers that share a disk, where process numbers do not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX, LOCK = "nirvana-worker-", "lock"


class RoundsFolder:
    """A locked folder under the system's one for temporary files."""

    def __init__(self) -> None:
        made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))  # nobody looks for it until it is locked
        self._lock = os.open(made / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name[1:]))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_stale_folders() -> int:
    """Remove what workers of this user left that are no more; return how many folders."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        if _is_free(folder / LOCK):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _is_free(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
