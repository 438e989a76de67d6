"""jobs: the work of the service's workers, listed, shown, followed and cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet
from nirvana.errors import Cancelled, JsonObject, NirvanaError, NotFound, error_classes

if TYPE_CHECKING:
    from nirvana.client.rest import Client
    from nirvana.training.events import OnProgress

app = typer.Typer(help="The service's jobs.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@app.command("ls")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="State: queued, running, succeeded, failed or cancelled.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Kind, such as prune, verify or transfer.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs.")] = 20,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List your jobs, newest first."""
    from nirvana.client.rest import Client

    with Client() as client:
        jobs = list(client.jobs(limit=limit, state=state, kind=kind))
    output = Output(json, quiet)
    rows = [(job["id"], job["kind"], job["state"], job.get("created_at")) for job in jobs]
    output.data({"items": jobs}, lambda: output.table(("job", "kind", "state", "asked for"), rows))


@app.command()
def show(job: Id, json: Json = False, quiet: Quiet = False) -> None:
    """Show a job: its spec, progress and result."""
    from nirvana.client.rest import Client

    with Client() as client:
        shown = client.job(job)
    output = Output(json, quiet)
    output.data(shown, lambda: output.table(("field", "value"), list(shown.items())))


@app.command()
def logs(
    job: Id,
    after: Annotated[str | None, typer.Option(help="Id of an event: print only later ones.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a job's events as they come, until it has ended; with --json one event a line."""
    import json as json_

    from nirvana.client.rest import Client

    with Client() as client:
        for event in client.job_events(job, after):
            print(json_.dumps(event) if json else _event_line(event), flush=True)


@app.command()
def cancel(job: Id, json: Json = False, quiet: Quiet = False) -> None:
    """Cancel a job; it stops at once or at its next training step."""
    from nirvana.client.rest import Client

    with Client() as client:
        cancelled = client.cancel_job(job)
    Output(json, quiet).data(cancelled, lambda: print(f"{job} {cancelled.get('state', 'cancelled')}"))


def _event_line(event: JsonObject) -> str:
    message = event["data"].get("message") or event["data"].get("state") or event["data"]
    return f"{event['id']:>5}  {event['event']:<9} {message}"


def follow_job(client: Client, job_id: str, on_progress: OnProgress) -> JsonObject:
    """Wait for a job and return it when it has succeeded; `on_progress` gets its events as they come.

    Raises:
        Cancelled: somebody cancelled it.
        NirvanaError: it failed; the error is of the class that the job's reason names.
    """
    for event in client.job_events(job_id):
        on_progress({"kind": event["event"], **event["data"]})
    job = client.job(job_id)
    if job["state"] == "succeeded":
        return job
    if job["state"] == "cancelled":
        raise Cancelled(f"job {job_id} was cancelled")
    kind = error_classes().get(str(job.get("reason_code")), NirvanaError)
    raise kind(f"job {job_id} failed: {job.get('reason') or 'no reason given'}", job=job_id)


def evaluation_of(client: Client, job: JsonObject) -> JsonObject:
    """Return the evaluation that a finished verification job wrote.

    Raises:
        NotFound: it wrote none.
    """
    result = dict(job.get("result") or {})
    if "arms" in result:
        return result
    for evaluation in client.evaluations(str(job["spec"]["ticket"])):
        if evaluation.get("job_id") == job["id"] or evaluation.get("id") == result.get("evaluation"):
            return dict(evaluation)
    raise NotFound(f"job {job['id']} has ended without an evaluation")
