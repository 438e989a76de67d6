"""A job's rounds in a child process, so that a crash, an out-of-memory or an endless loop costs one attempt
and never the worker.

The child (`python -m worker.child`) reads a request a line from its standard input, writes progress as JSON
lines to its standard output, and leaves each result as `result.json` in the attempt's folder. It leads its
own process group, which is killed when an attempt fails, when the job is cancelled or out of time, and when
the worker dies. While all goes well one child does all rounds of a job: importing torch costs seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker import Json

LINE_BYTES = 1 << 20
TAIL_LINES = 20
TAIL_CHARACTERS = 2_000
SECRETS = ("NIRVANA_DATABASE_URL", "NIRVANA_BLOB_URL", "NIRVANA_TOKEN")
THREAD_VARIABLES = (
    "NIRVANA_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

LEAST_URGENT = 19  # of nice values
OnEvent = Callable[[Json], None]
Tick = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """The limits of a job.

    Attributes:
        memory_bytes: cap on the child's writable memory; 0 means none.
        deadline: `time.monotonic()` instant at which the job must have ended.
        silence_seconds: longest time without a line of progress; a child that loops for ever says nothing.
        threads: compute threads of the child.
        tasks_folder: where the child finds the tasks that people made here.
        is_patient: the child lets every other process go first.
        tick_seconds: how often cancellation and the time limits are looked at.
    """

    memory_bytes: int
    deadline: float
    silence_seconds: float
    threads: int = 1
    tasks_folder: Path | None = None
    is_patient: bool = False
    tick_seconds: float = 0.3


class RoundFailed(Exception):
    """An attempt ended without a result. `retry` says whether another attempt may end differently."""

    def __init__(self, detail: str, *, reason_code: str, retry: bool) -> None:
        super().__init__(detail)
        self.detail, self.reason_code, self.retry = detail, reason_code, retry


class Sandbox:
    """One job's child process: begun when first needed, replaced after a failed attempt."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.heard_at = time.monotonic()
        self._child: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._tailing: asyncio.Task[None] | None = None

    async def run(self, request: Json, folder: Path, on_event: OnEvent, tick: Tick) -> Json:
        """Run one round and return its result.

        Args:
            request: `{"kind": of the job, "round": name, ...}`, as `worker.kinds` has them.
            folder: the attempt's own; the child writes there and nowhere else.
            on_event: called with every line of progress.
            tick: called every `limits.tick_seconds` and at the end; what it raises ends the child.

        Raises:
            RoundFailed: with the child's own reason, or with its last words.
        """
        child = self._child or await self._begin()
        self.heard_at = time.monotonic()
        try:
            await _first(self._converse(child, request, folder, on_event), self._watch(tick))
            await tick()
            return await self._result(folder)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Kill the child and whatever it has begun."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        await asyncio.shield(child.wait())
        if self._tailing is not None:
            await asyncio.wait({self._tailing}, timeout=1)

    async def _begin(self) -> asyncio.subprocess.Process:
        niceness = LEAST_URGENT if self.limits.is_patient else 0
        arguments = [str(os.getpid()), str(self.limits.memory_bytes), str(niceness)]
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.child", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_BYTES,
            env=_environment(self.limits),
        )
        self._tail.clear()
        self._tailing = asyncio.create_task(self._keep_tail(self._child))
        return self._child

    async def _converse(
        self, child: asyncio.subprocess.Process, request: Json, folder: Path, on_event: OnEvent
    ) -> None:
        """Send the request, then listen until the child says that it has done it, or ends."""
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(json.dumps(request | {"folder": str(folder)}).encode() + b"\n")
            await child.stdin.drain()
        async for line in child.stdout:
            self.heard_at = time.monotonic()
            for event in _parse(line):
                if event.get("kind") == "end":
                    return
                on_event(event)

    async def _keep_tail(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        while chunk := await child.stderr.read(1 << 16):
            self._tail.extend(chunk.decode(errors="replace").splitlines())

    async def _watch(self, tick: Tick) -> None:
        while True:
            await asyncio.sleep(self.limits.tick_seconds)
            await tick()
            now = time.monotonic()
            if now > self.limits.deadline:
                detail = "The job's time was over: it was stopped at its deadline."
                raise RoundFailed(detail, reason_code="deadline", retry=False)
            if now - self.heard_at > self.limits.silence_seconds:
                detail = f"The round said nothing for {self.limits.silence_seconds:g} s and was stopped."
                raise RoundFailed(detail, reason_code="no-progress", retry=True)

    async def _result(self, folder: Path) -> Json:
        """The result that the child left, or else the reason why there is none."""
        path = folder / "result.json"
        if not path.exists():
            child = self._child
            await self.close()
            words = _last_words(child.returncode if child else None, "\n".join(self._tail))
            raise RoundFailed(words, reason_code="crash", retry=True)
        result: Json = json.loads(path.read_text())
        if error := result.get("error"):
            raise RoundFailed(error["detail"], reason_code=error["code"], retry=error["retry"])
        return result


async def _first(work: Awaitable[None], watch: Awaitable[None]) -> None:
    """Await the work while the watch runs beside it; the first of them that ends or fails ends both."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(watch)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _parse(line: bytes) -> Iterator[Json]:
    """The event on a line; a line that is none is not ours and is passed over."""
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            yield event


def _environment(limits: Limits) -> dict[str, str]:
    """The child's environment: ours without our secrets, with its number of compute threads and its tasks."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    own = {"NIRVANA_TASKS": str(limits.tasks_folder)} if limits.tasks_folder else {}
    return kept | dict.fromkeys(THREAD_VARIABLES, str(limits.threads)) | own


def _last_words(returncode: int | None, tail: str) -> str:
    """Tell how the child ended, in words: the signal's name or the exit status, and its last lines."""
    if returncode is not None and returncode < 0:
        ended = f"was killed by {signal.Signals(-returncode).name}"
    else:
        ended = f"ended with exit status {returncode}"
    return f"The round's process {ended}. {tail[-TAIL_CHARACTERS:]}".strip()
