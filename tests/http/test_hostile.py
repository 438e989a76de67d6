"""Hostile requests: none breaks the service, each is told where it is wrong, and nothing changes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.db import Base
from tests.factories import make_ticket
from tests.http.hostile import LONG, LONGER, SPEC, Hostile, table
from tests.registry import (
    EACH,
    TICKET_TYPE,
    VERDICT,
    Registry,
    Templates,
    make_settings,
    measure,
    pointers,
    problem,
    run_registry,
)

TABLE = table()


@dataclass(frozen=True)
class Target:
    """A registry with something in it, and the state that it must keep."""

    registry: Registry
    job: str
    digest: str
    rows: dict[str, int]

    def send(self, one: Hostile) -> httpx.Response:
        headers = {"Content-Type": "application/json", **self.registry.bearer("ada"), **one.headers}
        encoded = [(name.encode(), text.encode("utf-8", "surrogateescape")) for name, text in headers.items()]
        path = one.path.replace("{job}", self.job)
        return self.registry.http.request(one.method, path, content=one.content, headers=encoded)


DERIVED = ("export_blob", "download_count")  # of a file that is handed out before its range is looked at


def count_rows(registry: Registry) -> dict[str, int]:
    with registry.database.read() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name not in DERIVED
        }


@pytest.fixture(scope="module", params=EACH)
def target(
    request: pytest.FixtureRequest, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """One registry a database, for all of the table: each request must leave it as it was."""
    home = tmp_path_factory.mktemp(f"hostile-{request.param}")
    with (
        templates.copy(request.param, home) as url,
        run_registry(make_settings(home, database_url=url, limits="off")) as made,
    ):
        ticket = make_ticket()
        for name, one in {"first": ticket, "again": ticket, "other": make_ticket("mlp-8")}.items():
            assert made.publish(one.to_bytes(), name).status_code == 201
        asked = {"kind": "prune", "spec": SPEC}
        for _ in range(2):
            job = made.http.post("/api/v1/jobs", json=asked, headers=made.bearer("ada"))
            assert job.status_code == 202, job.text
            with made.database.write() as session:
                measure(session, ticket.digest, VERDICT)
        yield Target(made, job.json()["id"], ticket.digest, count_rows(made))


@pytest.mark.parametrize("one", TABLE, ids=[one.name for one in TABLE])
def test_a_hostile_request_is_refused_and_changes_nothing(target: Target, one: Hostile) -> None:
    answer = target.send(one)
    body = problem(answer, one.status, answer.json()["code"])
    if one.pointer is not None:
        found = pointers(body)
        assert any(pointer.startswith(one.pointer) for pointer in found), (one.pointer, body)
    assert count_rows(target.registry) == target.rows


LISTS = (
    "tickets",
    "tickets?sort=kept",
    "tickets/{digest}",
    "architectures",
    "jobs",
    "tickets/ada/first/verifications",
)
VALUES: list[Any] = [10**400, 2**63, 2**62, 2**31, -(2**63), -1, 0.5, 1e308, None, True, "", "a\0", "\ud800"]
VALUES += ["9999-12-31T23:59:59-23:00", [], {}]


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_with_forged_values_is_refused_or_reads_from_elsewhere(target: Target, path: str) -> None:
    """Its binding is a digest that anybody can copy from another cursor."""
    path = path.format(digest=target.digest)
    joiner = "&" if "?" in path else "?"
    first = target.send(Hostile("", "GET", f"/api/v1/{path}{joiner}limit=1")).json()
    cursor = first["next_cursor"]
    assert cursor is not None, path
    bound, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    for place in range(len(values)):
        for value in VALUES:
            forged = [bound, *values[:place], value, *values[place + 1 :]]
            text = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
            answer = target.send(Hostile("", "GET", f"/api/v1/{path}{joiner}cursor={text}"))
            assert answer.status_code in (200, 422), (path, value, answer.text)


def nested(levels: int) -> dict[str, Any]:
    """An object in an object in ..."""
    made: dict[str, Any] = {}
    for _ in range(levels):
        made = {"a": made}
    return made


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"provenance": nested(500)}, "/provenance"),
        ({"provenance": {"x": [[[[[nested(70)]]]]]}}, "/provenance"),
        ({"description": "a\0"}, "/description"),
        ({"license": "a\0"}, "/license"),
    ],
)
def test_a_valid_file_that_could_not_be_shown_is_refused_by_lint_and_by_publishing(
    target: Target, fields: dict[str, Any], pointer: str
) -> None:
    data = make_ticket(seed=9, **fields).to_bytes()
    body = problem(target.registry.publish(data, "deep"), 422, "invalid-ticket")
    assert pointers(body) == [pointer]
    headers = {"Content-Type": TICKET_TYPE}
    report = target.registry.http.post("/api/v1/tickets:lint", content=data, headers=headers).json()
    assert (report["ok"], pointers(report)) == (False, [pointer])
    assert count_rows(target.registry) == target.rows


PAGES = ["/?q=%00", f"/?min_left={LONG}", f"/?min_kept={LONGER}", "/?task=a%00", "/?sort=%F0%9F%98%80"]
PAGES += ["/?cursor=%00", "/?cursor=e30", "/tickets/a%00/b", "/tickets/%ff/b", "/tickets/sha256:%00"]
PAGES += ["/tasks/%00", "/tasks/%ff", "/jobs/%00", f"/jobs/{LONGER}", "/transfers?x=1", "/docs?x=1"]
PAGES += ["/%00", "/%ff", f"/{LONGER}", "/tickets/ada/first?cursor=%00", "/protocol?a[]=1"]


@pytest.mark.parametrize("path", PAGES)
def test_a_hostile_address_of_a_page_is_a_page_that_says_so(target: Target, path: str) -> None:
    for accept in ("text/html", "application/json"):
        answer = target.registry.http.get(path, headers={"Accept": accept})
        assert answer.status_code in (404, 422), (path, answer.status_code)
        assert answer.headers["content-type"].startswith(accept.replace("json", "problem+json"))
