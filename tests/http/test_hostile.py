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
from tests.http.hostile import SPEC, Hostile, table
from tests.registry import (
    EACH,
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


def count_rows(registry: Registry) -> dict[str, int]:
    with registry.database.read() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


@pytest.fixture(scope="module", params=EACH)
def target(
    request: pytest.FixtureRequest, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """One registry a database, for all of the table: each request must leave it as it was."""
    home = tmp_path_factory.mktemp(f"hostile-{request.param}")
    with (
        templates.copy(request.param, home) as url,
        run_registry(make_settings(home, database_url=url)) as made,
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
