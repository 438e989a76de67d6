"""A database, a blob store and real worker processes to run jobs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.accounts.models import Account
from app.db import Database, make_engine
from app.jobs.engine import client_for, engine_url
from app.jobs.models import ENDED_STATES, Job, JobEvent
from app.jobs.service import JobRequest, get_job, read_events, submit_job
from app.tickets.models import Listing
from tests.registry import Templates, make_settings

HEARTBEAT_SECONDS = 0.4
EXPIRY_SECONDS = 2.0
PATIENCE_SECONDS = 40.0
ROOT = Path(__file__).resolve().parents[2]


class Arena:
    """Where jobs run. `run` starts workers; they are all gone at the end."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        self.variables = {
            "NIRVANA_HOME": str(home),
            "NIRVANA_DATABASE_URL": url,
            "NIRVANA_WORKER_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "NIRVANA_WORKER_EXPIRY_SECONDS": str(EXPIRY_SECONDS),
            "NIRVANA_WORKER_POLL_SECONDS": "0.1",
            "NIRVANA_JOB_RETRY_SECONDS": "0.1",
        }
        self.settings = make_settings(home, database_url=url)
        self.database = Database(make_engine(url))
        self.workers: list[subprocess.Popen[bytes]] = []
        self.ada = self.add_account("ada")

    def add_account(self, name: str) -> Account:
        with self.database.write() as session:
            account = Account(name=name)
            session.add(account)
        return account

    def submit(self, kind: str = "prune", *, account: Account | None = None, **spec: Any) -> str:
        """Submit a job; for `prune`, a small one on digits unless `spec` says otherwise."""
        budget = spec.pop("budget", {})
        if kind == "prune":
            spec = small_spec() | spec
        with self.database.write() as session:
            request = JobRequest(kind, spec, budget)
            return submit_job(session, self.settings, account or self.ada, request).id

    def run(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start a worker process."""
        environment = os.environ | self.variables | variables
        worker = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, cwd=ROOT)
        self.workers.append(worker)
        return worker

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return get_job(session, job_id)

    def events(self, job_id: str, kind: str | None = None) -> list[JobEvent]:
        with self.database.read() as session:
            events = read_events(session, job_id, 0, 10_000)
        return [event for event in events if kind is None or event.kind == kind]

    def tickets(self, job_id: str) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(Listing.name).where(Listing.job_id == job_id)))

    def wait_for(self, what: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until something is so; the seconds it took."""
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"nothing happened for {seconds} s")
            time.sleep(0.03)
        return time.monotonic() - began

    def wait_for_end(self, job_id: str, seconds: float = PATIENCE_SECONDS) -> Job:
        self.wait_for(lambda: self.job(job_id).state in ENDED_STATES, seconds)
        return self.job(job_id)

    def wait_for_point(self, job_id: str, level: int) -> None:
        """Wait until the job is in the middle of training a level."""
        self.wait_for(lambda: any(e.body["level"] == level for e in self.events(job_id, "point")))

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait(10)
        client_for(engine_url(self.database.engine)).destroy()
        client_for.cache_clear()
        self.database.dispose()


def small_spec(levels: int = 2, steps: int = 200) -> dict[str, Any]:
    """A search that takes a tenth of a second a level."""
    recipe = {"steps": steps, "evaluate_every": max(1, steps // 10)}
    return {"task": "digits", "architecture": "mlp-16", "levels": levels, "recipe": recipe}


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The child processes of a worker."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@contextmanager
def open_arena(templates: Templates, kind: str, home: Path) -> Iterator[Arena]:
    """An arena in a database of its own, gone afterwards.

    Args:
        kind: `sqlite` or `postgresql`.
    """
    with templates.copy(kind, home) as url:
        arena = Arena(url, home)
        try:
            yield arena
        finally:
            arena.close()
