"""Identity: nobody's network, account or ticket goes by another's name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.tickets.publishing import Publication, publish_ticket
from app.tickets.search import results
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from tests.factories import make_ticket
from tests.registry import Registry, pointers, problem

TINY: list[dict[str, Any]] = [
    {"name": "flatten", "op": "flatten"},
    {"name": "fc1", "op": "linear", "in": 64, "out": 10},
]


def network(name: str) -> Architecture:
    """A network of 650 parameters that calls itself so."""
    return Architecture.make(name, (1, 8, 8), TINY)


def lineage(registry: Registry, name: str, by: str | None = None) -> dict[str, Any]:
    headers = registry.bearer(by) if by else {}
    found: dict[str, Any] = registry.http.get(f"/api/v1/tickets/{name}/lineage", headers=headers).json()
    return found


def test_a_network_carries_its_owners_name_unless_it_is_the_zoos(each_registry: Registry) -> None:
    registry = each_registry
    for name, graph in {
        "fake": network("resnet-18"),
        "unknown": network("resnet-50"),
        "real": zoo.build("resnet-20", (1, 8, 8), 10),
    }.items():
        ticket = make_ticket(architecture=graph, density=0.05)
        assert registry.publish(ticket.to_bytes(), name, by="eve").status_code == 201
    shown = registry.http.get("/api/v1/tickets/eve/fake").json()
    assert (shown["architecture"], shown["family"]) == ("eve/resnet-18", "eve/resnet")
    assert shown["manifest"]["architecture"]["name"] == "resnet-18"
    assert registry.search(architecture="resnet-18") == registry.search(architecture="resnet-50") == []
    assert registry.search(architecture="eve/resnet-50") == ["unknown"]
    assert registry.search(architecture="resnet-20") == registry.search(family="resnet") == ["real"]
    problem(registry.http.get("/api/v1/architectures/resnet-18"), 404, "not-found")
    own = registry.http.get("/api/v1/architectures/eve/resnet-18").json()
    assert own["digest"] == network("x").digest
    assert registry.http.get("/api/v1/architectures/resnet-20").json()["family"] == "resnet"


def test_the_zoos_graph_under_another_name_gets_the_zoos_once_it_is_used(
    each_registry: Registry,
) -> None:
    registry = each_registry
    graph = zoo.build("mlp-16", (1, 8, 8), 10)
    renamed = Architecture.make("my-own", graph.input, graph.nodes)
    registry.publish(make_ticket(architecture=renamed).to_bytes(), "first", by="eve")
    assert registry.http.get(f"/api/v1/architectures/{graph.digest}").json()["name"] == "eve/my-own"
    registry.publish(make_ticket(seed=4).to_bytes(), "second")
    shown = registry.http.get(f"/api/v1/architectures/{graph.digest}").json()
    assert (shown["name"], shown["family"]) == ("mlp-16", "mlp")
    assert registry.http.get("/api/v1/architectures/eve/my-own").json()["digest"] == graph.digest


@pytest.mark.parametrize(
    "name", ["resnet\u201018", "resnet\u202e-18", "r\u0435snet-18", "a/b", " a", "a\u200b", "x" * 101]
)
def test_a_network_whose_name_could_be_taken_for_another_is_refused(registry: Registry, name: str) -> None:
    answer = registry.publish(make_ticket(architecture=network(name)).to_bytes(), "fake")
    assert pointers(problem(answer, 422, "invalid-architecture")) == ["/architecture/name"]
    body = network(name).to_manifest()
    checked = registry.http.post("/api/v1/architectures:check", json=body)
    assert pointers(problem(checked, 422, "invalid-architecture")) == ["/name"]
    assert registry.search() == []


@pytest.mark.parametrize("name", ["admin", "official", "api", "login", "adrnin", "0fficial"])
def test_an_account_name_that_is_kept_is_refused(registry: Registry, name: str) -> None:
    answer = registry.http.post("/api/v1/accounts", json={"name": name})
    body = problem(answer, 422, "invalid-name")
    assert (pointers(body), body["errors"][0]["code"]) == (["/name"], "reserved")


def test_an_account_name_that_looks_like_anothers_is_refused(each_registry: Registry) -> None:
    for name in ("paul", "modern-art"):
        assert each_registry.http.post("/api/v1/accounts", json={"name": name}).status_code == 201
    for name in ("pau1", "rnodern-art", "modern--art"):
        answer = each_registry.http.post("/api/v1/accounts", json={"name": name})
        assert "it looks like" in problem(answer, 409, "name-taken")["detail"]
    assert each_registry.http.post("/api/v1/accounts", json={"name": "paula"}).status_code == 201


def test_a_claimed_parent_puts_nothing_into_a_strangers_lineage(each_registry: Registry) -> None:
    registry, parent = each_registry, make_ticket()
    registry.publish(parent.to_bytes(), "parent")
    for by, seed in (("ada", 5), ("eve", 6)):
        claimed = {"method": "imp", "level": 4, "parent": parent.digest}
        child = make_ticket(seed=seed, density=0.1, provenance=claimed)
        assert registry.publish(child.to_bytes(), "child", by=by).status_code == 201
    children = [f"{one['owner']}/{one['name']}" for one in lineage(registry, "ada/parent")["children"]]
    assert children == ["ada/child"]
    own, strange = lineage(registry, "ada/child"), lineage(registry, "eve/child")
    assert (
        (own["parent"], own["is_claim"]) == (strange["parent"], strange["is_claim"]) == (parent.digest, True)
    )
    assert [one["name"] for one in own["ancestors"]] == ["parent"]
    assert strange["ancestors"] == []
    page = registry.http.get("/tickets/ada/parent").text
    assert "ada/child" in page
    assert "eve/child" not in page
    assert "claim of its file" in registry.http.get("/tickets/eve/child").text
    named = [(one["parent_name"], one["child_name"], one["known_by"]) for one in own["edges"]]
    assert named == [("ada/parent", "ada/child", "claim")]
    assert [(one["parent"], one["parent_name"]) for one in strange["edges"]] == [(parent.digest, None)]
    assert [one["child_name"] for one in lineage(registry, "ada/parent")["edges"]] == ["ada/child"]


def grow(registry: Registry, owner: str, levels: int, job_id: str | None) -> list[str]:
    """List levels of one search; return their digests."""
    digests: list[str] = []
    for level in range(levels):
        parent = digests[-1] if digests else None
        said = {"method": "imp", "level": level, "parent": parent}
        ticket = make_ticket(density=0.9 - level / 10, seed=len(owner), provenance=said)
        account = registry.account(owner)
        with registry.database.write() as session:
            publication = Publication(session.merge(account), f"level-{level}", job_id=job_id)
            publish_ticket(session, registry.storage, ticket.to_bytes(), publication)
        digests.append(ticket.digest)
    return digests


def test_what_a_job_saw_is_a_fact_and_the_whole_tree_says_who_knows_what(each_registry: Registry) -> None:
    registry = each_registry
    digests = grow(registry, "ada", 4, "job-1")
    tree = lineage(registry, "ada/level-1")
    names = [(one["parent_name"], one["child_name"], one["known_by"], one["job_id"]) for one in tree["edges"]]
    assert names == [(f"ada/level-{level}", f"ada/level-{level + 1}", "job", "job-1") for level in range(3)]
    assert tree["is_claim"] is False
    for number in range(3):  # strangers who want to stand in the tree, each of whose files names its parent
        claimed = {"method": "imp", "level": 9, "parent": digests[1]}
        ticket = make_ticket(seed=50 + number, density=0.05, provenance=claimed)
        assert registry.publish(ticket.to_bytes(), "guest", by=f"eve-{number}").status_code == 201
    assert lineage(registry, "ada/level-1")["edges"] == tree["edges"]
    page = registry.http.get("/tickets/ada/level-1").text
    assert page.count("the registry&#39;s search") + page.count("the registry's search") == 3
    assert "guest" not in page


def test_claims_that_go_in_a_circle_end_and_a_crowd_of_them_hides_nobody(
    each_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest says nothing of provenance, so two files can name each other."""
    registry = each_registry
    first, second = make_ticket(seed=1), make_ticket(seed=2)
    for one, other, name in ((first, second, "one"), (second, first, "two")):
        said = {"method": "imp", "level": 1, "parent": other.digest}
        ticket = dataclasses.replace(one, provenance=said)
        assert ticket.digest == one.digest
        assert registry.publish(ticket.to_bytes(), name).status_code == 201
    edges = lineage(registry, "ada/one")["edges"]
    assert {(one["parent_name"], one["child_name"]) for one in edges} == {
        ("ada/two", "ada/one"),
        ("ada/one", "ada/two"),
    }
    assert registry.http.get("/tickets/ada/one").status_code == 200
    monkeypatch.setattr(results, "MOST_EDGES", 1)
    root = make_ticket(seed=3)
    registry.publish(root.to_bytes(), "root")
    said = {"method": "imp", "level": 2, "parent": root.digest}
    for number in range(3):
        registry.publish(make_ticket(seed=60 + number, provenance=said).to_bytes(), "c", by=f"eve-{number}")
    registry.publish(make_ticket(seed=70, provenance=said).to_bytes(), "mine")
    assert "ada/mine" in [one["child_name"] for one in lineage(registry, "ada/root")["edges"]]


def test_the_next_page_is_at_the_registrys_own_address(registry: Registry) -> None:
    for seed in range(2):
        registry.publish(make_ticket(seed=seed).to_bytes(), f"t-{seed}")
    hostile = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    for path in ("/api/v1/tickets?limit=1", "/api/v1/architectures?limit=1"):
        answer = registry.http.get(path, headers=hostile)
        assert "evil" not in answer.headers.get("link", "") + answer.text, path
