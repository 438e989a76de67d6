"""Verify a ticket: one arm a round, then the verdict."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from app.evaluations.service import record_evaluation
from app.jobs.events import append_events
from app.storage import ticket_key
from nirvana.protocol import ARMS
from worker.engine import Outcome
from worker.running import RunningJob


async def verify(job: RunningJob) -> dict[str, Any]:
    """Train every arm of the ticket, judge them and record the evaluation."""
    files = {"input.ticket": ticket_key(job.spec["file"])}
    arms: dict[str, Any] = {}
    for arm in ARMS:
        request = _request(job, "arm") | {"arm": arm, "replicates": job.spec["replicates"]}
        kept = await job.run_round(f"arm {arm}", request, files, lambda _, result: result)
        arms[arm] = kept["arm"]
    judged = await job.run_round(
        "judge", _request(job, "judge") | {"arms": arms}, files, lambda _, result: result
    )
    return await _record(job, judged["evaluation"])


async def _record(job: RunningJob, evaluation: dict[str, Any]) -> Outcome:
    """Record the evaluation and tell its verdict, exactly once."""

    def work(session: Session) -> Outcome:
        row = record_evaluation(session, digest=job.spec["digest"], evaluation=evaluation, job_id=job.id)
        told = {"verdict": evaluation["verdict"], "reason": evaluation["reason"]}
        append_events(session, job.id, [("verdict", told)])
        return {"evaluation": row.id, "verdict": evaluation["verdict"], "ticket": job.spec["ticket"]}

    return await job.commit("record", work)


def _request(job: RunningJob, name: str) -> dict[str, Any]:
    return {"round": name, "threads": job.worker.settings.job_threads}
