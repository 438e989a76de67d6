"""Making exports: each once, the large ones in a child process with a cap on its memory, none for ever.

`python -m app.tickets.files.exporting SOURCE FORM KEY` is the child: it reads the ticket file under one key
of the blob store and writes the export under another.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.db import Database, insert_if_absent, utc_now
from app.limits.rates import Payer
from app.limits.service import Limiter, Line
from app.settings import Settings
from app.storage import Storage, make_storage
from app.tickets.models import ExportBlob
from nirvana.environment import end_with_parent, is_out_of_memory
from nirvana.errors import NirvanaError, StorageFailed, TooLarge, Unavailable, error_classes
from nirvana.format.reader import Limits
from nirvana.format.ticket import Ticket

log = logging.getLogger("nirvana.app")
MIB = 2**20
SMALL_PARAMETERS = 250_000  # a larger network's export is made in a process of its own
USED_EVERY = timedelta(minutes=10)
OUT_OF_MEMORY = 3  # the child's exit status


@dataclass(frozen=True)
class Making:
    """An export to make.

    Attributes:
        source: key of the ticket file. key: of the export.
        form: one of `nirvana.exports.FORMATS`.
        parameters: of the network.
    """

    source: str
    form: str
    key: str
    parameters: int

    @property
    def cost_mib(self) -> int:
        """Size of all values as float32, in MiB, at least 1: what the making costs whoever asks first."""
        return max(1, math.ceil(4 * self.parameters / MIB))


class Exporter:
    """The exports of this process that are being made, and those that are kept."""

    def __init__(self, settings: Settings, database: Database, storage: Storage, limiter: Limiter) -> None:
        self.settings, self.database, self.storage, self.limiter = settings, database, storage, limiter
        self._line = Line(settings.exports_at_once, settings.exports_waiting)
        self._making: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, making: Making, payer: Payer) -> None:
        """Make an export unless it is there; whoever asks for it meanwhile waits for the same one.

        Raises:
            RateLimited: the caller has had too much made. Unavailable: too many exports wait.
            Invalid: the form cannot express the ticket. TooLarge: it takes too much memory or time.
        """
        task = self._making.get(making.key)
        if task is None:
            if await run_in_threadpool(self._is_there, making.key):
                return
            task = self._making.get(making.key)
        if task is None:
            standing = self.limiter.hit("export-mib", payer, making.cost_mib)
            if standing is not None:
                standing.check()
            task = asyncio.create_task(self._line.run(lambda: self._make(making)))
            self._making[making.key] = task
            task.add_done_callback(lambda _: self._making.pop(making.key, None))
        await asyncio.shield(task)

    def _is_there(self, key: str) -> bool:
        size = self.storage.size(key)
        if size is None:
            return False
        with self.database.read() as session:
            is_due = not is_noted(session, key)
        if is_due:
            with suppress(OperationalError), self.database.write() as session:
                note_use(session, key, size)  # a busy database is no reason not to hand out what is there
        return True

    def _make(self, making: Making) -> None:
        if making.parameters <= SMALL_PARAMETERS:
            make_export(self.settings, self.storage, making)
        else:
            _make_in_child(self.settings, making)
        size = self.storage.size(making.key)
        if size is None:
            raise StorageFailed(f"The export {making.key} was made and is not there; try again.")
        with self.database.write() as session:
            note_use(session, making.key, size)
            evict(session, self.storage, self.settings.max_export_bytes)


def is_noted(session: Session, key: str) -> bool:
    """Tell whether the use of an export was written down a moment ago."""
    since = utc_now() - USED_EVERY
    query = select(ExportBlob.key).where(ExportBlob.key == key, ExportBlob.used_at >= since)
    return session.scalar(query) is not None


def note_use(session: Session, key: str, size_bytes: int) -> None:
    """Write down that an export is used now, unless that was done a moment ago."""
    now = utc_now()
    if insert_if_absent(session, ExportBlob, key=key, size_bytes=size_bytes, used_at=now):
        return
    due = update(ExportBlob).where(ExportBlob.key == key, ExportBlob.used_at < now - USED_EVERY)
    session.execute(due.values(used_at=now))


def evict(session: Session, storage: Storage, most_bytes: int) -> int:
    """Delete the exports that nobody has used for longest until the others have `most_bytes` or less, but
    none that was used a moment ago and may be on its way; return how many."""
    left = session.scalar(select(func.coalesce(func.sum(ExportBlob.size_bytes), 0))) or 0
    idle = select(ExportBlob).where(ExportBlob.used_at < utc_now() - USED_EVERY)
    evicted = 0
    if left <= most_bytes:
        return evicted
    for blob in session.scalars(idle.order_by(ExportBlob.used_at)).all():
        if left <= most_bytes:
            break
        storage.delete(blob.key)
        session.delete(blob)
        left, evicted = left - blob.size_bytes, evicted + 1
    return evicted


def make_export(settings: Settings, storage: Storage, making: Making) -> None:
    """Make an export here and now. Raises: Invalid, StorageFailed."""
    from nirvana.exports import export_ticket  # not at the top: the service starts without them

    limits = Limits(settings.max_upload_bytes, settings.max_parameters)
    ticket = Ticket.from_bytes(storage.get(making.source), limits)
    storage.put(making.key, export_ticket(ticket, making.form).content)


def _make_in_child(settings: Settings, making: Making) -> None:
    command = [
        sys.executable,
        "-m",
        "app.tickets.files.exporting",
        making.source,
        making.form,
        making.key,
    ]
    seconds, memory = settings.export_seconds, settings.export_memory_bytes
    try:
        done = subprocess.run(
            command, env=_environment(settings), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise TooLarge(f"The export takes more than {seconds:g} s; export the ticket yourself.") from None
    if done.returncode == OUT_OF_MEMORY:
        detail = f"The export takes more than {memory // MIB} MiB of memory; export the ticket yourself."
        raise TooLarge(detail, limit_bytes=memory)
    if done.returncode != 0:
        log.warning("the export %s failed: %s", making.key, done.stderr[-2_000:])
        raise _child_error(done.stdout, done.returncode)


def _child_error(output: str, status: int) -> NirvanaError:
    """Return the error that the child wrote, or one that says how it ended."""
    try:
        error = json.loads(output)
        kind = error_classes()[error["code"]]
        return kind(error["detail"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"The export's process ended with status {status}; try again.")


def _environment(settings: Settings) -> Mapping[str, str]:
    names = ("home", "blob_url", "max_upload_bytes", "max_parameters", "export_memory_bytes")
    own = {f"NIRVANA_{name.upper()}": str(getattr(settings, name)) for name in names}
    paths = os.pathsep.join(path for path in sys.path if path) or os.getcwd()
    return os.environ | own | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def main(arguments: Sequence[str]) -> int:
    """Make an export as a child: 0, OUT_OF_MEMORY, or 1 with the error as JSON on standard output."""
    end_with_parent(signal.SIGKILL)
    settings = Settings()
    resource.setrlimit(resource.RLIMIT_AS, (settings.export_memory_bytes, settings.export_memory_bytes))
    source, form, key = arguments
    try:
        with _alone(settings, key):
            storage = make_storage(settings)
            if storage.size(key) is None:  # else another service process has made it meanwhile
                make_export(settings, storage, Making(source, form, key, 0))
    except NirvanaError as error:
        print(json.dumps({"code": error.code, "detail": error.detail}))
        return 1
    except Exception as error:
        if is_out_of_memory(error):
            return OUT_OF_MEMORY
        raise
    return 0


@contextmanager
def _alone(settings: Settings, key: str) -> Iterator[None]:
    """Hold an export's lock, of all processes on this machine."""
    folder = settings.home / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256(key.encode()).hexdigest()[:3]  # some thousand files at most
    with (folder / f"export-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
