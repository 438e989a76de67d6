"""The environment variables that the library and the command line read, in one place.

    NIRVANA_HOME       folder of everything kept for this user; default ~/.nirvana
    NIRVANA_CACHE      downloaded tickets; default NIRVANA_HOME/cache
    NIRVANA_DATA       folder that holds data sets (NIRVANA_DATA/mnist/train-images-idx3-ubyte.gz ...)
    NIRVANA_TASKS      a further folder of tasks, looked at before NIRVANA_HOME/tasks
    NIRVANA_THREADS    threads that trainings take, side by side or at one update; default: one for each core
    NIRVANA_OFFLINE    1: no request leaves this process
    NIRVANA_ENDPOINT   the service's address; default http://127.0.0.1:8000
    NIRVANA_TOKEN      bearer token; default: what NIRVANA_HOME/token holds
    NIRVANA_DISABLE_PROGRESS_BARS   1: no progress bars
    NO_COLOR           any value: no colours

Read at each call, never at import, so that a test or a notebook may set them at any time.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from nirvana.errors import Invalid

VERSION = "0.1.0"  # of the package; pyproject.toml reads it here

DEFAULT_ENDPOINT = "http://127.0.0.1:8000"
_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory"),
    *("bad_alloc", "failed to map segment"),
)


def home() -> Path:
    """Return NIRVANA_HOME, by default ~/.nirvana; not necessarily there yet."""
    return Path(os.environ.get("NIRVANA_HOME") or Path.home() / ".nirvana").expanduser()


def cache_folder() -> Path:
    """Return the folder of downloaded tickets."""
    named = os.environ.get("NIRVANA_CACHE")
    return Path(named).expanduser() if named else home() / "cache"


def data_folder() -> Path | None:
    """Return NIRVANA_DATA, or None where it is not set."""
    named = os.environ.get("NIRVANA_DATA")
    return Path(named).expanduser() if named else None


def tasks_folder() -> Path | None:
    """Return NIRVANA_TASKS, or None where it is not set."""
    named = os.environ.get("NIRVANA_TASKS")
    return Path(named).expanduser() if named else None


def downloads_folder() -> Path:
    """Return the folder of downloaded data sets, which have one folder each."""
    return home() / "data"


def count_threads(threads: int | None = None) -> int:
    """Return the number of threads to use: `threads`, or else NIRVANA_THREADS, or else one for each core that
    this process may run on.

    Raises:
        Invalid: less than 1, or NIRVANA_THREADS is no whole number.
    """
    named = os.environ.get("NIRVANA_THREADS", "").strip()
    if threads is None and named:
        if not named.isdecimal():
            raise Invalid(f"NIRVANA_THREADS is {named!r}, expected a whole number of at least 1")
        threads = int(named)
    if threads is None:
        return _count_cores()
    if threads < 1:
        raise Invalid(f"threads is {threads}, expected at least 1")
    return threads


def _count_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the cores that this process may run on, and may keep busy: a container's quota (cgroup v2) of
    processor time in a period of time counts, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = quota.read_text().split()
        return max(1, min(cores, -(-int(most) // int(period))))
    except (OSError, ValueError):  # no such file, or no limit: "max 100000"
        return cores


def endpoint() -> str:
    """Return the service's address, without a slash at its end."""
    return (os.environ.get("NIRVANA_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def token_file() -> Path:
    """Return the file in which `nirvana login` and `nirvana up` keep the token."""
    return home() / "token"


def token() -> str | None:
    """Return the bearer token, or None where nobody has signed in."""
    named = os.environ.get("NIRVANA_TOKEN")
    if named:
        return named.strip()
    try:
        return token_file().read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def is_offline() -> bool:
    """Tell whether NIRVANA_OFFLINE forbids requests."""
    return _is_set("NIRVANA_OFFLINE")


def are_bars_disabled() -> bool:
    """Tell whether NIRVANA_DISABLE_PROGRESS_BARS asks for silence."""
    return _is_set("NIRVANA_DISABLE_PROGRESS_BARS")


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent is gone; on Linux alone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means a lack of memory: some libraries say it in words alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")
