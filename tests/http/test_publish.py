"""Publishing over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from app.storage import ticket_key
from app.tickets.models import Blob, Ticket
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import TICKET_TYPE, Registry, pointers, problem

TICKET = make_ticket()
DATA = TICKET.to_bytes()
OTHER = make_ticket(seed=3).to_bytes()


def count(registry: Registry, model: type[Ticket] | type[Blob]) -> int:
    with registry.database.read() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_a_published_ticket_is_shown_with_statistics_computed_from_it(each_registry: Registry) -> None:
    made = each_registry.publish(DATA, "first")
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/tickets/ada/first"
    shown = each_registry.http.get(made.headers["location"]).json()
    assert shown == made.json()
    assert shown["digest"] == TICKET.digest
    assert (shown["kept"], shown["total"]) == (TICKET.kept, TICKET.total)
    assert shown["layers"] == TICKET.layers()
    assert shown["verdict"] is None
    assert shown["manifest"] == TICKET.manifest()


def test_a_raw_body_is_published_under_the_name_of_the_query(registry: Registry) -> None:
    headers = registry.bearer() | {"Content-Type": TICKET_TYPE}
    made = registry.http.post("/api/v1/tickets?name=ada/raw", content=DATA, headers=headers)
    assert made.status_code == 201
    assert made.json()["name"] == "raw"


def test_the_same_ticket_under_the_same_name_again_changes_nothing(each_registry: Registry) -> None:
    assert each_registry.publish(DATA, "first").status_code == 201
    again = each_registry.publish(DATA, "first")
    assert again.status_code == 200
    assert again.json()["digest"] == TICKET.digest
    assert count(each_registry, Ticket) == 1


def test_a_name_that_is_taken_by_another_ticket_is_refused(each_registry: Registry) -> None:
    each_registry.publish(DATA, "first")
    detail = problem(each_registry.publish(OTHER, "first"), 409, "name-taken")["detail"]
    assert TICKET.digest in detail
    assert each_registry.http.get("/api/v1/tickets/ada/first").json()["digest"] == TICKET.digest


def test_the_same_ticket_under_another_owner_is_another_listing(each_registry: Registry) -> None:
    each_registry.publish(DATA, "first")
    assert each_registry.publish(DATA, "first", by="bob").status_code == 201
    assert count(each_registry, Ticket) == 2
    assert count(each_registry, Blob) == 1
    shown = each_registry.http.get(f"/api/v1/tickets/{TICKET.digest}").json()
    assert shown["owner"] == "ada"


def test_two_identical_uploads_at_once_both_answer_fine_and_make_one_row(each_registry: Registry) -> None:
    each_registry.bearer()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: each_registry.publish(DATA, "twin"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert count(each_registry, Ticket) == 1


def test_of_two_tickets_that_race_for_one_name_one_gets_it(each_registry: Registry) -> None:
    each_registry.bearer()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda data: each_registry.publish(data, "prize"), (DATA, OTHER)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert count(each_registry, Ticket) == 1


def publish_with_key(registry: Registry, key: str, data: bytes, name: str) -> httpx.Response:
    files = {"file": ("x.ticket", data, TICKET_TYPE)}
    headers = registry.bearer() | {"Idempotency-Key": key}
    return registry.http.post("/api/v1/tickets", files=files, data={"name": name}, headers=headers)


def test_an_idempotency_key_stands_for_one_request(each_registry: Registry) -> None:
    assert publish_with_key(each_registry, "k1", DATA, "first").status_code == 201
    assert publish_with_key(each_registry, "k1", DATA, "first").status_code == 200
    other = publish_with_key(each_registry, "k1", DATA, "second")
    problem(other, 409, "idempotency-mismatch")
    assert count(each_registry, Ticket) == 1


def test_a_refused_publication_does_not_use_up_its_key(registry: Registry) -> None:
    problem(publish_with_key(registry, "k1", DATA[:-1], "first"), 422, "invalid-ticket")
    assert publish_with_key(registry, "k1", DATA, "first").status_code == 201


@pytest.mark.parametrize("name", ["", "A", "../x", "-a", "a b", "x" * 101, "ada/x/y", "ada/"])
def test_a_bad_name_is_refused(registry: Registry, name: str) -> None:
    answer = registry.publish(DATA, name)
    assert answer.status_code in (403, 422), answer.text
    assert count(registry, Ticket) == 0


def test_nobody_publishes_under_the_name_of_another(registry: Registry) -> None:
    problem(registry.publish(DATA, "bob/first"), 403, "forbidden")


def test_a_form_without_a_file_or_a_name_says_what_is_missing(registry: Registry) -> None:
    headers = registry.bearer()
    nameless = registry.http.post("/api/v1/tickets", files={"file": ("x", DATA)}, headers=headers)
    assert pointers(problem(nameless, 422, "invalid")) == ["/name"]
    fileless = registry.http.post("/api/v1/tickets", files={"name": (None, "x")}, headers=headers)
    assert pointers(problem(fileless, 422, "invalid")) == ["/file"]


def test_an_unknown_field_of_the_form_is_refused(registry: Registry) -> None:
    answer = registry.publish(DATA, "first", visiblity="private")
    assert pointers(problem(answer, 422, "invalid")) == ["/visiblity"]


def test_a_broken_form_is_malformed(registry: Registry) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        headers = registry.bearer() | {"Content-Type": kind}
        problem(registry.http.post("/api/v1/tickets", content=b"!", headers=headers), 400, "malformed")


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_over_the_cap_is_refused_with_the_limit(make_registry: MakeRegistry, announce: bool) -> None:
    registry = make_registry(max_upload_bytes=1000)
    body = b"\0" * 200_000
    headers = registry.bearer() | {"Content-Type": TICKET_TYPE}
    pieces = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
    answer = registry.http.post(
        "/api/v1/tickets?name=x", content=body if announce else pieces, headers=headers
    )
    assert problem(answer, 413, "too-large")["limit_bytes"] == 1000
    assert problem(registry.publish(body[:1001], "x"), 413, "too-large")["limit_bytes"] == 1000


@pytest.mark.parametrize("kind", ["application/json", "application/x-pickle", ""])
def test_another_media_type_is_refused(registry: Registry, kind: str) -> None:
    headers = registry.bearer() | {"Content-Type": kind}
    answer = registry.http.post("/api/v1/tickets?name=x", content=b"{}", headers=headers)
    assert TICKET_TYPE in problem(answer, 415, "unsupported-media")["detail"]


def test_a_private_ticket_is_seen_by_its_owner_alone(each_registry: Registry) -> None:
    each_registry.publish(DATA, "secret", visibility="private")
    for path in ("ada/secret", "ada/secret/file", "ada/secret/layers", TICKET.digest):
        problem(each_registry.http.get(f"/api/v1/tickets/{path}"), 404, "not-found")
        other = each_registry.http.get(f"/api/v1/tickets/{path}", headers=each_registry.bearer("bob"))
        problem(other, 404, "not-found")
        own = each_registry.http.get(f"/api/v1/tickets/{path}", headers=each_registry.bearer())
        assert own.status_code == 200
    assert each_registry.search() == []
    found = each_registry.http.get("/api/v1/tickets", headers=each_registry.bearer()).json()
    assert [item["name"] for item in found["items"]] == ["secret"]
    assert each_registry.http.get("/tickets/ada/secret").status_code == 404


def test_the_file_lies_in_the_blob_store_before_the_row_is_there(registry: Registry) -> None:
    made = registry.publish(DATA, "first").json()
    assert registry.storage.get(ticket_key(made["file_sha256"])) == DATA


def test_linting_stores_nothing_and_says_what_publishing_would(registry: Registry) -> None:
    good = registry.http.post("/api/v1/tickets:lint", content=DATA, headers={"Content-Type": TICKET_TYPE})
    assert good.json()["ok"] is True
    assert good.json()["digest"] == TICKET.digest
    bad = registry.http.post("/api/v1/tickets:lint", content=DATA[:-1], headers={"Content-Type": TICKET_TYPE})
    assert (bad.status_code, bad.json()["ok"]) == (200, False)
    assert bad.json()["errors"]
    assert count(registry, Ticket) == count(registry, Blob) == 0


def test_a_ticket_for_an_unknown_task_is_taken_with_a_warning(registry: Registry) -> None:
    data = make_ticket(task="imagenet").to_bytes()
    assert "nobody can verify" in registry.publish(data, "big").json()["warnings"][0]
