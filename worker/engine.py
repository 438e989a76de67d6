"""The engine's half that runs jobs: DBOS, behind five names.

`start` · `run_round` · `commit_round` · `take_over` · `find_ended`

A round runs at least once and its result is kept; a commit's effects happen exactly once, because they and
the note that they happened are one transaction. What a frozen worker does after it was taken over has no
effect: the engine knows each execution by a token of its own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from datetime import datetime

from dbos import (
    DBOS,
    DBOSClient,
    DBOSPortableJSONSerializer,
    PortableWorkflowError,
    SQLAlchemyDatasource,
)
from dbos import error as dbos_errors
from sqlalchemy.orm import Session

from app.db import Database
from app.jobs.engine import APPLICATION, VERSION, WORKFLOW, client_for, engine_url
from app.settings import Settings
from worker import Json

ScheduledWork = Callable[[datetime, object], Coroutine[object, object, None]]
RunJob = Callable[[str], Awaitable[Json]]

KeptError = PortableWorkflowError
"""An error of a commit, read back by another worker: its `message` is what is left of it."""

ENDED_BADLY = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
PURGE_BATCH = 500


@dataclass(frozen=True)
class Engine:
    """The running engine of this worker.

    Attributes:
        executor_id: this process's, new at every start and never shared.
    """

    datasource: SQLAlchemyDatasource
    client: DBOSClient
    executor_id: str = field(default_factory=lambda: f"worker-{uuid.uuid4()}")


def prepare(database: Database, queues: Collection[str]) -> Engine:
    """Configure the engine; `start` runs it.

    The engine reads its own tables through connections of its own: inside our write transaction, which on
    SQLite holds the only write lock, it asks there who owns the job.
    """
    url = engine_url(database.engine)
    serializer = DBOSPortableJSONSerializer()
    engine = Engine(
        SQLAlchemyDatasource.create(url, engine=database.engine, serializer=serializer, run_migrations=False),
        client_for(url),
    )
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": engine.executor_id,
            "serializer": serializer,
            "run_migrations": False,
            "log_level": "ERROR",
        }
    )
    DBOS.listen_queues(list(queues))
    return engine


def start(engine: Engine, settings: Settings, queues: Collection[str], run_job: RunJob) -> None:
    """Launch the engine: from now on queued jobs are taken and `run_job` is called with their ids."""

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=settings.job_recoveries)
    async def workflow(job_id: str) -> Json:
        return await run_job(job_id)

    for queue in queues:
        engine.client.register_queue(
            queue,
            worker_concurrency=settings.worker_concurrency,
            polling_interval_sec=settings.worker_poll_seconds,
        )
    DBOS.launch()


def register(name: str, work: Callable[[], object]) -> ScheduledWork:
    """Return a workflow that does some work at the times of a schedule; register it before `start`."""

    @DBOS.workflow(name=name)
    async def scheduled(at: datetime, context: object) -> None:
        await asyncio.to_thread(work)

    return scheduled


def schedule(name: str, cron: str, work: ScheduledWork) -> None:
    """Have registered work done at the times of a cron expression, by one worker each time; "": never."""
    if not cron:
        if DBOS.get_schedule(name) is not None:
            DBOS.delete_schedule(name)
        return
    DBOS.apply_schedules([{"schedule_name": name, "workflow_fn": work, "schedule": cron, "context": None}])


async def run_round(name: str, work: Callable[[], Awaitable[Json]]) -> Json:
    """Do some work at least once and keep its result, under its place in the job and its name."""

    async def step() -> Json:
        return await work()

    kept: Json = await DBOS.run_step_async({"name": name, "preemptible": True}, step)
    return kept


async def commit_round(engine: Engine, name: str, work: Callable[[Session], Json]) -> Json:
    """Write to the database exactly once: effects, result and proof of ownership are one commit."""

    def transaction() -> Json:
        return work(engine.datasource.sql_session())

    return await asyncio.to_thread(lambda: engine.datasource.run_tx_step({"name": name}, transaction))


def take_over(executor_ids: Collection[str]) -> int:
    """Give the jobs of dead workers back to the queue; they go on at their last finished round.

    The engine's one private call. Its public substitute (`list_workflows` and `resume_workflows`) would also
    take jobs that somebody else has begun with since, and forgets how many workers a job has killed.

    Returns:
        how many jobs there were.
    """
    return len(DBOS._recover_pending_workflows(list(executor_ids)))


def owns(engine: Engine, job_id: str) -> bool:
    """Return whether this worker is still the one that runs the job."""
    return bool(engine.client.retrieve_workflow(job_id).get_status().executor_id == engine.executor_id)


def lost(job_id: str) -> BaseException:
    """The error that ends an execution whose job another worker has taken over, without any effect."""
    return dbos_errors.DBOSWorkflowConflictIDError(job_id)


def find_ended(engine: Engine, job_ids: Collection[str]) -> dict[str, str]:
    """Of these jobs, those that the engine has ended by itself, each with the reason."""
    if not job_ids:
        return {}
    ended = engine.client.list_workflows(
        workflow_ids=list(job_ids), status=list(ENDED_BADLY), load_input=False
    )
    return {one.workflow_id: _reason(one.status, one.error) for one in ended}


def purge(client: DBOSClient, before: str) -> bool:
    """Forget a batch of the engine's records of jobs that ended before an instant (ISO 8601); their rows
    stay. Return whether there may be more of them."""
    ended = client.list_workflows(
        completed_before=before, load_input=False, load_output=False, limit=PURGE_BATCH
    )
    if ended:
        client.delete_workflows([one.workflow_id for one in ended])
    return len(ended) == PURGE_BATCH


def _reason(status: str, error: object) -> str:
    if status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return "Every worker that ran this job died with it; it was given up."
    if status == "CANCELLED":
        return "The job was cancelled in the engine."
    return f"The worker failed: {error}"
