"""Bodies of jobs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.jobs.models import Job
from app.schemas import Answer, Body, Instant, Plain, example

_SPEC = {"task": "digits", "architecture": "lenet-300-100", "method": "imp", "levels": 10, "seed": 0}
_SHOWN = {
    "id": "4d8f9a52-2d5c-4a43-8c5b-2f6f4c1a9e10",
    "kind": "prune",
    "state": "running",
    "account": "ada",
    "spec": _SPEC,
    "budget": {"seconds": 21600},
    "progress": {"done": 3.4, "total": 11, "message": "step 400: validation loss 0.1412, accuracy 0.9596"},
    "queue_position": None,
    "attempts": 1,
    "result": None,
    "reason": None,
    "reason_code": None,
    "created_at": "2026-11-21T09:00:00Z",
    "started_at": "2026-11-21T09:00:01Z",
    "finished_at": None,
}


class NewJob(Body):
    """A job to run: `prune` finds tickets, `verify` measures one against controls, `transfer` trains one on
    another task."""

    model_config = Body.model_config | example(kind="prune", spec=_SPEC, budget={"seconds": 3600})
    kind: Plain
    spec: dict[str, Any]
    budget: dict[str, Any] = Field(default_factory=dict, description="bounds: seconds, parameters, flops")


class Progress(Answer):
    """How far a job is: rounds (levels, or arms and the verdict) that are done, with a fraction."""

    done: float
    total: float
    message: str


class JobShown(Answer):
    """A job."""

    model_config = Answer.model_config | example(**_SHOWN)
    id: str
    kind: str
    state: str
    account: str
    spec: dict[str, Any]
    budget: dict[str, Any]
    progress: Progress
    queue_position: int | None
    attempts: int
    result: dict[str, Any] | None
    reason: str | None
    reason_code: str | None
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> JobShown:
        """A job's row, whose account is loaded, as people see it."""
        copied = ("id", "kind", "state", "spec", "budget", "attempts", "result", "reason", "reason_code")
        progress = Progress(done=job.progress_done, total=job.progress_total, message=job.progress_message)
        return cls(
            **{name: getattr(job, name) for name in copied},
            account=job.account.name,
            progress=progress,
            queue_position=queue_position,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobPage(Answer):
    """One page of jobs."""

    model_config = Answer.model_config | example(items=[_SHOWN], next_cursor=None)
    items: list[JobShown]
    next_cursor: str | None
