"""What `make bench` measures with: peers do the same work, pairs are pairs, and a page comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import __main__ as suite
from benchmarks import cost_model, roofline
from benchmarks.effort import Effort
from benchmarks.goals import Goal, median_ratio, print_goals
from benchmarks.machine import ALL_CORES, LAST_CORE, cores, describe, pinned
from benchmarks.measuring import Timing, race, ratios
from benchmarks.page import put_part, read_parts
from benchmarks.peers import PEERS, CsrLinear, Loop, csr_failures
from benchmarks.plain_imp import plain_imp
from benchmarks.plain_networks import build_plain, load_plain
from benchmarks.subjects import SEED, Subject, layer_counts
from benchmarks.throughput import DenseTrainee, SparseTrainee
from benchmarks.verification_cost import make_ticket, train_one_by_one
from nirvana import lab, tasks
from nirvana.errors import Invalid
from nirvana.format.initial import default_laws, draw_all
from nirvana.format.masks import kept_count
from nirvana.networks import zoo
from nirvana.training.cost import training_flops
from nirvana.training.recipe import Pruning, Recipe

BATCH = 20
ADAM = Recipe("adam", 1e-3, BATCH, 10**6)


def subject(name: str = "lenet-300-100") -> Subject:
    architecture = zoo.build(name, (1, 8, 8), 10)
    values = draw_all(architecture, default_laws(architecture), SEED)
    return Subject(name, architecture, tasks.load("digits"), values, ADAM, "digits")


def effective_weights(network: nn.Module) -> list[Tensor]:
    """What each layer multiplies with, whole."""
    found = []
    for layer in network.modules():
        if isinstance(layer, CsrLinear):
            found.append(layer.weight.detach().to_dense())
        elif isinstance(getattr(layer, "weight", None), Tensor):
            mask = getattr(layer, "mask", getattr(layer, "weight_mask", None))
            original: Any = getattr(layer, "weight_orig", layer.weight)
            found.append((original if mask is None else original * mask).detach())
    return found


def after(loop: Loop, steps: int) -> list[Tensor]:
    loop.advance(steps)
    return effective_weights(loop.network)


@pytest.mark.parametrize("name", ["usual", "prune", "csr"])
def test_every_peer_makes_the_updates_that_the_best_one_makes(name: str) -> None:
    ours = subject()
    masks = ours.masks(0.2)
    expected, found = after(PEERS["best"](ours, masks, BATCH), 5), after(PEERS[name](ours, masks, BATCH), 5)
    for one, other, weight in zip(expected, found, ours.architecture.prunable, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
        assert not one[~torch.from_numpy(masks[weight])].any()
        assert not torch.allclose(one, torch.from_numpy(ours.values[weight] * masks[weight]), atol=1e-5)


def test_the_dense_peer_is_the_best_one_without_masks() -> None:
    ours = subject("conv-2")
    expected, found = (after(PEERS[name](ours, {}, BATCH), 2) for name in ("best", "dense"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet-300-100", (1, 8, 8)), ("conv-2", (3, 8, 8)), ("resnet-20", (3, 8, 8))],
)
def test_the_plain_networks_compute_what_the_architectures_say(name: str, shape: tuple[int, ...]) -> None:
    architecture = zoo.build(name, shape, 10)
    values = draw_all(architecture, default_laws(architecture, "kaiming_normal"), 1)
    plain, ours = build_plain(architecture), lab.build_module(architecture)
    load_plain(plain, values)
    lab.load_values(ours, values)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plain.train()(x), ours.train()(x), atol=1e-4)


def test_layers_keep_what_rounds_of_pruning_leave_them() -> None:
    architecture = zoo.build("lenet-300-100", (1, 28, 28), 10)
    rates = Pruning(rate=0.2, output_rate=0.1)
    for share in (0.5, 0.036):
        kept = layer_counts(architecture, rates, share)
        assert sum(kept.values()) == pytest.approx(share * 266_200, rel=1e-3)
        hidden, output = kept["fc1.weight"] / 235_200, kept["fc3.weight"] / 1000
        assert np.log(output) / np.log(hidden) == pytest.approx(np.log(0.9) / np.log(0.8), abs=0.05)
    uniform = layer_counts(architecture, Pruning(), 0.1)
    assert list(uniform.values()) == [23_520, 3_000, 100]


def test_both_engines_take_the_same_updates() -> None:
    ours = subject()
    masks = ours.masks(0.2)
    sparse, dense = SparseTrainee(ours, masks, BATCH), DenseTrainee(ours, masks, BATCH)
    for trainee in (sparse, dense):
        trainee.advance(3)
        trainee.advance(2)
    assert sparse.loop.step == dense.loop.step == 5
    for name, value in sparse.loop.backend.values().items():
        assert np.allclose(value, dense.loop.backend.values()[name], atol=1e-5)


class Counting:
    """A trainee that writes down its turns."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self.name, self.turns = name, turns

    def advance(self, steps: int) -> None:
        self.turns.append(self.name)


def test_pairs_are_measured_in_turn() -> None:
    turns = list[str]()
    ours, peers = Counting("ours", turns), {name: Counting(name, turns) for name in ("a", "b")}
    measured = race(ours, peers, 3, 1e-9)
    assert turns[-12:] == ["a", "ours", "b", "ours"] * 3
    assert {name: (len(theirs), len(mine)) for name, (theirs, mine) in measured.items()} == {
        "a": (3, 3),
        "b": (3, 3),
    }


def test_a_ratio_says_when_the_machine_was_shared() -> None:
    alone, shared = Timing(2.0, 2.0), Timing(4.0, 2.0)
    assert ratios([alone, alone], [Timing(1.0, 1.0), Timing(0.5, 0.5)]) == "3.00 (2.00 to 4.00)"
    assert ratios([shared], [Timing(1.0, 1.0)]) == "4.00 (4.00 to 4.00); by processor time 2.00"


def test_a_goal_is_met_by_the_median_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    peer, ours = [Timing(6.0, 6.0), Timing(2.0, 2.0), Timing(3.0, 3.0)], [Timing(1.0, 1.0)] * 3
    assert median_ratio(peer, ours) == 3.0
    print_goals([Goal("this", 3, 3.0), Goal("that", 3, 2.99)])
    said = capsys.readouterr().out
    assert "| this | 3 | 3.00 | yes |" in said
    assert "| that | 3 | 2.99 | no |" in said


def test_a_pinned_process_runs_on_one_core_and_gets_the_others_back() -> None:
    with pinned(LAST_CORE):
        assert cores() == LAST_CORE
    assert cores() == ALL_CORES
    assert "| vector instructions |" in describe("0")


def test_the_model_of_an_update_counts_what_the_products_cost_counts() -> None:
    """But for the gradients of the inputs, which the first layer does not need, and the optimiser."""
    ours = subject()
    for masks in ({}, ours.masks(0.1)):
        shapes = {name: ours.architecture.parameters[name] for name in ours.architecture.prunable}
        first = kept_count(masks, {"fc1.weight": shapes["fc1.weight"]})
        counted = training_flops(ours.architecture, masks, BATCH)[1] - 2 * BATCH * first
        work = roofline.model(ours, masks, BATCH)
        assert work.operations - 12 * (kept_count(masks, shapes) + 410) == counted
        assert work.bytes > work.activations == 2 * counted


def test_plain_pruning_keeps_what_ours_keeps() -> None:
    architecture, data = zoo.build("lenet-300-100", (1, 8, 8), 10), tasks.load("digits")
    recipe = replace(tasks.get("digits").default_recipe("lenet-300-100"), steps=60)
    network = build_plain(architecture)
    load_plain(network, draw_all(architecture, default_laws(architecture, "glorot_uniform"), SEED))
    assert isinstance(network, nn.Sequential)
    plain = plain_imp(network, data, recipe, 3)
    ours = lab.find("digits", architecture, levels=3, recipe=recipe)
    assert [level.density for level in plain] == pytest.approx([ticket.density for ticket in ours.tickets])
    assert all(abs(level.test_accuracy - 0.9) < 0.1 for level in plain)


def test_a_verification_has_35_trainings_one_by_one() -> None:
    ours = replace(subject(), recipe=replace(ADAM, evaluate_every=3))
    ticket = replace(make_ticket(ours, 3), task="digits")
    assert len(train_one_by_one(ticket, ours.data)) == 35


def test_what_csr_parameters_cannot_do_is_said_in_torchs_words() -> None:
    outcomes = csr_failures()
    assert outcomes["torch.optim.SGD()"] == "works"
    assert "_fused_adam_" in outcomes["torch.optim.Adam(fused=True)"]


def point(sparse_us: float | None, *, pays: bool, batch: int = 60, kept: int = 1000) -> cost_model.Point:
    return cost_model.Point(
        *("mlp-16", (1, 8, 8), 0.1, batch, "adam", 3, 10_000, kept, 10_000, kept, 26, 100.0, sparse_us),
        pays=pays,
    )


def test_a_wrong_choice_costs_what_the_faster_engine_would_have_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [
        point(50.0, pays=True),
        point(125.0, pays=True),
        point(50.0, pays=False),
        point(None, pays=False),
    ]
    assert [one.lost for one in points[:3]] == [0.0, 0.25, 1.0]
    cost_model.write_points(points, tmp_path / "points.json")
    assert cost_model.read_points(tmp_path / "points.json") == points
    cost_model.print_check(points)
    said = capsys.readouterr().out
    assert "4 settings, 1 of them not supported" in said
    assert "wrong in 2 of 3" in said
    assert "41.67 % longer" in said


def test_a_fit_finds_the_terms_that_times_were_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        point((20_000 + 3 * kept + 0.5 * batch * kept) / 1e3, pays=True, batch=batch, kept=kept)
        for batch in (16, 64, 128)
        for kept in (500, 1000, 2000, 5000)
    ]
    points += [replace(one, optimizer="sgd") for one in points]
    cost_model.print_fit(points)
    said = capsys.readouterr().out
    assert "update 2e+04, kept 3, tiled batch x kept multiply-adds 0.5" in said
    assert "0.00 % longer" in said


def test_a_page_is_written_and_an_unknown_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path))
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    page = tmp_path / "performance.md"
    threads = torch.get_num_threads()
    assert suite.main(["accuracy", "--quick", "--write", str(page)]) == 0
    torch.set_num_threads(threads)
    (part,) = read_parts(page.read_text()).values()
    printed = capsys.readouterr().out
    assert part.replace("\n###", "\n##") in printed
    assert page.read_text().startswith("# Performance")
    assert "| digits | lenet-300-100 | 10.0 | 250 | final |" in page.read_text()
    assert suite.main(["nothing"]) == 2
    assert "no benchmark 'nothing'" in capsys.readouterr().err


def run_of(processor: str, ratio: float, met: str) -> str:
    goals = "## Goals\n\n| goal | at least | median measured | met |\n|---|---|---|---|\n"
    goals += f"| fast | 3 | {ratio} | {met} |"
    return f"# Performance\n\n| what | value |\n|---|---|\n| processor | {processor} |\n\n{goals}\n"


def test_a_page_has_a_part_for_each_processor_and_their_goals_side_by_side() -> None:
    page = put_part(put_part("", run_of("A", 3.5, "yes")), run_of("B", 2.5, "no"))
    assert list(read_parts(page)) == ["A", "B"]
    assert "| fast | 3 | 3.5 | **2.5**, not met |" in page
    again = put_part(page, run_of("A", 4.5, "yes"))
    assert "| fast | 3 | 4.5 | **2.5**, not met |" in again
    assert read_parts(again)["B"] == read_parts(page)["B"]
    with pytest.raises(ValueError, match="names no processor"):
        put_part("", "# Performance")


def test_every_prunable_layer_gets_a_mask() -> None:
    ours = subject("conv-2")
    assert list(ours.masks(0.05)) == list(ours.architecture.prunable)
    assert ours.masks(1.0) == {}


def test_a_benchmark_that_fails_leaves_the_others_their_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(effort: Effort) -> None:
        raise Invalid(f"no {effort.name} measurement")

    monkeypatch.setitem(suite.SUITE, "roofline", ("Roofline", fail))
    page = tmp_path / "performance.md"
    threads = torch.get_num_threads()
    assert suite.main(["roofline", "torch_free", "--quick", "--write", str(page)]) == 1
    torch.set_num_threads(threads)
    text = page.read_text()
    assert "**failed**: Invalid: no quick measurement" in text
    assert text.index("### Without torch") > text.index("**failed**")
    assert "Traceback" in capsys.readouterr().err
