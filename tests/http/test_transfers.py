"""Transfers over HTTP and on their page."""

from __future__ import annotations

from app.transfers.service import record_transfer
from tests.factories import make_ticket
from tests.http.test_pages import check_page
from tests.jobs.test_transfer import FOUND
from tests.registry import Registry, pointers, problem

PATH = "/api/v1/transfers"


def test_transfers_are_found_by_ticket_and_task(each_registry: Registry) -> None:
    registry = each_registry
    first, secret = make_ticket(), make_ticket(seed=18)
    registry.publish(first.to_bytes(), "first")
    registry.publish(secret.to_bytes(), "secret", visibility="private")
    with registry.database.write() as session:
        record_transfer(session, digest=first.digest, measured=FOUND, job_id="j1")
        record_transfer(session, digest=secret.digest, measured=FOUND, job_id="j2")
    page = registry.http.get(PATH, params={"ticket": "ada/first", "task": "mnist"}).json()
    assert [item["name"] for item in page["items"]] == ["ada/first"]
    assert page["items"][0]["arms"] == {"ticket": [0.9, 0.8], "dense": [0.95, 0.95]}
    assert registry.http.get(PATH, params={"task": "digits"}).json()["items"] == []
    assert len(registry.http.get(PATH, headers=registry.bearer()).json()["items"]) == 2
    assert len(registry.http.get(PATH, headers=registry.bearer("bob")).json()["items"]) == 1
    problem(registry.http.get(PATH, params={"ticket": "ada/secret"}), 404, "not-found")
    assert registry.http.get(PATH, params={"taks": "mnist"}).status_code == 422
    html = registry.http.get("/transfers").text
    check_page(html)
    assert 'href="/tickets/ada/first"' in html
    assert "unresolved" in html
    assert "85.00 %, -10.00 pp" in html
    assert "secret" not in html


def test_without_any_transfer_the_page_says_how_to_ask(registry: Registry) -> None:
    html = registry.http.get("/transfers").text
    check_page(html)
    assert "None yet" in html


def test_a_transfer_is_a_job(registry: Registry) -> None:
    registry.publish(make_ticket(task="mnist").to_bytes(), "first")
    body = {"kind": "transfer", "spec": {"ticket": "ada/first", "task": "digits", "replicates": 2}}
    asked = registry.http.post("/api/v1/jobs", json=body, headers=registry.bearer())
    assert (asked.status_code, asked.json()["kind"]) == (202, "transfer")
    listed = registry.http.get("/api/v1/jobs", params={"kind": "transfer"}, headers=registry.bearer())
    assert [job["id"] for job in listed.json()["items"]] == [asked.json()["id"]]
    bad = body | {"spec": {"ticket": "ada/first", "task": "mnist"}}
    answer = registry.http.post("/api/v1/jobs", json=bad, headers=registry.bearer())
    found = problem(answer, 422, "invalid-job")
    assert pointers(found) == ["/spec/task", "/spec/task"]
