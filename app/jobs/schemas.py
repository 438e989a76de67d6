"""Bodies of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, create_model

from app.jobs.kinds import Budget, Kind, Spec, kinds
from app.jobs.models import Job
from app.jobs.queue import PLACES
from app.schemas import Instant, RequestModel, ResponseModel, example

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


def _new_job(name: str, kind: Kind) -> type[RequestModel]:
    """Return the body of a request for a job of a kind; its example has those of the spec's fields."""
    fields: dict[str, Any] = {
        "kind": (Literal[name], ...),
        "spec": (kind.spec, ...),
        "budget": (Budget, Field(default_factory=Budget, description="upper bounds")),
    }
    shown = {field: one.examples[0] for field, one in kind.spec.model_fields.items() if one.examples}
    extra = example(kind=name, spec=shown, budget={"seconds": 3600})
    title = f"New{name.title()}Job"
    return create_model(
        title, __base__=RequestModel, __doc__=kind.spec.__doc__, __cls_kwargs__=dict(extra), **fields
    )


if TYPE_CHECKING:

    class NewJob(RequestModel):
        """A job to run."""

        kind: str
        spec: Spec
        budget: Budget

else:
    NewJob = Annotated[
        Union[tuple(_new_job(name, kind) for name, kind in kinds().items())],  # noqa: UP007
        Field(discriminator="kind"),
    ]


class Progress(ResponseModel):
    """The progress of a job: rounds (levels, or arms and the verdict) that are done, with a fraction."""

    done: float
    total: float
    message: str


class JobResponse(ResponseModel):
    """A job."""

    model_config = ResponseModel.model_config | example(**_SHOWN)
    id: str
    kind: str
    state: str
    account: str
    spec: dict[str, Any]
    budget: dict[str, Any]
    progress: Progress
    queue_position: Annotated[
        int | None,
        Field(description=f"1 goes next; {PLACES + 1}: behind {PLACES} or more; null: not in the queue"),
    ]
    attempts: int
    result: dict[str, Any] | None
    reason: str | None
    reason_code: str | None
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> JobResponse:
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


class JobPage(ResponseModel):
    """One page of jobs."""

    model_config = ResponseModel.model_config | example(items=[_SHOWN], next_cursor=None)
    items: list[JobResponse]
    next_cursor: str | None
