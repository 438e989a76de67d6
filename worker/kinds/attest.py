"""`attest`: run a ticket's search again, a level a round, and compare what comes out with the ticket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.evaluations.origins import Outcome, record_attestation
from app.jobs.service import append_events
from app.storage import ticket_key
from nirvana.format.ticket import Ticket
from nirvana.training.cost import environment
from nirvana.training.events import OnProgress
from nirvana.verification.duplicates import compare as overlap_with
from worker import Json
from worker.kinds import prune

if TYPE_CHECKING:
    from worker.running import RunningJob


async def run(job: RunningJob) -> Json:
    """Train the levels before the ticket's, whose masks follow from them, and record what came out, once."""
    level: int = job.spec["level"]
    found: str | None = None
    for number in range(max(1, level)):
        trained = await prune.train_level_round(job, number, found)
        found = trained["checkpoint"] if level else trained["ticket"]
    job.total = max(1, level) + 1
    files = {"input.ticket": ticket_key(job.spec["file"]), "found.ticket": str(found)}
    compared = await job.run_round("compare", {"round": "compare"}, files, lambda _, result: result)
    outcome = Outcome(job.spec["digest"], job.spec["task"], **compared)

    def work(session: Session) -> Json:
        record_attestation(session, outcome, job.id)
        gave = "this ticket" if outcome.outcome == "same" else outcome.found_digest
        append_events(session, job.id, [("log", {"level": "info", "message": f"the search gave {gave}"})])
        shown = {"outcome": outcome.outcome, "found": outcome.found_digest, "overlap": outcome.overlap}
        return shown | {"ticket": job.spec["ticket"]}

    return await job.commit("record", work)


def compare(request: Json, progress: OnProgress) -> Json:
    """Compare the ticket that the search gave, `found.ticket`, with the one that was brought, `input.ticket`.

    Returns:
        `outcome`, `found_digest`, `overlap` of the masks beyond chance, and the `environment`.
    """
    folder = Path(request["folder"])
    ticket, found = Ticket.read(folder / "input.ticket"), Ticket.read(folder / "found.ticket")
    progress({"kind": "compare", "message": "comparing what the search gave with the ticket"})
    is_same = ticket.digest == found.digest
    return {
        "outcome": "same" if is_same else "differs",
        "found_digest": found.digest,
        "overlap": 1.0 if is_same else overlap_with(ticket, "found", found).beyond_chance,
        "environment": dict(environment()),
    }


ROUNDS = {"level": prune.train_level, "compare": compare}
