"""Reports of tickets, and quarantine: hidden from everybody, reversible, and on the record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.dumps.writing import write_dump
from app.transfers.service import record_transfer
from nirvana.client.mirror import Mirror
from nirvana.client.rest import Client
from tests.factories import RECIPE, make_ticket
from tests.http.test_private import OWN
from tests.jobs.test_transfer import FOUND
from tests.registry import VERDICT, Registry, measure, problem

TICKET = "/api/v1/tickets/ada/first"
ADMIN = ("root", "read", "admin")


@pytest.fixture
def published(each_registry: Registry) -> Registry:
    each_registry.publish(make_ticket().to_bytes(), "first")
    each_registry.publish(make_ticket(seed=1).to_bytes(), "second")
    return each_registry


def post(registry: Registry, path: str, by: tuple[str, ...], **body: str | None) -> int:
    sent = registry.http.post(path, json=body, headers=registry.bearer(*by))
    return sent.status_code


def test_a_report_reaches_the_admins_once_and_nobody_else(published: Registry) -> None:
    report = {"reason": "license", "detail": "It is ours."}
    problem(published.http.post(f"{TICKET}/reports", json=report), 401, "unauthenticated")
    assert post(published, f"{TICKET}/reports", ("grace",), **report) == 201
    assert post(published, f"{TICKET}/reports", ("grace",), **report) == 409
    assert post(published, f"{TICKET}/reports", ("hugo",), reason="spam") == 201
    assert post(published, f"{TICKET}/reports", ("hugo",), reason="dull") == 422
    assert post(published, "/api/v1/tickets/ada/none/reports", ("hugo",), reason="spam") == 404
    problem(published.http.get("/api/v1/reports", headers=published.bearer("ada")), 403, "missing-scope")
    first = published.http.get("/api/v1/reports?limit=1", headers=published.bearer(*ADMIN)).json()
    shown = {name: first["items"][0][name] for name in ("ticket", "by", "reason", "detail")}
    assert shown == {"ticket": "ada/first", "by": "grace", **report}
    rest = f"/api/v1/reports?limit=1&cursor={first['next_cursor']}"
    second = published.http.get(rest, headers=published.bearer(*ADMIN)).json()
    assert [item["by"] for item in second["items"]] == ["hugo"]
    number = second["items"][0]["id"]
    assert post(published, f"/api/v1/reports/{number}/dismiss", ADMIN) == 204
    assert post(published, f"/api/v1/reports/{number}/dismiss", ADMIN) == 404
    left = published.http.get("/api/v1/reports", headers=published.bearer(*ADMIN)).json()
    assert [item["by"] for item in left["items"]] == ["grace"]


def test_a_ticket_in_quarantine_is_nowhere_until_it_is_released(published: Registry) -> None:
    digest = published.http.get(TICKET).json()["digest"]
    post(published, f"{TICKET}/reports", ("grace",), reason="spam")
    assert post(published, f"{TICKET}/quarantine", ("ada",), reason="mine") == 403
    assert post(published, f"{TICKET}/quarantine", ADMIN, reason="report 1") == 200
    assert post(published, f"{TICKET}/quarantine", ADMIN, reason="again") == 409
    for path in ("", "/file", "/layers", "/lineage", "/export?format=csr", "/cite?format=bibtex"):
        answer = published.http.get(f"{TICKET}{path}", headers=published.bearer("ada"))
        problem(answer, 410, "gone")
    page = published.http.get("/tickets/ada/first", headers={"Accept": "text/html"})
    assert (page.status_code, "quarantine" in page.text) == (410, True)
    problem(published.http.get(f"/api/v1/tickets/{digest}"), 404, "not-found")
    assert post(published, f"{TICKET}/unyank", ("ada",)) == 410
    assert published.search() == ["second"]
    assert published.search(include_yanked="true") == ["second"]
    assert "ada/first" not in published.http.get("/").text
    reports = published.http.get("/api/v1/reports", headers=published.bearer(*ADMIN)).json()
    assert reports["items"] == []
    assert post(published, f"{TICKET}/release", ADMIN, reason="a mistake") == 200
    assert post(published, f"{TICKET}/release", ADMIN, reason="again") == 409
    assert published.http.get(TICKET).json()["yanked_at"] is None
    assert sorted(published.search()) == ["first", "second"]
    log = published.http.get(f"{TICKET}/moderation", headers=published.bearer(*ADMIN)).json()["items"]
    assert [(one["action"], one["reason"], one["by"]) for one in log] == [
        ("release", "a mistake", "root"),
        ("quarantine", "report 1", "root"),
    ]
    problem(published.http.get(f"{TICKET}/moderation", headers=published.bearer("ada")), 403, "missing-scope")


def test_a_ticket_that_its_owner_had_yanked_comes_back_yanked(published: Registry) -> None:
    assert post(published, f"{TICKET}/yank", ("ada",), reason="broken") == 200
    for _ in range(2):
        assert post(published, f"{TICKET}/quarantine", ADMIN, reason="x") == 200
        assert post(published, f"{TICKET}/release", ADMIN, reason="y") == 200
    shown = published.http.get(TICKET).json()
    assert (shown["yank_reason"], shown["yanked_at"] is not None) == ("broken", True)


def test_another_listing_of_the_same_ticket_stays(published: Registry) -> None:
    published.publish(make_ticket().to_bytes(), "copy", by="bob")
    digest = published.http.get(TICKET).json()["digest"]
    post(published, f"{TICKET}/quarantine", ADMIN, reason="x")
    body = published.http.get(f"/api/v1/tickets/{digest}").json()
    assert [one["name"] for one in body["listings"]] == ["copy"]
    assert published.http.get(f"/api/v1/tickets/{digest}/file").status_code == 200
    assert published.http.get("/api/v1/tickets/bob/copy").json()["copy_of"] is None


def test_a_quarantine_that_fails_midway_leaves_nothing(published: Registry) -> None:
    with published.database.write() as session:
        session.execute(text("ALTER TABLE moderation RENAME TO elsewhere"))
    assert post(published, f"{TICKET}/quarantine", ADMIN, reason="x") >= 500
    assert published.http.get(TICKET).json()["yanked_at"] is None
    with published.database.write() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO moderation"))


NOWHERE = "sha256:" + "0" * 64
PARTS: tuple[str, ...] = (
    "",
    "/file",
    "/layers",
    "/lineage",
    "/badge.svg",
    "/export?format=csr",
    "/downloads",
)
PARTS += tuple(f"/cite?format={kind}" for kind in ("bibtex", "cff", "csl", "datacite"))
PARTS += ("/verifications", "/verifications/1", "/verifications/1/signed", "/attestations", "/similar")
PARTS += ("/diff/ada/second",)


@pytest.fixture
def hidden(each_registry: Registry) -> Registry:
    """A registry with a listing in quarantine, of its own network, measured, transferred and in a job."""
    registry, ticket = each_registry, make_ticket(architecture=OWN)
    registry.publish(ticket.to_bytes(), "first")
    registry.publish(make_ticket(seed=1).to_bytes(), "second")
    with registry.database.write() as session:
        measure(session, ticket.digest, VERDICT)
        record_transfer(session, digest=ticket.digest, measured=FOUND, job_id="j1")
    verify = {"kind": "verify", "spec": {"ticket": "ada/first"}}
    job = registry.http.post("/api/v1/jobs", json=verify, headers=registry.bearer("eve"))
    registry.tokens["job"] = job.json()["id"]
    assert post(registry, f"{TICKET}/quarantine", ADMIN, reason="report 1") == 200
    return registry


def test_nothing_of_a_ticket_in_quarantine_is_left_at_any_address(hidden: Registry) -> None:
    digest = make_ticket(architecture=OWN).digest
    for headers in ({}, hidden.bearer("ada"), hidden.bearer("eve")):
        for part in PARTS:
            problem(hidden.http.get(f"{TICKET}{part}", headers=headers), 410, "gone")
            answer = hidden.http.get(f"/api/v1/tickets/{digest}{part}", headers=headers)
            problem(answer, 404, "not-found")
        diff = hidden.http.get("/api/v1/tickets/ada/second/diff/ada/first", headers=headers)
        problem(diff, 410, "gone")
        for path in (f"/architectures/{OWN.digest}", "/architectures/ada/moonshot"):
            problem(hidden.http.get(f"/api/v1{path}", headers=headers), 404, "not-found")
        for path in ("/transfers", "/architectures", "/tickets?include_yanked=true", "/feeds/tickets.atom"):
            shown = hidden.http.get(f"/api/v1{path}", headers=headers).text
            assert "first" not in shown, path
            assert "moonshot" not in shown, path
        problem(hidden.http.get(f"/api/v1/jobs/{hidden.tokens['job']}"), 404, "not-found")
    for page in ("/", "/transfers", "/tasks/digits?brought_in=true", "/?include_yanked=true"):
        assert "ada/first" not in hidden.http.get(page).text, page


def test_its_owner_does_not_get_it_by_publishing_it_again(hidden: Registry) -> None:
    problem(hidden.publish(make_ticket(architecture=OWN).to_bytes(), "first"), 410, "gone")
    problem(hidden.publish(make_ticket(seed=5).to_bytes(), "first"), 410, "gone")


def test_totals_and_facets_do_not_count_it_and_neither_do_metrics(hidden: Registry) -> None:
    hidden.publish(make_ticket(seed=2).to_bytes(), "secret", visibility="private")
    page = hidden.http.get("/api/v1/tickets?include_yanked=true&facets=verdict,architecture").json()
    assert (page["total"], page["facets"]["verdict"]) == (1, {})
    assert list(page["facets"]["architecture"]) == ["mlp-16"]
    metrics = hidden.http.get("/metrics").text
    assert 'nirvana_tickets{verdict="none"} 1.0' in metrics
    assert 'nirvana_tickets{verdict="WINNING"}' not in metrics
    for visibility in ("public", "private", "hidden"):
        assert f'nirvana_listings{{visibility="{visibility}"}} 1.0' in metrics


def test_those_who_follow_the_log_hear_that_it_is_hidden_and_that_it_is_back(
    hidden: Registry, tmp_path: Path
) -> None:
    def changes(since: int = 0) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = hidden.http.get(f"/api/v1/changes?since={since}").json()["items"]
        return items

    of_first = [(one["kind"], one["name"], one["digest"]) for one in changes() if one["listing"] == 1]
    assert of_first == [("hidden", None, None)]
    mirror, last = Mirror(tmp_path / "mirror"), changes()[-1]["serial"]
    with Client(hidden.url, token="") as client:
        mirror.follow(client)
        assert [record["ticket"]["name"] for _, record in mirror.listings()] == ["second"]
        manifest = write_dump(hidden.database, tmp_path / "dump", hidden.url)
        rows = {name: manifest["files"][f"{name}.jsonl"]["rows"] for name in ("tickets", "evaluations")}
        assert rows == {"tickets": 1, "evaluations": 0}
        assert manifest["files"]["transfers.jsonl"]["rows"] == 0
        assert post(hidden, f"{TICKET}/release", ADMIN, reason="a mistake") == 200
        assert [(one["kind"], one["name"]) for one in changes(last)] == [
            ("shown", "first"),
            ("unyanked", "first"),
        ]
        mirror.follow(client)
        assert sorted(record["ticket"]["name"] for _, record in mirror.listings()) == ["first", "second"]
        assert post(hidden, f"{TICKET}/quarantine", ADMIN, reason="after all") == 200
        mirror.follow(client)
        assert mirror.counts.removed == 1
    assert hidden.http.get("/api/v1/architectures/ada/moonshot").status_code == 404


def test_a_private_ticket_in_quarantine_leaves_no_trace_in_the_log(each_registry: Registry) -> None:
    each_registry.publish(make_ticket().to_bytes(), "first", visibility="private")
    assert post(each_registry, f"{TICKET}/quarantine", ADMIN, reason="x") == 200
    assert post(each_registry, f"{TICKET}/release", ADMIN, reason="y") == 200
    assert each_registry.http.get("/api/v1/changes").json()["items"] == []


def test_another_listing_of_the_ticket_shows_its_own_exam_and_not_the_hidden_one(
    each_registry: Registry,
) -> None:
    """Two recipes are two exams; of the hidden listing's no recipe and no number is left, but it counts."""
    longer = dataclasses.replace(RECIPE, steps=RECIPE.steps + 1)
    each_registry.publish(make_ticket().to_bytes(), "first")
    each_registry.publish(make_ticket(recipe=longer.to_dict()).to_bytes(), "copy", by="bob")
    digest = make_ticket().digest
    with each_registry.database.write() as session:
        measure(session, digest, VERDICT)
    copy = "/api/v1/tickets/bob/copy"
    assert len(each_registry.http.get(f"{copy}/verifications").json()["items"]) == 1
    post(each_registry, f"{TICKET}/quarantine", ADMIN, reason="x")
    assert each_registry.http.get(f"{copy}/verifications").json()["items"] == []
    problem(each_registry.http.get(f"{copy}/verifications/1"), 404, "not-found")
    problem(each_registry.http.get(f"{copy}/verifications/1/signed"), 404, "not-found")
    assert each_registry.http.get(copy).json()["exams"] == {"WINNING": 1}
