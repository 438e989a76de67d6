"""Search over HTTP, on both databases."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.db import utc_now
from app.tickets.publishing import Publication, publish_ticket
from app.tickets.search import plans, results
from tests.factories import make_masks, make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import EACH, VERDICT, Registry, measure, pointers, problem


def verify(registry: Registry, digest: str, accuracy: float, verdict: str = "WINNING") -> None:
    arms = {"ticket": [accuracy] * 5, "dense": [0.95] * 5}
    with registry.database.write() as session:
        measure(session, digest, VERDICT | {"arms": arms, "verdict": verdict})


@pytest.fixture(params=EACH)
def full(request: pytest.FixtureRequest, make_registry: MakeRegistry) -> Registry:
    """Five tickets: t0 ... t3 with densities .1 to .4, of which t1 and t2 are verified, and one of bob's."""
    registry = make_registry(request.param)
    digests = []
    for number in range(4):
        ticket = make_ticket(density=(number + 1) / 10, description=f"the {number}th of a set")
        digests.append(ticket.digest)
        assert registry.publish(ticket.to_bytes(), f"t{number}").status_code == 201
    other = make_ticket("mlp-24", task="mnist", provenance={"method": "one-shot"}, stored=True)
    assert registry.publish(other.to_bytes(), "other", by="bob").status_code == 201
    verify(registry, digests[1], 0.97)
    verify(registry, digests[2], 0.93, "NOT_MATCHING")
    return registry


def test_filters_and_orders_find_what_they_say(full: Registry) -> None:
    hour = timedelta(hours=1)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["other", "t3", "t2", "t1", "t0"]),
        ({"order": "asc"}, ["t0", "t1", "t2", "t3", "other"]),
        ({"task": "digits"}, ["t3", "t2", "t1", "t0"]),
        ({"architecture": "mlp-24"}, ["other"]),
        ({"family": "mlp", "limit": 2}, ["other", "t3"]),
        ({"method": "one-shot"}, ["other"]),
        ({"owner": "bob"}, ["other"]),
        ({"owner": "nobody"}, []),
        ({"verdict": "winning"}, []),
        ({"verdict": "winning", "origin": "any"}, ["t1"]),
        ({"verdict": "winning", "origin": "brought-in"}, ["t1"]),
        ({"verdict": "winning", "origin": "attested"}, []),
        ({"origin": "sealed"}, []),
        ({"verdict": "NOT_MATCHING"}, ["t2"]),
        ({"init": "stored"}, ["other"]),
        ({"license": "MIT"}, []),
        ({"density": "max:0.25", "task": "digits"}, ["t1", "t0"]),
        ({"density": "min:0.15,max:0.25", "task": "digits"}, ["t1"]),
        ({"kept": "min:100000"}, []),
        ({"rewind_step": "min:1"}, []),
        ({"accuracy": "min:0.9"}, ["t2", "t1"]),
        ({"accuracy": "min:0.95"}, ["t1"]),
        ({"accuracy_gap": "max:0"}, ["t2"]),
        ({"created_at": f"min:{(utc_now() + hour).isoformat()}"}, []),
        ({"created_at": f"max:{(utc_now() + hour).isoformat()}", "owner": "bob"}, ["other"]),
        ({"sort": "accuracy"}, ["t1", "t2", "other", "t3", "t0"]),
        ({"sort": "gap", "limit": 2}, ["t1", "t2"]),
        ({"sort": "density", "task": "digits"}, ["t0", "t1", "t2", "t3"]),
        ({"sort": "kept", "order": "desc", "task": "digits"}, ["t3", "t2", "t1", "t0"]),
        ({"q": "2th"}, ["t2"]),
        ({"q": "MLP set 3"}, ["t3"]),
        ({"q": "dig imp t1"}, ["t1"]),
        ({"q": "nowhere"}, []),
        ({"q": "%"}, []),
        ({"q": "t"}, ["t3", "t2", "t1", "t0"]),
        ({"q": "mlp", "sort": "kept", "task": "digits"}, ["t0", "t1", "t2", "t3"]),
        ({"q": " ".join(["the", "of", "a", "set", *"abcdefghijklmnopqrstuvwxyz0123456789"])}, []),
        ({"train_bytes": "max:4000", "task": "digits"}, ["t0"]),
        ({"speedup": "min:9"}, ["t0"]),
        ({"sort": "speedup", "task": "digits"}, ["t0", "t1", "t2", "t3"]),
        ({"sort": "downloads", "order": "asc", "limit": 2}, ["t0", "t1"]),
        ({"accuracy": "min:0.9", "task": "digits", "sort": "kept"}, ["t1", "t2"]),
        ({"density": "max:0.25", "task": "digits", "sort": "accuracy"}, ["t1", "t0"]),
    ]
    for query, names in cases:
        found = full.search(**query)
        assert found == names, query


def test_pages_follow_each_other_without_gaps_or_repeats(full: Registry) -> None:
    for sort in ("created_at", "accuracy", "gap", "density", "kept"):
        for order in ("asc", "desc"):
            query: dict[str, Any] = {"sort": sort, "order": order}
            whole = full.search(**query)
            assert len(whole) == 5
            assert [name for page in pages(full, query | {"limit": 2}) for name in page] == whole


def pages(registry: Registry, query: dict[str, Any]) -> Iterator[list[str]]:
    """Names of each page, by the Link header; the body says the same."""
    answer = registry.http.get("/api/v1/tickets", params=query)
    assert answer.json()["total"] == 5
    while True:
        body = answer.json()
        yield [item["name"] for item in body["items"]]
        if "next" not in answer.links:
            assert body["next_cursor"] is None
            return
        url = answer.links["next"]["url"]
        assert body["next_cursor"] in url
        answer = registry.http.get(url)


def test_the_smallest_ticket_that_is_accurate_and_trains_in_little_memory_is_one_query(
    full: Registry,
) -> None:
    query = {
        "task": "digits",
        "accuracy": "min:0.9",
        "train_bytes": "max:300000",
        "sort": "kept",
        "limit": "1",
    }
    (item,) = full.http.get("/api/v1/tickets", params=query).json()["items"]
    assert (item["name"], item["train_bytes"] < 300_000) == ("t1", True)
    assert full.search(**query | {"train_bytes": "max:5000"}) == []


def test_pages_go_back_as_they_came(full: Registry) -> None:
    for query in ({"sort": "density"}, {"sort": "accuracy", "order": "asc"}, {"q": "mlp"}, {"q": "mlp imp"}):
        forward, answer = [], full.http.get("/api/v1/tickets", params=query | {"limit": "2"})
        assert "prev" not in answer.links
        assert answer.json()["previous_cursor"] is None
        while True:
            forward.append([item["name"] for item in answer.json()["items"]])
            if "next" not in answer.links:
                break
            answer = full.http.get(answer.links["next"]["url"])
        backward = [forward[-1]]
        while "prev" in answer.links:
            answer = full.http.get(answer.links["prev"]["url"])
            backward.append([item["name"] for item in answer.json()["items"]])
        assert backward[::-1] == forward, query
        assert len(forward) >= 2


def test_a_link_to_another_page_repeats_no_host_of_the_caller(full: Registry) -> None:
    headers = {"Host": "evil.example"}
    answer = full.http.get("/api/v1/tickets", params={"limit": 1, "q": "mlp"}, headers=headers)
    assert answer.headers["link"].startswith("</api/v1/tickets?limit=1&q=mlp&cursor=")
    assert "evil" not in answer.headers["link"]


def test_words_in_the_name_go_before_words_about_it_and_those_before_the_rest(
    each_registry: Registry,
) -> None:
    fields = {"in-text": "a sparrow", "sparrow-1": "", "tagged": ""}
    for seed, (name, text) in enumerate(fields.items()):
        each_registry.publish(make_ticket(seed=seed, description=text).to_bytes(), name)
    change = {"tags": ["sparrow"], "card": "No **bird**: a _nest_."}
    path = "/api/v1/tickets/ada/tagged"
    assert each_registry.http.patch(path, json=change, headers=each_registry.bearer()).status_code == 200
    assert each_registry.search(q="sparrow") == ["sparrow-1", "tagged", "in-text"]
    assert each_registry.search(q="spar") == ["sparrow-1", "tagged", "in-text"]
    assert each_registry.search(q="sparrow", sort="created_at", order="asc") == list(fields)
    assert each_registry.search(q="nest SPARROW") == ["tagged"]
    assert each_registry.search(q="sparrow", limit=1) == ["sparrow-1"]
    each_registry.http.patch(path, json={"tags": [], "card": None}, headers=each_registry.bearer())
    assert each_registry.search(q="sparrow") == ["sparrow-1", "in-text"]


@pytest.mark.parametrize(
    "word", ["'", '"', "a'b", 'a" OR "b', "a* NOT b", "{name}: x", "a:*", "\\", "é & |", "((("]
)
def test_no_sign_in_the_words_is_one_of_the_engine_s_own(each_registry: Registry, word: str) -> None:
    each_registry.publish(make_ticket(description="é ab b").to_bytes(), "one")
    assert each_registry.http.get("/api/v1/tickets", params={"q": word}).status_code == 200


def test_tickets_of_one_job_are_one_row_that_says_how_many_more(each_registry: Registry) -> None:
    owner = each_registry.account()
    with each_registry.database.write() as session:
        for level in range(4):
            data = make_ticket(density=0.4 - 0.1 * level, seed=level).to_bytes()
            publication = Publication(owner, f"level-{level}", job_id="job-1" if level else None)
            publish_ticket(session, each_registry.storage, data, publication)
    query: dict[str, Any] = {"collapse": True, "sort": "density"}
    items = each_registry.http.get("/api/v1/tickets", params=query).json()["items"]
    assert [(item["name"], item["more"]) for item in items] == [("level-3", 2), ("level-0", 0)]
    items = each_registry.http.get("/api/v1/tickets", params=query | {"density": "min:0.15"}).json()["items"]
    assert [(item["name"], item["more"]) for item in items] == [("level-2", 1), ("level-0", 0)]
    page = each_registry.http.get("/", params={"collapse": True, "sort": "density"}).text
    assert "and 2 more of its search" in page


def test_totals_and_facets_are_estimates_beyond_their_bound_and_say_so(
    full: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FEW", 0)
    monkeypatch.setattr(results, "LOOKS", 2)
    query = {"density": "min:0.01", "limit": "1", "facets": "task"}
    answer = full.http.get("/api/v1/tickets", params=query).json()
    assert (answer["total_is_exact"], answer["facets_are_exact"]) == (False, False)
    assert answer["total"] == 5, "two of the newest two, of five"
    assert full.search(density="min:0.01") == ["other", "t3", "t2", "t1", "t0"], "the rows are all there"
    exact = full.http.get("/api/v1/tickets", params={"task": "digits", "limit": 1, "facets": "method"}).json()
    assert (exact["total"], exact["total_is_exact"], exact["facets_are_exact"]) == (4, True, True)


def test_every_way_of_a_search_finds_the_same(full: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[dict[str, Any]] = [
        {"task": "digits", "accuracy": "min:0.9", "sort": "kept"},
        {"task": "digits", "density": "max:0.35", "sort": "accuracy"},
        {"architecture": "mlp-16", "method": "imp", "sort": "density"},
        {"verdict": "winning", "origin": "any"},
        {"owner": "ada", "sort": "gap"},
        {"q": "mlp imp"},
        {"q": "mlp", "sort": "accuracy", "task": "digits"},
        {"kept": "min:1", "density": "max:0.3", "sort": "created_at", "order": "asc"},
    ]
    few = [full.search(**query) for query in queries]
    assert all(few)
    monkeypatch.setattr(plans, "FEW", 0)
    monkeypatch.setattr(results, "CHUNK", 1)
    assert [full.search(**query) for query in queries] == few
    monkeypatch.setattr(plans, "MOST_GROUPS", 0)
    assert [full.search(**query) for query in queries] == few


def test_similar_tickets_share_part_of_their_masks(each_registry: Registry) -> None:
    ticket = make_ticket("lenet-300-100")
    nearly = {name: mask.copy() for name, mask in ticket.masks.items()}
    nearly["fc1.weight"][0, :3] = True
    tickets = {
        "first": ticket,
        "nearly": make_ticket("lenet-300-100", masks=nearly),
        "other": make_ticket("lenet-300-100", masks=make_masks(ticket.architecture, 0.2, 99)),
    }
    for name, one in tickets.items():
        each_registry.publish(one.to_bytes(), name)
    each_registry.publish(tickets["nearly"].to_bytes(), "secret", by="bob", visibility="private")
    assert each_registry.search(similar_to=ticket.digest) == ["nearly"]
    assert each_registry.search(similar_to=ticket.digest, method="one-shot") == []
    assert each_registry.search(similar_to="sha256:" + "0" * 64) == []
    for name in ("ada/first", ticket.digest):
        items = each_registry.http.get(f"/api/v1/tickets/{name}/similar").json()["items"]
        assert [(item["name"], item["shared"] > 0.9) for item in items] == [("nearly", True)]
    own = each_registry.http.get("/api/v1/tickets/ada/first/similar", headers=each_registry.bearer("bob"))
    assert sorted(item["name"] for item in own.json()["items"]) == ["nearly", "secret"]
    few = each_registry.http.get(
        "/api/v1/tickets/ada/first/similar?limit=1", headers=each_registry.bearer("bob")
    )
    assert len(few.json()["items"]) == 1
    yank = {"reason": "broken"}
    each_registry.http.post("/api/v1/tickets/ada/nearly/yank", json=yank, headers=each_registry.bearer("ada"))
    assert each_registry.http.get("/api/v1/tickets/ada/first/similar").json()["items"] == []
    lonely = make_ticket("mlp-64")
    each_registry.publish(lonely.to_bytes(), "lonely", visibility="private")
    assert each_registry.search(similar_to=lonely.digest) == []


def test_private_listings_are_found_counted_and_named_for_their_owner_alone(each_registry: Registry) -> None:
    for name, visibility in (("open", "public"), ("secret", "private")):
        data = make_ticket(seed=len(name), description="a wren").to_bytes()
        each_registry.publish(data, name, visibility=visibility)
    for query in ({}, {"q": "wren"}, {"method": "imp"}, {"q": "secret"}, {"collapse": "true"}):
        params = query | {"facets": "method"}
        seen = [
            each_registry.http.get("/api/v1/tickets", params=params, headers=headers).json()
            for headers in ({}, each_registry.bearer("bob"), each_registry.bearer())
        ]
        hidden = 0 if query == {"q": "secret"} else 1
        assert [one["total"] for one in seen] == [hidden, hidden, hidden + 1], query
        assert [sum(one["facets"]["method"].values()) for one in seen][:2] == [hidden, hidden], query


def test_facets_count_without_their_own_filter(full: Registry) -> None:
    query = {"facets": "task,verdict,method", "task": "mnist"}
    facets = full.http.get("/api/v1/tickets", params=query).json()["facets"]
    assert facets["task"] == {"digits": 4, "mnist": 1}
    assert facets["method"] == {"one-shot": 1}
    assert facets["verdict"] == {}


def test_the_leaderboard_of_a_task_goes_by_measured_accuracy(full: Registry) -> None:
    path = "/api/v1/tasks/digits/leaderboard"
    assert full.http.get(path).json()["items"] == [], "all of them were brought in"
    found = full.http.get(path, params={"brought_in": True}).json()["items"]
    assert [item["name"] for item in found] == ["t1", "t2", "t3", "t0"]
    problem(full.http.get("/api/v1/tasks/nothing/leaderboard"), 404, "not-found")


def test_a_claim_is_shown_and_never_searched(registry: Registry) -> None:
    claim = {"task": "digits", "metric": "test_accuracy", "value": 0.999, "replicates": 5}
    shown = registry.publish(make_ticket(claims=(claim,)).to_bytes(), "boast").json()
    assert shown["claims"] == [claim]
    assert (shown["accuracy"], shown["verdict"]) == (None, None)
    assert registry.search(accuracy="min:0.9") == []


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("densty=max:0.1", "/query/densty", "invalid-query"),
        ("task=a&task=b", "/query/task", "invalid-query"),
        ("density=0.1", "/query/density", "invalid-query"),
        ("density=max:nan", "/query/density", "invalid-query"),
        ("density=min:2,max:1", "/query/density", "invalid-query"),
        ("density=min:1,min:1", "/query/density", "invalid-query"),
        ("kept=min:1.5", "/query/kept", "invalid-query"),
        ("kept=min:99999999999999999999", "/query/kept", "invalid-query"),
        ("created_at=min:yesterday", "/query/created_at", "invalid-query"),
        ("facets=owner", "/query/facets", "invalid-query"),
        ("q=%00", "/query/q", "invalid-query"),
        ("sort=size", "/query/sort", "invalid"),
        ("limit=101", "/query/limit", "invalid"),
        ("limit=0", "/query/limit", "invalid"),
        ("cursor=xyz", "/query/cursor", "invalid-cursor"),
        ("cursor=%F0%9F", "/query/cursor", "invalid-cursor"),
    ],
)
def test_a_bad_query_is_refused_and_named(registry: Registry, query: str, pointer: str, code: str) -> None:
    assert pointers(problem(registry.http.get(f"/api/v1/tickets?{query}"), 422, code)) == [pointer]


def test_a_cursor_from_elsewhere_is_refused(full: Registry) -> None:
    cursor = full.http.get("/api/v1/tickets", params={"limit": 1}).json()["next_cursor"]
    for query in ({"task": "digits"}, {"sort": "density"}, {"order": "asc"}, {"q": "mlp"}):
        answer = full.http.get("/api/v1/tickets", params={"cursor": cursor, **query})
        problem(answer, 422, "invalid-cursor")
    problem(full.http.get(f"/api/v1/architectures?cursor={cursor}"), 422, "invalid-cursor")
    problem(full.http.get(f"/api/v1/tickets?cursor={cursor}x"), 422, "invalid-cursor")


def test_a_cursor_that_somebody_made_up_is_a_place_like_any_other(each_registry: Registry) -> None:
    each_registry.publish(make_ticket().to_bytes(), "one")
    each_registry.publish(make_ticket(seed=2).to_bytes(), "two")
    for query in ({"q": "mlp"}, {"sort": "accuracy"}, {"sort": "kept"}):
        answer = each_registry.http.get("/api/v1/tickets", params=query | {"limit": "1"}).json()
        padded = answer["next_cursor"] + "=" * (-len(answer["next_cursor"]) % 4)
        bound, *_, value, _ = json.loads(base64.urlsafe_b64decode(padded))
        for forward, rank, number in ((2, 9, 2**62), (0, -(2**62), -(2**62)), (1, 1, 2**40), (0, 0, 0)):
            made = json.dumps([bound, forward, rank, value, number]).encode()
            cursor = base64.urlsafe_b64encode(made).decode().rstrip("=")
            params = query | {"limit": "1", "cursor": cursor}
            assert each_registry.http.get("/api/v1/tickets", params=params).status_code == 200


def test_every_route_refuses_an_unknown_query_parameter(registry: Registry) -> None:
    registry.publish(make_ticket().to_bytes(), "first")
    paths = ("", "/tasks", "/tasks/digits", "/architectures", "/tickets/ada/first", "/tickets/ada/first/file")
    for path in (*paths, "/tickets/ada/first/lineage", "/tickets/ada/first/verifications", "/jobs/x"):
        answer = registry.http.get(f"/api/v1{path or '/'}?typo=1")
        assert pointers(problem(answer, 422, "invalid-query")) == ["/query/typo"]
