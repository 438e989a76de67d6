"""Event streams share one look at the database."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, event

from app.jobs import streams
from app.jobs.models import Job, JobEvent
from app.jobs.service import append_events, begin_job, end_job
from app.jobs.streams import JobWatch
from tests.worker.arena import Arena


async def collect(watch: JobWatch, job_id: str, after: int = 0) -> list[int]:
    return [event.serial async for event in watch.follow(job_id, after)]


def run_to_its_end(arena: Arena, job_id: str) -> None:
    with arena.database.write() as session:
        begin_job(session, job_id, "worker-1")
    for number in range(600):
        with arena.database.write() as session:
            append_events(session, job_id, [("log", {"n": number})] * 2)
    with arena.database.write() as session:
        end_job(session, job_id, "succeeded")


def test_every_stream_gets_every_event_once_wherever_it_begins(arena: Arena) -> None:
    job_id, other = arena.submit(), arena.submit()

    async def watch_all() -> list[list[int]]:
        watch = JobWatch(arena.database)
        following = [asyncio.create_task(collect(watch, job_id, after)) for after in (0, 0, 700, 10**6)]
        idle = asyncio.create_task(collect(watch, other))
        await asyncio.to_thread(run_to_its_end, arena, job_id)
        found = await asyncio.gather(*following)
        late = await collect(watch, job_id, after=1_200)
        idle.cancel()
        await asyncio.gather(idle, return_exceptions=True)
        await asyncio.sleep(3 * streams.SECONDS_BETWEEN_LOOKS)
        assert watch._task is None or watch._task.done(), "it looks after nothing"
        return [*found, late]

    first, second, later, beyond, late = asyncio.run(watch_all())
    assert first == second == list(range(1, 1_205))
    assert later == first[700:]
    assert beyond == []
    assert late == first[1_200:]


def test_a_hundred_idle_streams_cost_one_query_a_look(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SECONDS_BETWEEN_LOOKS", 0.05)
    jobs, ran = [arena.submit() for _ in range(10)], list[str]()
    watch = JobWatch(arena.database)

    async def idle() -> None:
        event.listen(arena.database.engine, "before_cursor_execute", note)
        following = [asyncio.create_task(collect(watch, jobs[n % 10], after=1)) for n in range(100)]
        while not 0 < len(selects()) <= 20:  # each stream looks and reads once by itself, when it begins
            ran.clear()
            await asyncio.sleep(1)
        ran.clear()
        await asyncio.sleep(1)
        event.remove(arena.database.engine, "before_cursor_execute", note)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        ran.append(statement)

    def selects() -> list[str]:
        return [one for one in ran if one.startswith("SELECT")]

    asyncio.run(asyncio.wait_for(idle(), 60))
    assert 0 < len(selects()) <= 20
    assert all("last_event" in one for one in selects())


def test_a_job_that_is_removed_while_it_is_watched_ends_its_streams(arena: Arena) -> None:
    job_id = arena.submit()

    async def watch_it() -> list[int]:
        watch = JobWatch(arena.database)
        following = asyncio.create_task(collect(watch, job_id))
        await asyncio.sleep(0.3)
        with arena.database.write() as session:
            session.execute(delete(JobEvent))
            session.execute(delete(Job))
        return await asyncio.wait_for(following, 5)

    assert asyncio.run(watch_it()) == [1]
