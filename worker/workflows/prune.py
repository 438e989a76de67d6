"""Find tickets: one level a round. A level's ticket is the checkpoint, kept in the blob store, so that a
worker on another machine can go on from it; publishing it is one commit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.jobs.events import append_events
from app.tickets.publishing import publish_ticket
from worker.engine import Outcome
from worker.running import RunningJob


async def prune(job: RunningJob) -> dict[str, Any]:
    """Train level after level and publish each ticket under the job's owner; a method that is not iterative
    has one, after a round that looks for its mask."""
    checkpoint: str | None = None
    levels: list[dict[str, Any]] = []
    search: dict[str, Any] = {}
    number = 0
    while number == 0 or checkpoint is not None:
        trained = await _train_level(job, number, checkpoint)
        checkpoint = trained["checkpoint"]
        if trained["level"] is None:
            search = {"search": trained["search"]}
        else:
            levels.append(trained["level"] | await _publish(job, number, trained))
        number += 1
    return {"levels": levels, "tickets": [level["name"] for level in levels]} | search


async def _train_level(job: RunningJob, number: int, checkpoint: str | None) -> Outcome:
    """Train a level from its checkpoint (level 0 has none); keep its ticket and the next one's checkpoint."""
    request = {"round": "level", "spec": job.spec, "threads": job.worker.settings.job_threads}
    files = {"input.ticket": checkpoint} if checkpoint else {}
    trained = await job.run_round(
        f"level {number}", request, files, lambda folder, result: _keep(job, folder, number, result)
    )
    job.total = trained["last_level"] + 1
    job.blobs += [key for key in (trained["ticket"], trained["checkpoint"]) if key]
    return trained


async def _publish(job: RunningJob, number: int, trained: Outcome) -> Outcome:
    """Publish the level's ticket and tell its metrics, exactly once."""

    def work(session: Session) -> Outcome:
        data = job.worker.storage.get(trained["ticket"])
        owner = session.get_one(Account, job.account_id)
        row, _ = publish_ticket(
            session, job.worker.storage, owner=owner, name=_name(job, number), data=data, job_id=job.id
        )
        published = {"name": f"{owner.name}/{row.name}", "digest": row.digest}
        append_events(session, job.id, [("level", trained["level"] | published)])
        return published

    return await job.commit(f"publish level {number}", work)


def _keep(job: RunningJob, folder: Path, number: int, result: dict[str, Any]) -> Outcome:
    """Put the round's tickets into the blob store and keep their keys."""
    ticket = _put(job, folder / "level.ticket", f"level-{number:02d}")
    return result | {"ticket": ticket, "checkpoint": _put(job, folder / "next.ticket", f"next-{number:02d}")}


def _put(job: RunningJob, path: Path, what: str) -> str | None:
    """Store a file under its job, its place and its content: no attempt overwrites what another one kept."""
    if not path.exists():
        return None
    data = path.read_bytes()
    key = f"jobs/{job.id}/{what}-{hashlib.sha256(data).hexdigest()[:16]}.ticket"
    job.worker.storage.put(key, data)
    return key


def _name(job: RunningJob, number: int) -> str:
    """The published name: the job's own prefix, or what it is about with the start of the job's id."""
    about = f"{job.spec['architecture']}-{job.spec['task']}-{job.id[:8]}"
    return f"{job.spec.get('name') or about}-{number:02d}"
