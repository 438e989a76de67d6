"""A ticket's provenance, read as a search that can be run again."""

from __future__ import annotations

from typing import Any

import pytest

from nirvana import tasks
from nirvana.errors import Invalid, InvalidJob
from nirvana.format.ticket import Ticket
from nirvana.lab import find
from nirvana.pruning.levels import find_level, first_ticket
from nirvana.pruning.provenance import read_origin
from nirvana.pruning.target import PruningTarget
from tests.factories import torch_ticket
from tests.lab.small import SMALL

BRIEF: dict[str, Any] = {"steps": 30, "evaluate_every": 15}
DIGITS = tasks.get("digits")


def search_again(ticket: Ticket) -> Ticket:
    origin = read_origin(ticket.manifest(), DIGITS)
    found: Ticket | None = first_ticket(origin.plan)
    for number in range(origin.level):
        assert found is not None
        engine = (origin.engines or ("auto",) * origin.level)[number]
        data, plan = tasks.load("digits"), origin.plan
        _, found = find_level(found, data, plan.seed, plan.target, engine=engine)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "goal", "fields"),
    [
        ("imp", {"levels": 2}, {}),
        ("imp", {"density": 0.55}, {}),
        ("imp", {"levels": 2}, {"pruning": {"rewind_step": 5}}),
        ("imp", {"levels": 2}, {"pruning": {"scope": "global", "rate": 0.5}}),
        ("one-shot", {"density": 0.3}, {}),
        ("random", {"levels": 3}, {}),
        ("snip", {"density": 0.1}, {}),
        ("gradual-magnitude", {"density": 0.25}, {}),
    ],
)
def test_the_search_that_a_ticket_tells_of_gives_it_again(
    method: str, goal: dict[str, Any], fields: dict[str, Any]
) -> None:
    tickets = find("digits", "mlp-16", method, seed=5, recipe=BRIEF | fields, **goal).tickets
    for ticket in tickets[-2:]:
        assert search_again(ticket).digest == ticket.digest


def test_a_density_that_lies_on_the_rates_own_path_needs_no_target() -> None:
    ticket = find("digits", "mlp-16", "imp", seed=5, recipe=BRIEF, levels=1).tickets[-1]
    assert read_origin(ticket.manifest(), DIGITS).plan.target.levels == 1


@pytest.fixture(scope="module")
def honest() -> Ticket:
    return find("digits", "mlp-16", "imp", seed=5, recipe=BRIEF, levels=1).tickets[-1]


def changed(ticket: Ticket, **parts: Any) -> dict[str, Any]:
    manifest = dict(ticket.manifest())
    for name, fields in parts.items():
        manifest[name] = {**manifest[name], **fields}
        manifest[name] = {key: value for key, value in manifest[name].items() if value is not None}
    return manifest


@pytest.mark.parametrize(
    ("parts", "pointer", "why"),
    [
        ({"provenance": {"method": None}}, "/provenance/method", "the method is missing"),
        ({"provenance": {"method": "magic"}}, "/provenance/method", "the method is 'magic'"),
        ({"provenance": {"method": ["imp"]}}, "/provenance/method", "the method is"),
        ({"provenance": {"method": "fine-tuning"}}, "/provenance/method", "changes the recipe"),
        ({"provenance": {"level": None}}, "/provenance/level", "the level is None"),
        ({"provenance": {"level": True}}, "/provenance/level", "the level is True"),
        ({"provenance": {"level": 10**9}}, "/provenance/level", "expected an integer from 0 to 100"),
        ({"provenance": {"level": 3, "engines": None}}, "/provenance", "does not reach"),
        ({"provenance": {"order_seed": None}}, "/provenance/order_seed", "the order's seed is None"),
        ({"provenance": {"order_seed": "9" * 400}}, "/provenance/order_seed", "below 2^53"),
        ({"provenance": {"order_seed": "6"}}, "/initial/seed", "a search has one seed"),
        ({"provenance": {"options": [1]}}, "/provenance/options", "no object"),
        ({"provenance": {"options": {"speed": 1}}}, "/provenance", "speed"),
        ({"provenance": {"engines": ["magic"]}}, "/provenance/engines", "expected sparse or dense"),
        ({"provenance": {"engines": ["sparse"] * 3}}, "/provenance/engines", "for each level before"),
        ({"provenance": {"engines": [["sparse"]]}}, "/provenance/engines", "the engines are"),
        ({"provenance": {"engines": 1}}, "/provenance/engines", "the engines are 1"),
        (
            {"provenance": {"density": "half", "level": 2, "engines": None}},
            "/provenance",
            "the density is half",
        ),
        ({"initial": {"seed": None}}, "/initial/seed", "names no seed"),
        ({"initial": {"scheme": "torch-cpu/1"}}, "/initial/scheme", "expected philox"),
    ],
)
def test_what_cannot_be_run_again_is_refused_with_what_is_missing(
    honest: Ticket, parts: dict[str, Any], pointer: str, why: str
) -> None:
    with pytest.raises(InvalidJob) as refusal:
        read_origin(changed(honest, **parts), DIGITS)
    assert any(p.pointer == pointer and why in p.detail for p in refusal.value.errors), refusal.value.errors


def test_a_ticket_without_any_provenance_and_one_of_pytorch_say_so(honest: Ticket) -> None:
    manifest = {name: value for name, value in honest.manifest().items() if name != "provenance"}
    with pytest.raises(InvalidJob) as refusal:
        read_origin(manifest, DIGITS)
    assert {p.pointer for p in refusal.value.errors} == {
        "/provenance/method",
        "/provenance/level",
        "/provenance/order_seed",
    }
    with pytest.raises(InvalidJob) as refusal:
        read_origin(torch_ticket().manifest(), DIGITS)
    assert "/initial/scheme" in {p.pointer for p in refusal.value.errors}


@pytest.mark.parametrize("engine", ["sparse", "dense"])
def test_the_engines_of_the_levels_are_told_and_taken_again(engine: str) -> None:
    ticket = find("digits", "mlp-16", "imp", seed=5, recipe=BRIEF, levels=2, engine=engine).tickets[-1]
    assert read_origin(ticket.manifest(), DIGITS).engines == (engine, engine)
    assert search_again(ticket).digest == ticket.digest


def test_rates_that_take_more_than_a_thousand_levels_are_refused_at_once() -> None:
    slow = SMALL.override({"pruning": {"rate": 1e-4, "output_rate": 1e-4}}).pruning
    target = PruningTarget("imp", density=0.5)
    with pytest.raises(Invalid, match="since 1000 levels leave"):
        target.last_level({"a.weight": (1000, 1000), "b.weight": (1000, 1000)}, slow)
