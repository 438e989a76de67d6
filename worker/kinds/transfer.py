"""`transfer`: try a ticket on another task beside its controls: one round, then one record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.jobs.service import append_events
from app.storage import ticket_key
from app.transfers.service import record_transfer
from nirvana.format.ticket import Ticket
from nirvana.training.events import Event, OnProgress
from nirvana.verification.transfer import transfer
from worker import Json

if TYPE_CHECKING:
    from worker.running import RunningJob

ARMS = ("own", "dense", "ticket", "reinit", "shuffle")  # in the order in which they are trained


async def run(job: RunningJob) -> Json:
    """Train the ticket, its controls and the target's own ticket on the target, and record it once."""
    files = {"input.ticket": ticket_key(job.spec["file"])}
    if "own_file" in job.spec:
        files["own.ticket"] = ticket_key(job.spec["own_file"])
    request = {"round": "transfer", "spec": job.spec}
    trained = await job.run_round("transfer", request, files, lambda _, result: result)
    measured = trained["transfer"]

    def work(session: Session) -> Json:
        row = record_transfer(session, digest=job.spec["digest"], measured=measured, job_id=job.id)
        shown = {name: measured[name] for name in ("verdict", "reason", "replicates")}
        append_events(session, job.id, [("verdict", shown)])
        return {"transfer": row.id, "verdict": row.verdict, "ticket": job.spec["ticket"], "task": row.task}

    return await job.commit("record", work)


def measure(request: Json, progress: OnProgress) -> Json:
    """Train `input.ticket` on the task of the spec, and `own.ticket`, where there is one, beside it."""
    spec, folder = request["spec"], Path(request["folder"])
    ticket, path, replicates = Ticket.read(folder / "input.ticket"), folder / "own.ticket", spec["replicates"]
    own = Ticket.read(path) if path.exists() else None
    arms = ARMS if own else ARMS[1:]

    def count(event: Event) -> None:
        progress(_counted(event, arms, replicates))

    result = transfer(ticket, spec["task"], own=own, replicates=replicates, cache=None, progress=count)
    return {"transfer": result.to_dict()}


def _counted(event: Event, arms: tuple[str, ...], replicates: int) -> Event:
    """Return an event of one arm with its place among the replicates of all arms."""
    if "arm" not in event:
        return event
    before, total = replicates * arms.index(event["arm"]), replicates * len(arms)
    if event["kind"] == "arm":
        return event | {"done": before + event["done"], "total": total}
    return event | {"first": -before, "replicates": total}


ROUNDS = {"transfer": measure}
