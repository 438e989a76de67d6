"""The client against the real service: round trips, and every refusal as the class it was raised as."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import nirvana
from nirvana import environment, errors
from nirvana.cli.up import Registry
from nirvana.client.cache import Cache
from nirvana.client.rest import Client
from nirvana.exports import export_ticket
from nirvana.format.ticket import Ticket


@pytest.fixture(autouse=True)
def own_cache(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_CACHE", str(tmp_path / "cache"))


def test_the_first_token_is_kept_for_its_user_alone(registry: Registry) -> None:
    path = environment.token_file()
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(registry.client.whoami()["token"]["scopes"]) == {"admin", "job", "publish", "read", "yank"}


def test_a_published_ticket_is_found_loaded_and_the_same(
    client: Client, owner: str, levels: list[Ticket]
) -> None:
    nirvana.push(levels[2], "round-trip")
    name = f"{owner}/round-trip"
    assert name in [f"{hit['owner']}/{hit['name']}" for hit in nirvana.search(task="digits", max_density=0.7)]
    assert nirvana.load(name).to_bytes() == levels[2].to_bytes()
    assert client.ticket(name)["density"] == levels[2].density


def test_a_loaded_ticket_costs_no_second_request(
    owner: str, levels: list[Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    nirvana.push(levels[2], "cached")
    assert nirvana.load(levels[2].digest).digest == levels[2].digest
    nirvana.load(f"{owner}/cached")
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    assert nirvana.load(levels[2].digest).digest == levels[2].digest
    assert nirvana.load(f"{owner}/cached").digest == levels[2].digest


def test_a_name_in_the_cache_is_asked_for_without_its_file(
    client: Client, owner: str, levels: list[Ticket]
) -> None:
    nirvana.push(levels[2], "conditional")
    nirvana.load(f"{owner}/conditional")
    kept = hashlib.sha256(levels[2].to_bytes()).hexdigest()
    assert client.download(f"{owner}/conditional", etag=f"sha256:{kept}") is None
    assert client.download(f"{owner}/conditional", etag=levels[2].digest) is not None, (
        "of a ticket, not a file"
    )
    assert list(Cache().digests()) == [levels[2].digest]


def test_publishing_again_is_no_error_and_another_ticket_is(levels: list[Ticket]) -> None:
    first = nirvana.push(levels[1], "taken")
    assert nirvana.push(levels[1], "taken")["digest"] == first["digest"]
    with pytest.raises(errors.NameTaken, match="taken"):
        nirvana.push(levels[2], "taken")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", errors.InvalidTicket),
        (b"\x80\x04\x95rubbish", errors.UnsupportedMedia),
        ((10**12).to_bytes(8, "little") + b"{}", errors.InvalidTicket),
    ],
)
def test_a_file_that_is_no_ticket_is_refused_as_here(
    client: Client, content: bytes, kind: type[errors.NirvanaError]
) -> None:
    with pytest.raises(kind):
        client.publish(content, "rubbish")
    assert not any(hit["name"] == "rubbish" for hit in client.search())


def test_lint_there_says_what_lint_says_here(client: Client, levels: list[Ticket]) -> None:
    report = client.lint(levels[1].to_bytes())
    assert (report["ok"], report["digest"], report["errors"]) == (True, levels[1].digest, [])
    broken = client.lint(levels[1].to_bytes()[:-1])
    assert broken["ok"] is False
    assert "cut off" in broken["errors"][0]["detail"]


def test_a_wrong_token_and_an_under_scoped_one_are_told_apart(
    client: Client, registry: Registry, levels: list[Ticket]
) -> None:
    with Client(client.endpoint, token="nvn_wrong") as stranger, pytest.raises(errors.Unauthenticated):
        stranger.publish(levels[1].to_bytes(), "x")
    secret = client.create_token(name="reader", scopes=["read"])["secret"]
    with Client(client.endpoint, token=secret) as reader, pytest.raises(errors.MissingScope, match="publish"):
        reader.publish(levels[1].to_bytes(), "x")


def test_a_typo_in_a_search_is_an_error(client: Client) -> None:
    with pytest.raises(errors.InvalidQuery, match="taks"):
        list(client.search(taks="digits"))
    with pytest.raises(errors.InvalidCursor):
        list(client.search(cursor="bm90LWEtY3Vyc29y"))


def test_what_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(errors.NotFound, match="nobody/nothing"):
        client.ticket("nobody/nothing")
    with pytest.raises(errors.NotFound):
        client.download("sha256:" + 64 * "0")


def test_search_walks_through_its_pages(client: Client, levels: list[Ticket]) -> None:
    for number in range(3):
        client.publish(levels[1].to_bytes(), f"page-{number}")
    pages = client._pages("/tickets", {"limit": "2"})
    names = [hit["name"] for hit in pages]
    assert {"page-0", "page-1", "page-2"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("form", ["safetensors", "numpy", "csr", "onnx", "script"])
def test_the_services_exports_are_ours(client: Client, owner: str, levels: list[Ticket], form: str) -> None:
    client.publish(levels[2].to_bytes(), "exported")
    assert client.export(f"{owner}/exported", form) == export_ticket(levels[2], form).content


def test_a_yanked_ticket_is_hidden_and_still_loads(client: Client, owner: str, levels: list[Ticket]) -> None:
    client.publish(levels[1].to_bytes(), "yanked")
    client.yank(f"{owner}/yanked", "withdrawn", "a test")
    assert not any(hit["name"] == "yanked" for hit in client.search())
    assert nirvana.load(f"{owner}/yanked").digest == levels[1].digest
    client.unyank(f"{owner}/yanked")
    assert any(hit["name"] == "yanked" for hit in client.search())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"task": "mnits", "architecture": "mlp-4", "levels": 1}, "mnits"),
        ({"task": "digits", "architecture": "vgg-99", "levels": 1}, "vgg-99"),
        ({"task": "digits", "architecture": "mlp-4", "levels": 0}, "levels is 0"),
        ({"task": "digits", "architecture": "mlp-4", "levels": 1, "method": "magic"}, "magic"),
    ],
)
def test_an_impossible_job_is_refused_with_what_was_expected(
    client: Client, spec: dict[str, object], said: str
) -> None:
    with pytest.raises(errors.InvalidJob, match=said) as refusal:
        client.submit_job("prune", spec)
    assert refusal.value.errors[0].pointer.startswith("/spec/")


def test_a_job_is_followed_to_its_end_and_cannot_be_cancelled_then(client: Client) -> None:
    spec = {
        "task": "digits",
        "architecture": "mlp-8",
        "levels": 1,
        "recipe": {"steps": 20},
        "name": "followed",
    }
    job = client.submit_job("prune", spec, key="once")
    assert client.submit_job("prune", spec, key="once")["id"] == job["id"]
    events = list(client.job_events(job["id"]))
    numbers = [int(event["id"]) for event in events]
    assert numbers == sorted(set(numbers))
    assert [event["data"]["level"] for event in events if event["event"] == "level"] == [0, 1]
    assert client.job(job["id"])["state"] == "succeeded"
    later = list(client.job_events(job["id"], last_event_id=events[3]["id"]))
    assert [event["id"] for event in later] == [event["id"] for event in events[4:]]
    with pytest.raises(errors.JobFinished, match="succeeded already"):
        client.cancel_job(job["id"])
    assert {f"followed-0{level}" for level in (0, 1)} <= {hit["name"] for hit in client.search()}


def test_a_cancelled_job_stops(client: Client) -> None:
    job = client.submit_job("prune", {"task": "digits", "architecture": "lenet-300-100", "levels": 30})
    assert client.cancel_job(job["id"])["state"] == "cancelled"
    assert list(client.job_events(job["id"]))[-1]["data"]["state"] == "cancelled"
