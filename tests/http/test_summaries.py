"""Summaries of a search are kept by version: whatever changes a listing is on the next page that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from app.evaluations.origins import Outcome, record_attestation
from app.tickets import summaries
from app.tickets.models import Listing
from app.tickets.search import results
from app.tickets.search.plans import Hit
from tests.factories import make_ticket, permute_units
from tests.registry import VERDICT, Registry, measure

TICKET = make_ticket()
ROOT = ("root", "admin")
FIRST = "/api/v1/tickets/ada/first"
Change = Callable[[Registry], object]


def send(method: str, path: str, *who: str, **body: Any) -> Change:
    def change(registry: Registry) -> None:
        answer = registry.http.request(method, path, json=body or None, headers=registry.bearer(*who))
        assert answer.status_code in (200, 204), answer.text

    return change


def evaluate(registry: Registry) -> None:
    with registry.database.write() as session:
        measure(session, TICKET.digest, dict(VERDICT))


def attest(registry: Registry) -> None:
    with registry.database.write() as session:
        outcome = Outcome(TICKET.digest, "digits", "found", TICKET.digest, 1.0, {})
        record_attestation(session, outcome, "a-job")


def download(registry: Registry) -> None:
    with registry.database.write() as session:
        session.execute(update(Listing).where(Listing.name == "first").values(downloads=7))


CHANGES: dict[str, tuple[Change, str, object]] = {
    "verdict": (evaluate, "verdict", "WINNING"),
    "origin": (attest, "origin", "attested"),
    "tags": (send("PATCH", FIRST, "ada", tags=["small"]), "tags", ["small"]),
    "downloads": (download, "downloads", 7),
    "visibility": (send("PATCH", FIRST, "ada", visibility="private"), "visibility", "private"),
    "yank": (send("POST", f"{FIRST}/yank", "ada", reason="broken"), "yank_reason", "broken"),
    "the first of a copy": (send("POST", f"{FIRST}/yank", "ada", reason="broken"), "copy_of", None),
}


def shown(registry: Registry) -> dict[str, dict[str, Any]]:
    """The items of a search that everything is found by, each held against the listing's own page."""
    query = {"include_yanked": "true", "origin": "any", "limit": "100"}
    headers = registry.bearer("ada")
    items = registry.http.get("/api/v1/tickets", params=query, headers=headers).json()["items"]
    for item in items:
        path = f"/api/v1/tickets/{item['owner']}/{item['name']}"
        own = registry.http.get(path, headers=headers).json()
        assert {name: own[name] for name in item if name != "more"} | {"more": 0} == item
    return {item["name"]: item for item in items}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_on_the_next_page(each_registry: Registry, what: str) -> None:
    change, member, expected = CHANGES[what]
    each_registry.publish(TICKET.to_bytes(), "first")
    each_registry.publish(permute_units(TICKET, 1).to_bytes(), "copy", by="bob")
    name = "copy" if member == "copy_of" else "first"
    before = shown(each_registry)
    assert (set(before), before[name][member] != expected) == ({"first", "copy"}, True)
    change(each_registry)
    assert shown(each_registry)[name][member] == expected


def test_a_release_from_quarantine_is_on_the_next_page(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    each_registry.publish(permute_units(TICKET, 1).to_bytes(), "copy", by="bob")
    shown(each_registry)
    send("POST", f"{FIRST}/quarantine", *ROOT, reason="a report")(each_registry)
    assert {name: item["copy_of"] for name, item in shown(each_registry).items()} == {"copy": None}
    send("POST", f"{FIRST}/release", *ROOT, reason="a mistake")(each_registry)
    expected = {"first": None, "copy": "ada/first"}
    assert {name: item["copy_of"] for name, item in shown(each_registry).items()} == expected


def test_one_who_may_not_see_a_listing_gets_no_kept_summary_of_it(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first", visibility="private")
    assert set(shown(each_registry)) == {"first"}
    assert each_registry.search() == []


def test_what_was_shown_last_is_kept(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, loads = summaries.Summaries(most=2), list[list[int]]()

    def note(session: Any, ids: list[int]) -> list[Listing]:
        loads.append(list(ids))
        return results.load(session, ids)

    monkeypatch.setattr(summaries, "load", note)
    for seed in range(3):
        registry.publish(make_ticket(seed=seed).to_bytes(), f"t{seed}")
    with registry.database.read() as session:
        for numbers in ((1, 2), (1,), (3,), (1,), (2,), (3, 1, 2)):
            kept.summarise(session, [Hit(number, 0, 1, 0, None) for number in numbers])
    assert loads == [[1, 2], [3], [2], [3]]
