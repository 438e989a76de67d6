"""Counters of requests, in memory or in a file that several processes of one machine share.

The library's own memory storage walks through every counter a hundred times a second, and is one process's.
"""

from __future__ import annotations

import sqlite3
import threading
import time

from limits.errors import ConfigurationError
from limits.storage import Storage, storage_from_string

from nirvana.errors import Invalid

MEMORY = ":memory:"
SWEEP_EVERY = 1_000
_COLUMNS = "key TEXT PRIMARY KEY, number INT, began REAL, ends REAL"
_TABLE = f"CREATE TABLE IF NOT EXISTS counter ({_COLUMNS}) WITHOUT ROWID"
_IS_OVER = "(ends <= :now OR began > :now)"  # a window that has not begun yet: the clock was put back
_RAISE = (
    "INSERT INTO counter VALUES (:key, :amount, :now, :ends) ON CONFLICT (key) DO UPDATE SET "
    f"number = CASE WHEN {_IS_OVER} THEN :amount ELSE number + :amount END, "
    f"began = CASE WHEN {_IS_OVER} THEN :now ELSE began END, "
    f"ends = CASE WHEN {_IS_OVER} THEN :ends ELSE ends END RETURNING number"
)


class SqliteCounters(Storage):
    """Counters in an SQLite database that nobody needs after a restart."""

    STORAGE_SCHEME = None

    def __init__(self, path: str = MEMORY) -> None:
        super().__init__(path, wrap_exceptions=True)
        self._lock, self._raised = threading.Lock(), 0
        self._connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", _TABLE):
            self._connection.execute(statement)
        self._connection.execute("CREATE INDEX IF NOT EXISTS counter_ends ON counter (ends)")

    @property
    def base_exceptions(self) -> type[Exception]:
        """See `Storage`."""
        return sqlite3.Error

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Raise a counter, which begins anew when it has ended; return it."""
        now = time.time()
        values = {"key": key, "amount": amount, "now": now, "ends": now + expiry}
        with self._lock:
            self._raised += 1
            if self._raised % SWEEP_EVERY == 0:
                self._connection.execute(f"DELETE FROM counter WHERE {_IS_OVER}", values)
            return int(self._connection.execute(_RAISE, values).fetchone()[0])

    def get(self, key: str) -> int:
        """Return a counter; 0 where there is none or it has ended."""
        return int(self._read(key)[0])

    def get_expiry(self, key: str) -> float:
        """Return the instant at which a counter ends, in seconds of the epoch."""
        return self._read(key)[1]

    def check(self) -> bool:
        """Tell whether the database answers."""
        self._read("")
        return True

    def reset(self) -> int | None:
        """Forget every counter; return how many there were."""
        with self._lock:
            return self._connection.execute("DELETE FROM counter").rowcount

    def clear(self, key: str) -> None:
        """Forget a counter."""
        with self._lock:
            self._connection.execute("DELETE FROM counter WHERE key = ?", (key,))

    def _read(self, key: str) -> tuple[int, float]:
        now = time.time()
        query = f"SELECT number, ends FROM counter WHERE key = :key AND NOT {_IS_OVER}"
        values = {"key": key, "now": now}
        with self._lock:
            row: tuple[int, float] | None = self._connection.execute(query, values).fetchone()
        return row or (0, now)


def make_counters(address: str) -> Storage:
    """Return the counters of a setting: a path, `:memory:`, or an address that the library knows
    (`redis://...`).

    Raises:
        Invalid: the library does not know it, or needs a package for it that is not here.
    """
    if "://" not in address:
        return SqliteCounters(address)
    try:
        counters = storage_from_string(address, wrap_exceptions=True)
    except ConfigurationError as error:
        raise Invalid(f"NIRVANA_LIMIT_STORAGE: {error}") from None
    if not isinstance(counters, Storage):
        raise Invalid(f"NIRVANA_LIMIT_STORAGE: {address.partition('://')[0]} is asynchronous.")
    return counters
