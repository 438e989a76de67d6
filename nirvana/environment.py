"""The environment variables that the library and the command line read, in one place.

    NIRVANA_HOME       folder of everything kept for this user; default ~/.nirvana
    NIRVANA_CACHE      downloaded tickets; default NIRVANA_HOME/cache
    NIRVANA_DATA       folder that holds data sets (NIRVANA_DATA/mnist/train-images-idx3-ubyte.gz ...)
    NIRVANA_THREADS    how many trainings of a verification run side by side; default: one for each core
    NIRVANA_OFFLINE    1: no request leaves this process
    NIRVANA_ENDPOINT   the service's address; default http://127.0.0.1:8000
    NIRVANA_TOKEN      bearer token; default: what NIRVANA_HOME/token holds
    NIRVANA_DISABLE_PROGRESS_BARS   1: no progress bars
    NO_COLOR           any value: no colours

Read at each call, never at import, so that a test or a notebook may set them at any time.
"""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_ENDPOINT = "http://127.0.0.1:8000"


def home() -> Path:
    """NIRVANA_HOME, by default ~/.nirvana; not necessarily there yet."""
    return Path(os.environ.get("NIRVANA_HOME") or Path.home() / ".nirvana").expanduser()


def cache_folder() -> Path:
    """Where downloaded tickets are kept."""
    named = os.environ.get("NIRVANA_CACHE")
    return Path(named).expanduser() if named else home() / "cache"


def data_folder() -> Path | None:
    """NIRVANA_DATA, or None where it is not set."""
    named = os.environ.get("NIRVANA_DATA")
    return Path(named).expanduser() if named else None


def downloads_folder() -> Path:
    """Where downloaded data sets are kept, one folder each."""
    return home() / "data"


def threads() -> str | None:
    """NIRVANA_THREADS as it is written, or None where it is not set."""
    return os.environ.get("NIRVANA_THREADS", "").strip() or None


def endpoint() -> str:
    """The service's address, without a slash at its end."""
    return (os.environ.get("NIRVANA_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def token_file() -> Path:
    """Where `nirvana login` and `nirvana up` keep the token."""
    return home() / "token"


def token() -> str | None:
    """The bearer token, or None where nobody has signed in."""
    named = os.environ.get("NIRVANA_TOKEN")
    if named:
        return named.strip()
    try:
        return token_file().read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def is_offline() -> bool:
    """Whether NIRVANA_OFFLINE forbids requests."""
    return _is_set("NIRVANA_OFFLINE")


def are_bars_disabled() -> bool:
    """Whether NIRVANA_DISABLE_PROGRESS_BARS asks for silence."""
    return _is_set("NIRVANA_DISABLE_PROGRESS_BARS")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")
