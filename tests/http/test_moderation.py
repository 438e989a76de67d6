"""Reports of tickets, and quarantine: hidden from everybody, reversible, and on the record."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.factories import make_ticket
from tests.registry import Registry, problem

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
