"""jobs: what the service's workers do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet

app = typer.Typer(help="The service's jobs.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@app.command("ls")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed, cancelled.")] = None,
    kind: Annotated[str | None, typer.Option(help="prune or verify.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to print.")] = 20,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List your jobs, newest first."""
    from nirvana.client import Client

    with Client() as client:
        found = list(client.jobs(limit=limit, state=state, kind=kind))
    output = Output(json, quiet)
    rows = [(job["id"], job["kind"], job["state"], job.get("created_at")) for job in found]
    output.data({"items": found}, lambda: output.table(("job", "kind", "state", "asked for"), rows))


@app.command()
def show(job: Id, json: Json = False, quiet: Quiet = False) -> None:
    """Show a job: what was asked, how far it is, what came of it."""
    from nirvana.client import Client

    with Client() as client:
        shown = client.job(job)
    output = Output(json, quiet)
    output.data(shown, lambda: output.table(("field", "value"), list(shown.items())))


@app.command()
def logs(
    job: Id,
    after: Annotated[str | None, typer.Option(help="Only what came after the event of this id.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print a job's events as they come, until it has ended; with --json one event a line."""
    import json as json_

    from nirvana.client import Client

    with Client() as client:
        for event in client.job_events(job, after):
            print(json_.dumps(event) if json else _event_line(event), flush=True)


@app.command()
def cancel(job: Id, json: Json = False, quiet: Quiet = False) -> None:
    """Cancel a job; it stops at once or at its next training step."""
    from nirvana.client import Client

    with Client() as client:
        cancelled = client.cancel_job(job)
    Output(json, quiet).data(cancelled, lambda: print(f"{job} {cancelled.get('state', 'cancelled')}"))


def _event_line(event: dict[str, Any]) -> str:
    said = event["data"].get("message") or event["data"].get("state") or event["data"]
    return f"{event['id']:>5}  {event['event']:<9} {said}"
