"""Methods that prune around a training: exact counts, the schedule by hand, nested masks, errors by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nirvana import lazy
from nirvana.errors import Cancelled, Invalid, InvalidRecipe, InvalidTicket, TrainingFailed
from nirvana.pruning.methods import RegularisedOptions
from nirvana.pruning.ranking import Masks, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.tasks import TaskData
from nirvana.torch.methods import gradual_magnitude
from nirvana.torch.methods.gradual_magnitude import prune, schedule
from nirvana.training.events import SILENT
from nirvana.training.recipe import Pruning, Recipe
from nirvana.training.spec import TrainSpec
from tests.factories import make_ticket
from tests.lab.small import SMALL, digits, finder, search_from

METHODS = ("gradual-magnitude", "regularised", "early-bird", "amc")


def make_search(
    method: str = "gradual-magnitude",
    *,
    density: float = 0.3,
    seed: int = 3,
    architecture: str = "mlp-16",
    recipe: Recipe = SMALL,
    rewind_step: int = 0,
    **fields: Any,
) -> MaskSearch:
    """A search from a dense ticket on digits."""
    ticket = make_ticket(
        architecture,
        density=1.0,
        seed=seed,
        provenance={"method": method, "level": 0},
        stored=rewind_step > 0,
        rewind_step=rewind_step,
        recipe=recipe.to_dict(),
    )
    return search_from(ticket, fields.pop("data", digits()), recipe, seed, density, **fields)


def count(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def same(one: MaskResult, other: MaskResult) -> bool:
    return all(np.array_equal(mask, other.masks[name]) for name, mask in one.masks.items())


def brief(method: str) -> Callable[[MaskSearch], MaskResult]:
    """The method, with few episodes where it has any."""
    if method == "amc":
        return lambda search: finder("amc")(replace(search, options={"warm_up": 4, "episodes": 4}))
    return finder(method)


def test_the_cubic_schedule_by_hand() -> None:
    """Of 40 steps 4 pass; then 26 prunings, one a step: 1 - (25/26)^3 at first, 7/8 half-way, 1 last."""
    rounds = list(schedule(0, 40))
    assert [step for step, _ in rounds] == list(range(5, 31))
    assert rounds[0][1] == pytest.approx(1 - (25 / 26) ** 3)
    assert rounds[12][1] == pytest.approx(7 / 8)
    assert rounds[-1][1] == 1


def test_a_longer_training_is_pruned_every_hundredth_of_its_steps() -> None:
    steps = [step for step, _ in schedule(500, 10_500)]
    assert steps[0] == 500 + 1000 + 100
    assert steps[-1] == 500 + 7500
    assert set(np.diff(steps)) == {100}


@pytest.mark.parametrize("steps", range(1, 30))
def test_even_the_shortest_training_reaches_the_density(steps: int) -> None:
    rounds = list(schedule(7, 7 + steps))
    assert rounds[-1][1] == 1
    assert all(7 <= step <= 7 + steps for step, _ in rounds)


@pytest.mark.parametrize(
    ("pruning", "expected"),
    [(Pruning(rate=0.2), {"a": 20, "b": 5}), (Pruning(rate=0.2, layer_rates={"b": 0.0}), {"a": 15, "b": 10})],
)
def test_layers_go_to_their_own_counts(pruning: Pruning, expected: dict[str, int]) -> None:
    scores = {name: np.arange(n, dtype=float) for name, n in (("a", 40), ("b", 10))}
    whole = whole_masks({"a": (40,), "b": (10,)})
    masks = prune(scores, whole, pruning, 25, 1.0)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == expected
    assert all(mask[-expected[name] :].all() for name, mask in masks.items())
    half = prune(scores, whole, pruning, 25, 0.5)
    assert int(half["a"].sum()) == 40 - round(0.5 * (40 - expected["a"]))


@pytest.mark.parametrize("pruning", [Pruning(scope="global"), Pruning(rate=0.2, output_rate=0.1)])
def test_gradual_masks_only_shrink_whatever_the_weights_do(pruning: Pruning) -> None:
    """Small layers beside large ones, and new weights at each pruning."""
    random = np.random.default_rng(0)
    shapes = {"a": (70, 9), "b": (3, 3), "c": (11,)}
    masks, before = whole_masks(shapes), whole_masks(shapes)
    kept = []
    for _, progress in schedule(0, 100):
        scores = {name: 1 + random.random(shape) for name, shape in shapes.items()}
        masks = prune(scores, masks, pruning, 130, progress)
        assert all(not (mask & ~before[name]).any() for name, mask in masks.items())
        before = masks
        kept.append(count(masks))
    assert kept[-1] == 130
    assert all(later <= earlier for earlier, later in itertools.pairwise(kept))
    assert all(abs(n - (650 - p * 520)) <= 1.5 for n, (_, p) in zip(kept, schedule(0, 100), strict=True))


def test_a_gradual_layer_never_loses_its_last_weight_silently() -> None:
    scores = {"a": np.arange(8, dtype=float) + 9, "b": np.arange(2, dtype=float)}
    with pytest.raises(InvalidTicket, match="b would keep no weight"):
        prune(scores, whole_masks({"a": (8,), "b": (2,)}), Pruning(scope="global"), 4, 1.0)


@pytest.mark.parametrize("method", ["gradual-magnitude", "regularised", "amc"])
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_each_method_keeps_exactly_what_the_density_says(method: str, scope: str) -> None:
    search = make_search(method, recipe=SMALL.override({"pruning": {"scope": scope}}))
    found = brief(method)(search)
    assert count(found.masks) == search.keep == round(0.3 * 1184)
    assert {name: mask.shape for name, mask in found.masks.items()} == search.shapes


def test_gradual_pruning_measures_the_pruned_network() -> None:
    found = gradual_magnitude.find(make_search(recipe=replace(SMALL, steps=100)))
    assert found.measured["validation_accuracy"] > 0.7
    assert (found.measured["first_pruning_step"], found.measured["last_pruning_step"]) == (11, 75)


def test_a_gradual_search_from_rewound_values_starts_at_their_step() -> None:
    found = gradual_magnitude.find(make_search(rewind_step=10))
    assert found.measured["first_pruning_step"] == 13
    with pytest.raises(InvalidRecipe, match="training starts at step 30"):
        gradual_magnitude.find(make_search(rewind_step=30))


def trained_weights(spec: TrainSpec) -> NDArray[np.float32]:
    """The first layer's, after a dense training."""
    trained = lazy.train_dense(spec, SILENT, keep_weights=True)
    assert trained.weights is not None
    return trained.weights["fc1.weight"]


def test_the_penalty_shrinks_weights_and_the_recipes_own_comes_first() -> None:
    """With a strong penalty nearly every weight is small, so other ones are the largest."""
    strong = make_search("regularised", recipe=replace(SMALL, l1=0.01))
    sizes = {
        l1: np.abs(trained_weights(replace(strong.dense_spec, recipe=replace(SMALL, l1=l1)))).mean()
        for l1 in (0.0, 0.01)
    }
    assert sizes[0.01] < 0.8 * sizes[0.0]
    assert finder("regularised")(strong).measured["l1"] == 0.01
    assert finder("regularised")(make_search("regularised")).measured["l1"] == RegularisedOptions().penalty
    assert not same(finder("regularised")(strong), finder("one-shot")(make_search("one-shot")))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_masks_and_test_data_do_not_matter(method: str) -> None:
    plain = digits()
    blind = TaskData(*plain[:4], np.full_like(plain.test_x, np.nan), np.zeros_like(plain.test_y))
    found = brief(method)(make_search(method))
    again = brief(method)(make_search(method, data=blind))
    assert same(found, again)
    assert found.measured == again.measured
    assert not same(found, brief(method)(make_search(method, seed=4)))


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_leaves_the_finite_numbers_is_named_with_its_step(method: str) -> None:
    with pytest.raises(TrainingFailed, match=f"{method}: the loss was not finite at step") as caught:
        brief(method)(make_search(method, recipe=replace(SMALL, learning_rate=1e6)))
    assert 0 <= caught.value.extra["step"] < 30


@pytest.mark.parametrize("method", METHODS)
def test_a_search_stops_when_it_is_told_to(method: str) -> None:
    with pytest.raises(Cancelled):
        brief(method)(make_search(method, should_stop=lambda: True))


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_that_distils_has_its_teacher(method: str) -> None:
    recipe = replace(SMALL, distillation={"temperature": 2.0, "weight": 0.5})
    assert not same(brief(method)(make_search(method, recipe=recipe)), brief(method)(make_search(method)))


def test_a_search_tells_how_far_it_is() -> None:
    events: list[dict[str, Any]] = []
    gradual_magnitude.find(make_search(progress=events.append))
    told = [event for event in events if event["kind"] == "search"]
    assert [event["done"] for event in told] == list(range(1, told[0]["total"] + 1))
    assert told[-1]["message"].endswith("355 weights left")


def test_a_density_that_the_rates_forbid_is_refused() -> None:
    recipe = SMALL.override({"pruning": {"rate": 0.0, "output_rate": 0.5}})
    with pytest.raises(Invalid, match="layers with rate 0 hold 1024"):
        gradual_magnitude.find(make_search(recipe=recipe))
