"""Attestations over REST and on pages: asked for, refused, listed, and never told of private tickets."""

from __future__ import annotations

import pytest

from app.evaluations.origins import Outcome, record_attestation
from nirvana.format.ticket import Ticket
from nirvana.lab import find
from tests.factories import make_ticket
from tests.http.test_pages import check_page
from tests.registry import VERDICT, Registry, measure, pointers, problem

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def honest() -> Ticket:
    recipe = {"steps": 20, "evaluate_every": 10}
    return find("digits", "mlp-8", levels=1, seed=3, recipe=recipe).tickets[-1]


def attest(registry: Registry, ticket: Ticket, outcome: str = "same") -> None:
    with registry.database.write() as session:
        found = Outcome(ticket.digest, ticket.task, outcome, ticket.digest, 0.25, {"nirvana": "x"})
        record_attestation(session, found, "a-job")


def test_an_attestation_is_a_job_with_the_search_in_its_spec(each_registry: Registry, honest: Ticket) -> None:
    registry = each_registry
    registry.publish(honest.to_bytes(), "mine")
    path = "/api/v1/tickets/ada/mine/attestations"
    assert registry.http.get(path).json() == {"items": [], "next_cursor": None}
    problem(registry.http.post(path), 401, "unauthenticated")
    answer = registry.http.post(path, headers=registry.bearer("bob"))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["kind"], job["spec"]["method"], job["spec"]["seed"], job["spec"]["level"]) == (
        *("attest", "imp"),
        *(3, 1),
    )
    assert registry.http.get("/api/v1/tickets/ada/mine").json()["origin"] == "brought-in"
    attest(registry, honest)
    shown = registry.http.get("/api/v1/tickets/ada/mine").json()
    assert shown["origin"] == "attested"
    (one,) = registry.http.get(path).json()["items"]
    assert (one["ticket"], one["found"], one["outcome"]) == (honest.digest, honest.digest, "same")
    problem(registry.http.post(path, headers=registry.bearer()), 409, "conflict")


def test_a_provenance_that_cannot_be_run_is_refused_with_pointers(registry: Registry) -> None:
    registry.publish(make_ticket(provenance={"method": "magic", "level": "x"}).to_bytes(), "odd")
    answer = registry.http.post("/api/v1/tickets/ada/odd/attestations", headers=registry.bearer())
    body = problem(answer, 422, "invalid-job")
    below = [f"/spec/ticket/provenance/{name}" for name in ("method", "level", "order_seed")]
    assert pointers(body) == below
    assert "magic" in body["errors"][0]["detail"]


def test_attestations_of_a_private_ticket_are_its_owners_to_see(registry: Registry, honest: Ticket) -> None:
    registry.publish(honest.to_bytes(), "secret", visibility="private")
    attest(registry, honest)
    path = "/api/v1/tickets/ada/secret/attestations"
    for headers in ({}, registry.bearer("bob")):
        problem(registry.http.get(path, headers=headers), 404, "not-found")
        problem(
            registry.http.get(f"/api/v1/tickets/{honest.digest}/attestations", headers=headers),
            404,
            "not-found",
        )
    problem(registry.http.post(path, headers=registry.bearer("bob")), 404, "not-found")
    assert registry.http.get(path, headers=registry.bearer()).status_code == 200
    registry.publish(make_ticket().to_bytes(), "mine", visibility="private")
    mine = "/api/v1/tickets/ada/mine/attestations"
    body = problem(registry.http.post(mine, headers=registry.bearer()), 422, "invalid-job")
    assert "is private" in body["detail"]
    assert len(registry.http.get(path, headers=registry.bearer()).json()["items"]) == 1


def test_pages_say_where_a_mask_came_from_and_winners_are_known_ones(
    registry: Registry, honest: Ticket
) -> None:
    registry.publish(honest.to_bytes(), "mine")
    with registry.database.write() as session:
        measure(session, honest.digest, dict(VERDICT))
    page = registry.http.get("/tickets/ada/mine", headers=HTML).text
    check_page(page)
    assert "nirvana attest ada/mine" in page
    attest(registry, honest, "differs")
    page = registry.http.get("/tickets/ada/mine", headers=HTML).text
    check_page(page)
    assert "another ticket came out" in page
    winners = registry.http.get("/?verdict=WINNING", headers=HTML).text
    check_page(winners)
    assert "ada/mine" not in winners
    assert 'href="/?verdict=WINNING&amp;origin=any"' in winners
    assert "ada/mine" in registry.http.get("/?verdict=WINNING&origin=any", headers=HTML).text
    with registry.database.write() as session:
        found = Outcome(honest.digest, honest.task, "same", honest.digest, 1.0, {})
        record_attestation(session, found, "another-job")
    assert "ada/mine" in registry.http.get("/?verdict=WINNING", headers=HTML).text
    page = registry.http.get("/tickets/ada/mine", headers=HTML).text
    check_page(page)
    assert "searched its mask, on training data alone" in page
