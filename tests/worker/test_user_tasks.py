"""Jobs on a task that somebody made here: its data come from the blob store, its seal for verifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from app.accounts.models import Account
from app.evaluations.models import Evaluation
from app.evaluations.origins import list_attestations
from app.storage import make_storage
from app.tasks.models import TaskRow
from app.tasks.service import MadeTask, fetch_task, get_row, keep_task, remove_task
from app.tickets.models import Listing
from nirvana.errors import DataMissing
from nirvana.tasks.making import NewTask, Shares, make_task
from nirvana.tasks.own import Reading, read_examples, write_files
from tests.worker.arena import Arena

PATIENCE = 120.0  # of a job
SEARCH: dict[str, Any] = {
    "architecture": "mlp-4",
    "levels": 1,
    "recipe": {"steps": 60, "evaluate_every": 20, "batch_size": 8},
}


def make(arena: Arena, name: str, folder: Path, seed: int = 0) -> TaskRow:
    """Keep a task of two easy classes, a fifth of it sealed."""
    folder.mkdir()
    x = np.random.default_rng(seed).normal(size=(150, 3))
    y = np.arange(150) % 2
    np.savez(folder / "x.npz", x=x + 2 * y[:, None], y=y)
    new = NewTask(f"ada/{name}", name, "CC0-1.0", "x.npz", shares=Shares(sealed=0.2))
    task, arrays = make_task(read_examples(folder / "x.npz", Reading()), new, lambda _: None)
    task = write_files(folder, task, arrays)
    made = MadeTask(task, folder / "data.npz", folder / "sealed.npz")
    assert keep_task(arena.database, make_storage(arena.settings), arena.settings, arena.ada, made)
    return row_of(arena, f"ada/{name}")


def row_of(arena: Arena, name: str) -> TaskRow:
    with arena.database.read() as session:
        return get_row(session, name)


def account(arena: Arena, name: str) -> Account:
    with arena.database.read() as session:
        return session.scalars(select(Account).where(Account.name == name)).one()


def test_a_task_is_searched_on_attested_verified_with_its_seal_and_transferred_to(
    arena: Arena, tmp_path: Path
) -> None:
    make(arena, "blobs", tmp_path / "one")
    make(arena, "others", tmp_path / "two", seed=1)
    bob = arena.add_account("bob")
    (tmp_path / "rounds").mkdir()
    arena.run(TMPDIR=str(tmp_path / "rounds"))
    found = arena.submit("prune", account=bob, **(SEARCH | {"task": "ada/blobs"}))
    job = arena.wait_for_end(found, PATIENCE)
    assert job.state == "succeeded", job.reason
    assert job.result is not None
    name = job.result["tickets"][-1]
    assert name == f"bob/mlp-4-blobs-{found[:8]}-01"
    with arena.database.read() as session:
        row = session.scalars(select(Listing).where(Listing.job_id == found, Listing.level == 1)).one()
    assert (row.task, row.origin, row.warnings) == ("ada/blobs", "attested", [])

    job = arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2), PATIENCE)
    assert job.state == "succeeded", job.reason
    with arena.database.read() as session:
        evaluation = session.scalars(select(Evaluation).where(Evaluation.job_id == job.id)).one()
    assert evaluation.body["sealed_rows"] == 30
    assert set(evaluation.body["engines"].values()) <= {"dense", "sparse", "stacked", "dense+sparse"}

    job = arena.wait_for_end(arena.submit("transfer", ticket=name, task="ada/others", replicates=2), PATIENCE)
    assert job.state == "succeeded", job.reason
    with arena.database.write() as session:
        session.get_one(Listing, row.id).origin = "brought-in"
    job = arena.wait_for_end(arena.submit("attest", ticket=name), PATIENCE)
    assert job.state == "succeeded", job.reason
    with arena.database.read() as session:
        outcomes = [one.outcome for one in list_attestations(session, row.digest, "ada/blobs")]
    assert outcomes == ["same", "found"]
    rounds = tmp_path / "rounds"  # what a job read is removed with it
    arena.wait_for(lambda: not list(rounds.glob("nirvana-worker-*/tasks-*")))


def test_a_seal_that_is_gone_fails_the_verification_and_says_which_blob_is_missing(
    sqlite_arena: Arena, tmp_path: Path
) -> None:
    arena, row = sqlite_arena, make(sqlite_arena, "blobs", tmp_path / "one")
    make_storage(arena.settings).delete(row.sealed_key)
    arena.run()
    found = arena.wait_for_end(arena.submit("prune", **(SEARCH | {"task": "ada/blobs"})), PATIENCE)
    assert found.state == "succeeded", found.reason
    assert found.result is not None
    job = arena.wait_for_end(
        arena.submit("verify", ticket=found.result["tickets"][-1], replicates=2), PATIENCE
    )
    assert (job.state, job.reason_code) == ("failed", "data-missing")
    assert f"The sealed rows of the task ada/blobs are gone: there is no {row.sealed_key}" in (
        job.reason or ""
    )


def test_a_task_that_is_removed_while_its_job_waits_fails_it(sqlite_arena: Arena, tmp_path: Path) -> None:
    arena = sqlite_arena
    make(arena, "blobs", tmp_path / "one")
    waiting = arena.submit("prune", **(SEARCH | {"task": "ada/blobs"}))
    with arena.database.write() as session:
        remove_task(session, get_row(session, "ada/blobs"), admin=True)
    arena.run()
    job = arena.wait_for_end(waiting, PATIENCE)
    assert (job.state, job.reason_code) == ("failed", "gone")


def test_only_a_verification_is_given_the_seal(sqlite_arena: Arena, tmp_path: Path) -> None:
    row, storage = make(sqlite_arena, "blobs", tmp_path / "one"), make_storage(sqlite_arena.settings)
    for needs_seal, files in ((False, 2), (True, 3)):
        folder = tmp_path / f"tasks-{needs_seal}"
        fetch_task(storage, row, folder, needs_seal=needs_seal)
        assert len(list(folder.glob("ada@blobs/*"))) == files
    storage.put(row.data_key, b"damaged")
    storage.delete(row.sealed_key)
    with pytest.raises(DataMissing):
        fetch_task(storage, row, tmp_path / "none", needs_seal=True)
    assert not (tmp_path / "none").exists()
