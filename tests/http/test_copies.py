"""Copies: a ticket listed again, by a byte copy or with its units in another order, is said to be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from app.__main__ import main
from app.tickets.files.serving import limits_of
from app.tickets.models import Listing
from app.tickets.publishing import Publication, fill_fingerprints, publish_ticket
from app.tickets.service import list_known
from tests.factories import make_masks, make_ticket, permute_units
from tests.http.test_pages import check_page
from tests.registry import VERDICT, Registry, measure

TICKET = make_ticket()
DATA = TICKET.to_bytes()
PERMUTED = permute_units(TICKET, 1)
AGAIN = permute_units(TICKET, 2)
OTHER = make_ticket(masks=make_masks(TICKET.architecture, 0.2, 9))
HTML = {"Accept": "text/html"}


def copy_of(registry: Registry, name: str, by: str | None = None) -> Any:
    headers = registry.bearer(by) if by else {}
    answer = registry.http.get(f"/api/v1/tickets/{name}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["copy_of"]


def yank(registry: Registry, name: str, by: str) -> None:
    body = {"reason": "withdrawn"}
    answer = registry.http.post(f"/api/v1/tickets/{name}/yank", json=body, headers=registry.bearer(by))
    assert answer.status_code == 200, answer.text


def test_copies_name_the_first_public_listing_wherever_they_are_listed(each_registry: Registry) -> None:
    registry = each_registry
    assert registry.publish(DATA, "first").json()["copy_of"] is None
    assert registry.publish(DATA, "bytes", by="bob").json()["copy_of"] == "ada/first"
    assert registry.publish(PERMUTED.to_bytes(), "mine", by="bob").json()["copy_of"] == "ada/first"
    assert registry.publish(DATA, "second").json()["copy_of"] == "ada/first"
    assert registry.publish(OTHER.to_bytes(), "other", by="bob").json()["copy_of"] is None
    assert registry.publish(AGAIN.to_bytes(), "more", by="eve").json()["copy_of"] == "ada/first"
    items = registry.http.get("/api/v1/tickets").json()["items"]
    expected = {"bob/bytes", "bob/mine", "ada/second", "eve/more"}
    assert {f"{item['owner']}/{item['name']}" for item in items if item["copy_of"] == "ada/first"} == expected
    assert {item["name"] for item in items if item["copy_of"] is None} == {"first", "other"}
    path = "/api/v1/tasks/digits/leaderboard"
    board = registry.http.get(path, params={"brought_in": True}).json()["items"]
    assert {item["name"] for item in board if item["copy_of"] is None} == {"first", "other"}


def test_pages_show_a_copy_as_one_and_no_second_win(registry: Registry) -> None:
    registry.publish(DATA, "first")
    registry.publish(DATA, "bytes", by="bob")
    with registry.database.write() as session:
        measure(session, TICKET.digest, dict(VERDICT))
    for address in ("/?sort=accuracy", "/?verdict=WINNING&origin=any", "/tasks/digits?brought_in=true"):
        html = registry.http.get(address, headers=HTML).text
        check_page(html)
        assert html.count('copy of <a href="/tickets/ada/first">ada/first</a>') == 1
        assert html.count('<span class="verdict good">winning</span>') == 1
    html = registry.http.get("/tickets/bob/bytes", headers=HTML).text
    check_page(html)
    assert 'A copy of <a href="/tickets/ada/first">' in html
    assert "copy of" not in registry.http.get("/tickets/ada/first", headers=HTML).text


def test_a_private_listing_is_never_named_to_others_nor_to_its_owner(registry: Registry) -> None:
    registry.publish(DATA, "secret", visibility="private")
    public = registry.publish(PERMUTED.to_bytes(), "mine", by="bob").json()
    assert public["copy_of"] is None
    assert copy_of(registry, "bob/mine", by="ada") is None
    assert copy_of(registry, "ada/secret", by="ada") is None  # it was first, whatever is public now
    registry.publish(AGAIN.to_bytes(), "more", by="eve")
    assert copy_of(registry, "eve/more") == copy_of(registry, "eve/more", by="ada") == "bob/mine"
    private = registry.publish(DATA, "late", by="eve", visibility="private").json()
    assert private["copy_of"] == "bob/mine"
    for address in ("/", "/tickets/bob/mine", "/tickets/eve/more", "/tasks/digits", "/api/v1/tickets"):
        assert "secret" not in registry.http.get(address, headers=HTML).text


def test_a_yanked_listing_is_not_named_and_tags_of_its_copies_change(registry: Registry) -> None:
    registry.publish(DATA, "first")
    registry.publish(PERMUTED.to_bytes(), "mine", by="bob")
    registry.publish(DATA, "late", by="eve")
    tags = [registry.http.get(f"/api/v1/tickets/{name}").headers["etag"] for name in ("bob/mine", "eve/late")]
    yank(registry, "ada/first", "ada")
    for name, tag in zip(("bob/mine", "eve/late"), tags, strict=True):
        answer = registry.http.get(f"/api/v1/tickets/{name}", headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert "ada/first" not in answer.text
    assert (copy_of(registry, "bob/mine"), copy_of(registry, "eve/late")) == (None, "bob/mine")
    assert copy_of(registry, "ada/first") is None
    answer = registry.http.post("/api/v1/tickets/ada/first/unyank", headers=registry.bearer())
    assert answer.status_code == 200
    assert copy_of(registry, "bob/mine") == "ada/first"


def test_no_account_makes_an_earlier_listing_a_copy(registry: Registry) -> None:
    registry.publish(DATA, "first")
    tag = registry.http.get("/api/v1/tickets/ada/first").headers["etag"]
    for number, copy in enumerate((DATA, PERMUTED.to_bytes(), AGAIN.to_bytes())):
        registry.publish(copy, f"mine-{number}", by="bob")
    yank(registry, "bob/mine-0", "bob")
    assert copy_of(registry, "ada/first") is None
    listings = registry.http.get(f"/api/v1/tickets/{TICKET.digest}").json()["listings"]
    assert [f"{one['owner']}/{one['name']}" for one in listings] == ["ada/first", "bob/mine-0"]
    answer = registry.http.get("/api/v1/tickets/ada/first", headers={"If-None-Match": tag})
    assert answer.status_code in (200, 304)


def test_listings_of_an_older_version_get_their_fingerprints_from_their_files(
    each_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    registry.publish(PERMUTED.to_bytes(), "mine", by="bob")
    with registry.database.write() as session:
        session.execute(update(Listing).values(fingerprint=None))
    assert copy_of(registry, "bob/mine") is None
    with registry.database.write() as session:
        assert fill_fingerprints(session, registry.storage, limits_of(registry.settings)) == 2
        assert fill_fingerprints(session, registry.storage, limits_of(registry.settings)) == 0
    assert copy_of(registry, "bob/mine") == "ada/first"
    monkeypatch.setenv("NIRVANA_DATABASE_URL", registry.settings.database_url)
    monkeypatch.setenv("NIRVANA_HOME", str(registry.settings.home))
    monkeypatch.setenv("NIRVANA_BLOB_URL", registry.settings.blob_url)
    assert main(["fingerprint"]) == 0


def test_what_a_ticket_nearly_copies_is_known_to_gate_0_however_many_came_since(
    each_registry: Registry,
) -> None:
    registry, account = each_registry, each_registry.account()
    masks = {name: mask.copy() for name, mask in PERMUTED.masks.items()}
    row = masks["fc1.weight"][3]
    row[np.flatnonzero(row)[0]] = False
    near = make_ticket(masks=masks, stored=True)
    with registry.database.write() as session:
        for seed in range(12):
            ticket = (
                TICKET if not seed else make_ticket(masks=make_masks(TICKET.architecture, 0.2, 30 + seed))
            )
            publication = Publication(account, f"t-{seed}")
            publish_ticket(session, registry.storage, ticket.to_bytes(), publication)
        publish_ticket(session, registry.storage, near.to_bytes(), Publication(account, "near"))
    with registry.database.read() as session:
        names = [name for name, _ in list_known(session, near.digest, 3, 10**9)]
    assert names == ["ada/t-0", "ada/t-11", "ada/t-10"]


def test_the_listed_density_is_of_the_whole_network(registry: Registry) -> None:
    masks = {"fc2.weight": TICKET.masks["fc2.weight"]}
    partial = make_ticket(masks=masks, prunable=["fc2.weight"])
    registry.publish(partial.to_bytes(), "partial")
    registry.publish(DATA, "whole")
    shown = registry.http.get("/api/v1/tickets/ada/partial").json()
    assert (shown["kept"], shown["total"]) == (partial.kept, 1184)
    assert shown["density"] == partial.kept / 1184 > 0.85
    assert (shown["kept_parameters"], shown["parameters"]) == (partial.kept + 26, 1184 + 26)
    assert [layer["name"] for layer in shown["layers"]] == ["fc1.weight", "fc2.weight"]
    assert any("fc1.weight" in warning for warning in shown["warnings"])
    assert registry.search(sort="density") == ["whole", "partial"]
    assert registry.search(density="max:0.5") == ["whole"]
    html = registry.http.get("/tickets/ada/partial", headers=HTML).text
    assert "1,082 of 1,210 parameters" in html
