"""What a ticket file says, checked in processes of their own.

Drawing all initial values again takes most of the processor time of a publish, and keeps Python's one lock:
done in the service's own threads it would let every other request wait. This module imports no database and
no web framework, so that a checking process is small.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from threading import Lock, Thread
from typing import TypeVar

import anyio
import anyio.to_thread

from app.architectures.names import check_name
from nirvana.errors import InvalidTicket, Problem, Unavailable
from nirvana.errors import JsonObject as Json
from nirvana.format.container import read_container
from nirvana.format.lint import LintReport, find_warnings, lint
from nirvana.format.reader import Limits
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.training.schedule import check_recipe
from nirvana.verification.fingerprint import fingerprint, sketch

MOST_FLOPS = 2**63  # of one forward pass: what a column holds
MOST_THREADS = 2  # of checks without processes: each may take some hundred megabytes
BUSY_SECONDS = 2
MOST_NESTED = 64  # levels of a manifest's free objects
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True)
class CheckedTicket:
    """A valid ticket file.

    Attributes:
        fields: the statistics of its listing, computed from the file.
        sketch: `nirvana.verification.fingerprint.sketch`.
        file_digest: sha256:hex of the file's bytes.
    """

    architecture: Architecture
    fields: Json
    sketch: list[int]
    file_digest: str
    size_bytes: int


def check_file(data: bytes, limits: Limits) -> CheckedTicket:
    """Read a ticket file and its recipe, and compute what its listing says of it.

    Raises:
        InvalidTicket, InvalidRecipe, TooLarge: with a JSON pointer for each problem.
    """
    ticket = Ticket.from_bytes(data, limits)
    check_recipe(ticket)
    file_digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return CheckedTicket(ticket.architecture, describe(ticket, data), sketch(ticket), file_digest, len(data))


def lint_file(data: bytes, limits: Limits) -> LintReport:
    """Check a ticket file as publishing does, and say what is wrong with it."""
    return lint(data, limits, check_listable)


def describe(ticket: Ticket, data: bytes) -> Json:
    """Compute the column values of a ticket's listing that follow from its file.

    Args:
        data: the file that the ticket was read from.

    Raises:
        InvalidArchitecture, InvalidTicket: as in `check_listable`.
    """
    check_listable(ticket)
    provenance = ticket.provenance
    fields = {
        "digest": ticket.digest,
        "fingerprint": fingerprint(ticket),
        "task": ticket.task,
        "method": _short_text(provenance.get("method")),
        "level": _level(provenance.get("level")),
        "parent_digest": _digest(provenance.get("parent")),
        "license": ticket.license,
        "description": ticket.description,
        "initial_kind": ticket.start.kind,
        "rewind_step": ticket.start.rewind_step,
        "density": ticket.density,
        "kept": ticket.kept,
        "total": ticket.total,
        "kept_parameters": ticket.kept_parameters,
        "parameters": ticket.architecture.parameter_count,
        "flops": ticket.flops(),
        "speedup": ticket.architecture.flops() / max(1, ticket.flops()),
    }
    manifest = json.loads(read_container(data)[0]["manifest"])
    lists = {"layers": ticket.layers(), "manifest": manifest, "warnings": list(find_warnings(ticket))}
    return fields | lists


def check_listable(ticket: Ticket) -> None:
    """Refuse a valid ticket that no registry can list.

    Raises:
        InvalidArchitecture, InvalidTicket: a network's name that may be taken for another, a NUL character in
            a text, operations past 64 bits, or members nested too deeply to be shown; each with a pointer.
    """
    check_name(ticket.architecture.name, "/architecture/name")
    texts = {"task": ticket.task, "license": ticket.license, "description": ticket.description}
    problems = [
        Problem(f"/{name}", "nul-character", "a NUL character, which no database keeps")
        for name, text in texts.items()
        if text and "\0" in text
    ]
    if (flops := ticket.flops()) >= MOST_FLOPS:
        detail = f"one forward pass takes {flops} operations, expected less than {MOST_FLOPS}"
        problems.append(Problem("/architecture", "too-large", detail))
    if _is_deeper(ticket.provenance, MOST_NESTED):
        detail = f"members nested more than {MOST_NESTED} deep"
        problems.append(Problem("/provenance", "too-deep", detail))
    if problems:
        raise InvalidTicket(f"{problems[0].pointer}: {problems[0].detail}.", errors=problems)


def _is_deeper(value: object, most: int) -> bool:
    """Tell whether a JSON value is nested deeper than that, without recursion."""
    layer: list[object] = [value]
    for _ in range(most):
        layer = [member for one in layer for member in _members(one)]
        if not layer:
            return False
    return True


def _members(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _short_text(value: object) -> str | None:
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else None


def _level(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= 10_000 else None


def _digest(value: object) -> str | None:
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None


class Checker:
    """Checks ticket files, in processes that start with the first file.

    Args:
        processes: how many; 0: threads of this process.
        most_waiting: files that wait for their turn; each is held in memory.
        niceness: of the processes, so that they give way to others.
        files_of_a_process: after so many, about, another takes its place.
    """

    def __init__(
        self,
        processes: int,
        limits: Limits,
        *,
        most_waiting: int = 64,
        niceness: int = 0,
        files_of_a_process: int = 1000,
    ) -> None:
        self.processes, self.limits, self.most_waiting = processes, limits, most_waiting
        self._niceness, self._most_taken = niceness, files_of_a_process * processes
        self._pool: ProcessPoolExecutor | None = None
        self._taken = 0  # by the pool's processes together
        self._held = 0  # files, of those who wait and those whose turn it is
        self._lock = Lock()
        self._slots = anyio.CapacityLimiter(3 * processes or MOST_THREADS)  # two wait for each that is busy

    async def check(self, data: bytes, then: Callable[[CheckedTicket], None] | None = None) -> CheckedTicket:
        """Check a file as `check_file` does.

        Args:
            then: done with a good one, in the thread that waited for the check.

        Raises:
            InvalidTicket, InvalidRecipe, TooLarge: as in `check_file`.
            Unavailable: the process that checked it died, or too many wait.
        """
        return await self._run(check_file, data, then)

    async def lint(self, data: bytes) -> LintReport:
        """Check a file as `lint_file` does. Raises: Unavailable: as in `check`."""
        return await self._run(lint_file, data)

    def refuse_crowd(self) -> None:
        """Refuse one more in the line, best before its body is read. Raises: Unavailable: it is too long."""
        if self._held >= self._slots.total_tokens + self.most_waiting:
            detail = f"{self.most_waiting} others wait for a check already; try again."
            raise Unavailable(detail, retry_after_seconds=BUSY_SECONDS)

    async def _run(
        self, check: Callable[[bytes, Limits], T], data: bytes, then: Callable[[T], None] | None = None
    ) -> T:
        self.refuse_crowd()
        run = self._check_elsewhere if self.processes else self._check_here

        def work() -> T:
            checked = run(check, data)
            if then is not None:
                then(checked)
            return checked

        self._held += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._slots)
        finally:
            self._held -= 1

    def _check_here(self, check: Callable[[bytes, Limits], T], data: bytes) -> T:
        return check(data, self.limits)

    def _check_elsewhere(self, check: Callable[[bytes, Limits], T], data: bytes) -> T:
        pool = self._open()
        try:
            return pool.submit(check, data, self.limits).result()
        except BrokenProcessPool as error:
            self._forget(pool)
            raise Unavailable("The process that checks uploads died; nothing was stored.") from error

    def _open(self) -> ProcessPoolExecutor:
        """Return the pool for one more file; another one once its processes are due to be replaced.

        The pool's own `max_tasks_per_child` is not for us: in Python 3.11 a process that ends while files
        wait may not be replaced, and they wait for ever (gh-115634).
        """
        with self._lock:
            if self._pool is not None and self._taken >= self._most_taken:
                self._pool.shutdown(wait=False)  # it finishes what it has
                self._pool = None
            if self._pool is None:
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload([__name__])
                begin = partial(_end_with_service, self._niceness)
                self._pool, self._taken = ProcessPoolExecutor(self.processes, context, begin), 0
            self._taken += 1
            return self._pool

    def _forget(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _end_with_service(niceness: int) -> None:
    """Let this process end when the service does, even by SIGKILL; Ctrl-C is the service's alone."""
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    service = multiprocessing.parent_process()
    if service is not None:
        service.join()
        os._exit(1)
