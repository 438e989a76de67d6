"""The order of the queue, the places that are told, and queues of thousands; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from dbos import SQLAlchemyDatasource
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.service import create_account, forget_networks
from app.db import utc_now
from app.jobs.engine import client_for, engine_url
from app.jobs.models import Job
from app.jobs.queue import PLACES, queue_places, queue_position, read_gauges
from app.jobs.service import begin_job, cancel_job, end_job, get_job, list_jobs
from app.storage import make_storage
from nirvana.errors import QuotaExceeded
from tests.worker.arena import Arena
from worker.engine import Engine
from worker.main import MIRROR_BATCH, Watch, mirror_ends
from worker.running import Worker

HOME, HOSTILE = "198.51.100.0/24", "203.0.113.0/24"


def newcomer(arena: Arena, name: str, network: str = HOSTILE) -> Account:
    with arena.database.write() as session:
        return create_account(session, name, network)


def place(arena: Arena, job_id: str) -> int | None:
    with arena.database.read() as session:
        return queue_position(session, get_job(session, job_id))


def begin(arena: Arena, job_id: str) -> None:
    with arena.database.write() as session:
        begin_job(session, job_id, "worker-1")


def table(arena: Arena) -> str:
    """The engine's table of jobs."""
    is_postgres = arena.database.engine.dialect.name == "postgresql"
    return "dbos.workflow_status" if is_postgres else "workflow_status"


def order(arena: Arena) -> list[str]:
    """The jobs that no worker has taken, as the engine sorts them when a worker asks for one."""
    query = (
        f"SELECT workflow_uuid FROM {table(arena)} WHERE status = 'ENQUEUED' ORDER BY priority, created_at"
    )
    with arena.database.read() as session:
        return list(session.scalars(text(query)))


def gauge(session: Session, name: str) -> dict[str, float]:
    return next(dict(one.values) for one in read_gauges(session) if one.name == name)


def add_rows(arena: Arena, number: int) -> None:
    """Put queued jobs of one account into the table, which the engine knows nothing of."""
    same = {"account_id": arena.ada.id, "kind": "prune", "spec": {}, "budget": {}, "state": "queued"}
    same |= {"queue": "cpu", "request_digest": "x", "person": "account:0", "progress_message": ""}
    zeros = dict.fromkeys(("flops", "progress_done", "progress_total", "attempts", "last_event"), 0)
    began = utc_now()
    rows = [
        same | zeros | {"id": f"row-{n:06}", "priority": n, "created_at": began + timedelta(seconds=n)}
        for n in range(1, number + 1)
    ]
    with arena.database.write() as session:
        session.execute(insert(Job), rows)


@contextmanager
def count_statements(arena: Arena) -> Iterator[list[str]]:
    ran: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        ran.append(statement)

    event.listen(arena.database.engine, "before_cursor_execute", note)
    yield ran
    event.remove(arena.database.engine, "before_cursor_execute", note)


def test_thirty_fresh_accounts_are_one_person_and_push_nobody_to_the_end(arena: Arena) -> None:
    arena.settings = arena.settings.model_copy(update={"max_open_jobs_per_account": 100})
    flood = [arena.submit(account=newcomer(arena, f"sock-{n}")) for n in range(30)]
    honest = arena.submit(account=newcomer(arena, "grace", HOME))
    assert place(arena, honest) == 2
    assert order(arena)[:3] == [flood[0], honest, flood[1]]
    assert [place(arena, job_id) for job_id in order(arena)] == list(range(1, 32))


def test_new_accounts_of_a_network_have_the_open_jobs_of_one(arena: Arena) -> None:
    arena.settings = arena.settings.model_copy(update={"max_open_jobs_per_account": 2})
    for name in ("sock-1", "sock-2"):
        arena.submit(account=newcomer(arena, name))
    with pytest.raises(QuotaExceeded, match="new accounts of your network"):
        arena.submit(account=newcomer(arena, "sock-3"))
    arena.submit(account=newcomer(arena, "grace", HOME))


def test_the_day_of_new_accounts_of_a_network_is_counted_together(arena: Arena) -> None:
    job_id = arena.submit(account=newcomer(arena, "sock-1"))
    planned = arena.job(job_id).flops
    arena.settings = arena.settings.model_copy(update={"max_flops_per_account_per_day": 1.5 * planned})
    with pytest.raises(QuotaExceeded, match="the last 24 hours"):
        arena.submit(account=newcomer(arena, "sock-2"))
    arena.submit(account=newcomer(arena, "grace", HOME))


def test_a_newcomer_waits_behind_a_few_jobs_of_the_established_and_not_behind_all(arena: Arena) -> None:
    turns = arena.settings.newcomer_turns
    old = [arena.submit() for _ in range(turns + 3)]
    new = arena.submit(account=newcomer(arena, "grace", HOME))
    assert order(arena) == [*old[: turns + 1], new, *old[turns + 1 :]]
    assert place(arena, new) == turns + 2


def test_who_waits_is_not_overtaken_again_and_again_by_those_who_come_later(arena: Arena) -> None:
    first, second, third = (arena.submit() for _ in range(3))
    begin(arena, first)
    begin(arena, second)  # the second turn is served now
    later = [arena.submit(account=arena.add_account(name)) for name in ("bob", "carl", "dora")]
    begin(arena, later[0])
    last = arena.submit(account=arena.add_account("emil"))
    assert order(arena)[-4:] == [*later[1:], last, third][-4:]
    for job_id in (*later[1:], last):
        begin(arena, job_id)
    begin(arena, third)
    assert arena.job(arena.submit(account=arena.add_account("fred"))).priority == arena.job(third).priority


def test_an_account_grows_old_or_is_vouched_for_and_its_network_is_forgotten(arena: Arena) -> None:
    account, vouched = newcomer(arena, "grace", HOME), newcomer(arena, "hugo", HOME)
    vouched.max_open_jobs = 5
    assert arena.job(arena.submit(account=vouched)).person == f"account:{vouched.id}"
    assert arena.job(arena.submit(account=account)).person == f"network:{HOME}"
    with arena.database.write() as session:
        old = session.get_one(Account, account.id)
        old.created_at -= timedelta(days=arena.settings.newcomer_days)
        forget_networks(session, arena.settings)
    with arena.database.read() as session:
        networks = {name: session.get_one(Account, one.id).network for name, one in
                    {"grace": account, "hugo": vouched}.items()}  # fmt: skip
        aged = session.get_one(Account, account.id)
    assert networks == {"grace": None, "hugo": HOME}
    assert arena.job(arena.submit(account=aged)).person == f"account:{account.id}"


def test_jobs_are_counted_by_every_change_of_their_states(arena: Arena) -> None:
    jobs = [arena.submit() for _ in range(5)]
    for job_id in jobs[:3]:
        begin(arena, job_id)
    begin(arena, jobs[0])  # again, by another worker
    with arena.database.write() as session:
        end_job(session, jobs[0], "succeeded")
        end_job(session, jobs[0], "failed")  # too late
        end_job(session, jobs[1], "failed")
        cancel_job(session, arena.ada, jobs[4])
        found = gauge(session, "nirvana_jobs")
    assert found == {"queued": 1, "running": 1, "succeeded": 1, "failed": 1, "cancelled": 1}


def test_a_page_of_a_long_queue_takes_two_queries_and_tells_places_up_to_a_bound(arena: Arena) -> None:
    add_rows(arena, PLACES + 200)
    with arena.database.read() as session, count_statements(arena) as ran:
        jobs = list_jobs(session, account_id=arena.ada.id, limit=100)
        places = queue_places(session, jobs)
        assert set(places.values()) == {PLACES + 1}
    assert len([statement for statement in ran if statement.startswith("SELECT")]) == 2
    with arena.database.read() as session:
        assert queue_position(session, get_job(session, f"row-{PLACES:06}")) == PLACES
        assert queue_position(session, get_job(session, f"row-{PLACES + 1:06}")) == PLACES + 1


def test_lists_places_and_gauges_of_a_long_queue_never_read_it_whole(arena: Arena) -> None:
    add_rows(arena, 2_000)
    plan = "EXPLAIN QUERY PLAN" if arena.database.engine.dialect.name == "sqlite" else "EXPLAIN"
    with arena.database.write() as session:
        session.execute(text("ANALYZE"))
        with count_statements(arena) as ran:
            queue_places(session, [get_job(session, "row-000001")])
            list(read_gauges(session))
    asked = [one for one in ran if "FROM job" in one and "job_count" not in one and "job.id = " not in one]
    assert len(asked) == 2, ran
    with arena.database.engine.connect() as connection:
        for statement in asked:
            values: dict[str, object] | tuple[object, ...]
            if "%(" in statement:
                values = {"queue_1": "cpu", "state_1": "queued", "param_1": PLACES}
            else:
                values = ("cpu", "queued", PLACES, 0)[: statement.count("?")]
            rows = connection.exec_driver_sql(f"{plan} {statement}", values).all()
            shown = "\n".join(str(row) for row in rows)
            assert "ix_job_queue" in shown, shown
            assert "Seq Scan" not in shown, shown
            assert "B-TREE" not in shown, shown


def given_up(arena: Arena, job_id: str) -> None:
    """Let the engine give up a job, as it does with one that kills every worker."""
    ended = f"UPDATE {table(arena)} SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' WHERE workflow_uuid = :id"
    with arena.database.write() as session:
        session.execute(text(ended), {"id": job_id})


def idle_worker(arena: Arena) -> Worker:
    """A worker that runs nothing."""
    url = engine_url(arena.database.engine)
    source = SQLAlchemyDatasource.create(url, engine=arena.database.engine, run_migrations=False)
    engine = Engine(source, client_for(url))
    return Worker(arena.settings, arena.database, make_storage(arena.settings), engine)


def test_what_the_engine_gave_up_is_ended_however_long_the_queue_is(arena: Arena) -> None:
    add_rows(arena, 2_000)
    running, queued = arena.submit(), arena.submit()
    with arena.database.write() as session:  # behind every other row, in the order of ids
        for old, new in ((running, "z-running"), (queued, "z-queued")):
            session.execute(text("DELETE FROM job_event WHERE job_id = :old"), {"old": old})
            session.execute(text("UPDATE job SET id = :new WHERE id = :old"), {"new": new, "old": old})
            engines = f"UPDATE {table(arena)} SET workflow_uuid = :new WHERE workflow_uuid = :old"
            session.execute(text(engines), {"new": new, "old": old})
    begin(arena, "z-running")
    given_up(arena, "z-running")
    given_up(arena, "z-queued")
    worker = idle_worker(arena)
    after = mirror_ends(worker)
    assert (arena.job("z-running").state, arena.job("z-running").reason_code) == ("failed", "engine")
    assert arena.job("z-queued").state == "queued"
    beats = 1
    while after:
        after, beats = mirror_ends(worker, after), beats + 1
    assert beats == 2_000 // MIRROR_BATCH + 1
    assert arena.job("z-queued").state == "failed"


def test_purging_goes_on_until_nothing_old_is_left(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.PURGE_BATCH", 2)
    monkeypatch.setattr("worker.main.KEEP_RECORDS", -timedelta(days=1))
    client = client_for(engine_url(arena.database.engine))
    for _ in range(7):
        client.cancel_workflow(arena.submit())
    watch = Watch(idle_worker(arena), [])
    assert watch._purge() is False
    assert client.list_workflows() == []
