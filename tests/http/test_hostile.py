"""Hostile requests: none breaks the service, each is told where it is wrong, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import func, select

from app.db import Base
from tests.factories import make_ticket
from tests.http.hostile import SPEC, Hostile, table
from tests.registry import (
    EACH,
    Registry,
    Templates,
    make_settings,
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
        assert made.publish(make_ticket().to_bytes(), "first").status_code == 201
        asked = {"kind": "prune", "spec": SPEC}
        job = made.http.post("/api/v1/jobs", json=asked, headers=made.bearer("ada"))
        assert job.status_code == 202, job.text
        yield Target(made, job.json()["id"], count_rows(made))


@pytest.mark.parametrize("one", TABLE, ids=[one.name for one in TABLE])
def test_a_hostile_request_is_refused_and_changes_nothing(target: Target, one: Hostile) -> None:
    answer = target.send(one)
    body = problem(answer, one.status, answer.json()["code"])
    if one.pointer is not None:
        found = pointers(body)
        assert any(pointer.startswith(one.pointer) for pointer in found), (one.pointer, body)
    assert count_rows(target.registry) == target.rows
