"""Verifications: gate 0, look after look, runs that are trained once, one evaluation at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import func, select

from app.accounts.models import Account
from app.evaluations.models import Baseline, Evaluation
from app.tickets.models import Ticket as Listing
from app.tickets.publishing import publish_ticket
from nirvana.initial import draw_all
from nirvana.protocol import ARMS, PROTOCOL
from nirvana.recipe import Recipe
from nirvana.ticket import Ticket
from tests.factories import RECIPE, make_ticket
from tests.worker.arena import Arena

CONTROLS_AND_DENSE = [arm for arm in ARMS if arm != "ticket"]


def publish(arena: Arena, ticket: Ticket, name: str, *, by: str = "ada", visibility: str = "public") -> str:
    from app.storage import make_storage

    storage = make_storage(arena.settings)
    with arena.database.write() as session:
        owner = session.scalars(select(Account).where(Account.name == by)).one()
        place: dict[str, Any] = {"owner": owner, "name": name, "visibility": visibility}
        publish_ticket(session, storage, data=ticket.to_bytes(), **place)
    return f"{by}/{name}"


def evaluation_of(arena: Arena, job_id: str) -> dict[str, Any]:
    """The one evaluation that a job recorded."""
    with arena.database.read() as session:
        return session.scalars(select(Evaluation).where(Evaluation.job_id == job_id)).one().body


def test_looks_go_on_while_the_verdict_is_open_and_a_second_job_takes_their_runs(arena: Arena) -> None:
    ticket = make_ticket()
    name = publish(arena, ticket, "first")
    twin = publish(arena, make_ticket(seed=18), "twin")
    publish(arena, make_ticket(seed=19), "secret", visibility="private")
    publish(arena, make_ticket("mlp-8"), "other")
    arena.run()
    job = arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2, max_replicates=4))
    assert job.state == "succeeded", job.reason
    first = evaluation_of(arena, job.id)
    assert (first["protocol"], first["replicates"]) == (PROTOCOL, 4)
    assert [(look["n"], look["alpha"]) for look in first["looks"]] == [(2, 0.03), (4, 0.02)]
    assert first["looks"][0]["verdict"] in ("INCONCLUSIVE", "MATCHING_UNRESOLVED")
    assert first["verdict"] == first["looks"][1]["verdict"]
    assert {arm: len(values) for arm, values in first["arms"].items()} == dict.fromkeys(ARMS, 4)
    assert [(one["name"], one["kind"]) for one in first["gate"]["duplicates"]] == [(twin, "same-mask")]
    told = [(event.body["arm"], event.body["replicates"]) for event in arena.events(job.id, "arm")]
    assert told == [(arm, span) for span in ("0-1", "2-3") for arm in ARMS]
    assert job.progress_done == job.progress_total == 1 + 2 * (len(ARMS) + 1)
    with arena.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Baseline)) == 4 * len(ARMS)

    again = evaluation_of(
        arena, arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2, max_replicates=4)).id
    )
    assert again["cached"] == dict.fromkeys(CONTROLS_AND_DENSE, 4) | {"ticket": 0}
    assert (again["arms"], again["verdict"]) == (first["arms"], first["verdict"])
    assert again["badges"]["BYTE-REPRODUCIBLE"] is True
    assert (first["cost"]["trainings"], again["cost"]["trainings"]) == (28, 4)


def test_what_gate_0_refuses_is_invalid_at_once_and_nothing_is_trained(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    ticket = make_ticket()
    values = draw_all(ticket.architecture, ticket.start.laws, 17)
    moved = {name: (3 * array).astype(np.float32) for name, array in values.items()}
    fields: dict[str, Any] = {"task": "digits", "recipe": RECIPE.to_dict(), "laws": dict(ticket.start.laws)}
    disguised = Ticket.create(ticket.architecture, ticket.masks, stored=moved, **fields)
    name = publish(arena, disguised, "trained")
    arena.run()
    job = arena.wait_for_end(arena.submit("verify", ticket=name))
    assert job.state == "succeeded", job.reason
    found = evaluation_of(arena, job.id)
    assert (found["verdict"], found["replicates"], found["arms"]) == ("INVALID", 0, {})
    assert "trained weights" in found["reason"]
    assert arena.events(job.id, "arm") == arena.events(job.id, "point") == []
    assert job.progress_done == job.progress_total == 1
    with arena.database.read() as session:
        row = session.scalars(select(Listing).where(Listing.name == "trained")).one()
    assert (row.verdict, row.replicates, row.accuracy) == ("INVALID", 0, None)


def test_a_verification_is_finished_by_another_worker_and_recorded_once(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    recipe = Recipe("adam", 0.0012, 60, steps=600, evaluate_every=50)
    name = publish(arena, make_ticket(recipe=recipe.to_dict()), "first")
    job_id = arena.submit("verify", ticket=name, replicates=2)
    killed = arena.run()
    arena.wait_for(lambda: any(e.body["arm"] == "reinit" for e in arena.events(job_id, "point")))
    killed.kill()
    arena.run()
    job = arena.wait_for_end(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert evaluation_of(arena, job_id)["replicates"] == 2
    assert [event.body["arm"] for event in arena.events(job_id, "arm")] == list(ARMS)
    assert len(arena.events(job_id, "verdict")) == 1
    steps = [event.body["step"] for event in arena.events(job_id, "point") if event.body["arm"] == "dense"]
    assert len(steps) == 2 * len(set(steps))  # each replicate once


def test_a_ticket_that_cannot_be_verified_fails_with_the_reason(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    recipe = Recipe("adam", 0.0012, 60, steps=20, evaluate_every=10)
    fields = recipe.to_dict()
    fields["pruning"] |= {"mask_0_action": "freeze"}
    name = publish(arena, make_ticket(recipe=fields), "ablation")
    arena.run()
    job = arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2))
    assert (job.state, job.reason_code) == ("failed", "invalid-recipe")
    assert "mask_0_action" in (job.reason or "")
