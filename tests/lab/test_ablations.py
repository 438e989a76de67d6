"""Ablations of IMP (Zhou et al. 2019) and the methods that keep trained weights (Renda et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nirvana.errors import Invalid, InvalidRecipe
from nirvana.format.initial import REINIT, draw
from nirvana.format.ticket import Ticket
from nirvana.lab import PruningTarget, find, find_level, train
from nirvana.pruning.imp import score
from nirvana.pruning.methods import METHODS
from nirvana.torch.dense import teacher_logits
from nirvana.training.recipe import Pruning, Recipe, learning_rate
from nirvana.verification.gate import check_gate
from tests.factories import torch_ticket
from tests.lab.small import SMALL, digits, network, spec_of, values_of

INITIAL = {"a": np.array([1.0, -2.0, 3.0, -0.5], np.float32)}
TRAINED = {"a": np.array([2.0, 1.0, 3.5, -1.5], np.float32)}


def tickets(method: str = "imp", levels: int = 2, **recipe: Any) -> list[Ticket]:
    return find("digits", "mlp-16", method, levels=levels, recipe=SMALL.override(recipe)).tickets


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("large_final", [2.0, 1.0, 3.5, 1.5]),
        ("magnitude_increase", [1.0, -1.0, 0.5, 1.0]),
        ("movement", [1.0, 3.0, 0.5, 1.0]),
        ("small_final", [-2.0, -1.0, -3.5, -1.5]),
        ("large_init", [1.0, 2.0, 3.0, 0.5]),
        ("large_final_same_sign", [2.0, 0.0, 3.5, 1.5]),
    ],
)
def test_each_criterion_ranks_as_its_formula_says(criterion: str, expected: list[float]) -> None:
    assert score(criterion, TRAINED, INITIAL, 0)["a"].tolist() == expected


def test_the_random_criterion_follows_its_seed_and_not_the_weights() -> None:
    one, same = score("random", TRAINED, INITIAL, 3)["a"], score("random", INITIAL, INITIAL, 3)["a"]
    assert np.array_equal(one, same)
    assert not np.array_equal(one, score("random", TRAINED, INITIAL, 4)["a"])


def test_a_criterion_of_the_recipe_decides_which_weights_stay() -> None:
    smallest = tickets(pruning={"criterion": "small_final"})[-1]
    largest = tickets()[-1]
    for name in largest.masks:
        assert smallest.masks[name].sum() == largest.masks[name].sum()
        assert (smallest.masks[name] & largest.masks[name]).sum() < largest.masks[name].sum() / 2


def test_kept_weights_drawn_anew_follow_their_law_and_differ_from_level_to_level() -> None:
    dense, one, two = tickets(pruning={"mask_1_action": "reinit"})
    for ticket in (one, two):
        assert ticket.start.kind == "stored"
        assert ticket.stores_whole_tensors
        assert check_gate(ticket).invalid is None
    first, second = one.dense_initial_values(), two.dense_initial_values()
    assert first is not None
    assert second is not None
    assert not np.array_equal(first["fc1.weight"], second["fc1.weight"])
    assert np.array_equal(first["fc1.weight"], draw("glorot_normal", (16, 64), 2**40, 0, REINIT))
    assert not np.array_equal(first["fc1.weight"], dense.initial["fc1.weight"])


@pytest.mark.parametrize("action", ["rewind", "reinit", "reshuffle"])
def test_a_search_goes_on_from_a_torch_ticket_by_its_scheme(action: str) -> None:
    recipe = SMALL.override({"steps": 3, "pruning": {"mask_1_action": action}})
    provenance = {"method": "imp", "level": 0}
    first = torch_ticket(order=("fc2", "fc1"), recipe=recipe.to_dict(), provenance=provenance)
    _, following = find_level(first, digits(), 0, PruningTarget("imp", levels=1))
    assert following is not None
    if action == "rewind":
        assert dataclasses.replace(following.start, sha256=first.start.sha256) == first.start
        assert following.is_redrawable
    else:
        assert (following.start.kind, following.start.seed, following.start.order) == ("stored", None, ())
    assert check_gate(following).invalid is None


def test_reshuffled_weights_are_the_layers_own_in_other_places() -> None:
    dense, one, _ = tickets(pruning={"mask_1_action": "reshuffle"})
    for name, mask in one.masks.items():
        before, after = dense.initial[name][mask], one.initial[name][mask]
        assert sorted(before.tolist()) == sorted(after.tolist())
        assert not np.array_equal(before, after)


def test_constant_weights_keep_their_signs_alone() -> None:
    dense, one, two = tickets(pruning={"mask_1_action": "constant"})
    for ticket in (one, two):
        assert check_gate(ticket).invalid is None
        for name, mask in ticket.masks.items():
            values = ticket.initial[name][mask]
            fan_in = mask.shape[1]
            assert np.allclose(np.abs(values), np.sqrt(2 / fan_in))
            assert np.array_equal(np.sign(values), np.sign(dense.initial[name][mask]))


def test_frozen_pruned_weights_stay_at_their_initial_values_while_training() -> None:
    architecture, values = network(), values_of(network())
    masks = {"fc1.weight": np.arange(16 * 64).reshape(16, 64) % 3 == 0}
    result = train(architecture, values, masks, digits(), SMALL, 0, keep_weights=True, held=values)
    assert result.weights is not None
    pruned = ~masks["fc1.weight"]
    assert np.array_equal(result.weights["fc1.weight"][pruned], values["fc1.weight"][pruned])
    assert not np.array_equal(result.weights["fc1.weight"][~pruned], values["fc1.weight"][~pruned])


def test_a_search_that_freezes_measures_another_network_than_one_that_zeroes() -> None:
    frozen = find(
        "digits", "mlp-16", levels=1, recipe=SMALL.override({"pruning": {"mask_0_action": "freeze"}})
    )
    zeroed = find("digits", "mlp-16", levels=1, recipe=SMALL)
    assert frozen.levels[0]["final_test_accuracy"] == zeroed.levels[0]["final_test_accuracy"]
    assert frozen.levels[1]["untrained_test_accuracy"] != zeroed.levels[1]["untrained_test_accuracy"]


@pytest.mark.parametrize("action", [{"mask_1_action": "reinit"}, {"mask_0_action": "freeze"}])
def test_ablations_of_the_start_are_refused_with_rewinding(action: dict[str, str]) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        SMALL.override({"pruning": {"rewind_step": 5} | action})
    assert [problem.code for problem in caught.value.errors] == ["with-rewinding"]


@pytest.mark.parametrize("method", ["lr-rewinding", "fine-tuning"])
def test_retraining_goes_on_from_the_trained_survivors(method: str) -> None:
    found = tickets(method, schedule={"kind": "step", "at": [15], "factor": 0.1})
    dense, one, two = found
    recipe = Recipe.from_dict(dict(dense.recipe))
    assert recipe.pruning.scope == "global"
    weights = train(
        dense.architecture, dense.initial_values(), {}, digits(), recipe, 0, keep_weights=True
    ).weights
    assert weights is not None
    for name, mask in one.masks.items():
        assert np.array_equal(one.initial[name], np.where(mask, weights[name], 0))
    assert [ticket.start.rewind_step for ticket in found] == [0, 30, 60]
    later = [Recipe.from_dict(dict(ticket.recipe)) for ticket in (one, two)]
    assert [
        recipe.first_step(ticket.start.rewind_step) for ticket, recipe in zip(found[1:], later, strict=True)
    ] == [
        0,
        0,
    ]
    rates = [learning_rate(later[0], step) for step in (0, 29)]
    expected = [0.1, 0.01] if method == "lr-rewinding" else [0.01, 0.01]
    assert rates == pytest.approx(expected)


def test_lr_rewinding_goes_back_to_the_rewind_step_of_the_schedule() -> None:
    dense, one, two = tickets("lr-rewinding", pruning={"rewind_step": 20})
    assert [ticket.start.rewind_step for ticket in (dense, one, two)] == [0, 30, 40]
    assert Recipe.from_dict(dict(one.recipe)).start_step == 20


def test_a_distilled_network_learns_from_the_teacher() -> None:
    recipe = METHODS["distilled"].adapt(SMALL, {})
    assert recipe.distillation == {"temperature": 4.0, "weight": 0.5}
    architecture, values, data = network(), values_of(network()), digits()
    logits = teacher_logits(spec_of(architecture, values, {}, data, recipe))
    taught = train(architecture, values, {}, data, recipe, 0, teacher=logits)
    misled = train(architecture, values, {}, data, recipe, 0, teacher=np.roll(logits, 1, axis=1))
    alone = train(architecture, values, {}, data, SMALL, 0)
    assert taught.curve != alone.curve
    assert taught.final_test_accuracy > misled.final_test_accuracy + 0.1


def test_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(Invalid, match="teacher"):
        train(network(), values_of(network()), {}, digits(), METHODS["distilled"].adapt(SMALL, {}), 0)


def test_an_l1_penalty_shrinks_the_weights() -> None:
    architecture, values = network(), values_of(network())
    sums = []
    for l1 in (0.0, 1e-2):
        weights = train(
            architecture, values, {}, digits(), SMALL.override({"l1": l1}), 0, keep_weights=True
        ).weights
        assert weights is not None
        sums.append(np.abs(weights["fc1.weight"]).sum())
    assert sums[1] < 0.8 * sums[0]


def test_older_recipes_keep_their_digests() -> None:
    fields = SMALL.to_dict()
    assert not {"l1", "distillation", "augmentation", "start_step"} & set(fields)
    assert not {"criterion", "mask_1_action", "mask_0_action"} & set(fields["pruning"])
    changed = SMALL.override({"l1": 0.1, "augmentation": ["flip"], "pruning": {"criterion": "movement"}})
    assert Recipe.from_dict(changed.to_dict()) == changed
    assert changed.digest != SMALL.digest
    assert Pruning().criterion == "large_final"
