"""The log of changes: complete, in the order of commits, and silent about what is private."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from sqlalchemy import update

from app.changes.feeds import NAMESPACE
from app.changes.service import note_change
from app.dumps.writing import store_dump
from app.evaluations.origins import Outcome, record_attestation
from app.tickets.models import Listing
from tests.factories import make_ticket
from tests.registry import VERDICT, Registry, measure, problem

TICKET = make_ticket()
DATA = TICKET.to_bytes()


def follow(registry: Registry, since: int = 0, limit: int = 100) -> Iterator[dict[str, Any]]:
    """Yield every change after a serial, page by page."""
    while True:
        query = {"since": since, "limit": limit}
        page = registry.http.get("/api/v1/changes", params=query).json()
        yield from page["items"]
        since = page["last_serial"]
        if not page["has_more"]:
            return


def kinds(registry: Registry, since: int = 0) -> list[tuple[str, str | None]]:
    return [(change["kind"], change["name"]) for change in follow(registry, since)]


def post(registry: Registry, path: str, **body: Any) -> None:
    answer = registry.http.post(f"/api/v1/tickets/{path}", json=body, headers=registry.bearer())
    assert answer.status_code == 200, answer.text


def test_everything_that_happens_to_a_listing_is_in_the_log(each_registry: Registry) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    registry.publish(DATA, "first")  # again: nothing happens
    post(registry, "ada/first/yank", reason="broken")
    post(registry, "ada/first/unyank")
    card, path = {"card": "found on a laptop", "tags": []}, "/api/v1/tickets/ada/first"
    assert registry.http.patch(path, json=card, headers=registry.bearer()).status_code == 200
    with registry.database.write() as session:
        measure(session, TICKET.digest, VERDICT)
    outcome = Outcome(TICKET.digest, "digits", "found", TICKET.digest, 1.0, {})
    with registry.database.write() as session:
        record_attestation(session, outcome, "job")
    happened = ["published", "yanked", "unyanked", "card", "verdict", "origin"]
    assert kinds(registry) == [(kind, "first") for kind in happened]
    changes = list(follow(registry, limit=1))  # by pages of one
    assert [change["kind"] for change in changes] == happened
    assert changes[0]["digest"] == TICKET.digest
    assert changes[0]["file_sha256"] == registry.http.get("/api/v1/tickets/ada/first").json()["file_sha256"]
    assert kinds(registry, changes[-1]["serial"]) == []
    assert kinds(registry, 2**31 - 1) == []


def test_what_was_rolled_back_did_not_happen(each_registry: Registry) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    other = make_ticket(seed=5).to_bytes()
    problem(registry.publish(other, "first"), 409, "name-taken")
    with registry.database.make_writer() as session:
        session.execute(update(Listing).values(card="never"))
        note_change(session, "yanked", [1])
        session.rollback()
        session.commit()
    assert kinds(registry) == [("published", "first")]


def test_a_private_listing_is_never_named(each_registry: Registry) -> None:
    registry = each_registry
    registry.publish(DATA, "secret", visibility="private")
    assert kinds(registry) == []
    for visibility, kind in (("public", "shown"), ("private", "hidden")):
        with registry.database.write() as session:
            session.execute(update(Listing).values(visibility=visibility))
            note_change(session, kind, [1])
        if visibility == "public":
            assert kinds(registry) == [("published", "secret"), ("shown", "secret")]
    (tombstone,) = follow(registry)
    assert tombstone.pop("created_at")
    assert tombstone == {"serial": 3, "kind": "hidden", "listing": 1} | dict.fromkeys(
        ("owner", "name", "digest", "file_sha256")
    )
    answer = registry.http.get("/api/v1/changes", headers=registry.bearer())  # not even to its owner
    assert "secret" not in answer.text


def test_a_reader_who_follows_while_many_publish_misses_nothing(each_registry: Registry) -> None:
    registry = each_registry
    files = [make_ticket(seed=seed).to_bytes() for seed in range(24)]
    registry.bearer()

    def publish(first: int) -> None:
        for number in range(first, len(files), 3):
            assert registry.publish(files[number], f"t{number}").status_code == 201

    writers = [threading.Thread(target=publish, args=(first,)) for first in range(3)]
    for writer in writers:
        writer.start()
    seen, since = list[str](), 0
    while True:
        over = not any(writer.is_alive() for writer in writers)
        for change in follow(registry, since, limit=5):
            assert change["serial"] > since
            since = change["serial"]
            seen.append(change["name"])
        if over:
            break
    assert sorted(seen) == sorted(f"t{number}" for number in range(len(files)))


def test_a_serial_that_is_none_is_refused(registry: Registry) -> None:
    for since in ("-1", "x", str(2**31), "9" * 500):
        problem(registry.http.get("/api/v1/changes", params={"since": since}), 422, "invalid")


def test_a_dump_is_listed_and_handed_out_with_its_ranges(registry: Registry) -> None:
    assert registry.http.get("/api/v1/dumps").json()["items"] == []
    registry.publish(DATA, "first")
    registry.publish(make_ticket(seed=4).to_bytes(), "secret", visibility="private")
    store_dump(registry.database, registry.storage, registry.url, keep=1)
    (dump,) = registry.http.get("/api/v1/dumps").json()["items"]
    path = f"/api/v1/dumps/{dump['name']}/tickets.jsonl"
    whole = registry.http.get(path)
    assert [json.loads(line)["name"] for line in whole.text.splitlines()] == ["first"]
    assert hashlib.sha256(whole.content).hexdigest() == dump["files"]["tickets.jsonl"]["sha256"]
    part = registry.http.get(path, headers={"Range": "bytes=5-"})
    assert (part.status_code, part.content) == (206, whole.content[5:])
    same = registry.http.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304
    assert list(follow(registry, dump["serial"])) == []  # the rest begins where the dump ends
    for other in (f"/api/v1/dumps/{dump['name']}/x", "/api/v1/dumps/2000-01-01-1/tickets.jsonl"):
        problem(registry.http.get(other), 404, "not-found")


def test_feeds_have_new_tickets_and_verdicts_of_all_tasks_or_of_one(each_registry: Registry) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    registry.publish(make_ticket(seed=4).to_bytes(), "secret", visibility="private")
    registry.publish(make_ticket(seed=5, task="mnist", description="<&>").to_bytes(), "other")
    with registry.database.write() as session:
        measure(session, TICKET.digest, VERDICT)
    titles = {}
    for path in ("tickets", "tasks/digits", "tasks/mnist", "tasks/nobody"):
        answer = registry.http.get(f"/api/v1/feeds/{path}.atom")
        assert answer.headers["content-type"].startswith("application/atom+xml")
        tree = ElementTree.fromstring(answer.content)
        titles[path] = [node.text for node in tree.iterfind("a:entry/a:title", {"a": NAMESPACE})]
        known = {"If-None-Match": answer.headers["etag"]}
        again = registry.http.get(f"/api/v1/feeds/{path}.atom", headers=known)
        assert again.status_code == 304
    assert titles["tickets"] == [
        "ada/first (digits): winning",
        "ada/other (mnist): new ticket",
        "ada/first (digits): new ticket",
    ]
    assert titles["tasks/mnist"] == ["ada/other (mnist): new ticket"]
    assert len(titles["tasks/digits"]) == 2
    assert titles["tasks/nobody"] == []
    problem(registry.http.get("/api/v1/feeds/tasks/%01.atom"), 422, "invalid")
