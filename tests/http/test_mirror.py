"""A mirror: taken from a served registry, resumed, checked, served read only, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.__main__ import migrate_database
from app.mirror import open_mirror
from app.settings import Settings
from app.transfers.service import record_transfer
from nirvana.client.mirror import Mirror
from nirvana.client.rest import Client
from nirvana.errors import Conflict, DataDamaged, InvalidTicket, NotFound
from tests.factories import as_stored, make_ticket
from tests.http.test_tasks import made
from tests.jobs.test_transfer import FOUND
from tests.registry import VERDICT, Registry, make_settings, measure, problem, run_registry

TICKETS = [make_ticket(seed=seed, density=0.1 * seed) for seed in (1, 2, 3)]
NAMES = ["ada/t0", "ada/t1", "bob/t2", "bob/copy", "ada/stored"]


@pytest.fixture
def source(each_registry: Registry) -> Registry:
    """A registry with verdicts, a copy, a yanked listing, a card, a private one, and tasks."""
    registry = each_registry
    for number, owner in enumerate(("ada", "ada", "bob")):
        assert registry.publish(TICKETS[number].to_bytes(), f"t{number}", by=owner).status_code == 201
    registry.publish(TICKETS[0].to_bytes(), "copy", by="bob")
    registry.publish(as_stored(TICKETS[1], description="with its values").to_bytes(), "stored")
    registry.publish(make_ticket(seed=9).to_bytes(), "secret", visibility="private")
    with registry.database.write() as session:
        for ticket in TICKETS[:2]:
            measure(session, ticket.digest, VERDICT)
        record_transfer(session, digest=TICKETS[0].digest, measured=FOUND, job_id="j1")
    body = {"reason": "superseded", "detail": "by t1"}
    assert registry.http.post("/api/v1/tickets/ada/t0/yank", json=body, headers=registry.bearer()).is_success
    for name in ("flowers", "hidden", "gone"):
        made(registry, name)
    yank = registry.http.post("/api/v1/tasks/ada/hidden/yank", json=body, headers=registry.bearer())
    remove = registry.http.delete("/api/v1/tasks/ada/gone", headers=registry.bearer())
    assert (yank.status_code, remove.status_code) == (200, 204)
    card = {"card": "# Found on a laptop", "tags": ["small"]}
    assert registry.http.patch("/api/v1/tickets/ada/t1", json=card, headers=registry.bearer()).is_success
    return registry


@pytest.fixture
def client(source: Registry) -> Iterator[Client]:
    with Client(source.url, token="") as client:
        yield client


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "mirror")


def settings_of(mirror: Mirror, tmp_path: Path) -> Settings:
    return open_mirror(make_settings(tmp_path), mirror.folder, migrate_database)


def read(http: httpx.Client, path: str) -> Any:
    answer = http.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json() if answer.headers["content-type"] == "application/json" else answer.content


def test_a_served_mirror_answers_as_its_registry_does(
    source: Registry, client: Client, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.follow(client)
    paths = ["/api/v1/tickets?include_yanked=true&facets=task,verdict", "/api/v1/tickets?tag=small"]
    paths += [
        "/api/v1/tickets?sort=accuracy&origin=any",
        "/api/v1/tickets?q=stored",
        "/.well-known/jwks.json",
    ]
    paths += [
        "/api/v1/transfers",
        f"/api/v1/transfers?ticket={TICKETS[0].digest}",
        "/api/v1/transfers?task=mnist",
    ]
    paths += [f"/api/v1/tickets/{ticket.digest}" for ticket in TICKETS]
    paths += [f"/api/v1/tickets/{ticket.digest}/file" for ticket in TICKETS]
    for name in NAMES:
        rest = (
            "",
            "/file",
            "/layers",
            "/lineage",
            "/verifications",
            "/attestations",
            "/badge.svg",
            "/similar",
        )
        paths += [f"/api/v1/tickets/{name}{path}" for path in rest]
    paths += [
        "/api/v1/tasks",
        "/api/v1/tasks/ada/flowers",
        "/api/v1/tasks/ada/flowers/data",
        "/api/v1/tasks/ada/flowers/leaderboard",
        "/api/v1/tasks/mnist",
    ]
    verdicts = read(source.http, "/api/v1/tickets/ada/t1/verifications")["items"]
    paths += [f"/api/v1/tickets/ada/t1/verifications/{one['id']}/signed" for one in verdicts]
    assert len(verdicts) == 1
    with run_registry(settings_of(mirror, tmp_path)) as served:
        for path in paths:
            assert read(served.http, path) == read(source.http, path), path
        problem(served.http.get("/api/v1/tickets/ada/secret"), 404, "not-found")
        changes = read(served.http, "/api/v1/changes")["items"]
        assert {change["listing"] for change in changes} == {1, 2, 3, 4, 5}


def test_a_task_stays_in_a_mirror_with_what_becomes_of_it(
    source: Registry, client: Client, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.follow(client)
    assert [task["name"] for task in mirror.tasks()] == ["ada/flowers"]
    assert list(mirror.check()) == []
    again = Mirror(mirror.folder)
    again.follow(client)
    assert (again.counts.tasks, again.counts.files) == (0, 0)
    data = mirror.task_data(next(mirror.tasks()))
    data.write_bytes(data.read_bytes()[:-1])
    assert [line for line in mirror.check() if line.startswith("task ada/flowers: the data")]
    with pytest.raises(DataDamaged, match="the data of ada/flowers have"):
        settings_of(mirror, tmp_path)
    data.unlink()
    again.follow(client)
    assert list(again.check()) == []
    body = {"reason": "license"}
    source.http.post("/api/v1/tasks/ada/flowers/yank", json=body, headers=source.bearer())
    again.follow(client)
    assert (again.counts.tasks, next(mirror.tasks())["yank_reason"]) == (1, "license")
    assert data.exists()
    source.http.delete("/api/v1/tasks/ada/flowers", headers=source.bearer())
    again.follow(client)
    assert (again.counts.tasks, next(mirror.tasks())["removed_at"] is None) == (2, False)
    assert not data.exists(), "data that was taken away is not spread further"
    path = "/api/v1/tasks/ada/flowers"
    with run_registry(settings_of(mirror, tmp_path)) as served:
        problem(served.http.get(f"{path}/data"), 410, "gone")
        assert read(served.http, path) == read(source.http, path)


def test_a_ticket_for_a_task_that_nobody_made_stops_no_mirror(registry: Registry, mirror: Mirror) -> None:
    published = registry.publish(make_ticket(task="eve/none").to_bytes(), "odd", by="eve")
    assert published.status_code == 201, published.text
    with Client(registry.url, token="") as client:
        mirror.follow(client)
    assert [record["ticket"]["task"] for _, record in mirror.listings()] == ["eve/none"]
    assert list(mirror.tasks()) == []


def test_a_mirror_takes_no_writes_and_says_where_to(
    source: Registry, client: Client, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.follow(client)
    with run_registry(settings_of(mirror, tmp_path)) as served:
        answers = [
            served.publish(TICKETS[0].to_bytes(), "new", by="eve"),
            served.http.post("/api/v1/accounts", json={"name": "eve"}),
            served.http.patch("/api/v1/tickets/ada/t1", json={"card": None}),
            served.http.delete("/api/v1/tokens/1"),
            served.http.post("/api/v1/jobs", content=b"not JSON"),
        ]
        for answer in answers:
            assert problem(answer, 403, "read-only")["registry"] == source.url
        data, kind = TICKETS[0].to_bytes(), "application/vnd.nirvana.ticket"
        lint = served.http.post("/api/v1/tickets:lint", content=data, headers={"Content-Type": kind})
        assert lint.json()["ok"] is True  # nothing is stored


def test_a_mirror_that_was_stopped_midway_goes_on(client: Client, mirror: Mirror) -> None:
    seen: list[str] = []

    def stop_at_the_third(change: str) -> None:
        seen.append(change)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mirror.follow(client, stop_at_the_third)
    assert mirror.counts.files == 2
    again = Mirror(mirror.folder)
    again.follow(client)
    assert again.counts.files == 3  # t0 and copy have one, two were here; and the data of a task
    assert again.counts.listings == 5
    assert list(again.check()) == []
    third = Mirror(mirror.folder)
    third.follow(client)
    assert (third.counts.listings, third.counts.files) == (0, 0)


def test_a_mirror_follows_what_happens_later(source: Registry, client: Client, mirror: Mirror) -> None:
    mirror.follow(client)
    body = {"reason": "broken"}
    source.http.post("/api/v1/tickets/bob/t2/yank", json=body, headers=source.bearer("bob"))
    with source.database.write() as session:
        record_transfer(session, digest=TICKETS[1].digest, measured=FOUND, job_id="j2")
    mirror.follow(client)
    records = {record["ticket"]["name"]: record for _, record in mirror.listings()}
    assert records["t2"]["ticket"]["yank_reason"] == "broken"
    assert [one["job_id"] for one in records["t1"]["transfers"]] == ["j2"]
    assert len(records) == 5


def test_a_damaged_file_is_found_and_not_served(client: Client, mirror: Mirror, tmp_path: Path) -> None:
    mirror.follow(client)
    file = next((mirror.folder / "blobs").rglob("*.ticket"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert [line for line in mirror.check() if "found sha256:" in line]
    with pytest.raises(DataDamaged, match="lists all that is damaged"):
        settings_of(mirror, tmp_path)
    mirror.state_file.unlink()  # take everything again: what is intact is not downloaded
    again = Mirror(mirror.folder)
    again.follow(client)
    assert again.counts.files == 1
    assert list(again.check()) == []


def test_a_verdict_that_was_changed_is_found_and_not_served(
    client: Client, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.follow(client)
    path = mirror.folder / "listings" / "2.json"
    record = json.loads(path.read_text())
    record["evaluations"][0]["verdict"] = "TRIVIAL"
    path.write_text(json.dumps(record))
    assert [line for line in mirror.check() if "not what was signed" in line]
    with pytest.raises(DataDamaged, match="not what was signed"):
        settings_of(mirror, tmp_path)


def test_a_registry_that_sends_other_bytes_is_not_believed(
    source: Registry, client: Client, mirror: Mirror
) -> None:
    for path in (source.settings.home / "blobs").rglob("*.ticket"):
        path.write_bytes(TICKETS[2].to_bytes())
    with pytest.raises(InvalidTicket, match="expected sha256:"):
        mirror.follow(client)
    assert not mirror.state_file.exists()


def test_a_folder_of_another_registry_or_of_none_is_refused(
    client: Client, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.follow(client)
    with pytest.raises(NotFound, match="no mirror"):
        settings_of(Mirror(tmp_path / "empty"), tmp_path)
    state = json.loads(mirror.state_file.read_text())
    mirror.state_file.write_text(json.dumps(state | {"registry": "https://other.example"}))
    with pytest.raises(Conflict, match="mirrors https://other"):
        mirror.follow(client)
    mirror.state_file.write_text("{")
    with pytest.raises(DataDamaged, match="cannot be read"):
        mirror.follow(client)


def test_keys_of_somebody_else_sign_nothing(client: Client, mirror: Mirror) -> None:
    mirror.follow(client)
    (mirror.folder / "keys.json").write_text('{"keys": []}')
    assert [line for line in mirror.check() if "no key of the registry" in line]


class LyingClient(Client):
    """A registry whose answers have one field changed."""

    def __init__(self, url: str, place: str, value: object) -> None:
        super().__init__(url, token="")
        self.place, self.value = place, value

    def changes(self, since: int = 0, limit: int = 1000) -> dict[str, Any]:
        page = super().changes(since, limit)
        if self.place in page:
            return page | {self.place: self.value}
        if self.place in ("listing", "owner"):
            page["items"][0][self.place] = self.value
        return page

    def tasks(self, owner: str | None = None) -> Iterator[dict[str, Any]]:
        yield from ([{"name": self.value, "owner": "ada"}] if self.place == "task" else super().tasks(owner))

    def ticket(self, name: str) -> dict[str, Any]:
        shown = super().ticket(name)
        return shown | {self.place: self.value} if self.place in shown else shown


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("listing", "../../evil"),
        ("owner", "../evil"),
        ("file_sha256", "sha256:../../evil"),
        ("digest", "sha256:evil"),
        ("name", "../evil"),
        ("has_more", True),
        ("task", "ada/../../evil"),
    ],
)
def test_a_registry_that_lies_writes_and_removes_nothing_outside(
    registry: Registry, mirror: Mirror, tmp_path: Path, place: str, value: object
) -> None:
    registry.publish(TICKETS[0].to_bytes(), "t0")
    kept = tmp_path / "evil.ticket"
    kept.write_bytes(b"mine")
    with LyingClient(registry.url, place, value) as client, pytest.raises(DataDamaged):
        mirror.follow(client)
    assert kept.read_bytes() == b"mine"
    assert not list(tmp_path.rglob("evil.json"))
