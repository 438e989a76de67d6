"""The OpenAPI document tells the truth: its examples work, and every method and header is as it says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.accounts.models import SCOPES
from app.accounts.organisations.roles import Membership
from app.accounts.organisations.service import create_organisation
from app.accounts.service import find_account, hash_secret
from app.accounts.sessions import hash_password, set_password
from app.db import utc_now
from app.devices.routes import EXAMPLE_CODE
from app.devices.service import DeviceCode
from app.openapi import operations
from nirvana.exports import FORMATS
from nirvana.lab import find
from nirvana.networks import zoo
from tests.factories import make_ticket
from tests.registry import Registry, Templates, make_settings, problem, run_registry

PASSWORD = "correct horse battery"  # and this
NAME = "lenet-300-100-digits-07"  # that the examples ask for
PATHS = ("/", "/docs", "/tasks", "/healthz", "/openapi.json", "/api/v1/", "/api/v1/tickets", "/metrics")
PLACES = {
    "ticket": f"ada/{NAME}",
    "webhook_id": "1",
    "organisation": "lab",
    "account": "carl",
    "task": "ada/flowers",
}
OF_TICKET = ("", "/file", "/layers", "/badge.svg", "/cite?format=csl", "/verifications", "/export?format=csr")


@pytest.fixture(scope="module")
def registry(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    home: Path = tmp_path_factory.mktemp("home")
    with templates.copy("sqlite", home) as url, run_registry(make_settings(home, database_url=url)) as made:
        recipe = {"steps": 20, "evaluate_every": 10}
        ticket = find("digits", "lenet-300-100", levels=1, seed=3, recipe=recipe).tickets[-1]
        of_mnist = make_ticket(architecture=zoo.build("lenet-300-100", (1, 28, 28), 10), task="mnist")
        for name in ("ada", "bob", "carl"):
            made.account(name)
        with made.database.write() as session:
            asked = DeviceCode(secret_sha256=hash_secret(EXAMPLE_CODE), user_code="BCDF-GHJK", name="laptop")
            asked.scopes, asked.expires_at = ["read"], utc_now() + timedelta(minutes=5)
            session.add(asked)
            ada, carl = (find_account(session, name) for name in ("ada", "carl"))
            assert ada is not None
            assert carl is not None
            set_password(session, ada, hash_password("ada", PASSWORD))
            lab = create_organisation(session, made.settings, ada, "lab")
            session.add(Membership(organisation_id=lab.id, account_id=carl.id, role="reader"))
        assert made.publish(ticket.to_bytes(), NAME).status_code == 201
        assert made.publish(of_mnist.to_bytes(), "lenet-300-100-mnist-07").status_code == 201
        table = b"a,b\n" + b"1,x\n2,y\n" * 60
        made.http.post(
            "/api/v1/tasks",
            files={"file": ("t.csv", table, "text/csv")},
            data={"name": "flowers", "title": "Flowers", "license": "CC0-1.0"},
            headers=made.bearer("ada"),
        ).raise_for_status()
        yield made


@pytest.fixture(scope="module")
def document(registry: Registry) -> dict[str, Any]:
    found: dict[str, Any] = registry.http.get("/openapi.json").json()
    return found


def examples(content: dict[str, Any], document: dict[str, Any]) -> Iterator[Any]:
    """Every example of a JSON body, whichever of its kinds it is of."""
    schema = content["application/json"]["schema"]
    yield from schema.get("examples", [])
    for choice in [schema, *schema.get("oneOf", []), *schema.get("anyOf", [])]:
        name = choice.get("$ref", "").rpartition("/")[2]
        yield from document["components"]["schemas"].get(name, {}).get("examples", [])


def test_every_example_of_a_body_works_as_it_stands(registry: Registry, document: dict[str, Any]) -> None:
    tried = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" not in content:
                continue
            for body in examples(content, document):
                where = path.format_map(PLACES)
                body = {"name": "someone-new"} if operation["operationId"] == "create_account" else body
                headers = registry.bearer("ada", *SCOPES)
                answer = registry.http.request(method, where, json=body, headers=headers)
                known = operation["operationId"], body.get("kind")
                tried.append(known)
                assert answer.status_code < 300, (known, answer.text)
    kinds = {kind for operation, kind in tried if operation == "submit_job"}
    assert kinds == {"attest", "prune", "transfer", "verify"}
    assert len(tried) > 8


def test_no_operation_leaves_its_errors_open(document: dict[str, Any]) -> None:
    for operation in operations(document):
        assert "default" not in operation["responses"], operation["operationId"]
        assert "422" in operation["responses"]
        assert ("400" in operation["responses"]) == ("requestBody" in operation), operation["operationId"]
        for status, response in operation["responses"].items():
            assert "X-Request-Id" in response["headers"]
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], operation["operationId"]


def test_every_parameter_has_bounds(document: dict[str, Any]) -> None:
    """A text has a length, a pattern or a list of values; a number has ends."""
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            for choice in parameter["schema"].get("anyOf", [parameter["schema"]]):
                bounds = {"maxLength", "pattern", "enum", "const", "maximum", "exclusiveMaximum", "format"}
                is_bound = bounds & {*choice, *parameter["schema"]} or choice["type"] in ("boolean", "null")
                assert is_bound, (operation["operationId"], parameter)


def test_a_wrong_method_is_told_every_right_one(registry: Registry) -> None:
    expected = {
        "/api/v1/tickets": "GET, HEAD, POST",
        f"/api/v1/tickets/ada/{NAME}": "GET, HEAD, PATCH",
        "/api/v1/tokens": "GET, HEAD, POST",
        "/api/v1/accounts": "POST",
        "/api/v1/jobs/x/cancel": "POST",
        "/static/nirvana.css": "GET, HEAD",
        "/": "GET, HEAD",
    }
    for path, allow in expected.items():
        answer = registry.http.put(path)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allow, path


@pytest.mark.parametrize("path", [*PATHS, *(f"/api/v1/tickets/ada/{NAME}{part}" for part in OF_TICKET)])
def test_head_is_get_without_its_body(registry: Registry, path: str) -> None:
    got = registry.http.get(path)
    head, *_ = [registry.http.head(path) for _ in range(3)]  # over one connection, which must stay sound
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    same = ("content-type", "etag", "link", "content-disposition")
    assert [head.headers.get(name) for name in same] == [got.headers.get(name) for name in same]
    if path != "/metrics":  # which counts the request before it
        assert head.headers.get("content-length") == got.headers.get("content-length")


def test_head_of_a_refusal_and_of_a_stream_ends(registry: Registry) -> None:
    assert registry.http.head("/api/v1/tickets/ada/none").status_code == 404
    body = {"kind": "verify", "spec": {"ticket": f"ada/{NAME}"}}
    job = registry.http.post("/api/v1/jobs", json=body, headers=registry.bearer("ada")).json()["id"]
    answer = registry.http.head(f"/api/v1/jobs/{job}/events", timeout=5)
    assert (answer.status_code, answer.content) == (200, b"")
    assert registry.http.get("/healthz").status_code == 200
    text = registry.http.get("/metrics").text
    assert (
        'nirvana_requests_total{method="HEAD",route="/api/v1/jobs/{job_id}/events",status="200"} 1.0' in text
    )


def test_the_page_of_the_api_shows_every_operation(registry: Registry, document: dict[str, Any]) -> None:
    page = registry.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    for operation in operations(document):
        assert f'id="{operation["operationId"]}"' in page.text
    assert '<a href="/docs">API</a>' in registry.http.get("/").text


def test_every_form_of_an_export_is_documented(document: dict[str, Any]) -> None:
    exports = document["paths"]["/api/v1/tickets/{ticket}/export"]["get"]
    for status in ("200", "206"):
        assert set(exports["responses"][status]["content"]) == {row[2] for row in FORMATS.values()}


def test_a_full_disk_is_not_ready(templates: Templates, tmp_path: Path) -> None:
    with templates.copy("sqlite", tmp_path) as url:
        settings = make_settings(tmp_path, database_url=url, max_upload_bytes=2**60)
        with run_registry(settings) as registry:
            answer: httpx.Response = registry.http.get("/readyz")
            assert problem(answer, 503, "unavailable")["checks"]["disk"] == "full"
            assert registry.http.get("/healthz").status_code == 200
