"""Rules of transfers: what may be asked for, and which are shown to whom, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs.kinds import parse
from app.jobs.kinds.transfer import TransferSpec, find_problems
from app.storage import make_storage
from app.tickets.publishing import Publication, publish_ticket
from app.transfers.service import list_transfers, name_tickets, read_matrix, record_transfer
from nirvana import tasks
from nirvana.errors import InvalidCursor, InvalidJob
from nirvana.format.ticket import Ticket
from tests.factories import make_ticket
from tests.worker.arena import Arena

FOUND: dict[str, Any] = {
    "verdict": "UNRESOLVED",
    "reason": "too close to tell: add replicates",
    "source": "digits",
    "target": "mnist",
    "density": 0.2,
    "replicates": 2,
    "arms": {"ticket": {"accuracies": [0.9, 0.8]}, "dense": {"accuracies": [0.95, 0.95]}},
}


def publish(arena: Arena, ticket: Ticket, name: str, visibility: str = "public") -> str:
    with arena.database.write() as session:
        publication = Publication(arena.ada, name, visibility)
        publish_ticket(session, make_storage(arena.settings), ticket.to_bytes(), publication)
    return f"ada/{name}"


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"ticket": None}, "/spec/ticket", "missing"),
        ({"ticket": 5}, "/spec/ticket", "type"),
        ({"task": None}, "/spec/task", "missing"),
        ({"task": ["mnist"]}, "/spec/task", "type"),
        ({"own": 7}, "/spec/own", "type"),
        ({"replicates": 1}, "/spec/replicates", "range"),
        ({"max_replicates": 9}, "/spec/max_replicates", "unknown-field"),
    ],
)
def test_a_bad_transfer_is_refused_where_it_is_bad(change: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(TransferSpec, {"ticket": "ada/first", "task": "mnist"} | change, "/spec")
    assert [(problem.pointer, problem.code) for problem in caught.value.errors] == [(pointer, code)]


def test_a_target_that_does_not_fit_is_refused_with_both_shapes() -> None:
    architecture, target = make_ticket().architecture, tasks.get("mnist")
    problems = list(find_problems(architecture, "digits", "digits", target))
    assert [problem.code for problem in problems] == ["does-not-fit", "other-task"]
    assert "[1, 8, 8], but the task mnist has [1, 28, 28]" in problems[0].detail
    again = find_problems(architecture, "digits", None, tasks.get("digits"))
    assert [problem.code for problem in again] == ["same-task"]


def test_a_transfer_of_a_ticket_that_is_not_there_is_refused(arena: Arena) -> None:
    for unknown in ("nothing", "ada/nothing"):
        with pytest.raises(InvalidJob) as caught:
            arena.submit("transfer", ticket="ada/nothing", task=unknown)
        assert [(p.pointer, p.code) for p in caught.value.errors] == [("/spec/task", "unknown")]
    with pytest.raises(InvalidJob) as caught:
        arena.submit("transfer", ticket="ada/nothing", task="mnist")
    assert [(p.pointer, p.code) for p in caught.value.errors] == [("/spec/ticket", "unknown")]
    name = publish(arena, make_ticket(task="mnist"), "first")
    with pytest.raises(InvalidJob) as caught:
        arena.submit("transfer", ticket=name, task="digits", own="ada/nothing")
    assert [(p.pointer, p.code) for p in caught.value.errors] == [("/spec/own", "unknown")]
    job = arena.job(arena.submit("transfer", ticket=name, task="digits"))
    assert (job.kind, job.spec["replicates"], job.progress_total) == ("transfer", 5, 1)


def test_a_transfer_is_recorded_once_and_shown_to_who_may_see_its_ticket(arena: Arena) -> None:
    first, secret = make_ticket(), make_ticket(seed=18)
    publish(arena, first, "first")
    publish(arena, secret, "secret", "private")
    asked: list[tuple[str, Ticket, dict[str, Any]]] = [
        ("j1", first, {}),
        ("j1", first, {}),
        ("j2", first, {"replicates": 3}),
        ("j3", first, {"target": "usps"}),
        ("j4", secret, {}),
    ]
    with arena.database.write() as session:
        for job_id, ticket, more in asked:
            record_transfer(session, digest=ticket.digest, measured=FOUND | more, job_id=job_id)
    with arena.database.read() as session:
        rows = list_transfers(session, None, limit=9).rows
        assert [row.job_id for row in rows] == ["j3", "j2", "j1"]
        assert rows[0].accuracy == pytest.approx(0.85)
        assert len(list_transfers(session, arena.ada, limit=9).rows) == 4
        assert [row.job_id for row in list_transfers(session, None, task="usps", limit=9).rows] == ["j3"]
        assert list_transfers(session, None, digest=secret.digest, limit=9).rows == []
        page = list_transfers(session, None, limit=2)
        rest = list_transfers(session, None, limit=2, cursor=page.next_cursor)
        assert [row.job_id for row in rest.rows] == ["j1"]
        with pytest.raises(InvalidCursor):
            list_transfers(session, None, task="usps", limit=2, cursor=page.next_cursor)
        matrix = read_matrix(session, None)
        assert {task: row.job_id for task, row in matrix[first.digest].items()} == {
            "mnist": "j2",
            "usps": "j3",
        }
        assert name_tickets(session, None, set(matrix)) == {first.digest: "ada/first"}
