"""Transfers: a ticket of one task trained on another by a worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from app.transfers.models import Transfer
from nirvana import tasks
from tests.factories import make_ticket
from tests.worker.arena import Arena
from tests.worker.test_verifying import publish


def add_task(folder: Path, name: str) -> None:
    """A task of ten noisy 8 x 8 pictures."""
    generator = np.random.Generator(np.random.PCG64(1))
    labels = np.arange(600) % 10
    pictures = generator.normal(size=(10, 8, 8))[labels] + 0.5 * generator.normal(size=(600, 8, 8))
    np.savez(folder / "mine.npz", x=pictures.astype(np.float32)[:, None], y=labels)
    tasks.add(folder / "mine.npz", name, kind="images")


def test_a_ticket_is_tried_on_another_task_beside_its_own_one(
    sqlite_arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = sqlite_arena
    monkeypatch.setenv("NIRVANA_HOME", str(arena.home))
    add_task(tmp_path, "mine")
    ticket = make_ticket()
    name = publish(arena, ticket, "first")
    own = publish(arena, make_ticket(seed=18, task="mine"), "own")
    arena.run()
    job = arena.wait_for_end(arena.submit("transfer", ticket=name, task="mine", own=own, replicates=2))
    assert job.state == "succeeded", job.reason
    with arena.database.read() as session:
        row = session.scalars(select(Transfer)).one()
    assert (row.job_id, row.ticket_digest, row.source, row.task) == (job.id, ticket.digest, "digits", "mine")
    assert job.result == {"transfer": row.id, "verdict": row.verdict, "ticket": name, "task": "mine"}
    assert set(row.body["arms"]) == {"own", "dense", "ticket", "reinit", "shuffle"}
    assert row.accuracy == pytest.approx(np.mean(row.body["arms"]["ticket"]["accuracies"]))
    done = [event.body["done"] for event in arena.events(job.id, "progress")]
    assert done == sorted(done)
    assert job.progress_done == job.progress_total == 1
