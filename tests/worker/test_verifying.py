"""Verifications: gate 0, look after look, runs that are trained once, one evaluation at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from app.accounts.models import Account
from app.evaluations.models import Baseline, Evaluation
from app.evaluations.service import headline, record_evaluation
from app.jobs.engine import REVERIFY_QUEUE
from app.jobs.models import Job
from app.jobs.reverify import ENQUEUED, THERE, reverify
from app.jobs.service import cancel_job
from app.tickets.models import Listing
from app.tickets.publishing import Publication, publish_ticket
from nirvana.format.initial import draw_all
from nirvana.format.ticket import Ticket
from nirvana.training.recipe import Recipe
from nirvana.verification.protocol import ARMS, BASELINES, OPEN_VERDICTS, PROTOCOL, alpha_of
from tests.factories import RECIPE, make_ticket
from tests.registry import VERDICT
from tests.worker.arena import Arena

CONTROLS_AND_DENSE = [arm for arm in ARMS if arm != "ticket"]


def publish(arena: Arena, ticket: Ticket, name: str, *, by: str = "ada", visibility: str = "public") -> str:
    from app.storage import make_storage

    storage = make_storage(arena.settings)
    with arena.database.write() as session:
        owner = session.scalars(select(Account).where(Account.name == by)).one()
        publish_ticket(session, storage, ticket.to_bytes(), Publication(owner, name, visibility))
    return f"{by}/{name}"


def evaluation_of(arena: Arena, job_id: str) -> dict[str, Any]:
    """The one evaluation that a job recorded."""
    with arena.database.read() as session:
        return session.scalars(select(Evaluation).where(Evaluation.job_id == job_id)).one().body


def test_looks_go_on_while_the_verdict_is_open_and_a_second_job_adds_to_their_replicates(
    arena: Arena,
) -> None:
    ticket = make_ticket()
    name = publish(arena, ticket, "first")
    twin = publish(arena, make_ticket(seed=18), "twin")
    publish(arena, make_ticket(seed=19), "secret", visibility="private")
    publish(arena, make_ticket("mlp-8"), "other")
    arena.run()
    job = arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2, max_replicates=4))
    assert job.state == "succeeded", job.reason
    first = evaluation_of(arena, job.id)
    looks, n = first["looks"], first["replicates"]  # the seeds are drawn: one look or two
    assert first["protocol"] == PROTOCOL
    assert [(look["n"], look["alpha"]) for look in looks] == [(2, 0.02), (4, 0.015)][: len(looks)]
    assert len(looks) == 2 or looks[0]["verdict"] not in OPEN_VERDICTS
    assert (first["verdict"], n) == (looks[-1]["verdict"], looks[-1]["n"])
    sizes = dict.fromkeys(ARMS, n) | dict.fromkeys(BASELINES, 4 * len(looks))
    assert {arm: len(values) for arm, values in first["arms"].items()} == sizes
    assert [(one["name"], one["kind"]) for one in first["gate"]["duplicates"]] == [(twin, "same-mask")]
    told = [(event.body["arm"], event.body["replicates"]) for event in arena.events(job.id, "arm")]
    spans = [("0-1", "0-3"), ("2-3", "0-7")][: len(looks)]
    assert told == [(arm, pool if arm in BASELINES else span) for span, pool in spans for arm in ARMS]
    assert job.progress_done == job.progress_total == 1 + len(looks) * (len(ARMS) + 1)
    with arena.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Baseline)) == sum(sizes.values())

    again = evaluation_of(arena, arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2)).id)
    assert again["looks"][:-1] == looks
    assert (again["looks"][-1]["n"], again["looks"][-1]["alpha"]) == (n + 2, alpha_of(len(looks)))
    assert again["seeds"]["replicates"] == [first["seed"] + j for j in range(n + 2)]
    assert {arm: values[: sizes[arm]] for arm, values in again["arms"].items()} == first["arms"]
    assert again["cost"]["trainings"] == sum(sizes.values()) + 2 * (len(ARMS) - 2) + 2 * 4
    with arena.database.read() as session:
        row = session.scalars(select(Listing).where(Listing.name == "first")).one()
    assert (row.verdict, row.replicates) == (again["verdict"], n + 2)


def test_the_pool_of_dense_runs_is_trained_once_for_all_tickets_of_a_network(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    names = [publish(arena, make_ticket(seed=seed), f"t{seed}") for seed in (1, 2)]
    arena.run()
    pools = []
    for name in names:
        evaluation = evaluation_of(
            arena, arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2)).id
        )
        pools.append({arm: (evaluation["arms"][arm], evaluation["cached"][arm]) for arm in BASELINES})
    for arm in BASELINES:
        (first, _), (second, cached) = (pool[arm] for pool in pools)
        assert (len(first), len(second), cached) == (4, 8, 4)
        assert second[:4] == first


def test_a_cancelled_verification_is_no_second_throw_of_the_dice(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    recipe = Recipe("adam", 0.0012, 60, steps=600, evaluate_every=50)
    name = publish(arena, make_ticket(recipe=recipe.to_dict()), "first")
    arena.run()
    unlucky = arena.submit("verify", ticket=name, replicates=2)
    arena.wait_for(lambda: any(e.body["arm"] == "ticket" for e in arena.events(unlucky, "arm")))
    with arena.database.write() as session:
        cancel_job(session, arena.ada, unlucky)
    told = {e.body["arm"]: e.body["test_accuracy"] for e in arena.events(unlucky, "arm")}
    job = arena.wait_for_end(arena.submit("verify", ticket=name, replicates=2))
    measured = evaluation_of(arena, job.id)["arms"]
    measured |= {arm: measured[arm][:4] for arm in BASELINES}  # their pools go on growing
    assert {arm: float(np.mean(measured[arm])) for arm in told} == pytest.approx(told)


def test_two_verifications_of_an_exam_at_once_measure_the_same_replicates(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    name = publish(arena, make_ticket(), "first")
    jobs = [arena.submit("verify", ticket=name, replicates=2) for _ in range(2)]
    arena.run()
    arena.run()
    one, other = (evaluation_of(arena, arena.wait_for_end(job).id) for job in jobs)
    assert one["seed"] == other["seed"]
    shared = min(one["replicates"], other["replicates"])
    assert [one["arms"][arm][:shared] for arm in ARMS] == [other["arms"][arm][:shared] for arm in ARMS]


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
    assert steps.count(600) == 4  # each run once
    replicates = {(e.body["arm"], e.body["replicate"]) for e in arena.events(job_id, "point")}
    assert replicates == {(arm, j) for arm in ARMS for j in range(4 if arm in BASELINES else 2)}


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


def test_an_old_headline_is_measured_again_by_any_worker_beside_other_jobs(arena: Arena) -> None:
    name = publish(arena, make_ticket(), "old")
    with arena.database.write() as session:
        row = session.scalars(select(Listing)).one()
        record_evaluation(session, row.exam_key, row.digest, VERDICT | {"protocol": "nirvana-verify/2"})
    assert list(reverify(arena.database, arena.settings)) == [(name, ENQUEUED)]
    other = arena.submit("verify", ticket=name, replicates=2)
    arena.run()
    with arena.database.read() as session:
        job_id = session.scalars(select(Job.id).where(Job.queue == REVERIFY_QUEUE)).one()
    assert arena.wait_for_end(other).state == "succeeded"
    again = arena.wait_for_end(job_id)
    assert again.state == "succeeded", again.reason
    with arena.database.read() as session:
        row = session.scalars(select(Listing)).one()
        shown = headline(session, row.exam_key)
        kept = session.scalars(select(Evaluation.protocol)).all()
    assert shown is not None
    assert (shown.protocol, row.verdict) == (PROTOCOL, shown.verdict)
    assert "nirvana-verify/2" in kept, "the old one stays readable"
    assert list(reverify(arena.database, arena.settings)) == []


def test_an_old_headline_s_job_outlives_its_worker_and_is_recorded_once(sqlite_arena: Arena) -> None:
    arena = sqlite_arena
    recipe = Recipe("adam", 0.0012, 60, steps=300, evaluate_every=50)
    publish(arena, make_ticket(recipe=recipe.to_dict()), "old")
    with arena.database.write() as session:
        row = session.scalars(select(Listing)).one()
        record_evaluation(session, row.exam_key, row.digest, VERDICT | {"protocol": "nirvana-verify/2"})
    [(_, happened)] = reverify(arena.database, arena.settings)
    assert happened == ENQUEUED
    with arena.database.read() as session:
        job_id = session.scalars(select(Job.id)).one()
    killed = arena.run()
    arena.wait_for(lambda: any(e.body["arm"] == "ticket" for e in arena.events(job_id, "point")))
    killed.kill()
    assert [one for _, one in reverify(arena.database, arena.settings)] == [THERE], "it is open"
    arena.run()
    job = arena.wait_for_end(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2), job.reason
    with arena.database.read() as session:
        measured = session.scalars(select(Evaluation).where(Evaluation.protocol == PROTOCOL)).all()
    assert [row.job_id for row in measured] == [job_id]
    assert list(reverify(arena.database, arena.settings)) == []
