"""The pages: readable without script, and safe to show what strangers wrote."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import update

from app.evaluations.service import record_evaluation
from app.jobs.models import Job
from tests.factories import make_ticket
from tests.registry import VERDICT, Registry

PROMPT = {"Accept": "text/html,application/xhtml+xml"}
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def published(registry: Registry) -> Registry:
    claim = {"task": SCRIPT, "metric": SCRIPT, "value": 0.99, "replicates": 5}
    ticket = make_ticket(
        description=SCRIPT,
        authors=(SCRIPT,),
        license=SCRIPT,
        claims=(claim,),
        provenance={"method": SCRIPT, "level": 1},
    )
    assert registry.publish(ticket.to_bytes(), "first").status_code == 201
    with registry.database.write() as session:
        body = VERDICT | {"reason": SCRIPT, "arms": {"ticket": [0.97], SCRIPT: [0.95]}}
        record_evaluation(session, digest=ticket.digest, evaluation=body, job_id=None)
    changes = {"card": SCRIPT, "tags": ["small"]}
    registry.http.patch("/api/v1/tickets/ada/first", json=changes, headers=registry.bearer())
    return registry


def check_page(html: str) -> None:
    """No markup of a stranger, and nothing that our own policy forbids."""
    assert "<script" not in html
    assert "onerror=" not in re.sub(r"&[a-z#0-9]+;[^<]*", "", html)
    assert " style=" not in html
    assert "<title>" in html
    assert html.count("<h1>") == 1


def test_search_lists_what_it_finds_with_filters_that_can_be_removed(published: Registry) -> None:
    answer = published.http.get("/", params={"q": "first", "task": "digits", "max_left": "50", "verdict": ""})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    check_page(answer.text)
    assert 'href="/tickets/ada/first"' in answer.text
    assert "max left: 50" in answer.text
    assert "1 ticket" in answer.text
    empty = published.http.get("/", params={"q": SCRIPT, "max_left": "0.01"})
    check_page(empty.text)
    assert "No ticket matches" in empty.text


def test_search_turns_its_pages_by_links(published: Registry) -> None:
    for number in range(26):
        published.publish(make_ticket(seed=number).to_bytes(), f"t{number}")
    first = published.http.get("/?q=ada").text
    following = re.search(r'rel="next" href="([^"]+)"', first)
    assert following is not None
    second = published.http.get(following[1].replace("&amp;", "&"))
    assert second.status_code == 200
    assert first.count('scope="row"') + second.text.count('scope="row"') == 27


def test_a_ticket_shows_what_was_measured_and_escapes_what_was_said(published: Registry) -> None:
    html = published.http.get("/tickets/ada/first").text
    check_page(html)
    for expected in ("winning", "97.00 %", "&lt;script&gt;", "fc1.weight", "/file", "n = 5", "Claims"):
        assert expected in html
    digest = published.http.get("/api/v1/tickets/ada/first").json()["digest"]
    assert published.http.get(f"/tickets/{digest}").status_code == 200


def test_tasks_show_their_tickets(published: Registry) -> None:
    check_page(published.http.get("/tasks").text)
    html = published.http.get("/tasks/digits").text
    check_page(html)
    assert "ada/first" in html


def test_an_open_job_reloads_itself_and_an_ended_one_does_not(published: Registry) -> None:
    path = "/api/v1/tickets/ada/first/verifications"
    job = published.http.post(path, headers=published.bearer()).json()
    html = published.http.get(f"/jobs/{job['id']}").text
    check_page(html)
    assert '<meta http-equiv="refresh" content="3">' in html
    assert "Number 1 in the queue" in html
    with published.database.write() as session:
        session.execute(update(Job).values(state="failed", reason=SCRIPT, progress_message=SCRIPT))
    ended = published.http.get(f"/jobs/{job['id']}").text
    check_page(ended)
    assert "http-equiv" not in ended
    assert "&lt;script&gt;" in ended


@pytest.mark.parametrize("path", ["/tickets/ada/none", "/jobs/none", "/tasks/none", "/none", "/?typo=1"])
def test_a_reader_of_html_gets_errors_as_pages(registry: Registry, path: str) -> None:
    answer = registry.http.get(path, headers=PROMPT)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    check_page(answer.text)
    assert answer.headers["x-request-id"] in answer.text
    script = registry.http.get(path)
    assert script.headers["content-type"] == "application/problem+json"


def test_a_page_is_small(published: Registry) -> None:
    sizes = [len(published.http.get(path).content) for path in ("/", "/static/nirvana.css")]
    assert sum(sizes) < 40_000
