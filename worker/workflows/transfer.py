"""Try a ticket on another task: one round, then one record."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.jobs.events import append_events
from app.storage import ticket_key
from app.transfers.service import record_transfer
from worker.engine import Outcome
from worker.running import RunningJob


async def transfer(job: RunningJob) -> dict[str, Any]:
    """Train the ticket, its controls and the target's own ticket on the target, and record it once."""
    files = {"input.ticket": ticket_key(job.spec["file"])}
    if "own_file" in job.spec:
        files["own.ticket"] = ticket_key(job.spec["own_file"])
    request = {"round": "transfer", "spec": job.spec, "threads": job.worker.settings.job_threads}
    trained = await job.run_round("transfer", request, files, lambda _, result: result)
    found = trained["transfer"]

    def work(session: Session) -> Outcome:
        row = record_transfer(session, digest=job.spec["digest"], found=found, job_id=job.id)
        told = {name: found[name] for name in ("verdict", "reason", "replicates")}
        append_events(session, job.id, [("verdict", told)])
        return {"transfer": row.id, "verdict": row.verdict, "ticket": job.spec["ticket"], "task": row.task}

    return await job.commit("record", work)
