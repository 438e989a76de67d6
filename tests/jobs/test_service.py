"""Rules of jobs, on both databases, without a worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.jobs.models import Job
from app.jobs.queue import queue_position
from app.jobs.service import (
    JobRequest,
    append_events,
    begin_job,
    cancel_job,
    end_job,
    get_job,
    list_jobs,
    read_events,
    submit_job,
)
from app.storage import make_storage
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from nirvana.errors import Forbidden, IdempotencyMismatch, InvalidJob, JobFinished, NotFound, QuotaExceeded
from tests.factories import RECIPE, make_ticket
from tests.registry import started_jobs
from tests.worker.arena import Arena, small_spec


def request(key: str | None = None, seed: int = 0) -> JobRequest:
    return JobRequest("prune", small_spec() | {"seed": seed}, {}, key)


def test_a_job_and_its_start_are_one_commit(arena: Arena) -> None:
    job_id = arena.submit()
    assert started_jobs(arena.database) == {job_id}
    with arena.database.make_writer() as session:
        submit_job(session, arena.settings, arena.ada, request())
        session.flush()  # and then the service dies before the commit
    assert started_jobs(arena.database) == {job_id}
    with arena.database.read() as session:
        assert list(session.scalars(select(Job.id))) == [job_id]


def test_an_account_has_only_so_many_open_jobs_also_when_it_asks_at_once(arena: Arena) -> None:
    limit = arena.settings.max_open_jobs_per_account

    def ask(_: int) -> bool:
        try:
            arena.submit()
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(limit + 4))) == limit


def test_the_same_idempotency_key_gives_the_same_job_also_at_once(arena: Arena) -> None:
    def ask(_: int) -> str:
        with arena.database.write() as session:
            return submit_job(session, arena.settings, arena.ada, request("key-1")).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == 1
    assert len(started_jobs(arena.database)) == 1
    with pytest.raises(IdempotencyMismatch), arena.database.write() as session:
        submit_job(session, arena.settings, arena.ada, request("key-1", seed=1))
    bob = arena.add_account("bob")
    with arena.database.write() as session:
        assert submit_job(session, arena.settings, bob, request("key-1")).account_id == bob.id


def test_a_job_is_cancelled_once_and_by_its_owner_alone(arena: Arena) -> None:
    job_id = arena.submit()
    bob = arena.add_account("bob")
    with arena.database.write() as session, pytest.raises(Forbidden):
        cancel_job(session, bob, job_id)
    with arena.database.write() as session:
        assert cancel_job(session, arena.ada, job_id).state == "cancelled"
    with pytest.raises(JobFinished) as caught, arena.database.write() as session:
        cancel_job(session, arena.ada, job_id)
    assert caught.value.extra == {"state": "cancelled"}
    with pytest.raises(NotFound), arena.database.write() as session:
        cancel_job(session, arena.ada, "nothing")
    assert [event.kind for event in arena.events(job_id)] == ["state", "state", "done"]


def test_an_ended_job_begins_never_again_and_ends_once(arena: Arena) -> None:
    job_id = arena.submit()
    with arena.database.write() as session:
        job = begin_job(session, job_id, "worker-1")
        assert job is not None
        assert (job.state, job.attempts, job.worker) == ("running", 1, "worker-1")
        began = job.started_at
    with arena.database.write() as session:
        again = begin_job(session, job_id, "worker-2")
        assert again is not None
        assert (again.attempts, again.started_at) == (2, began)
        assert end_job(session, job_id, "succeeded", result={"tickets": []})
        assert not end_job(session, job_id, "failed", reason="too late")
        assert begin_job(session, job_id, "worker-3") is None
    assert arena.job(job_id).state == "succeeded"


def test_the_queue_is_fair_between_owners_and_says_where_a_job_stands(arena: Arena) -> None:
    mine = [arena.submit() for _ in range(3)]
    bob = arena.add_account("bob")
    his = arena.submit(account=bob)
    with arena.database.read() as session:
        places = {job_id: queue_position(session, get_job(session, job_id)) for job_id in [*mine, his]}
        assert places == {mine[0]: 1, his: 2, mine[1]: 3, mine[2]: 4}
    with arena.database.write() as session:
        begin_job(session, mine[0], "worker-1")
    with arena.database.read() as session:
        assert queue_position(session, get_job(session, mine[0])) is None
        assert queue_position(session, get_job(session, his)) == 1


def test_jobs_are_listed_newest_first_page_by_page(arena: Arena) -> None:
    mine = [arena.submit() for _ in range(3)]
    arena.submit(account=arena.add_account("bob"))
    with arena.database.read() as session:
        first = list_jobs(session, account_id=arena.ada.id, limit=2)
        last = first[-1]
        rest = list_jobs(session, account_id=arena.ada.id, limit=2, before=(last.created_at, last.id))
    assert [job.id for job in [*first, *rest]] == mine[::-1]


def test_events_are_numbered_without_gaps_also_when_two_write_at_once(arena: Arena) -> None:
    job_id = arena.submit()

    def write(number: int) -> None:
        with arena.database.write() as session:
            append_events(session, job_id, [("log", {"n": number}), ("log", {"n": number})])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))
    with arena.database.read() as session:
        events = read_events(session, job_id, after=3)
    assert [event.serial for event in events] == list(range(4, 18))
    numbers = [event.body["n"] for event in arena.events(job_id, "log")]
    assert numbers[::2] == numbers[1::2]


def test_a_verification_of_a_ticket_that_is_not_there_is_refused(arena: Arena) -> None:
    with pytest.raises(InvalidJob) as caught:
        arena.submit("verify", ticket="ada/nothing")
    assert [(p.pointer, p.code) for p in caught.value.errors] == [("/spec/ticket", "unknown")]


def test_an_unknown_kind_is_refused(arena: Arena) -> None:
    with pytest.raises(InvalidJob) as caught:
        arena.submit("bake")
    assert [p.pointer for p in caught.value.errors] == ["/kind"]


def publish(arena: Arena, name: str, **recipe: Any) -> str:
    data = make_ticket(recipe=RECIPE.override(recipe).to_dict()).to_bytes()
    with arena.database.write() as session:
        publish_ticket(session, make_storage(arena.settings), data, Publication(arena.ada, name))
    return f"ada/{name}"


def test_a_job_over_the_services_limit_is_not_queued(arena: Arena) -> None:
    name = publish(arena, "long", steps=10**7, evaluate_every=10**7)
    small = arena.settings.model_copy(update={"max_flops_per_job": 1e8})
    for kind, spec in (
        ("verify", {"ticket": name}),
        ("transfer", {"ticket": publish(arena, "other", steps=9), "task": "mnist"}),
        ("prune", small_spec()),
    ):
        with pytest.raises(InvalidJob) as caught, arena.database.write() as session:
            submit_job(session, small, arena.ada, JobRequest(kind, spec, {}))
        assert {problem.pointer for problem in caught.value.errors} <= {"/spec", "/spec/task"}
    with pytest.raises(
        InvalidJob, match=r"needs \d\.\d+e\+14 flops, the budget allows 1e\+12 at /budget/flops"
    ):
        arena.submit("verify", ticket=name, budget={"flops": 1e12})
    assert started_jobs(arena.database) == set()


def test_a_ticket_that_no_verification_can_train_is_refused_before_it_is_queued(arena: Arena) -> None:
    with pytest.raises(
        InvalidJob, match=r"batch_size is 101, expected at most 100: a tenth of the 1000"
    ) as caught:
        arena.submit("verify", ticket=publish(arena, "clones", batch_size=101))
    assert [(one.pointer, one.code) for one in caught.value.errors] == [("/spec/ticket", "recipe")]
    old = publish(arena, "old")
    with arena.database.write() as session:  # published before recipes were checked
        whole = select(Listing).where(Listing.name == "old").options(undefer(Listing.manifest))
        listing = session.scalars(whole).one()
        listing.manifest = listing.manifest | {"recipe": {"optimizer": {}}}
    with pytest.raises(InvalidJob, match="the ticket's recipe: learning_rate is missing") as caught:
        arena.submit("verify", ticket=old)
    assert [(one.pointer, one.code) for one in caught.value.errors] == [("/spec/ticket", "recipe")]
    assert started_jobs(arena.database) == set()
