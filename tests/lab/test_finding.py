"""Finding: nested masks, byte-equal resets, levels as checkpoints, the folder, errors that name the level."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Cancelled, Invalid, InvalidJob, InvalidRecipe, InvalidTicket, TrainingFailed
from nirvana.format.ticket import Ticket
from nirvana.lab import FindReport, Goal, LevelResult, find, find_level, first_ticket, make_recipe, to_torch
from nirvana.training.recipe import Recipe
from tests.lab.small import SMALL, digits, network

LEVEL_KEYS = {
    "level",
    "density",
    "kept",
    "ticket",
    "digest",
    "early_stop_step",
    "early_stop_test_accuracy",
    "final_test_accuracy",
    "untrained_test_accuracy",
    "seconds",
    "flops",
    "engine",
}
REPORT_KEYS = {"task", "architecture", "method", "seed", "recipe", "environment", "levels"}


def search(
    method: str = "imp", *, recipe: Recipe = SMALL, architecture: str = "mlp-16", **fields: Any
) -> FindReport:
    extent = fields if "levels" in fields or "density" in fields else fields | {"levels": 3}
    return find("digits", architecture, method, recipe=recipe, **extent)


def test_each_mask_is_a_subset_of_the_one_before_and_counts_are_exact() -> None:
    tickets = search().tickets
    assert [t.provenance["level"] for t in tickets] == [0, 1, 2, 3]
    for before, after in itertools.pairwise(tickets):
        for name, rate in (("fc1.weight", 0.5), ("fc2.weight", 0.25)):
            n = int(before.mask(name).sum())
            assert not (after.mask(name) & ~before.mask(name)).any()
            assert int(after.mask(name).sum()) == n - round(rate * n)


@pytest.mark.parametrize("rewind_step", [0, 7])
def test_tickets_restart_from_the_same_bytes_where_the_mask_keeps(rewind_step: int) -> None:
    recipe = SMALL.override({"pruning": {"rewind_step": rewind_step}})
    tickets = search(recipe=recipe).tickets
    start = tickets[0].initial_values()
    for ticket in tickets:
        assert ticket.start.kind == ("stored" if rewind_step else "seeded")
        assert ticket.start.rewind_step == rewind_step
        for name, values in ticket.initial_values().items():
            mask = ticket.mask(name) if name in ticket.prunable else np.ones(values.shape, bool)
            assert values[mask].tobytes() == start[name][mask].tobytes()
            assert not values[~mask].any()


def test_rewinding_with_batch_norm_keeps_running_statistics_in_every_ticket() -> None:
    recipe = SMALL.override({"steps": 3, "batch_size": 8, "pruning": {"rewind_step": 2, "scope": "global"}})
    tickets = search(recipe=recipe, architecture="resnet-20", levels=1).tickets
    for ticket in tickets:
        assert ticket.initial_values()["norm.running_var"].std() > 0
        buffers = dict(to_torch(ticket).named_buffers())
        assert np.array_equal(
            buffers["norm.running_var"].numpy(), ticket.initial_values()["norm.running_var"]
        )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    one, same, other = search(seed=4), search(seed=4), search(seed=5)
    assert [t.to_bytes() for t in one.tickets] == [t.to_bytes() for t in same.tickets]
    assert all(a.digest != b.digest for a, b in zip(one.tickets, other.tickets, strict=True))


def test_level_by_level_from_files_gives_the_same_tickets_as_one_call() -> None:
    whole, goal = search(), Goal("imp", levels=3)
    ticket: Ticket | None = first_ticket(tasks.get("digits"), network(), SMALL, 0)
    found = []
    while ticket is not None:
        read = Ticket.from_bytes(ticket.to_bytes())
        result, ticket = find_level(read, digits(), 0, goal)
        assert isinstance(result, LevelResult)
        found.append(result.ticket.to_bytes())
    assert found == [t.to_bytes() for t in whole.tickets]


def test_lineage_and_claims_are_written_into_tickets() -> None:
    report = search()
    parents = [ticket.provenance["parent"] for ticket in report.tickets]
    assert parents == [None, *(ticket.digest for ticket in report.tickets[:-1])]
    for ticket, level in zip(report.tickets, report.levels, strict=True):
        claim = {"task": "digits", "metric": "test_accuracy", "replicates": 1}
        assert ticket.claims == (claim | {"value": level["early_stop_test_accuracy"]},)
        assert ticket.provenance["method"] == "imp"
        assert str(ticket.provenance["tool"]).startswith("nirvana ")
        assert Recipe.from_dict(dict(ticket.recipe)) == SMALL


def test_a_density_is_met_exactly_after_as_many_rounds_as_it_takes() -> None:
    report = search(density=0.1)
    total = report.tickets[0].total
    assert report.tickets[-1].kept == round(0.1 * total)
    by_rounds = search(levels=len(report.tickets) - 1).tickets
    assert [t.digest for t in report.tickets[:-1]] == [t.digest for t in by_rounds[:-1]]
    assert by_rounds[-1].kept <= report.tickets[-1].kept < by_rounds[-2].kept


def test_one_shot_lists_the_last_ticket_alone() -> None:
    report = search("one-shot", density=0.2)
    (ticket,) = report.tickets
    assert ticket.kept == round(0.2 * ticket.total)
    assert [level["level"] for level in report.levels] == [1]
    by_levels = search("one-shot", levels=3).tickets[0]
    assert by_levels.kept == search(levels=3).tickets[-1].kept


def test_the_report_is_the_contract_for_scripts(tmp_path: Path) -> None:
    report = search(out=tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert set(written) >= REPORT_KEYS
    assert written["method"] == "imp"
    for number, level in enumerate(written["levels"]):
        assert set(level) >= LEVEL_KEYS
        assert level["ticket"] == f"level-{number:02d}.ticket"
        assert level["engine"] in ("dense", "sparse")
        ticket = Ticket.read(tmp_path / level["ticket"])
        assert (ticket.digest, ticket.density, ticket.kept) == (
            level["digest"],
            level["density"],
            level["kept"],
        )
    assert len(list(tmp_path.iterdir())) == 5


def test_a_search_that_was_stopped_goes_on_from_its_folder(tmp_path: Path) -> None:
    whole, updates = search(), iter(range(75))
    with pytest.raises(Cancelled):
        search(out=tmp_path, should_stop=lambda: next(updates, None) is None)
    before = json.loads((tmp_path / "report.json").read_text())["levels"]
    assert len(before) == 2
    report = search(out=tmp_path)
    assert [t.to_bytes() for t in report.tickets] == [t.to_bytes() for t in whole.tickets]
    assert report.levels[:2] == before, "finished levels were trained again"
    trained = list[dict[str, Any]]()
    assert search(out=tmp_path, progress=trained.append).levels == report.levels
    assert not trained


def test_another_searchs_folder_is_written_over(tmp_path: Path) -> None:
    search(out=tmp_path, seed=1)
    (tmp_path / "level-01.ticket").write_bytes(b"damaged")
    report = search(out=tmp_path, seed=2)
    assert [Ticket.read(tmp_path / str(level["ticket"])).digest for level in report.levels] == [
        t.digest for t in report.tickets
    ]


def test_progress_counts_levels_to_an_end_known_beforehand() -> None:
    events = list[dict[str, Any]]()
    search(density=0.3, progress=events.append)
    levels = [event for event in events if event["kind"] == "level"]
    assert [event["done"] for event in levels] == list(range(1, len(levels) + 1))
    assert {event["total"] for event in levels} == {len(levels)}
    assert all({"step", "validation_loss", "level"} <= set(e) for e in events if e["kind"] == "point")


def test_a_training_that_leaves_the_finite_numbers_names_level_and_step() -> None:
    with pytest.raises(TrainingFailed, match=r"level 0: the loss was not finite at step \d+") as caught:
        search(recipe=SMALL.override({"learning_rate": 1e30}))
    assert caught.value.extra["level"] == 0
    with pytest.raises(TrainingFailed, match="before rewind step 7"):
        search(recipe=SMALL.override({"learning_rate": 1e30, "pruning": {"rewind_step": 7}}))


def test_a_layer_collapse_names_the_layer() -> None:
    recipe = SMALL.override({"pruning": {"layer_rates": {"fc2.weight": 0.999}}})
    with pytest.raises(InvalidTicket, match=r"fc2\.weight would keep no weight"):
        search(recipe=recipe)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"method": "snap", "levels": 1}, "/method"),
        ({"levels": 0}, "/levels"),
        ({"levels": 2.0}, "/levels"),
        ({"levels": 2, "density": 0.1}, "/levels"),
        ({}, "/levels"),
        ({"density": 1.0}, "/density"),
        ({"density": float("nan")}, "/density"),
    ],
)
def test_goals_that_make_no_sense_are_refused_with_pointers(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        Goal(**fields)
    assert caught.value.errors[0].pointer == pointer


def test_a_density_that_rounds_never_reach_is_refused_before_training() -> None:
    recipe = SMALL.override({"pruning": {"rate": 0.0, "output_rate": 0.0}})
    with pytest.raises(Invalid, match="out of reach"):
        search(recipe=recipe, density=0.5)


def test_unknown_engines_and_layers_are_refused_by_name() -> None:
    with pytest.raises(Invalid, match="engine is 'fast', expected one of auto, dense, sparse"):
        search(engine="fast")
    with pytest.raises(InvalidRecipe, match=r"no prunable 'fc9\.weight'"):
        search(recipe=SMALL.override({"pruning": {"layer_rates": {"fc9.weight": 0.1}}}))


def test_a_partial_recipe_overrides_the_tasks_default() -> None:
    task = tasks.get("digits")
    recipe = make_recipe(task, network(), {"steps": 11, "pruning": {"rate": 0.4}})
    default = task.default_recipe("mlp-16")
    assert (recipe.steps, recipe.pruning.rate) == (11, 0.4)
    assert (recipe.batch_size, recipe.pruning.output_rate) == (
        default.batch_size,
        default.pruning.output_rate,
    )


def test_more_levels_than_the_weights_have_rounds_are_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"200 levels: out of reach, since after 32 levels .* removes none"):
        find("digits", "mlp-16", levels=200, out=tmp_path)
    assert not list(tmp_path.iterdir())
