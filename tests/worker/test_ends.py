"""How jobs end that do not simply succeed: each costs its own attempts and never the worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.service import JobRequest, submit_job
from nirvana import lab
from tests.registry import Templates
from tests.worker.arena import Arena, children_of, open_arena, small_spec

MIB = 2**20
FOR_EVER = {"steps": 10**7, "evaluate_every": 10**7}
HUGE_BATCH = {"steps": 10, "batch_size": 65_536, "l1": 1e-6}  # in torch: 1.8 GB of one layer's outputs
LONG = {"steps": 10**7, "evaluate_every": 100}


@pytest.fixture(scope="module")
def arena(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One arena and one worker for all of these: it has to survive them.

    A first training compiles kernels for longer than a round may be silent here, so that is done before.
    """
    lab.find("digits", "mlp-16", levels=1, recipe={"steps": 1})
    home: Path = tmp_path_factory.mktemp("arena")
    with open_arena(templates, "sqlite", home) as opened:
        opened.run(
            NIRVANA_JOB_MEMORY_BYTES=str(1500 * MIB),
            NIRVANA_JOB_SILENCE_SECONDS="5",
            NIRVANA_JOB_ATTEMPTS="2",
        )
        yield opened


def test_a_cancelled_job_stops_within_a_second(arena: Arena) -> None:
    from app.jobs.service import cancel_job

    job_id = arena.submit(recipe=LONG)
    arena.wait_for_point(job_id, level=0)
    assert children_of(arena.workers[0])
    with arena.database.write() as session:
        assert cancel_job(session, arena.ada, job_id).state == "cancelled"
    stopped = arena.wait_for(lambda: not children_of(arena.workers[0]), seconds=5)
    assert stopped < 1.0
    assert [event.kind for event in arena.events(job_id)][-1] == "done"
    assert arena.tickets(job_id) == []


def test_a_round_that_needs_too_much_memory_costs_its_attempts_and_says_so(arena: Arena) -> None:
    with arena.database.write() as session:
        request = JobRequest("prune", small_spec() | {"architecture": "mlp-6900"}, {})
        job = submit_job(session, arena.settings, arena.ada, request)
        job.spec = job.spec | {"recipe": job.spec["recipe"] | HUGE_BATCH}  # the service would refuse it
    job = arena.wait_for_end(job.id)
    assert (job.state, job.reason_code) == ("failed", "out-of-memory")
    assert job.reason is not None
    assert "1500 MiB" in job.reason
    assert "attempt 2" in job.reason
    assert [event.body["level"] for event in arena.events(job.id, "log")] == ["warning"]


def test_a_round_that_loops_for_ever_is_stopped_and_says_so(arena: Arena) -> None:
    job = arena.wait_for_end(arena.submit(recipe=FOR_EVER))
    assert (job.state, job.reason_code) == ("failed", "no-progress")
    assert "said nothing for 5 s" in (job.reason or "")


def test_a_job_is_stopped_at_its_deadline_and_not_tried_again(arena: Arena) -> None:
    began = time.monotonic()
    job = arena.wait_for_end(arena.submit(recipe=LONG, budget={"seconds": 4}))
    assert (job.state, job.reason_code) == ("failed", "deadline")
    assert time.monotonic() - began < 10
    assert arena.events(job.id, "log") == []


def test_a_training_that_leaves_the_finite_numbers_fails_at_once_and_names_the_step(arena: Arena) -> None:
    job = arena.wait_for_end(arena.submit(recipe={"optimizer": "sgd", "learning_rate": 1e12, "steps": 50}))
    assert (job.state, job.reason_code) == ("failed", "training-failed")
    assert "step" in (job.reason or "")


def test_after_all_that_the_worker_still_works(arena: Arena) -> None:
    job = arena.wait_for_end(arena.submit(**small_spec(levels=1, steps=20)))
    assert job.state == "succeeded"
    assert arena.workers[0].poll() is None
    checkpoints = arena.home / "blobs" / "jobs" / job.id
    arena.wait_for(lambda: not list(checkpoints.iterdir()), seconds=2)
