"""Old headlines measured again: once an exam, behind everybody's jobs, as often as somebody asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.__main__ import main
from app.accounts.models import Account
from app.accounts.service import create_account, find_account
from app.db import Database, utc_now
from app.evaluations.models import Evaluation
from app.evaluations.service import list_stale_exams, record_evaluation
from app.jobs.engine import QUEUE, REVERIFY_QUEUE
from app.jobs.models import Job
from app.jobs.queue import queue_position, read_gauges
from app.jobs.reverify import ENQUEUED, REGISTRY, THERE, reverify
from app.jobs.service import DAY, JobRequest, end_job, submit_job
from app.settings import Settings
from app.storage import Storage
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.service import yank_ticket
from nirvana.errors import InvalidName, QuotaExceeded
from nirvana.verification.protocol import PROTOCOL
from tests.factories import make_ticket
from tests.registry import VERDICT, started_jobs

OLD = "nirvana-verify/2"


def publish(session: Session, storage: Storage, name: str, protocol: str = OLD, **fields: Any) -> Listing:
    visibility = fields.pop("visibility", "public")
    account = find_account(session, "ada") or create_account(session, "ada")
    data = make_ticket(**fields).to_bytes()
    row, _ = publish_ticket(session, storage, data, Publication(account, name, visibility))
    if protocol:
        record_evaluation(session, row.exam_key, row.digest, VERDICT | {"protocol": protocol})
    return row


def run(database: Database, settings: Settings, **options: Any) -> list[tuple[str, str]]:
    return list(reverify(database, settings, **options))


def jobs(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at)))


def test_each_exam_of_an_old_headline_is_measured_again_once(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        listings: dict[str, dict[str, Any]] = {
            "old": {},
            "same": {"description": "the same exam"},
            "other": {"seed": 2},
            "secret": {"seed": 3, "visibility": "private"},
            "yanked": {"seed": 4},
            "new": {"seed": 5, "protocol": PROTOCOL},
            "never": {"seed": 6, "protocol": ""},
        }
        for name, fields in listings.items():
            publish(session, storage, name, **fields)
        row = session.scalars(select(Listing).where(Listing.name == "yanked")).one()
        yank_ticket(session, row, "withdrawn", None)
    assert run(database, settings) == [("ada/old", ENQUEUED), ("ada/other", ENQUEUED)]
    assert run(database, settings) == [("ada/old", THERE), ("ada/other", THERE)]
    made = jobs(database)
    assert [(job.kind, job.queue, job.spec["ticket"]) for job in made] == [
        ("verify", REVERIFY_QUEUE, "ada/old"),
        ("verify", REVERIFY_QUEUE, "ada/other"),
    ]


def test_a_command_that_was_stopped_goes_on_where_it_was(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        for seed in range(4):
            publish(session, storage, f"t{seed}", seed=seed)
    stopped = reverify(database, settings)
    assert next(stopped) == ("ada/t0", ENQUEUED)
    del stopped
    assert run(database, settings, limit=2) == [
        *(("ada/t0", THERE), ("ada/t1", ENQUEUED), ("ada/t2", ENQUEUED)),
    ]
    assert [happened for _, happened in run(database, settings)] == [THERE] * 3 + [ENQUEUED]
    assert len(jobs(database)) == 4


def test_a_command_that_is_killed_loses_no_exam_and_enqueues_none_twice(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        for seed in range(8):
            publish(session, storage, f"t{seed}", seed=seed)
    environment = os.environ | {
        "NIRVANA_HOME": str(settings.home),
        "NIRVANA_DATABASE_URL": settings.database_url,
    }
    command = [sys.executable, "-m", "app", "reverify"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for number in range(3):
            assert killed.stdout.readline() == f"ada/t{number}: enqueued\n"
        killed.kill()
    before = len(jobs(database))
    assert 3 <= before <= 8
    outcomes = [happened for _, happened in run(database, settings)]
    assert outcomes == [THERE] * before + [ENQUEUED] * (8 - before)
    made = jobs(database)
    assert len({job.spec["exam"] for job in made}) == len(made) == 8
    assert started_jobs(database) == {job.id for job in made}


def test_what_failed_is_tried_again_and_what_is_done_is_no_longer_old(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        exam = publish(session, storage, "one").exam_key
    run(database, settings)
    with database.write() as session:
        end_job(session, session.scalars(select(Job.id)).one(), "failed", reason="a worker died")
    assert run(database, settings) == [("ada/one", ENQUEUED)]
    with database.write() as session:
        digest = session.scalars(select(Listing.digest)).one()
        record_evaluation(session, exam, digest, VERDICT | {"protocol": PROTOCOL})
    assert run(database, settings) == []
    with database.read() as session:
        assert list_stale_exams(session) == []
        assert {row.protocol for row in session.scalars(select(Evaluation))} == {OLD, PROTOCOL}


def test_a_ticket_that_nobody_can_verify_today_is_said_and_the_others_go_on(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "gone", task="of-somebody")
        publish(session, storage, "fine", seed=2)
    (gone, why), fine = run(database, settings)
    assert gone == "ada/gone"
    assert "of-somebody" in why
    assert fine == ("ada/fine", ENQUEUED)
    assert run(database, settings, task="mnist") == []


def test_it_costs_nobodys_quota_and_nobodys_job_waits_for_it(
    settings: Settings, database: Database, storage: Storage
) -> None:
    tight = settings.model_copy(update={"max_open_jobs_per_account": 1})
    with database.write() as session:
        for seed in range(3):
            publish(session, storage, f"t{seed}", seed=seed)
    assert len(run(database, tight)) == 3
    with database.write() as session:
        ada = session.scalars(select(Account).where(Account.name == "ada")).one()
        job = submit_job(session, tight, ada, JobRequest("verify", {"ticket": "ada/t0"}, {}))
        assert (job.queue, queue_position(session, job)) == (QUEUE, 1)
        with pytest.raises(InvalidName):
            create_account(session, REGISTRY)


def test_commands_that_run_at_once_enqueue_each_exam_once(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        for seed in range(5):
            publish(session, storage, f"t{seed}", seed=seed)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: run(database, settings), range(4)))
    assert [len(one) for one in runs] == [5] * 4
    assert sum(happened == ENQUEUED for one in runs for _, happened in one) == 5
    assert len({job.spec["exam"] for job in jobs(database)}) == len(jobs(database)) == 5


def test_an_exam_that_somebody_verifies_already_is_left_to_them(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
        ada = session.scalars(select(Account)).one()
        theirs = submit_job(session, settings, ada, JobRequest("verify", {"ticket": "ada/one"}, {})).id
    assert run(database, settings) == [("ada/one", THERE)]
    with database.write() as session:
        end_job(session, theirs, "cancelled")
    assert run(database, settings) == [("ada/one", ENQUEUED)], "nobody keeps an old headline by cancelling"


def test_a_listing_that_is_yanked_while_its_job_waits_is_not_enqueued_again(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
    run(database, settings)
    with database.write() as session:
        row = session.scalars(select(Listing)).one()
        yank_ticket(session, row, "withdrawn", None)
        end_job(session, session.scalars(select(Job.id)).one(), "failed", reason="a worker died")
    assert run(database, settings) == []


def test_old_headlines_do_not_age_the_queue_of_people(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
    run(database, settings)
    with database.write() as session:
        hour_ago = utc_now() - timedelta(hours=1)
        session.execute(update(Job).values(created_at=hour_ago))
        ages = {gauge.name: gauge.values for gauge in read_gauges(session)}
        assert ages["nirvana_queue_age_seconds"] == {"": 0.0}
        assert ages["nirvana_jobs"]["queued"] == 1


def test_the_command_says_what_it_did(
    settings: Settings,
    database: Database,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
        publish(session, storage, "gone", task="of-somebody")
    monkeypatch.setenv("NIRVANA_HOME", str(settings.home))
    monkeypatch.setenv("NIRVANA_DATABASE_URL", settings.database_url)
    assert main(["reverify", "--dry-run", "--task", "digits"]) == 0
    assert capsys.readouterr().out == "ada/one: enqueued\n1 of 1 verifications would be enqueued\n"
    assert jobs(database) == []
    with database.read() as session:
        assert find_account(session, REGISTRY) is None, "a dry run leaves nothing"
    assert main(["reverify", "--json"]) == 0
    written, said = capsys.readouterr()
    assert json.loads(written)["enqueued"] == 1
    one, gone = json.loads(written)["items"]
    assert one == {"ticket": "ada/one", "outcome": ENQUEUED}
    assert "of-somebody" in gone["outcome"]
    assert said.endswith("1 of 2 verifications were enqueued\n")
    assert main(["reverify", "--task", "digits"]) == 0
    assert capsys.readouterr().out == f"ada/one: {THERE}\n0 of 1 verifications were enqueued\n"


ASK = JobRequest("verify", {"ticket": "ada/one"}, {})


def test_a_day_s_operations_are_bounded_for_each_account(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
        ada = session.scalars(select(Account)).one()
        first = submit_job(session, settings, ada, ASK)
        one = first.flops
        assert one > 0
        tight = settings.model_copy(update={"max_flops_per_account_per_day": 2.5 * one})
        second = submit_job(session, tight, ada, ASK)
        with pytest.raises(QuotaExceeded, match=r"of the last 24 hours plan .* together: there is room at"):
            submit_job(session, tight, ada, ASK)
        eve = create_account(session, "eve")
        submit_job(session, tight, eve, ASK)
        end_job(session, second.id, "cancelled")
        third = submit_job(session, tight, ada, ASK)
        end_job(session, third.id, "failed")
        with pytest.raises(QuotaExceeded):
            submit_job(session, tight, ada, ASK)
        session.execute(update(Job).values(created_at=first.created_at - timedelta(hours=25)))
        submit_job(session, tight, ada, ASK)


def test_a_refusal_says_when_there_is_room_and_a_job_that_alone_is_too_much_never(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
        ada = session.scalars(select(Account)).one()
        early, late = (submit_job(session, settings, ada, ASK) for _ in range(2))
        one = early.flops
        early.created_at -= timedelta(hours=20)
        session.flush()
        for limit, job in ((2.5 * one, early), (1.5 * one, late)):
            ada.max_flops_per_day = limit
            with pytest.raises(QuotaExceeded) as refused:
                submit_job(session, settings, ada, ASK)
            extra = refused.value.extra
            assert (extra["used_flops"], extra["asked_flops"]) == (2 * one, one)
            assert extra["limit_flops"] == limit
            assert datetime.fromisoformat(extra["free_at"]) == job.created_at + DAY
            assert 0 < extra["retry_after_seconds"] <= DAY.total_seconds()
        ada.max_flops_per_day = 0.5 * one
        with pytest.raises(QuotaExceeded, match="it alone is over that") as refused:
            submit_job(session, settings, ada, ASK)
        assert refused.value.extra["free_at"] is None


def test_an_account_s_own_budget_goes_before_the_setting(
    settings: Settings, database: Database, storage: Storage
) -> None:
    closed = settings.model_copy(update={"max_flops_per_account_per_day": 1.0})
    with database.write() as session:
        publish(session, storage, "one")
        ada = session.scalars(select(Account)).one()
        with pytest.raises(QuotaExceeded):
            submit_job(session, closed, ada, ASK)
        ada.max_flops_per_day = 1e19
        submit_job(session, closed, ada, ASK)


def test_two_jobs_at_once_cannot_both_take_the_rest_of_a_day(
    settings: Settings, database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage, "one")
        ada = session.scalars(select(Account)).one()
        one = submit_job(session, settings, ada, ASK).flops
    tight = settings.model_copy(update={"max_flops_per_account_per_day": 3.5 * one})

    def ask(_: int) -> bool:
        try:
            with database.write() as session:
                submit_job(session, tight, ada, ASK)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(8))) == 2
