"""Exports: each made once, the large ones in a process of their own, and none kept for ever."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.db import utc_now
from app.limits.rates import Payer
from app.limits.service import Limiter
from app.settings import Settings
from app.storage import Storage
from app.tickets.files import exporting
from app.tickets.files.exporting import Exporter, Making, evict, note_use
from app.tickets.files.serving import SUFFIXES
from app.tickets.models import ExportBlob
from nirvana.errors import NotFound, RateLimited, TooLarge
from nirvana.exports import FORMATS, export_ticket
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import Registry, problem

LARGE = "mlp-6900"  # 0.5 million parameters
PATH = "/api/v1/tickets/ada/first/export"


def export_files(registry: Registry) -> list[Path]:
    folder = registry.settings.home / "blobs" / "exports"
    return [path for path in folder.rglob("*-*") if path.is_file()]


def makings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The forms of the exports that are made from now on, each as it begins; `child`: in a child."""
    made: list[str] = []
    make, in_child = exporting.make_export, exporting._make_in_child

    def make_here(settings: Settings, storage: Storage, making: Making) -> None:
        made.append(making.form)
        make(settings, storage, making)

    def make_there(settings: Settings, making: Making) -> None:
        made.append("child")
        in_child(settings, making)

    monkeypatch.setattr(exporting, "make_export", make_here)
    monkeypatch.setattr(exporting, "_make_in_child", make_there)
    return made


def test_suffixes_are_those_of_the_formats() -> None:
    assert {form: (suffix, kind) for form, (_, suffix, kind) in FORMATS.items()} == SUFFIXES


def test_a_large_export_is_made_in_a_child_and_once_for_all_who_ask_at_once(
    make_registry: MakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry()
    ticket = make_ticket(LARGE)
    assert ticket.architecture.parameter_count > exporting.SMALL_PARAMETERS
    registry.publish(ticket.to_bytes(), "first")
    made = makings(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: registry.http.get(f"{PATH}?format=csr"), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {export_ticket(ticket, "csr").content}
    assert made == ["child"]
    etag = answers[0].headers["etag"]
    for path in export_files(registry):
        path.unlink()
    again = registry.http.get(f"{PATH}?format=csr", headers={"If-None-Match": etag})
    assert (again.status_code, made) == (304, ["child"]), "nothing is made to say that nothing has changed"


def test_a_child_that_needs_more_memory_than_its_cap_says_so_and_the_service_goes_on(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(export_memory_bytes=256 * 2**20)
    registry.publish(make_ticket("mlp-150000", density=0.0001).to_bytes(), "first")
    body = problem(registry.http.get(f"{PATH}?format=numpy"), 413, "too-large")
    assert body["limit_bytes"] == 256 * 2**20
    assert export_files(registry) == []
    registry.publish(make_ticket().to_bytes(), "small")
    assert registry.http.get("/api/v1/tickets/ada/small/export?format=numpy").status_code == 200


def test_a_child_that_takes_too_long_is_stopped(make_registry: MakeRegistry) -> None:
    registry = make_registry(export_seconds=0.05)
    registry.publish(make_ticket(LARGE).to_bytes(), "first")
    assert "0.05 s" in problem(registry.http.get(f"{PATH}?format=csr"), 413, "too-large")["detail"]


def test_what_the_child_refuses_comes_back_as_the_error_that_it_was(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    registry.publish(make_ticket(LARGE).to_bytes(), "first")
    for path in (registry.settings.home / "blobs" / "tickets").rglob("*.ticket"):
        path.unlink()
    with pytest.raises(NotFound, match="There is no blob"):
        exporting._make_in_child(registry.settings, Making("tickets/none", "csr", "exports/x", 10**6))
    assert export_files(registry) == []


def test_what_is_made_for_a_caller_is_bounded_and_what_is_there_is_free(make_registry: MakeRegistry) -> None:
    registry = make_registry(rates={"export-mib.address": "2/day"})
    registry.publish(make_ticket().to_bytes(), "first")
    forms = ("csr", "numpy", "csr", "onnx", "numpy")
    statuses = [registry.http.get(f"{PATH}?format={form}").status_code for form in forms]
    assert statuses == [200, 200, 200, 429, 200]
    signed_in = registry.http.get(f"{PATH}?format=onnx", headers=registry.bearer())
    assert signed_in.status_code == 200


def test_a_making_costs_its_values_and_whoever_is_over_costs_nothing_more(registry: Registry) -> None:
    assert Making("s", "csr", "k", 0).cost_mib == 1
    assert Making("s", "csr", "k", 48_000_000).cost_mib == 184
    settings = registry.settings.model_copy(update={"rates": {"export-mib.address": "100/day"}})
    exporter = Exporter(settings, registry.database, registry.storage, Limiter(settings))
    with pytest.raises(RateLimited):
        asyncio.run(exporter.ensure(Making("s", "csr", "k", 48_000_000), Payer("address:x")))


def test_an_export_that_fails_is_tried_again_by_the_next_who_asks(
    make_registry: MakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_registry()
    registry.publish(make_ticket().to_bytes(), "first")

    def fail(*_: object) -> None:
        raise TooLarge("not today")

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "make_export", fail)
        problem(registry.http.get(f"{PATH}?format=csr"), 413, "too-large")
    assert registry.http.get(f"{PATH}?format=csr").status_code == 200


def age(registry: Registry, key: str, minutes: int) -> None:
    with registry.database.write() as session:
        long_ago = utc_now() - timedelta(minutes=minutes)
        session.execute(update(ExportBlob).where(ExportBlob.key == key).values(used_at=long_ago))


def test_exports_unused_for_longest_go_first_and_none_of_this_moment(
    each_registry: Registry,
) -> None:
    registry, storage = each_registry, each_registry.storage
    keys = [f"exports/3/aa/{n}-csr" for n in range(4)]
    with registry.database.write() as session:
        for key in keys:
            storage.put(key, b"x" * 100)
            note_use(session, key, 100)
    for minutes, key in ((40, keys[1]), (30, keys[0]), (20, keys[2])):
        age(registry, key, minutes)
    with registry.database.write() as session:
        note_use(session, keys[0], 100)  # used again
        assert evict(session, storage, 400) == 0
        assert evict(session, storage, 250) == 2
        assert evict(session, storage, 0) == 0, "the others were used a moment ago"
    assert [storage.size(key) for key in keys] == [100, None, None, 100]
    with registry.database.read() as session:
        assert set(session.scalars(select(ExportBlob.key))) == {keys[0], keys[3]}


def test_an_export_that_was_evicted_is_made_again(make_registry: MakeRegistry) -> None:
    registry = make_registry(max_export_bytes=0)
    registry.publish(make_ticket().to_bytes(), "first")
    first = registry.http.get(f"{PATH}?format=csr").content
    with registry.database.read() as session:
        (key,) = session.scalars(select(ExportBlob.key)).all()
    age(registry, key, 60)
    assert registry.http.get(f"{PATH}?format=numpy").status_code == 200
    assert registry.storage.size(key) is None
    assert registry.http.get(f"{PATH}?format=csr").content == first
