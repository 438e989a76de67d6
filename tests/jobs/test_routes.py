"""Jobs over HTTP: asking, watching, cancelling; a real service on loopback, no worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.jobs.service import append_events, begin_job, end_job
from tests.registry import Registry, Templates, make_settings, pointers, problem, run_registry
from tests.worker.arena import small_spec

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def registry(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    home: Path = tmp_path_factory.mktemp("home")
    with (
        templates.copy("sqlite", home) as url,
        run_registry(make_settings(home, database_url=url, max_open_jobs_per_account=3)) as running,
    ):
        yield running


def ask(registry: Registry, name: str, key: str | None = None, **body: Any) -> httpx.Response:
    body = {"kind": "prune", "spec": small_spec()} | body
    headers = registry.bearer(name) | ({"Idempotency-Key": key} if key else {})
    return registry.http.post(JOBS, json=body, headers=headers)


def read_stream(registry: Registry, job_id: str, after: int | None = None) -> list[dict[str, Any]]:
    """Every event of a stream until it ends."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    events = []
    with registry.http.stream("GET", f"{JOBS}/{job_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = json.loads(value) if name == "data" else value
            elif fields:
                events.append(fields)
                fields = {}
    return events


def test_a_job_is_accepted_and_says_where_it_is(registry: Registry) -> None:
    answer = ask(registry, "ada")
    assert answer.status_code == 202, answer.text
    shown = registry.http.get(answer.headers["location"]).json()
    assert shown == answer.json()
    assert (shown["state"], shown["queue_position"], shown["account"]) == ("queued", 1, "ada")
    assert shown["progress"] == {"done": 0, "total": 3, "message": ""}


def test_too_many_open_jobs_are_429(registry: Registry) -> None:
    answers = [ask(registry, "greedy") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    problem(answers[-1], 429, "quota-exceeded")
    assert "retry-after" in answers[-1].headers


def test_an_idempotency_key_gives_the_same_job_again(registry: Registry) -> None:
    first, again = ask(registry, "carl", "k1"), ask(registry, "carl", "k1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    problem(ask(registry, "carl", "k1", budget={"seconds": 60}), 409, "idempotency-mismatch")


def test_bad_specs_are_422_with_pointers(registry: Registry) -> None:
    body = problem(ask(registry, "dora", spec=small_spec() | {"levels": 0}), 422, "invalid-job")
    assert pointers(body) == ["/spec/levels"]
    body = problem(ask(registry, "dora", budget={"seconds": -1}), 422, "invalid-job")
    assert pointers(body) == ["/budget/seconds"]
    body = problem(ask(registry, "dora", kind="bake"), 422, "invalid-job")
    assert pointers(body) == ["/kind"]


def test_a_token_is_needed_and_its_scope(registry: Registry) -> None:
    problem(registry.http.post(JOBS, json={"kind": "prune", "spec": {}}), 401, "unauthenticated")
    headers = registry.bearer("emil", "read")
    body = {"kind": "prune", "spec": small_spec()}
    problem(registry.http.post(JOBS, json=body, headers=headers), 403, "missing-scope")


def test_a_list_is_ones_own_and_goes_on_by_cursor(registry: Registry) -> None:
    mine = [ask(registry, "fred").json()["id"] for _ in range(3)]
    first = registry.http.get(JOBS, params={"limit": 2}, headers=registry.bearer("fred"))
    assert 'rel="next"' in first.headers["link"]
    cursor = first.json()["next_cursor"]
    rest = registry.http.get(JOBS, params={"limit": 2, "cursor": cursor}, headers=registry.bearer("fred"))
    found = [job["id"] for page in (first, rest) for job in page.json()["items"]]
    assert found == mine[::-1]
    assert rest.json()["next_cursor"] is None
    elsewhere = registry.http.get(JOBS, params={"cursor": cursor}, headers=registry.bearer("ada"))
    problem(elsewhere, 422, "invalid-cursor")


def test_cancelling_ends_a_job_once(registry: Registry) -> None:
    job_id = ask(registry, "gina").json()["id"]
    cancel = f"{JOBS}/{job_id}/cancel"
    problem(registry.http.post(cancel, headers=registry.bearer("ada")), 403, "forbidden")
    assert registry.http.post(cancel, headers=registry.bearer("gina")).json()["state"] == "cancelled"
    problem(registry.http.post(cancel, headers=registry.bearer("gina")), 409, "job-finished")
    problem(registry.http.post(f"{JOBS}/nothing/cancel", headers=registry.bearer("gina")), 404, "not-found")


def test_events_stream_to_the_end_and_are_taken_up_anywhere(registry: Registry) -> None:
    job_id = ask(registry, "hans").json()["id"]
    with registry.database.write() as session:
        begin_job(session, job_id, "worker-1")
        append_events(session, job_id, [("point", {"step": 20, "validation_loss": 0.5})])
        end_job(session, job_id, "failed", reason="out of luck", reason_code="luck")
    events = read_stream(registry, job_id)
    assert [event["id"] for event in events] == ["1", "2", "3", "4", "5"]
    assert [event["event"] for event in events] == ["state", "state", "point", "state", "done"]
    assert events[3]["data"] == {"state": "failed", "reason": "out of luck", "code": "luck"}
    assert [event["id"] for event in read_stream(registry, job_id, after=3)] == ["4", "5"]
    assert read_stream(registry, job_id, after=5) == []
    problem(registry.http.get(f"{JOBS}/nothing/events"), 404, "not-found")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ('{"optimizer": {}}', 422),
        ('{"schedule": {"kind": []}}', 422),
        ('{"schedule": {"kind": "step", "at": [1e400], "factor": 1e400}}', 422),
        ('{"steps": 1000000000000}', 422),
        ('{"steps": ' + "9" * 4000 + "}", 422),
        ('{"steps": ' + "9" * 5000 + "}", 400),
        ('{"learning_rate": NaN}', 422),
        ('{"learning_rate": ' + "9" * 4000 + "}", 422),
        ('{"learning_rate": 9007199254740992}', 422),
        ('{"\\ud800": 1}', 422),
        ('{"optimizer": "\\ud800"}', 422),
        ('{"pruning": {"layer_rates": {"\\ud800": 0.5}}}', 422),
        ('{"pruning": {"\\u0000": 0.5}}', 422),
        ('{"augmentation": [[["crop"]]]}', 422),
        ('{"distillation": {"temperature": [], "weight": {}}}', 422),
        ('{"steps": ' + "[" * 400 + "]" * 400 + "}", 422),
    ],
)
def test_a_hostile_recipe_is_refused_and_nothing_is_queued(
    registry: Registry, fields: str, status: int
) -> None:
    spec = json.dumps(small_spec() | {"recipe": 0}).replace('"recipe": 0', f'"recipe": {fields}')
    headers = registry.bearer("mallory") | {"Content-Type": "application/json"}
    body = f'{{"kind": "prune", "spec": {spec}}}'
    answer = registry.http.post(JOBS, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 422:
        at = pointers(problem(answer, 422, "invalid-job"))
        assert all(pointer.startswith("/spec/recipe/") for pointer in at)
        assert len(answer.content) < 10_000
    assert registry.http.get(JOBS, headers=registry.bearer("mallory")).json()["items"] == []


@pytest.mark.parametrize("spec", ['{"\\ud800": 1}', '{"options": {"\\ud800": 1}}', '{"name": "\\ud800"}'])
def test_half_a_character_in_a_spec_is_refused_like_any_other_value(registry: Registry, spec: str) -> None:
    body = json.dumps(small_spec())[:-1] + ", " + spec[1:]
    headers = registry.bearer("mallory") | {"Content-Type": "application/json"}
    for accept in ("application/json", "text/html"):
        answer = registry.http.post(
            JOBS, content=f'{{"kind": "prune", "spec": {body}}}', headers=headers | {"Accept": accept}
        )
        assert answer.status_code == 422, answer.text
