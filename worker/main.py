"""The worker process: `python -m worker`.

It takes jobs from its queues and runs each to its end, beats, takes over dead workers' jobs and, told to
stop, lets its rounds end for a while (or not) and leaves; whatever it was doing, another worker goes on with
it at the last finished round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.accounts.service import forget_networks
from app.db import Database, make_engine, utc_now
from app.dumps.writing import store_dump
from app.jobs.engine import QUEUE, REVERIFY_QUEUE
from app.jobs.models import Job
from app.jobs.queue import find_open
from app.jobs.service import begin_job, end_job
from app.settings import Settings
from app.storage import make_storage
from app.webhooks.delivery import deliver_due
from nirvana.errors import Cancelled, NirvanaError
from worker import Json, engine, heartbeat
from worker.folders import remove_stale_folders
from worker.kinds import find_kind
from worker.running import JobFailed, RunningJob, Worker

log = logging.getLogger("nirvana.worker")

DELIVER_SECONDS = 2.0
GPU_QUEUE = "gpu"
KEEP_RECORDS = timedelta(days=7)
MIRROR_BATCH = 500
PURGE_EVERY_BEATS = 720


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a worker until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Run Nirvana's jobs.")
    parser.add_argument(
        "--queue",
        action="append",
        help="to listen to; default: cpu, reverify, and gpu if there is one",
    )
    queues = parser.parse_args(arguments).queue or _queues()
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("dbos").setLevel(logging.WARNING)
    worker = start(settings, queues)
    log.info("worker %s listens to %s", worker.engine.executor_id, ", ".join(queues))
    try:
        Watch(worker, queues).until_stopped()
    except Exception:
        log.exception("the worker fails")
        leave(worker, status=1)
    leave(worker)


def start(settings: Settings, queues: Sequence[str]) -> Worker:
    """A worker with its engine running; signals to stop it are caught."""
    if removed := remove_stale_folders():
        log.info("removed %d folders of workers that were killed", removed)
    database = Database(make_engine(settings.database_url))
    prepared = engine.prepare(database, queues)
    worker = Worker(settings, database, make_storage(settings), prepared)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    with database.write() as session:
        heartbeat.beat(session, prepared.executor_id, queues)
    dumping = engine.register("dump", lambda: make_dump(worker))
    engine.start(prepared, settings, queues, lambda job_id: run_job(worker, job_id))
    engine.schedule("dump", settings.dump_cron, dumping)
    threading.Thread(target=deliver, args=(worker,), name="webhooks", daemon=True).start()
    return worker


def deliver(worker: Worker) -> None:
    """Deliver webhooks until the worker is told to stop; a delivery that is cut off is made again."""
    while not worker.stopping.wait(DELIVER_SECONDS):
        try:
            deliver_due(worker.database, allow_private=worker.settings.webhook_private)
        except SQLAlchemyError as error:
            log.warning("no webhooks: the database does not answer (%s)", type(error).__name__)
        except Exception:
            log.exception("webhooks fail")


def make_dump(worker: Worker) -> None:
    """Write a dump into the blob store."""
    settings = worker.settings
    made = store_dump(worker.database, worker.storage, settings.public_url, settings.dumps_kept)
    log.info("dump %s: %d listings", made["name"], made["files"]["tickets.jsonl"]["rows"])


def leave(worker: Worker, status: int = 0) -> NoReturn:
    """Let the rounds end as long as the settings say, say goodbye, and end the process and its children."""
    until = time.monotonic() + worker.settings.worker_drain_seconds
    while worker.rounds and time.monotonic() < until:
        time.sleep(0.05)
    try:
        with worker.database.write() as session:
            heartbeat.leave(session, worker.engine.executor_id)
    except SQLAlchemyError:
        log.warning("left without saying so: the database does not answer")
    log.info("worker %s left with %d rounds unfinished", worker.engine.executor_id, worker.rounds)
    worker.folder.remove()
    logging.shutdown()
    os._exit(status)


class Watch:
    """The heartbeat, and what is looked after at each beat.

    After a start, and after the database failed or let us wait, everybody's heartbeat may look old: then
    nobody is judged for one round.
    """

    def __init__(self, worker: Worker, queues: Sequence[str]) -> None:
        self.worker, self.queues = worker, queues
        self.is_fair = False
        self.beaten = time.monotonic()
        self.beats = 0
        self.is_purging = False
        self.looked_up_to = ""

    def until_stopped(self) -> None:
        """Beat until the worker is told to stop."""
        while not self.worker.stopping.wait(self.worker.settings.worker_heartbeat_seconds):
            self.beat()

    def beat(self) -> None:
        """Beat once, take over the dead, and mirror what the engine ended."""
        try:
            self._beat()
        except SQLAlchemyError as error:
            self.is_fair = False
            log.warning("no heartbeat: the database does not answer (%s)", type(error).__name__)

    def _beat(self) -> None:
        late = self._say_alive()
        dead = self._find_dead(judge=self.is_fair and not late)
        self.is_fair, self.beats = True, self.beats + 1
        if dead and (jobs := engine.take_over(dead)):
            log.warning("took over %d jobs of %s", jobs, ", ".join(dead))
        self.looked_up_to = mirror_ends(self.worker, self.looked_up_to)
        if self.beats % PURGE_EVERY_BEATS == 0:
            self.is_purging = True
            with self.worker.database.write() as session:
                forget_networks(session, self.worker.settings)
        if self.is_purging:
            self.is_purging = self._purge()

    def _purge(self) -> bool:
        """Forget old records until it is time to beat again; return whether there are more."""
        until = time.monotonic() + self.worker.settings.worker_heartbeat_seconds
        while engine.purge(self.worker.engine.client, (utc_now() - KEEP_RECORDS).isoformat()):
            if time.monotonic() > until:
                return True
        return False

    def _say_alive(self) -> bool:
        """Beat; whether that was late. A beat that had to wait carries the time before it did: once more."""
        late = self._write_beat()
        if late:
            self._write_beat()
        return late

    def _write_beat(self) -> bool:
        with self.worker.database.write() as session:
            heartbeat.beat(session, self.worker.engine.executor_id, self.queues)
        before, self.beaten = self.beaten, time.monotonic()
        return self.beaten - before > self.worker.settings.worker_expiry_seconds / 2

    def _find_dead(self, *, judge: bool) -> list[str]:
        """Those who said that they go and, if we may judge, those who are silent."""
        me, expiry_seconds = self.worker.engine.executor_id, self.worker.settings.worker_expiry_seconds
        with self.worker.database.write() as session:
            dead = heartbeat.find_left(session, me)
            if judge:
                dead += heartbeat.find_silent(session, me, expiry_seconds)
                heartbeat.forget(session, expiry_seconds)
        return dead


def mirror_ends(worker: Worker, after: str = "") -> str:
    """Write into the job's row what the engine has ended by itself (poison jobs, errors of the worker): of
    all running jobs, and of the next queued ones, which take turns at this because they may be many.

    Args:
        after: id of the last queued job that was looked at.

    Returns:
        That of the last one now; "" where there are none after it.
    """
    running = ""
    while batch := _mirror_batch(worker, "running", running):
        running = batch[-1]
    queued = _mirror_batch(worker, "queued", after)
    return queued[-1] if len(queued) == MIRROR_BATCH else ""


def _mirror_batch(worker: Worker, state: str, after: str) -> list[str]:
    """Look at the next jobs of a state; return their ids."""
    with worker.database.read() as session:
        job_ids = find_open(session, state, after, MIRROR_BATCH)
    for job_id, reason in engine.find_ended(worker.engine, job_ids).items():
        with worker.database.write() as session:
            end_job(session, job_id, "failed", reason=reason, reason_code="engine")
    return job_ids


def _queues() -> list[str]:
    return [QUEUE, REVERIFY_QUEUE, *([GPU_QUEUE] if Path("/dev/nvidia0").exists() else [])]


async def run_job(worker: Worker, job_id: str) -> Json:
    """Run a job to its end and write the end into its row."""
    job = await asyncio.to_thread(_begin, worker, job_id)
    if job is None:
        return {"state": "ended before it began"}
    log.info("job %s (%s) begins, attempt %d", job.id, job.kind, job.attempts)
    running = RunningJob(worker, job)
    end: Json
    try:
        result = await find_kind(job.kind).run(running)
        end = {"state": "succeeded", "result": result}
    except Cancelled:
        end = {"state": "cancelled"}
    except JobFailed as failure:
        end = {"state": "failed", "reason": failure.reason, "reason_code": failure.code}
    except NirvanaError as error:
        end = {"state": "failed", "reason": error.detail, "reason_code": error.code}
    except engine.KeptError as error:
        end = {"state": "failed", "reason": error.message, "reason_code": "failed"}
    finally:
        await running.close()
    await _end(worker, job_id, end)
    await asyncio.to_thread(_clean, running)
    log.info("job %s %s %s", job_id, end["state"], end.get("reason", ""))
    return {"state": end["state"]}


def _begin(worker: Worker, job_id: str) -> Job | None:
    with worker.database.write() as session:
        return begin_job(session, job_id, worker.engine.executor_id)


def _clean(job: RunningJob) -> None:
    """Delete the checkpoints, which nobody needs any more. What cannot be deleted does no harm."""
    for key in job.blobs:
        with contextlib.suppress(NirvanaError):
            job.worker.storage.delete(key)


async def _end(worker: Worker, job_id: str, end: Json) -> None:
    def write(session: Session) -> Json:
        return {"ended": end_job(session, job_id, **end)}

    await engine.commit_round(worker.engine, "end", write)
