"""The contract with the engine, run at every upgrade of it: dead, frozen and cut-off workers."""

from __future__ import annotations

import signal
import time

from sqlalchemy import text

from app.jobs.models import Worker
from tests.worker.arena import EXPIRY_SECONDS, Arena, children_of, is_alive, small_spec

LONG = small_spec(levels=2, steps=50_000)
TAKEN_UP_WITHIN_SECONDS = 30.0


def assert_each_level_once(arena: Arena, job_id: str, levels: int) -> None:
    """Every level's ticket and its event exist exactly once."""
    names = sorted(name[-2:] for name in arena.tickets(job_id))
    assert names == [f"{level:02d}" for level in range(levels)]
    told = [event.body["level"] for event in arena.events(job_id, "level")]
    assert told == list(range(levels))
    assert [event.kind for event in arena.events(job_id)].count("done") == 1


def assert_trained_once(arena: Arena, job_id: str, level: int) -> None:
    """No step of the level was trained twice."""
    steps = [e.body["step"] for e in arena.events(job_id, "point") if e.body["level"] == level]
    assert steps == sorted(set(steps))


def test_a_killed_workers_job_is_finished_by_another_one_from_its_last_finished_level(arena: Arena) -> None:
    job_id = arena.submit(**LONG)
    first = arena.run()
    second = arena.run()
    arena.wait_for_point(job_id, level=2)
    holder = arena.job(job_id).worker
    victim = next(worker for worker in (first, second) if children_of(worker))
    children = children_of(victim)
    victim.kill()
    killed = time.monotonic()
    arena.wait_for(lambda: not any(is_alive(child) for child in children), seconds=5)
    arena.wait_for(lambda: arena.job(job_id).worker != holder)
    taken_up = time.monotonic() - killed
    job = arena.wait_for_end(job_id)
    assert job.state == "succeeded"
    assert job.attempts == 2
    assert taken_up < EXPIRY_SECONDS + TAKEN_UP_WITHIN_SECONDS
    assert_each_level_once(arena, job_id, levels=3)
    assert_trained_once(arena, job_id, level=0)
    assert_trained_once(arena, job_id, level=1)


def test_a_frozen_worker_that_comes_back_changes_nothing(arena: Arena) -> None:
    job_id = arena.submit(**LONG)
    frozen = arena.run()
    arena.wait_for_point(job_id, level=1)
    frozen.send_signal(signal.SIGSTOP)
    arena.run()
    arena.wait_for(lambda: arena.job(job_id).attempts == 2)
    frozen.send_signal(signal.SIGCONT)
    job = arena.wait_for_end(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    arena.wait_for(lambda: not children_of(frozen), seconds=5)
    assert frozen.poll() is None
    assert_each_level_once(arena, job_id, levels=3)
    assert_trained_once(arena, job_id, level=0)


def test_a_worker_goes_on_after_the_database_dropped_every_connection(postgres_arena: Arena) -> None:
    arena = postgres_arena
    job_id = arena.submit(**LONG)
    arena.run()
    arena.wait_for_point(job_id, level=1)
    with arena.database.write() as session:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    job = arena.wait_for_end(job_id)
    assert (job.state, job.attempts) == ("succeeded", 1)
    assert_each_level_once(arena, job_id, levels=3)


def test_after_an_outage_nobody_is_judged_for_a_round(postgres_arena: Arena) -> None:
    arena = postgres_arena
    job_id = arena.submit(**small_spec(levels=3, steps=20_000))
    arena.run()
    arena.wait_for_point(job_id, level=0)
    arena.run()
    time.sleep(2)
    with arena.database.engine.connect() as connection:
        connection.execute(text("LOCK TABLE worker"))
        time.sleep(EXPIRY_SECONDS + 1)
        connection.rollback()
    time.sleep(1)
    assert arena.job(job_id).attempts == 1


def test_a_worker_told_to_stop_hands_its_job_over_at_once(postgres_arena: Arena) -> None:
    arena = postgres_arena
    job_id = arena.submit(**LONG)
    leaving = arena.run()
    arena.wait_for_point(job_id, level=1)
    arena.run()
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(5) == 0
    left = time.monotonic()
    arena.wait_for(lambda: arena.job(job_id).attempts == 2)
    assert time.monotonic() - left < EXPIRY_SECONDS + 2
    assert arena.wait_for_end(job_id).state == "succeeded"
    assert_each_level_once(arena, job_id, levels=3)
    assert_trained_once(arena, job_id, level=0)


def test_a_draining_worker_finishes_its_round_first(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    job_id = arena.submit(**LONG)
    draining = arena.run(NIRVANA_WORKER_DRAIN_SECONDS="20")
    arena.wait_for_point(job_id, level=1)
    draining.send_signal(signal.SIGTERM)
    assert draining.wait(20) == 0
    arena.run()
    assert arena.wait_for_end(job_id).state == "succeeded"
    assert_each_level_once(arena, job_id, levels=3)
    for level in range(3):
        assert_trained_once(arena, job_id, level)


def test_a_job_that_kills_its_workers_is_given_up_with_a_reason(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    job_id = arena.submit(**LONG)
    for attempt in (1, 2):
        worker = arena.run(NIRVANA_JOB_RECOVERIES="1")
        arena.wait_for(lambda attempt=attempt: arena.job(job_id).attempts == attempt)  # type: ignore[misc]
        worker.kill()
    arena.run(NIRVANA_JOB_RECOVERIES="1")
    job = arena.wait_for_end(job_id)
    assert (job.state, job.reason_code) == ("failed", "engine")
    assert "died with it" in (job.reason or "")


def test_two_workers_run_no_job_twice(arena: Arena) -> None:
    jobs = [arena.submit(**small_spec(levels=1, steps=20)) for _ in range(3)]
    arena.run()
    arena.run()
    for job_id in jobs:
        job = arena.wait_for_end(job_id)
        assert (job.state, job.attempts) == ("succeeded", 1)
        assert_each_level_once(arena, job_id, levels=2)
    with arena.database.read() as session:
        assert session.query(Worker).count() == 2
