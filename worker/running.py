"""A job while this worker runs it: its rounds in child processes, its progress, and whether it may go on."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import Database, utc_now
from app.jobs.engine import REVERIFY_QUEUE
from app.jobs.models import Job
from app.jobs.service import Event, append_events
from app.settings import Settings
from app.storage import Storage
from app.tasks.service import fetch_task, get_row
from nirvana.errors import Cancelled
from worker import Json, engine
from worker.engine import Engine
from worker.folders import RoundsFolder
from worker.sandbox import Limits, RoundFailed, Sandbox

log = logging.getLogger("nirvana.worker")

SEALED_KINDS = ("verify",)  # of jobs: those that judge
POINTS_KEPT = 500  # of a training curve between two looks at the job
Files = dict[str, str]
Finish = Callable[[Path, Json], Json]
Prepare = Callable[[Path], None]


@dataclass
class Worker:
    """The things that every job of this process shares.

    Attributes:
        stopping: set once the process is to end: no further round begins.
        rounds: how many rounds are running.
        folder: where each of them has its own.
    """

    settings: Settings
    database: Database
    storage: Storage
    engine: Engine
    stopping: threading.Event = field(default_factory=threading.Event)
    rounds: int = 0
    folder: RoundsFolder = field(default_factory=RoundsFolder)


class JobFailed(Exception):
    """The job cannot succeed any more."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason, self.code = reason, code


class RunningJob:
    """One job that this worker has begun with.

    Attributes:
        done: rounds that are over.
        total: rounds in all.
        blobs: keys of the checkpoints, needed until the job ends.
    """

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker, self.id, self.kind, self.account_id = worker, job.id, job.kind, job.account_id
        self.spec: Json = job.spec
        self.tasks_folder = worker.folder.path / f"tasks-{uuid.uuid4()}"
        self.sandbox = Sandbox(_limits(worker.settings, job, self.tasks_folder))
        self.done, self.total = 0, round(job.progress_total)
        self.blobs: list[str] = []
        self.points: list[Event] = []
        self.latest: Json | None = None

    async def run_round(
        self,
        name: str,
        request: Json,
        files: Files,
        finish: Finish,
        prepare: Prepare | None = None,
    ) -> Json:
        """One durable round in a child process, tried several times.

        Args:
            request: for the round, which it names; the job's kind is put in.
            files: name in the round's folder -> key of the blob to put there.
            finish: turns the folder and the child's result into what is kept (small: digests and metrics).
            prepare: puts more into the folder before the child begins.

        Raises:
            JobFailed: every attempt failed.
            Cancelled: the job has ended meanwhile.
        """
        if self.worker.stopping.is_set():
            await asyncio.Event().wait()  # the process ends: another worker begins here

        def fetch(folder: Path) -> None:
            self._fetch(files, folder)
            self._fetch_tasks()
            if prepare is not None:
                prepare(folder)

        kept = await engine.run_round(name, lambda: self._attempts(name, request, fetch, finish))
        if "failed" in kept:
            raise JobFailed(**kept["failed"])
        self.done += 1
        return kept

    async def commit(self, name: str, work: Callable[[Session], Json]) -> Json:
        """Write the round's effects exactly once, unless the job has ended.

        Raises:
            Cancelled: it has.
        """

        def write(session: Session) -> Json:
            running = update(Job).where(Job.id == self.id, Job.state == "running")
            values = {"progress_done": self.done, "progress_total": self.total}
            if session.execute(running.values(values).returning(Job.id)).scalar_one_or_none() is None:
                return {"ended": True}
            return work(session)

        kept = await engine.commit_round(self.worker.engine, name, write)
        if kept.get("ended"):
            raise Cancelled(f"Job {self.id} has ended.")
        return kept

    async def _attempts(self, name: str, request: Json, fetch: Prepare, finish: Finish) -> Json:
        """Try until one attempt succeeds; the last reason is kept as the round's result."""
        settings = self.worker.settings
        self.worker.rounds += 1
        try:
            for attempt in range(1, settings.job_attempts + 1):
                try:
                    return await self._attempt(request, fetch, finish)
                except RoundFailed as error:
                    is_last = attempt == settings.job_attempts or not error.retry
                    if is_last:
                        return {"failed": _reason(name, attempt, error)}
                    wait = settings.job_retry_seconds * 2 ** (attempt - 1)
                    await self._log_retry(name, attempt, error, wait)
                    await asyncio.sleep(wait)
            raise AssertionError("the last attempt returns")
        finally:
            self.worker.rounds -= 1

    async def _attempt(self, request: Json, fetch: Prepare, finish: Finish) -> Json:
        with tempfile.TemporaryDirectory(prefix="round-", dir=self.worker.folder.path) as name:
            folder = Path(name)
            await asyncio.to_thread(fetch, folder)
            request = request | {"kind": self.kind}
            result = await self.sandbox.run(request, folder, self._on_event, self._tick)
            return await asyncio.to_thread(finish, folder, result)

    def _fetch(self, files: Files, folder: Path) -> None:
        for name, key in files.items():
            (folder / name).write_bytes(self.worker.storage.get(key))

    def _fetch_tasks(self) -> None:
        """Put the task that the job is on where its child finds it, if somebody made it here: once a job,
        the sealed rows for a verification alone."""
        name = self.spec.get("task", "")
        if "/" in name and not self.tasks_folder.exists():
            with self.worker.database.read() as session:
                row = get_row(session, name)
            needs_seal = self.kind in SEALED_KINDS
            fetch_task(self.worker.storage, row, self.tasks_folder, needs_seal=needs_seal)

    async def close(self) -> None:
        """End the child, and remove what it read."""
        await self.sandbox.close()
        await asyncio.to_thread(shutil.rmtree, self.tasks_folder, ignore_errors=True)

    def _on_event(self, event: Json) -> None:
        """Take a line of progress: points are all kept, of the rest the latest."""
        event = {name: _finite(value) for name, value in event.items()}
        if event.get("kind") == "point" and len(self.points) < POINTS_KEPT:
            self.points.append(("point", {name: event[name] for name in event if name not in _COUNTS}))
        if event.get("message"):
            done = round(self.done + _share(event), 3)
            self.latest = {"done": done, "total": self.total, "message": event["message"]}

    async def _tick(self) -> None:
        """Write down what was heard; stop when the job has ended or belongs to another worker.

        Raises:
            Cancelled: it has ended.
        """
        points, latest = self.points, self.latest
        self.points, self.latest = [], None
        try:
            state, holder = await asyncio.to_thread(self._look, points, latest)
            if state != "running":
                raise Cancelled(f"Job {self.id} was ended: it is {state}.")
            if holder != self.worker.engine.executor_id:
                await asyncio.to_thread(self._reclaim)
        except SQLAlchemyError:
            log.warning("the database does not answer; job %s goes on", self.id)

    def _reclaim(self) -> None:
        """The row names another worker: either the job was taken over, or one that lost it wrote late."""
        if not engine.owns(self.worker.engine, self.id):
            raise engine.lost(self.id)
        with self.worker.database.write() as session:
            session.get_one(Job, self.id).worker = self.worker.engine.executor_id

    def _look(self, points: list[Event], latest: Json | None) -> tuple[str, str | None]:
        if not points and latest is None:
            with self.worker.database.read() as session:
                job = session.get_one(Job, self.id)
                return job.state, job.worker
        with self.worker.database.write() as session:
            job = session.get_one(Job, self.id)
            if job.state == "running" and job.worker == self.worker.engine.executor_id:
                self._write_progress(session, job, points, latest)
            return job.state, job.worker

    def _write_progress(self, session: Session, job: Job, points: list[Event], latest: Json | None) -> None:
        events = list(points)
        if latest is not None:
            job.progress_done, job.progress_message = latest["done"], latest["message"][:500]
            job.progress_total = self.total
            session.flush()
            events.append(("progress", latest))
        append_events(session, self.id, events)

    async def _log_retry(self, name: str, attempt: int, error: RoundFailed, wait: float) -> None:
        message = f"{name}: attempt {attempt} failed ({error.detail}); the next one begins in {wait:g} s"
        log.warning("job %s: %s", self.id, message)

        def write() -> None:
            with self.worker.database.write() as session:
                append_events(session, self.id, [("log", {"level": "warning", "message": message})])

        await asyncio.to_thread(write)


_COUNTS = ("kind", "done", "total", "message", "first", "replicates")


def _share(event: Json) -> float:
    """Return the share of its round that is done, from 0 to 1."""
    kind = event.get("kind")
    if kind == "level":
        return 1.0
    if kind not in ("point", "arm") or not event.get("total"):
        return 0.0
    share: float = event["done"] / event["total"]
    if kind == "point" and "replicate" in event:
        share = (event["replicate"] - event["first"] + share) / event["replicates"]
    return min(1.0, share)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reason(name: str, attempt: int, error: RoundFailed) -> dict[str, str]:
    tried = f" (attempt {attempt})" if attempt > 1 else ""
    return {"reason": f"{name}{tried}: {error.detail}", "code": error.reason_code}


def _limits(settings: Settings, job: Job, tasks_folder: Path) -> Limits:
    """Return what the job may still use: its seconds count from when a worker first began with it."""
    assert job.started_at is not None
    left = job.budget["seconds"] - (utc_now() - job.started_at).total_seconds()
    return Limits(
        settings.job_memory_bytes,
        time.monotonic() + left,
        settings.job_silence_seconds,
        settings.job_threads,
        tasks_folder,
        is_patient=job.queue == REVERIFY_QUEUE,
    )
