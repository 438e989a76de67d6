"""What every answer has in common: problems, headers, health, metrics, the OpenAPI document."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from app.openapi import operations
from app.pagination import binding, write_cursor
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import Registry, pointers, problem

SNAPSHOT = Path(__file__).parent / "openapi.json"
GRAPH = {
    "name": "tiny",
    "input": [4],
    "nodes": [{"name": "fc1", "op": "linear", "in": 4, "out": 2}],
}


@pytest.mark.parametrize("path", ["/nope", "/api/v1/nope", "/api/v1/tickets/ada", "/api/v1/tickets/a/b/c/d"])
def test_a_path_that_is_none_is_a_problem(registry: Registry, path: str) -> None:
    assert problem(registry.http.get(path), 404, "not-found")["instance"] == path


def test_what_no_database_can_keep_is_refused_and_no_fault(each_registry: Registry) -> None:
    paths = (
        "tickets/a%00/b",
        "tickets/%ff/b",
        "architectures/%00",
        "architectures/%ff",
        "tasks/a%00",
        "jobs/%00",
    )
    for path in (*paths, "tickets/sha256:%00", "tickets/ada/x/verifications/99999999999999999999"):
        assert each_registry.http.get(f"/api/v1/{path}").status_code in (404, 422), path
    instant = "0001-01-01T00:00:00%2B23:00"
    for query in (f"created_at=min:{instant}", "owner=a%00", "owner=%ff", "task=%F0%9F%98%80", "kept=min:-1"):
        assert each_registry.http.get(f"/api/v1/tickets?{query}").status_code in (200, 422), query
    forged = write_cursor(binding("architectures"), ("a\0", 1))
    problem(each_registry.http.get(f"/api/v1/architectures?cursor={forged}"), 422, "invalid-cursor")
    surrogate = each_registry.http.post(
        "/api/v1/tokens", content=b'{"name": "\\ud800"}', headers=each_registry.bearer()
    )
    assert surrogate.status_code == 422


def test_a_wrong_method_is_a_problem_that_says_which_are_right(registry: Registry) -> None:
    answer = registry.http.delete("/api/v1/tickets")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"]


def test_a_body_that_is_not_json_is_malformed(registry: Registry) -> None:
    headers = {"Content-Type": "application/json"}
    answer = registry.http.post("/api/v1/accounts", content=b"{", headers=headers)
    problem(answer, 400, "malformed")


@pytest.mark.parametrize("path", ["/api/v1/accounts", "/api/v1/architectures:check"])
def test_a_body_over_the_cap_is_refused_with_the_limit(make_registry: MakeRegistry, path: str) -> None:
    registry = make_registry(max_body_bytes=1000)
    answer = registry.http.post(path, json={"name": "x" * 2000})
    assert problem(answer, 413, "too-large")["limit_bytes"] == 1000


def test_a_fault_of_ours_is_a_problem_that_says_nothing_of_the_inside(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.publish(make_ticket().to_bytes(), "first")
    with registry.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ticket SET manifest = 'not json'")
    with caplog.at_level(logging.ERROR, "nirvana.app"):
        answer = registry.http.get("/api/v1/tickets/ada/first")
    body = problem(answer, 500, "internal")
    assert "json" not in body["detail"].lower()
    assert any(getattr(r, "request_id", None) == body["request_id"] for r in caplog.records)


def test_every_answer_carries_a_request_id_and_security_headers(registry: Registry) -> None:
    for path in ("/", "/api/v1/", "/nope", "/static/nirvana.css", "/healthz"):
        answer = registry.http.get(path)
        assert len(answer.headers["x-request-id"]) == 32
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    own = registry.http.get("/healthz", headers={"X-Request-Id": "from-a-proxy.1"})
    assert own.headers["x-request-id"] == "from-a-proxy.1"
    forged = registry.http.get("/healthz", headers={"X-Request-Id": "a b"})
    assert forged.headers["x-request-id"] != "a b"


def test_the_service_document_names_the_limits_and_links(registry: Registry) -> None:
    body = registry.http.get("/api/v1/").json()
    assert body["limits"]["max_upload_bytes"] == registry.settings.max_upload_bytes
    assert body["media_types"]["ticket"] == "application/vnd.nirvana.ticket"
    assert body["links"]["tickets"].endswith("/api/v1/tickets")


def test_health_is_about_the_process_and_readiness_about_what_it_needs(registry: Registry) -> None:
    assert registry.http.get("/readyz").json()["checks"] == {"database": "ok", "blobs": "ok", "disk": "ok"}
    with registry.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ticket RENAME TO gone")
    answer = registry.http.get("/readyz")
    assert problem(answer, 503, "unavailable")["checks"]["database"] != "ok"
    assert answer.headers["retry-after"]
    assert registry.http.get("/healthz").json() == {"status": "ok"}


def test_metrics_count_requests_tickets_jobs_and_workers(each_registry: Registry) -> None:
    each_registry.publish(make_ticket().to_bytes(), "first")
    text = each_registry.http.get("/metrics").text
    assert 'nirvana_requests_total{method="POST",route="/api/v1/tickets",status="201"} 1.0' in text
    assert 'nirvana_tickets{verdict="none"} 1.0' in text
    assert 'nirvana_jobs{state="queued"} 0.0' in text
    assert "nirvana_queue_age_seconds 0.0" in text
    assert "# TYPE nirvana_worker_heartbeat_age_seconds gauge" in text
    each_registry.http.get("/api/v1/tickets/ada/first/file")
    paths = each_registry.http.get("/metrics").text
    assert "ada" not in paths


def test_tasks_and_architectures_are_listed_and_shown(each_registry: Registry) -> None:
    each_registry.publish(make_ticket().to_bytes(), "first")
    tasks = each_registry.http.get("/api/v1/tasks").json()["items"]
    assert {task["name"]: task["tickets"] for task in tasks}["digits"] == 1
    assert each_registry.http.get("/api/v1/tasks/digits").json()["margin"] > 0
    assert "digits" in problem(each_registry.http.get("/api/v1/tasks/x"), 404, "not-found")["detail"]
    listed = each_registry.http.get("/api/v1/architectures").json()["items"]
    assert [found["name"] for found in listed] == ["mlp-16"]
    for name in ("mlp-16", listed[0]["digest"]):
        shown = each_registry.http.get(f"/api/v1/architectures/{name}").json()
        assert shown["graph"]["nodes"][1]["op"] == "linear"
    problem(each_registry.http.get("/api/v1/architectures/x"), 404, "not-found")


def test_a_graph_is_checked_without_being_stored(registry: Registry) -> None:
    checked = registry.http.post("/api/v1/architectures:check", json=GRAPH).json()
    assert checked["parameters"] == {"fc1.weight": [2, 4], "fc1.bias": [2]}
    bad = GRAPH | {"nodes": [{"name": "fc1", "op": "exec"}]}
    answer = registry.http.post("/api/v1/architectures:check", json=bad)
    assert pointers(problem(answer, 422, "invalid-architecture")) == ["/nodes/0/op"]
    assert registry.http.get("/api/v1/architectures").json()["items"] == []


def test_the_openapi_document_is_the_one_that_was_agreed_on(registry: Registry) -> None:
    found = registry.http.get("/openapi.json").json()
    if os.environ.get("NIRVANA_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    agreed = json.loads(SNAPSHOT.read_text())
    assert found == agreed, "the API changed; if you meant it: make openapi"


def test_every_operation_of_the_openapi_document_has_an_example(registry: Registry) -> None:
    document = registry.http.get("/openapi.json").json()
    ids = []
    for operation in operations(document):
        ids.append(operation["operationId"])
        body = operation.get("requestBody", {}).get("content", {})
        good = {code: r for code, r in operation["responses"].items() if code[0] == "2" and code != "204"}
        contents = [*body.values()] + [c for r in good.values() for c in r.get("content", {}).values()]
        for content in contents:
            assert has_example(content, document), (ids[-1], content)
    assert len(ids) == len(set(ids)) > 30


def has_example(content: dict[str, Any], document: dict[str, Any]) -> bool:
    schema = content.get("schema", {})
    for choice in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        name = choice.get("$ref", "").rpartition("/")[2]
        if "examples" in document["components"]["schemas"].get(name, choice):
            return True
    return "example" in content or "text/event-stream" in str(content) or "itemSchema" in content
