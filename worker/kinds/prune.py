"""`prune`: find tickets, one level a round.

A level's ticket is the checkpoint, kept in the blob store, so that a worker on another machine can go on from
it; publishing it is one commit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.organisations.roles import get_owner
from app.evaluations.origins import Outcome, record_attestation
from app.jobs.kinds import level_name
from app.jobs.service import append_events
from app.tickets.publishing import Publication, publish_ticket, split_name
from nirvana import tasks
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.pruning.levels import find_level, first_ticket
from nirvana.pruning.plan import plan_search
from nirvana.pruning.search import MaskResult
from nirvana.pruning.target import PruningTarget, level_of
from nirvana.training.cost import environment
from nirvana.training.events import OnProgress, Reporter
from nirvana.training.recipe import Recipe
from worker import Json

if TYPE_CHECKING:
    from worker.running import RunningJob


async def run(job: RunningJob) -> Json:
    """Train level after level and publish each ticket under its owner's name; a method that is not iterative
    has one, after a round that looks for its mask."""
    checkpoint: str | None = None
    levels: list[Json] = []
    search: Json = {}
    number = 0
    while number == 0 or checkpoint is not None:
        trained = await train_level_round(job, number, checkpoint)
        checkpoint = trained["checkpoint"]
        if trained["level"] is None:
            search = {"search": trained["search"]}
        else:
            levels.append(trained["level"] | await _publish(job, number, trained))
        number += 1
    return {"levels": levels, "tickets": [level["name"] for level in levels]} | search


async def train_level_round(job: RunningJob, number: int, checkpoint: str | None) -> Json:
    """Train a level from its checkpoint (level 0 has none); keep its ticket and the next one's checkpoint."""
    files = {"input.ticket": checkpoint} if checkpoint else {}
    request = {"round": "level", "spec": job.spec}
    trained = await job.run_round(
        f"level {number}", request, files, lambda folder, result: _keep(job, folder, number, result)
    )
    job.total = trained["last_level"] + 1
    job.blobs += [key for key in (trained["ticket"], trained["checkpoint"]) if key]
    return trained


async def _publish(job: RunningJob, number: int, trained: Json) -> Json:
    """Publish the level's ticket and record its metrics, exactly once."""

    def work(session: Session) -> Json:
        data = job.worker.storage.get(trained["ticket"])
        publisher, name = session.get_one(Account, job.account_id), _name(job, number)
        owner = get_owner(session, publisher, split_name(publisher, name)[0], hold=True)
        publication = Publication(owner, name, job_id=job.id, publisher=publisher)
        row, _ = publish_ticket(session, job.worker.storage, data, publication)
        found = Outcome(row.digest, row.task, "found", row.digest, 1.0, trained["environment"])
        record_attestation(session, found, job.id)
        published = {"name": f"{owner.name}/{row.name}", "digest": row.digest}
        append_events(session, job.id, [("level", trained["level"] | published)])
        return published

    return await job.commit(f"publish level {number}", work)


def _keep(job: RunningJob, folder: Path, number: int, result: Json) -> Json:
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
    """Return the published name: the job's own prefix, or its network and task with the start of its id."""
    about = f"{job.spec['architecture']}-{job.spec['task'].rpartition('/')[2]}-{job.id[:8]}"
    return level_name(job.spec.get("name") or about, number)


def train_level(request: Json, progress: OnProgress) -> Json:
    """Train a level's ticket, which is `input.ticket` or else the dense one that the search begins with.

    It leaves that ticket with its measured claims as `level.ticket` and the one after it as `next.ticket`. At
    level 0 a method that is not iterative looks for its mask instead and leaves `next.ticket` alone.
    """
    spec, folder, reporter = request["spec"], Path(request["folder"]), Reporter(progress)
    target = PruningTarget(spec["method"], spec.get("levels"), spec.get("density"), spec.get("options", {}))
    data = tasks.load(spec["task"], progress)
    path = folder / "input.ticket"
    if path.exists():
        ticket = Ticket.read(path)
    else:
        recipe = Recipe.from_dict(spec["recipe"])
        named = spec["architecture"]  # of the zoo, or in an attestation the graph itself
        architecture = named if isinstance(named, str) else Architecture.from_manifest(named)
        plan = plan_search(spec["task"], architecture, target, recipe=recipe, seed=spec["seed"])
        ticket = first_ticket(plan, data, reporter)
    engines = spec.get("engines") or ["auto"] * (level_of(ticket) + 1)  # an attestation's, as they were
    result, next_ticket = find_level(ticket, data, spec["seed"], target, reporter, engines[level_of(ticket)])
    if next_ticket is not None:
        next_ticket.write(folder / "next.ticket")
    pruning = Recipe.from_dict(dict(ticket.recipe)).pruning
    last_level = {"last_level": target.last_level(ticket.prunable_shapes, pruning)}
    if isinstance(result, MaskResult):
        return last_level | {"level": None, "search": dict(result.measured)}
    result.ticket.write(folder / "level.ticket")
    return last_level | {"level": result.to_dict(), "environment": dict(environment())}


ROUNDS = {"level": train_level}
