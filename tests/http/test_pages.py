"""The pages: readable without script, and safe to show what strangers wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.evaluations.pages import protocol_html
from app.jobs.models import Job
from nirvana.errors import NotFound
from tests.factories import RECIPE, make_ticket
from tests.registry import VERDICT, Registry, measure

PROMPT = {"Accept": "text/html,application/xhtml+xml"}
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"


LATER: dict[str, Any] = {
    **VERDICT,
    "protocol": "nirvana-verify/2",
    "replicates": 10,
    "recipe": RECIPE.to_dict(),
    "arms": {"dense": [0.95, 0.96], "ticket": [0.96, 0.1], "reinit": [0.9, 0.9]},
    "failed": {"ticket": [False, True]},
    "cached": {"dense": 5, "ticket": 0},
    "gate": {
        "invalid": None,
        "untestable": None,
        "law": {"fc1.weight": 0.03, "fc1.bias": 1.0},
        "spectrum": {"fc1.weight": 1.31, "fc2.weight": -0.4},
        "effective_density": 0.19,
        "duplicates": [{"name": "bob/twin", "kind": "near-duplicate", "jaccard": 0.91}],
    },
    "looks": [
        {"n": 5, "alpha": 0.02, "verdict": "INCONCLUSIVE"},
        {"n": 10, "alpha": 0.015, "verdict": "WINNING"},
    ],
    "badges": {"TRAINABLE": True, "REPRODUCED": False, "STABLE": None},
    "tracks": {"supermask": {"verdict": "SUPERMASK", "reason": "it reaches its claim"}},
    "cost": {"trainings": 30, "dense_trainings": {"by_flops": 8.04, "by_seconds": 30.5}},
}


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
        measure(session, ticket.digest, body)
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


def test_an_evaluation_shows_gate_looks_arms_cost_and_badges(published: Registry) -> None:
    digest = published.http.get("/api/v1/tickets/ada/first").json()["digest"]
    with published.database.write() as session:
        measure(session, digest, LATER, "j2")
    html = published.http.get("/tickets/ada/first").text
    check_page(html)
    for expected in (
        "nirvana-verify/2</a>",
        '<span class="badge">trainable</span>',
        "smallest p = 0.03 of 2 tensors",
        "largest singular value of a weight matrix: +1.3 Tracy-Widom units",
        "effective density (kept and on a path to the output): 19.00 %",
        'near-duplicate of <a href="/tickets/bob/twin">bob/twin</a>, overlap 91.00 %',
        "n = 5, alpha 0.02: inconclusive",
        "n = 10, alpha 0.015: winning",
        "its mask, values drawn anew",
        '10.00 % <small class="failed">failed</small>',
        "30 trainings, and 5 taken from earlier verifications",
        "as much as 8.0 dense trainings",
        "by seconds as much as 30.5",
        RECIPE.digest,
        "supermask: it reaches its claim",
    ):
        assert expected in html, expected
    assert "reproduced" not in html


def test_a_refused_ticket_shows_why_and_no_numbers(published: Registry) -> None:
    digest = published.http.get("/api/v1/tickets/ada/first").json()["digest"]
    reason = "the initial values of fc1.weight do not follow kaiming_normal (p = 1e-60): trained weights"
    gate = {"invalid": reason, "law": {"fc1.weight": 0.0}, "spectrum": {}, "effective_density": 0.2}
    body = {"verdict": "INVALID", "reason": reason, "replicates": 0, "protocol": "nirvana-verify/2"}
    body |= {"margin": 0.01, "task": "digits", "arms": {}, "looks": [], "gate": gate, "badges": {}}
    with published.database.write() as session:
        measure(session, digest, body, "j3")
    html = published.http.get("/tickets/ada/first").text
    check_page(html)
    assert "nothing was trained" in html
    assert "p = 1e-60" in html
    assert published.search(verdict="INVALID", sort="accuracy") == ["first"]
    shown = published.http.get("/api/v1/tickets/ada/first").json()
    assert (shown["verdict"], shown["replicates"], shown["accuracy"]) == ("INVALID", 0, None)
    assert shown["evaluations"][0]["arms"] == {}
    assert "invalid" in published.http.get("/").text


def test_the_protocol_is_a_page(registry: Registry) -> None:
    html = registry.http.get("/protocol").text
    check_page(html)
    assert "nirvana-verify/2" in html
    assert html.count("<table>") > 3


def test_a_protocol_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="protocol"):
        protocol_html(tmp_path / "none.md")
    (tmp_path / "some.md").write_text(f"# Title\n\n{SCRIPT}\n")
    assert "<script" not in protocol_html(tmp_path / "some.md")


def test_tasks_show_their_tickets(published: Registry) -> None:
    check_page(published.http.get("/tasks").text)
    html = published.http.get("/tasks/digits").text
    check_page(html)
    assert "ada/first" not in html, "it was brought in"
    assert '<a href="/tasks/digits?brought_in=true">' in html
    html = published.http.get("/tasks/digits?brought_in=true").text
    check_page(html)
    assert "ada/first" in html
    assert "brought in" in html


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
