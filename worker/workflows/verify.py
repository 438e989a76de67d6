"""Verify a ticket: gate 0, then look after look every arm and the verdict, until it is no longer open."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from app.evaluations.baselines import find_runs, keep_runs
from app.evaluations.service import record_evaluation
from app.jobs.events import append_events
from app.storage import ticket_key
from app.tickets.service import list_known
from nirvana.errors import NotFound, StorageFailed
from nirvana.protocol import ARMS
from worker.engine import Outcome
from worker.running import RunningJob

KNOWN = 20  # tickets among which gate 0 looks for duplicates
KNOWN_BYTES = 2**28  # of their files together


async def verify(job: RunningJob) -> dict[str, Any]:
    """Look at the ticket, train every arm, judge, top up while the verdict is open, and record it once.

    A ticket that gate 0 refuses is recorded as INVALID with nothing trained.
    """
    gate = await _run(job, "gate", _request(job, "gate"), lambda folder: _put_known(job, folder / "known"))
    if gate["refused"] is not None:
        return await _record(job, gate["refused"])
    look, judged, arms = gate["look"], dict[str, Any](), {arm: list[Any]() for arm in ARMS}
    while look is not None:
        for arm in ARMS:
            arms[arm].append(await _train(job, look, arm, gate["about"]))
        judged = await _judge(job, look, arms, gate["gate"], judged)
        look = judged["look"]
    return await _record(job, judged["evaluation"])


async def _train(job: RunningJob, look: dict[str, Any], arm: str, about: dict[str, str]) -> dict[str, Any]:
    """Train an arm's replicates of a look, and keep their runs for later verifications."""
    span = f"{look['first']}-{look['n'] - 1}"
    request = _request(job, "arm") | {"arm": arm, "first": look["first"], "n": look["n"]}
    trained = await _run(
        job, f"arm {arm} {span}", request, lambda folder: _put_runs(job, look["keys"][arm], folder / "runs")
    )

    def work(session: Session) -> Outcome:
        keep_runs(session, trained["runs"], **about, arm=arm, job_id=job.id)
        append_events(session, job.id, [("arm", _told(trained["arm"], arm, span))])
        return {}

    await job.commit(f"keep {arm} {span}", work)
    measured: dict[str, Any] = trained["arm"]
    return measured


async def _judge(
    job: RunningJob,
    look: dict[str, Any],
    arms: dict[str, list[Any]],
    gate: dict[str, Any],
    before: dict[str, Any],
) -> Outcome:
    earlier = before["evaluation"]["looks"] if before else []
    request = _request(job, "judge") | {"arms": arms, "alpha": look["alpha"], "looks": earlier, "gate": gate}
    return await _run(job, f"judge {look['n']}", request)


async def _run(job: RunningJob, name: str, request: dict[str, Any], prepare: Any = None) -> Outcome:
    files = {"input.ticket": ticket_key(job.spec["file"])}
    return await job.run_round(name, request, files, lambda _, result: result, prepare)


async def _record(job: RunningJob, evaluation: dict[str, Any]) -> Outcome:
    """Record the evaluation and tell its verdict, exactly once."""
    job.total = job.done  # looks that were not needed

    def work(session: Session) -> Outcome:
        row = record_evaluation(session, digest=job.spec["digest"], evaluation=evaluation, job_id=job.id)
        told = {name: evaluation[name] for name in ("verdict", "reason", "replicates")}
        append_events(session, job.id, [("verdict", told)])
        return {"evaluation": row.id, "verdict": evaluation["verdict"], "ticket": job.spec["ticket"]}

    return await job.commit("record", work)


def _request(job: RunningJob, name: str) -> dict[str, Any]:
    replicates = {part: job.spec[part] for part in ("replicates", "max_replicates")}
    return {"round": name, "threads": job.worker.settings.job_threads} | replicates


def _put_runs(job: RunningJob, keys: Iterable[str], folder: Path) -> None:
    """Write those of the runs that are known into a folder as the run cache has them."""
    with job.worker.database.read() as session:
        found = find_runs(session, keys)
    for key, record in found.items():
        path = folder / key[:2] / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


def _put_known(job: RunningJob, folder: Path) -> None:
    """Write other tickets of the architecture into a folder; one whose file is gone is passed over."""
    with job.worker.database.read() as session:
        rows = list_known(session, job.spec["digest"], KNOWN, KNOWN_BYTES)
    folder.mkdir()
    names = {}
    for number, (name, file_digest) in enumerate(rows):
        with contextlib.suppress(NotFound, StorageFailed):
            (folder / f"{number:02d}.ticket").write_bytes(job.worker.storage.get(ticket_key(file_digest)))
            names[f"{number:02d}.ticket"] = name
    (folder / "names.json").write_text(json.dumps(names))


def _told(measured: dict[str, Any], arm: str, span: str) -> dict[str, Any]:
    """An arm's part of a look as people follow it."""
    accuracy, cached, n = fmean(measured["accuracies"]), sum(measured["cached"]), len(measured["seeds"])
    said = f"{arm} {span}: mean test accuracy {100 * accuracy:.2f} %"
    said += f", {cached} of {n} from the cache" if cached else ""
    return {"arm": arm, "replicates": span, "test_accuracy": accuracy, "cached": cached, "message": said}
