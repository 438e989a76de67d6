"""Jobs that succeed: what they publish, what they tell, and in which order they go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import httpx
import pytest
from sqlalchemy import delete, select

from app.accounts.organisations.roles import Membership
from app.accounts.service import create_token
from app.evaluations.models import Evaluation
from app.jobs.engine import client_for, engine_url
from app.jobs.service import cancel_job
from app.tickets.models import Listing
from nirvana.verification.protocol import ARMS
from tests.worker.arena import ROOT, Arena, small_spec
from worker.engine import purge


def test_a_search_publishes_a_lineage_that_a_second_job_verifies(arena: Arena) -> None:
    found = arena.submit(name="small", **small_spec(levels=2, steps=100))
    arena.run()
    job = arena.wait_for_end(found)
    assert job.result is not None
    assert job.result["tickets"] == ["ada/small-00", "ada/small-01", "ada/small-02"]
    with arena.database.read() as session:
        rows = session.scalars(select(Listing).where(Listing.job_id == found).order_by(Listing.level)).all()
    assert [row.parent_digest for row in rows] == [None, rows[0].digest, rows[1].digest]
    assert [row.digest for row in rows] == [level["digest"] for level in job.result["levels"]]
    assert job.progress_done == job.progress_total == 3

    verifying = arena.submit("verify", ticket="ada/small-02", replicates=2)
    job = arena.wait_for_end(verifying)
    assert job.state == "succeeded", job.reason
    with arena.database.read() as session:
        recorded = session.scalars(select(Evaluation).where(Evaluation.job_id == verifying)).all()
    assert [row.ticket_digest for row in recorded] == [rows[2].digest]
    assert job.result == {
        "evaluation": recorded[0].id,
        "verdict": recorded[0].verdict,
        "ticket": "ada/small-02",
    }
    arms = {event.body["arm"] for event in arena.events(verifying, "point")}
    assert arms == set(ARMS)
    done = [event.body["done"] for event in arena.events(verifying, "progress")]
    assert done == sorted(done)

    client = client_for(
        engine_url(arena.database.engine)
    )  # it notes a job's end just after the job's row does
    arena.wait_for(lambda: {found.status for found in client.list_workflows()} == {"SUCCESS"})
    purge(client, "2001-01-01T00:00:00Z")
    assert len(client.list_workflows()) == 2
    purge(client, "2999-01-01T00:00:00Z")
    assert client.list_workflows() == []
    assert arena.job(verifying).state == "succeeded"


def test_one_shot_publishes_the_last_ticket_alone(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    job_id = arena.submit(method="one-shot", levels=None, density=0.2)
    arena.run()
    job = arena.wait_for_end(job_id)
    assert job.state == "succeeded", job.reason
    assert [name[-2:] for name in arena.tickets(job_id)] == ["01"]
    assert job.result is not None
    assert job.result["levels"][0]["kept"] == round(0.2 * 1184)


@pytest.mark.parametrize(
    ("method", "measured"), [("snip", set()), ("edge-popup", {"untrained_validation_accuracy"})]
)
def test_a_method_that_looks_for_one_mask_publishes_one_ticket(
    sqlite_arena: Arena, method: str, measured: set[str]
) -> None:
    arena = sqlite_arena
    job_id = arena.submit(method=method, levels=None, density=0.3, name="found")
    arena.run()
    job = arena.wait_for_end(job_id)
    assert job.state == "succeeded", job.reason
    assert job.result is not None
    assert job.result["tickets"] == ["ada/found-01"]
    assert job.result["levels"][0]["kept"] == round(0.3 * 1184)
    assert set(job.result["search"]) == measured
    assert job.progress_done == job.progress_total == 2
    with arena.database.read() as session:
        row = session.scalars(select(Listing).where(Listing.job_id == job_id)).one()
    assert (row.method, row.level) == (method, 1)


def test_nobody_waits_behind_anothers_flood(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    flood = [arena.submit(**small_spec(levels=1, steps=20)) for _ in range(3)]
    bob = arena.add_account("bob")
    his = arena.submit(account=bob, **small_spec(levels=1, steps=20))
    arena.run()
    arena.wait_for_end(his)
    assert arena.job(flood[0]).state == "succeeded"
    assert arena.job(flood[2]).state == "queued"
    for job_id in flood[1:]:
        with arena.database.write() as session:
            cancel_job(session, arena.ada, job_id)


def test_a_job_that_was_answered_for_runs_though_the_service_was_killed(postgres_arena: Arena) -> None:
    arena = postgres_arena
    with arena.database.write() as session:
        secret = create_token(session, arena.ada, name="test", scopes=["job"])[1]
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
    service = subprocess.Popen(command, env=os.environ | arena.variables, cwd=ROOT)
    arena.workers.append(service)
    url = f"http://127.0.0.1:{port}"
    arena.wait_for(lambda: _answers(url))
    body = {"kind": "prune", "spec": small_spec(levels=1, steps=20)}
    answer = httpx.post(f"{url}/api/v1/jobs", json=body, headers={"Authorization": f"Bearer {secret}"})
    service.send_signal(signal.SIGKILL)
    assert answer.status_code == 202, answer.text
    arena.run()
    assert arena.wait_for_end(answer.json()["id"]).state == "succeeded"


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_search_publishes_for_an_organisation_until_its_asker_may_not(arena: Arena) -> None:
    lab, ada = arena.add_account("lab"), arena.ada
    with arena.database.write() as session:
        session.add(Membership(organisation_id=lab.id, account_id=ada.id, role="writer"))
    arena.run()
    job = arena.wait_for_end(arena.submit(name="lab/found", levels=1))
    assert job.state == "succeeded", job.reason
    assert job.result is not None
    assert job.result["tickets"] == ["lab/found-00", "lab/found-01"]
    job_id = arena.submit(name="lab/more", recipe={"steps": 20_000, "evaluate_every": 100})
    arena.wait_for_point(job_id, level=0)
    with arena.database.write() as session:
        session.execute(delete(Membership))
    job = arena.wait_for_end(job_id)
    assert (job.state, job.reason_code) == ("failed", "forbidden")
    assert "cannot publish as 'lab'" in (job.reason or "")
    assert arena.tickets(job_id) == []
