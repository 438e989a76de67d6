"""Services behind publishing and verdicts, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts.models import Account
from app.accounts.service import create_account
from app.db import Database
from app.evaluations.models import Baseline, Evaluation
from app.evaluations.service import find_runs, keep_runs, list_evaluations
from app.storage import Storage, make_storage, ticket_key
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.service import get_ticket, list_known, yank_ticket
from nirvana.errors import InvalidRecipe, InvalidTicket, NotFound, StorageFailed
from tests.factories import make_masks, make_ticket
from tests.registry import VERDICT, make_settings, measure

TICKET = make_ticket()
DATA = TICKET.to_bytes()


def publish(session: Session, storage: Storage, data: bytes = DATA, name: str = "first") -> Listing:
    owner = session.scalars(select(Account)).one_or_none() or create_account(session, "ada")
    return publish_ticket(session, storage, data, Publication(owner, name, job_id="j1"))[0]


def test_a_job_that_publishes_twice_makes_one_listing(database: Database, storage: Storage) -> None:
    ids = []
    for _ in range(2):
        with database.write() as session:
            ids.append(publish(session, storage).id)
    assert ids[0] == ids[1]


def test_a_listing_gives_back_its_architecture_and_recipe(database: Database, storage: Storage) -> None:
    with database.write() as session:
        publish(session, storage)
    with database.read() as session:
        row = get_ticket(session, "ada/first")
        assert row.architecture.digest == TICKET.architecture.digest
        assert row.recipe == TICKET.recipe
        assert storage.get(ticket_key(row.blob.digest)) == DATA
        with pytest.raises(NotFound):
            get_ticket(session, "sha256:" + "0" * 64)


def test_the_file_is_stored_before_the_row_is_written(database: Database, tmp_path: Path) -> None:
    blobs = tmp_path / "blocked"
    broken = make_storage(make_settings(tmp_path, blob_url=blobs.as_uri()))
    blobs.rmdir()
    blobs.write_text("a file where the folder was")
    with pytest.raises(StorageFailed), database.write() as session:
        publish(session, broken)
    with database.read() as session:
        assert session.scalars(select(Listing)).all() == []


def test_a_bad_file_stores_nothing(database: Database, storage: Storage, tmp_path: Path) -> None:
    untrainable = make_ticket(recipe={"steps": 100}).to_bytes()
    for data, kind in ((DATA[:-1], InvalidTicket), (untrainable, InvalidRecipe)):
        with pytest.raises(kind), database.write() as session:
            publish(session, storage, data)
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def record(database: Database, replicates: int, verdict: str, job_id: str | None = None) -> Evaluation:
    arms = {"ticket": [0.9] * replicates, "dense": [0.92] * replicates}
    body = VERDICT | {"verdict": verdict, "replicates": replicates, "arms": arms}
    with database.write() as session:
        return measure(session, TICKET.digest, body, job_id)


def headline(database: Database) -> tuple[str | None, int | None]:
    with database.read() as session:
        row = session.scalars(select(Listing)).one()
        return row.verdict, row.replicates


def test_a_job_records_its_evaluation_once(database: Database, storage: Storage) -> None:
    with database.write() as session:
        publish(session, storage)
    assert record(database, 5, "WINNING", "j2").id == record(database, 5, "WINNING", "j2").id
    with database.read() as session:
        assert len(list_evaluations(session, TICKET.digest, None, limit=9).rows) == 1


def test_asking_again_does_not_change_a_verdict_but_more_replicates_do(
    database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage)
    record(database, 5, "NOT_MATCHING")
    record(database, 5, "WINNING")
    assert headline(database) == ("NOT_MATCHING", 5)
    record(database, 10, "WINNING")
    assert headline(database) == ("WINNING", 10)
    record(database, 2, "INCONCLUSIVE")
    assert headline(database) == ("WINNING", 10)


def test_what_gate_0_refuses_is_invalid_whatever_was_measured_before(
    database: Database, storage: Storage
) -> None:
    with database.write() as session:
        publish(session, storage)
    record(database, 10, "WINNING")
    with database.write() as session:
        refused = VERDICT | {"verdict": "INVALID", "replicates": 0, "arms": {}}
        row = measure(session, TICKET.digest, refused, "j0")
        assert (row.accuracy, row.accuracy_sd, row.dense_accuracy) == (None, None, None)
    assert headline(database) == ("INVALID", 0)
    record(database, 20, "WINNING")
    assert headline(database) == ("INVALID", 0)


def test_known_tickets_are_the_public_ones_of_an_architecture_newest_first(
    database: Database, storage: Storage
) -> None:
    others = [make_ticket(masks=make_masks(TICKET.architecture, 0.2, 40 + seed)) for seed in range(3)]
    with database.write() as session:
        publish(session, storage)
        for number, other in enumerate(others):
            publish(session, storage, other.to_bytes(), f"t{number}")
        publish(session, storage, others[2].to_bytes(), "again")
        publish(session, storage, make_ticket("mlp-8").to_bytes(), "other")
        hidden = publish(session, storage, make_ticket(seed=7).to_bytes(), "hidden")
        hidden.visibility = "private"
        yank_ticket(session, get_ticket(session, "ada/t0"), "withdrawn", None)
    with database.read() as session:
        found = list_known(session, TICKET.digest, 9, 10**9)
        assert [name for name, _ in found] == ["ada/t2", "ada/t1"]
        assert list_known(session, TICKET.digest, 1, 10**9) == found[:1]
        assert list_known(session, TICKET.digest, 9, 10) == []
    assert storage.get(ticket_key(found[0][1])) == others[2].to_bytes()


def test_of_a_run_that_was_measured_twice_the_newest_stays(database: Database) -> None:
    about = {"task": "digits", "architecture_digest": "a", "recipe_digest": "r", "arm": "dense"}
    keys = [f"{number:064x}" for number in range(1200)]
    with database.write() as session:
        keep_runs(session, [{"key": key, "run": 1} for key in keys], **about, job_id="j1")
        keep_runs(session, [{"key": keys[0], "run": 2}], **about, job_id="j2")
    with database.read() as session:
        found = find_runs(session, [*keys, keys[0], "f" * 64])
        assert session.get_one(Baseline, keys[0]).job_id == "j2"
    assert set(found) == set(keys)
    assert [found[key]["run"] for key in keys[:2]] == [2, 1]


def test_a_verdict_on_another_task_is_not_the_headline(database: Database, storage: Storage) -> None:
    with database.write() as session:
        publish(session, storage)
        body = VERDICT | {"task": "mnist"}
        measure(session, TICKET.digest, body)
    assert headline(database) == (None, None)


def test_evaluations_are_listed_newest_first_page_by_page(database: Database, storage: Storage) -> None:
    with database.write() as session:
        publish(session, storage)
    for replicates in range(2, 7):
        record(database, replicates, "INCONCLUSIVE")
    with database.read() as session:
        first = list_evaluations(session, TICKET.digest, None, limit=3)
        rest = list_evaluations(session, TICKET.digest, None, limit=3, cursor=first.next_cursor)
    assert [row.replicates for row in first.rows + rest.rows] == [6, 5, 4, 3, 2]
    assert rest.next_cursor is None
