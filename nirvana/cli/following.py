"""Following a job of the service until it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nirvana.errors import Cancelled, NirvanaError, error_classes

if TYPE_CHECKING:
    from nirvana.client import Client


def follow_job(client: Client, job_id: str, watch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The job when it has succeeded; its events go to `watch` as they come.

    Raises:
        Cancelled: somebody cancelled it.
        NirvanaError: it failed; the error is of the class that the job's reason names.
    """
    for event in client.job_events(job_id):
        watch({"kind": event["event"], **event["data"]})
    job = client.job(job_id)
    if job["state"] == "succeeded":
        return job
    if job["state"] == "cancelled":
        raise Cancelled(f"job {job_id} was cancelled")
    kind = error_classes().get(str(job.get("reason_code")), NirvanaError)
    raise kind(f"job {job_id} failed: {job.get('reason') or 'no reason given'}", job=job_id)
