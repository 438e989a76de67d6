"""What a job does, round by round. A workflow only orders rounds and commits, and may run again from any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.jobs.service import begin_job, end_job
from nirvana.errors import Cancelled, NirvanaError
from worker import engine
from worker.engine import Outcome
from worker.running import JobFailed, RunningJob, Worker
from worker.workflows.prune import prune
from worker.workflows.transfer import transfer
from worker.workflows.verify import verify

log = logging.getLogger("nirvana.worker")

Workflow = Callable[[RunningJob], Awaitable[dict[str, Any]]]
WORKFLOWS: dict[str, Workflow] = {"prune": prune, "verify": verify, "transfer": transfer}


async def run_job(worker: Worker, job_id: str) -> Outcome:
    """Run a job to its end and write the end into its row."""
    job = await asyncio.to_thread(_begin, worker, job_id)
    if job is None:
        return {"state": "ended before it began"}
    log.info("job %s (%s) begins, attempt %d", job.id, job.kind, job.attempts)
    running = RunningJob(worker, job)
    end: dict[str, Any]
    try:
        result = await WORKFLOWS[job.kind](running)
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
        await running.sandbox.close()
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


async def _end(worker: Worker, job_id: str, end: dict[str, Any]) -> None:
    def write(session: Session) -> Outcome:
        return {"ended": end_job(session, job_id, **end)}

    await engine.commit_round(worker.engine, "end", write)
