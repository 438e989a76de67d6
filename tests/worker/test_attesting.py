"""Attestations: tickets of find jobs have one from birth, others when their search gives them again."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.evaluations.models import Attestation
from app.tickets.models import Listing
from nirvana.errors import InvalidJob
from nirvana.format.ticket import Ticket
from nirvana.lab import find
from tests.factories import make_masks
from tests.worker.arena import Arena, small_spec
from tests.worker.test_verifying import publish

BRIEF: dict[str, Any] = {"steps": 100, "evaluate_every": 50}


def found(**options: Any) -> Ticket:
    return find("digits", "mlp-8", seed=3, recipe=BRIEF, **options).tickets[-1]


def listing(arena: Arena, name: str) -> Listing:
    with arena.database.read() as session:
        return session.scalars(select(Listing).where(Listing.name == name.rpartition("/")[2])).one()


def outcomes(arena: Arena, digest: str) -> list[str]:
    with arena.database.read() as session:
        query = select(Attestation.outcome).where(Attestation.ticket_digest == digest)
        return list(session.scalars(query.order_by(Attestation.id)))


def test_tickets_of_a_find_job_are_attested_from_birth_and_so_is_who_pushed_them_before(arena: Arena) -> None:
    arena.run()
    job = arena.wait_for_end(arena.submit(name="small", **small_spec(levels=2, steps=60)))
    assert job.state == "succeeded", job.reason
    for name in ("small-00", "small-01", "small-02"):
        row = listing(arena, name)
        assert row.origin == "attested"
        assert outcomes(arena, row.digest) == ["found"]


def test_an_honest_ticket_comes_out_of_its_search_and_a_tampered_one_does_not(arena: Arena) -> None:
    honest = found(levels=2)
    forged = Ticket.create(
        honest.architecture,
        make_masks(honest.architecture, 0.3, 5),
        **{name: getattr(honest, name) for name in ("task", "recipe", "provenance")},
        laws=honest.start.laws,
        seed=honest.start.seed,
    )
    # the tampered one keeps as many weights in each layer, or its provenance is refused at once
    masks = {name: mask.ravel()[::-1].reshape(mask.shape) for name, mask in honest.masks.items()}
    tampered = Ticket.create(
        honest.architecture,
        masks,
        **{name: getattr(honest, name) for name in ("task", "recipe", "provenance")},
        laws=honest.start.laws,
        seed=honest.start.seed,
    )
    names = {name: publish(arena, one, name) for name, one in (("honest", honest), ("tampered", tampered))}
    refused = publish(arena, forged, "forged")
    with pytest.raises(InvalidJob, match="does not reach"):
        arena.submit("attest", ticket=refused)
    arena.run()
    jobs = {name: arena.wait_for_end(arena.submit("attest", ticket=names[name])) for name in names}
    assert all(job.state == "succeeded" for job in jobs.values()), [job.reason for job in jobs.values()]
    assert {name: job.result["outcome"] for name, job in jobs.items() if job.result} == {
        "honest": "same",
        "tampered": "differs",
    }
    assert (listing(arena, "honest").origin, listing(arena, "tampered").origin) == ("attested", "brought-in")
    differing = jobs["tampered"].result
    assert differing is not None
    assert differing["found"] == honest.digest
    assert differing["overlap"] < 0.5
    assert jobs["honest"].progress_done == jobs["honest"].progress_total == 3
    with pytest.raises(InvalidJob, match="attested already"):
        arena.submit("attest", ticket=names["honest"])


@pytest.mark.parametrize(
    "options",
    [{"density": 0.5}, {"method": "one-shot", "density": 0.3}, {"method": "snip", "density": 0.2}],
)
def test_searches_to_a_density_and_those_of_one_round_come_out_too(
    sqlite_arena: Arena, options: dict[str, Any]
) -> None:
    arena = sqlite_arena
    name = publish(arena, found(**options), "one")
    arena.run()
    job = arena.wait_for_end(arena.submit("attest", ticket=name))
    assert job.state == "succeeded", job.reason
    assert job.result is not None
    assert job.result["outcome"] == "same"


def test_an_attestation_whose_worker_is_killed_is_finished_by_another_and_recorded_once(
    sqlite_arena: Arena,
) -> None:
    arena = sqlite_arena
    long = find("digits", "mlp-8", seed=3, recipe={"steps": 3000, "evaluate_every": 500}, levels=3).tickets[
        -1
    ]
    name = publish(arena, long, "long")
    job_id = arena.submit("attest", ticket=name)
    killed = arena.run()
    arena.wait_for(lambda: any(event.body["level"] == 1 for event in arena.events(job_id, "point")))
    killed.kill()
    arena.run()
    job = arena.wait_for_end(job_id)
    assert (job.state, job.attempts) == ("succeeded", 2)
    assert outcomes(arena, long.digest) == ["same"]
    assert listing(arena, "long").origin == "attested"
