"""Private means unseen: a stranger gets the answer of something that does not exist, everywhere."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.evaluations.origins import Outcome, record_attestation
from app.jobs.service import end_job
from app.transfers.service import record_transfer
from nirvana.networks.architecture import Architecture
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import EACH, VERDICT, Registry, measure, pointers, problem

SECRET, NOTHING = "ada/secret", "ada/nothing"
DEPENDANTS = ("attestation", "verification", "purged", "transfer", "open job", "yank")
NODES: list[dict[str, Any]] = [
    {"name": "flatten", "op": "flatten"},
    {"name": "fc1", "op": "linear", "in": 64, "out": 7},
    {"name": "fc2", "op": "linear", "in": 7, "out": 10},
]
OWN = Architecture.make("moonshot", (1, 8, 8), NODES)
OF_TICKET: tuple[str, ...] = (
    "",
    "/file",
    "/layers",
    "/lineage",
    "/badge.svg",
    "/cite?format=csl",
    "/export?format=csr",
)
OF_TICKET += (
    "/verifications",
    "/verifications/1",
    "/verifications/1/signed",
    "/attestations",
    "/diff/ada/open",
)


@pytest.fixture(params=EACH)
def registry(request: pytest.FixtureRequest, make_registry: MakeRegistry) -> Registry:
    """A registry where ada has a private ticket of her own network, measured and with a job on it."""
    made = make_registry(request.param)
    ticket = make_ticket(architecture=OWN)
    assert made.publish(ticket.to_bytes(), "secret", visibility="private").status_code == 201
    assert made.publish(make_ticket().to_bytes(), "open").status_code == 201
    with made.database.write() as session:
        measure(session, ticket.digest, VERDICT)
    return made


def verify(registry: Registry, name: str, by: str) -> httpx.Response:
    body = {"kind": "verify", "spec": {"ticket": name}}
    return registry.http.post("/api/v1/jobs", json=body, headers=registry.bearer(by))


def plain(answer: httpx.Response, *names: str) -> tuple[int, str]:
    """An answer without what names the thing asked for and the request."""
    text = answer.text.replace(answer.headers["x-request-id"], "")
    for name in names:
        text = text.replace(name, "?")
    return answer.status_code, text


def change(registry: Registry, name: str, visibility: str, by: str = "ada") -> httpx.Response:
    body = {"visibility": visibility}
    return registry.http.patch(f"/api/v1/tickets/{name}", json=body, headers=registry.bearer(by))


def test_every_address_of_a_private_ticket_answers_a_stranger_like_one_of_nothing(registry: Registry) -> None:
    digest = make_ticket(architecture=OWN).digest
    nowhere = "sha256:" + "0" * 64
    for headers in ({}, registry.bearer("eve")):
        for part in OF_TICKET:
            for secret, nothing in ((SECRET, NOTHING), (digest, nowhere)):
                found = registry.http.get(f"/api/v1/tickets/{secret}{part}", headers=headers)
                other = registry.http.get(f"/api/v1/tickets/{nothing}{part}", headers=headers)
                assert plain(found, secret) == plain(other, nothing), (secret, part)
                assert found.status_code == 404
        for secret, nothing in ((SECRET, NOTHING), (digest, nowhere)):
            pages = [registry.http.get(f"/tickets/{name}", headers=headers) for name in (secret, nothing)]
            assert plain(pages[0], secret) == plain(pages[1], nothing)
            other = registry.http.get(f"/api/v1/tickets/ada/open/diff/{secret}", headers=headers)
            assert other.status_code == 404
            transfers = registry.http.get("/api/v1/transfers", params={"ticket": secret}, headers=headers)
            assert transfers.status_code == 404
    for part in OF_TICKET:
        own = registry.http.get(f"/api/v1/tickets/{SECRET}{part}", headers=registry.bearer("ada"))
        assert own.status_code == (422 if "diff" in part else 200), (part, own.text)  # of another network


def test_a_private_tickets_network_is_in_no_list_and_at_no_address(registry: Registry) -> None:
    names = ("ada/moonshot", "moonshot", OWN.digest)
    for headers in ({}, registry.bearer("eve")):
        listed = registry.http.get("/api/v1/architectures", headers=headers).json()["items"]
        assert [one["name"] for one in listed] == ["mlp-16"]
        for name in names:
            problem(registry.http.get(f"/api/v1/architectures/{name}", headers=headers), 404, "not-found")
    own = registry.http.get("/api/v1/architectures", headers=registry.bearer("ada")).json()["items"]
    assert [one["digest"] for one in own if one["name"] != "mlp-16"] == [OWN.digest]
    shown = registry.http.get("/api/v1/architectures/ada/moonshot", headers=registry.bearer("ada"))
    assert shown.json()["digest"] == OWN.digest


def test_a_private_listing_gives_a_network_no_name_that_another_owner_would_see(registry: Registry) -> None:
    registry.publish(make_ticket(architecture=OWN, seed=3).to_bytes(), "mine", by="eve", visibility="private")
    listed = registry.http.get("/api/v1/architectures", headers=registry.bearer("eve"))
    assert "ada" not in listed.text
    assert OWN.digest in listed.text
    assert change(registry, "eve/mine", "public", by="eve").status_code == 200
    named = registry.http.get(f"/api/v1/architectures/{OWN.digest}").json()
    assert (named["name"], named["family"]) == ("eve/moonshot", "eve/moonshot")
    assert change(registry, "eve/mine", "private", by="eve").status_code == 200
    assert "eve" not in registry.http.get("/api/v1/architectures", headers=registry.bearer("ada")).text


def test_a_job_on_a_private_ticket_is_its_owners_alone(registry: Registry) -> None:
    job = verify(registry, SECRET, "ada").json()["id"]
    address = f"/api/v1/jobs/{job}"
    for headers in ({}, registry.bearer("eve")):
        for part in ("", "/events"):
            answer = registry.http.get(f"{address}{part}", headers=headers)
            other = registry.http.get(f"/api/v1/jobs/nothing{part}", headers=headers)
            assert plain(answer, job) == plain(other, "nothing")
        problem(registry.http.get(f"/jobs/{job}", headers=headers), 404, "not-found")
    problem(registry.http.post(f"{address}/cancel", headers=registry.bearer("eve")), 404, "not-found")
    problem(verify(registry, SECRET, "eve"), 422, "invalid-job")
    assert registry.http.get(address, headers=registry.bearer("ada")).status_code == 200
    assert change(registry, SECRET, "public").status_code == 200
    assert registry.http.get(address).json()["spec"]["ticket"] == SECRET


def test_visibility_is_exchanged_both_ways_and_everything_follows(registry: Registry) -> None:
    before = registry.http.get(f"/api/v1/tickets/{SECRET}", headers=registry.bearer("ada"))
    assert change(registry, SECRET, "public").json()["visibility"] == "public"
    assert set(registry.search()) == {"secret", "open"}
    assert registry.http.get("/api/v1/architectures/ada/moonshot").status_code == 200
    after = registry.http.get(f"/api/v1/tickets/{SECRET}")
    assert after.headers["etag"] != before.headers["etag"]
    assert change(registry, SECRET, "private").json()["visibility"] == "private"
    assert registry.search() == ["open"]
    problem(registry.http.get("/api/v1/architectures/ada/moonshot"), 404, "not-found")
    problem(change(registry, SECRET, "public", by="eve"), 404, "not-found")
    problem(change(registry, "ada/open", "private", by="eve"), 403, "forbidden")
    stale = {"If-Match": '"older"', **registry.bearer("ada")}
    body = {"visibility": "public"}
    problem(
        registry.http.patch(f"/api/v1/tickets/{SECRET}", json=body, headers=stale), 412, "precondition-failed"
    )


@pytest.mark.parametrize(
    "dependant", ["attestation", "verification", "purged", "transfer", "open job", "yank"]
)
def test_a_listing_that_something_depends_on_stays_public_and_says_why(
    registry: Registry, dependant: str
) -> None:
    digest, job = make_ticket().digest, "gone"
    if dependant in ("verification", "transfer", "open job"):
        job = verify(registry, "ada/open", "eve").json()["id"]
    with registry.database.write() as session:
        if dependant in ("verification", "transfer"):
            end_job(session, job, "succeeded")
        if dependant in ("verification", "purged"):
            measure(session, digest, VERDICT, job)
        elif dependant == "attestation":
            record_attestation(session, Outcome(digest, "digits", "same", digest, 1.0, {}), "a-job")
        elif dependant == "transfer":
            arms = {name: {"accuracies": [0.5, 0.5]} for name in ("ticket", "dense")}
            measured = {"source": "digits", "target": "mnist", "verdict": "UNRESOLVED", "replicates": 2}
            record_transfer(session, digest=digest, measured=measured | {"arms": arms}, job_id=job)
    if dependant == "yank":
        body = {"reason": "other"}
        registry.http.post("/api/v1/tickets/ada/open/yank", json=body, headers=registry.bearer("ada"))
    refused = problem(change(registry, "ada/open", "private"), 409, "conflict")
    assert "stays public" in refused["detail"]
    assert pointers(refused) == ["/visibility"]
    card = {"card": "x", "visibility": "private"}
    answer = registry.http.patch("/api/v1/tickets/ada/open", json=card, headers=registry.bearer("ada"))
    problem(answer, 409, "conflict")
    shown = registry.http.get("/api/v1/tickets/ada/open").json()
    assert (shown["visibility"], shown["card"]) == ("public", None)


def test_what_the_owner_alone_did_and_what_anybody_can_claim_keeps_nothing_public(registry: Registry) -> None:
    ticket = make_ticket()
    job = verify(registry, "ada/open", "ada").json()["id"]
    with registry.database.write() as session:
        measure(session, ticket.digest, VERDICT, job)
    child = make_ticket(seed=5, provenance={"method": "imp", "parent": ticket.digest})
    registry.publish(child.to_bytes(), "child", by="eve")
    registry.publish(ticket.to_bytes(), "copy", by="eve")
    assert change(registry, "ada/open", "private").status_code == 200
    assert sorted(registry.search()) == ["child", "copy"]


def test_publishing_again_takes_the_visibility_and_says_what_it_does_not_take(registry: Registry) -> None:
    first = make_ticket().to_bytes()
    again = make_ticket(description="A better text.").to_bytes()
    same = registry.publish(first, "open")
    assert (same.status_code, same.json()["left_out"]) == (200, [])
    other = registry.publish(again, "open", visibility="private")
    body = other.json()
    assert other.status_code == 200, other.text
    assert (other.status_code, body["visibility"], body["description"]) == (200, "private", None)
    assert body["left_out"] == ["description"]
    unsaid = registry.publish(first, "open")
    assert unsaid.json()["visibility"] == "private"
    assert registry.publish(first, "open", visibility="public").json()["visibility"] == "public"
    with registry.database.write() as session:
        measure(session, make_ticket().digest, VERDICT, "a-purged-job")
    problem(registry.publish(first, "open", visibility="private"), 409, "conflict")
