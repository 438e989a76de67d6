"""Search over HTTP, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.db import utc_now
from tests.factories import make_ticket
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


def test_every_route_refuses_an_unknown_query_parameter(registry: Registry) -> None:
    registry.publish(make_ticket().to_bytes(), "first")
    paths = ("", "/tasks", "/tasks/digits", "/architectures", "/tickets/ada/first", "/tickets/ada/first/file")
    for path in (*paths, "/tickets/ada/first/lineage", "/tickets/ada/first/verifications", "/jobs/x"):
        answer = registry.http.get(f"/api/v1{path or '/'}?typo=1")
        assert pointers(problem(answer, 422, "invalid-query")) == ["/query/typo"]
