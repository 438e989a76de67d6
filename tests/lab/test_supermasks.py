"""Masks that score without training: drawn masks and their gradients, densities, and what is measured."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.errors import Cancelled, InvalidTicket, TrainingFailed
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.lab import find, train
from nirvana.networks.architecture import Architecture
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.tasks import TaskData
from nirvana.torch.methods.edge_popup import keep_top
from nirvana.torch.methods.score_learning import scale_of, uniform_counts, validation_accuracy
from nirvana.torch.methods.supermask import bernoulli, hold
from nirvana.training.recipe import Recipe
from tests.lab.small import SMALL, digits, few, finder, network, search_from

METHODS = ("supermask", "edge-popup")
DENSITY = 0.2


def search_of(
    architecture: Architecture | None = None,
    density: float = DENSITY,
    *,
    seed: int = 0,
    data: TaskData | None = None,
    recipe: Recipe = SMALL,
    **fields: Any,
) -> MaskSearch:
    """A search of digits from a seed's dense start."""
    graph = architecture or network("mlp-32")
    prunable, laws = fields.pop("prunable", None), default_laws(graph)
    ticket = Ticket.create(
        graph, {}, task="digits", recipe=recipe.to_dict(), laws=laws, seed=seed, prunable=prunable
    )
    return search_from(ticket, data or digits(), recipe, seed, density, **fields)


@functools.cache
def found_by(method: str, seed: int = 0) -> MaskResult:
    return finder(method)(search_of(seed=seed))


def are_equal(one: MaskResult, other: MaskResult) -> bool:
    return all(np.array_equal(mask, other.masks[name]) for name, mask in one.masks.items())


def test_a_drawn_mask_has_the_gradient_of_its_probability() -> None:
    scores = torch.tensor([0.0, 50.0, -50.0, 1.0], requires_grad=True)
    mask = bernoulli(scores)
    assert set(mask.tolist()) <= {0.0, 1.0}
    assert mask[1:3].tolist() == [1, 0]
    (mask * torch.tensor([4.0, 1, 1, 1])).sum().backward()  # type: ignore[no-untyped-call]
    sigmoid = 1 / (1 + np.exp(-1))
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([1, 0, 0, sigmoid * (1 - sigmoid)])


def test_drawn_masks_keep_weights_as_often_as_their_probability_says() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([0.0, -1.0, 2.0])
    often = torch.stack([bernoulli(scores) for _ in range(4000)]).mean(0)
    assert torch.allclose(often, torch.sigmoid(scores), atol=0.03)


@pytest.mark.parametrize("density", [0.01, 0.5, 0.95])
def test_scores_are_shifted_to_the_density_and_keep_their_differences(density: float) -> None:
    scores = torch.linspace(-3, 3, 1000)
    before = scores.clone()
    for _ in range(10):
        hold(scores, density)
    assert torch.sigmoid(scores).mean().item() == pytest.approx(density, rel=1e-3)
    assert torch.allclose(scores - scores[0], before - before[0], atol=1e-5)


def test_the_highest_scores_by_size_are_kept_and_the_gradient_passes_to_all() -> None:
    scores = torch.tensor([[0.1, -0.9], [0.5, -0.3]], requires_grad=True)
    mask = keep_top(scores, 2)
    assert mask.tolist() == [[0, 1], [1, 0]]
    (mask * torch.tensor([[1.0, 2], [3, 4]])).sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1, -2], [3, -4]]


@pytest.mark.parametrize("method", METHODS)
def test_a_supermask_beats_random_masks_without_training(method: str) -> None:
    search, masks = search_of(), found_by(method).masks
    random = [finder("random")(search_of(seed=seed)).masks for seed in range(5)]
    assert validation_accuracy(search, masks) > 0.75
    assert max(validation_accuracy(search, mask) for mask in random) < 0.4


@pytest.mark.parametrize("method", METHODS)
def test_counts_are_exact_and_densities_even(method: str) -> None:
    search, masks = search_of(), found_by(method).masks
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert counts == uniform_counts(search)
    assert sum(counts.values()) == search.keep == round(DENSITY * search.ticket.prunable_total)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_measured_is_the_accuracy_of_the_initial_values_under_the_mask(method: str) -> None:
    search, found = search_of(), found_by(method)
    data = search.data
    swapped = data._replace(test_x=data.validation_x, test_y=data.validation_y)
    training = train(search.ticket.architecture, search.values, found.masks, swapped, SMALL, 0)
    assert found.measured["untrained_validation_accuracy"] == training.untrained_test_accuracy


def test_ten_drawn_masks_score_about_as_the_final_one() -> None:
    measured = found_by("supermask").measured
    assert measured["sampled_validation_accuracy"] == pytest.approx(
        measured["untrained_validation_accuracy"], abs=0.1
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_decides_the_mask_whatever_torchs_generator_holds(method: str) -> None:
    torch.manual_seed(7)
    again = finder(method)(search_of())
    assert are_equal(again, found_by(method))
    assert again.measured == found_by(method).measured
    assert not are_equal(again, found_by(method, seed=1))


@pytest.mark.parametrize("method", METHODS)
def test_neither_validation_nor_test_data_decide_the_mask(method: str) -> None:
    data = digits()
    names = ("validation_x", "test_x")
    blind = data._replace(**{name: np.full_like(getattr(data, name), np.nan) for name in names})
    assert are_equal(finder(method)(search_of(data=blind)), found_by(method))


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_and_attention_are_masked_too(method: str) -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv1d", "in": 8, "out": 6, "kernel": 1},
        {"name": "back", "op": "conv1d", "in": 6, "out": 8, "kernel": 1},
        {"name": "attention", "op": "self_attention", "features": 8, "heads": 2},
        {"name": "flat", "op": "flatten"},
        {"name": "fc", "op": "linear", "in": 64, "out": 10},
    ]
    data = few(digits(), 60)
    rows = data._replace(
        train_x=data.train_x[:, 0], validation_x=data.validation_x[:, 0], test_x=data.test_x[:, 0]
    )
    prunable = (
        "conv.weight",
        "back.weight",
        "attention.in_proj.weight",
        "attention.out_proj.weight",
        "fc.weight",
    )
    recipe = SMALL.override({"batch_size": 4})
    search = search_of(
        Architecture.make("mixed", (8, 8), nodes), 0.5, data=rows, recipe=recipe, prunable=prunable
    )
    masks = finder(method)(search).masks
    assert tuple(masks) == prunable
    assert sum(int(mask.sum()) for mask in masks.values()) == search.keep


def test_weights_are_scaled_only_where_that_changes_no_prediction() -> None:
    chain = search_of(density=0.25)
    assert scale_of(chain) == 2
    assert scale_of(search_of(network("resnet-20"), 0.25)) == 1
    graph = chain.ticket.architecture
    values = chain.values | {"fc1.bias": np.ones(32, np.float32)}
    fields: dict[str, Any] = {"task": "digits", "recipe": SMALL.to_dict(), "laws": default_laws(graph)}
    rewound = Ticket.create(graph, {}, stored=values, rewind_step=3, **fields)
    assert scale_of(MaskSearch(rewound, chain.data, SMALL, 0, 0.25)) == 1


def test_another_criterion_is_that_of_one_training() -> None:
    recipe = SMALL.override({"steps": 100, "pruning": {"criterion": "large_final_same_sign"}})
    search = search_of(recipe=recipe)
    found = finder("supermask")(search)
    assert are_equal(found, finder("one-shot")(search))
    assert list(found.measured) == ["untrained_validation_accuracy"]
    assert found.measured["untrained_validation_accuracy"] > 0.4


@pytest.mark.parametrize("method", METHODS)
def test_fewer_weights_than_layers_is_an_error_that_names_a_layer(method: str) -> None:
    with pytest.raises(InvalidTicket, match=r"fc2\.weight would keep no weight"):
        finder(method)(search_of(density=1.2 / network("mlp-32").prunable_total))


def test_a_density_that_rounds_to_everything_keeps_everything() -> None:
    for method in METHODS:
        search = search_of(network("mlp-4"), 0.9999, data=few(digits()))
        assert all(mask.all() for mask in finder(method)(search).masks.values())


def test_learning_tells_its_steps_and_can_be_cancelled() -> None:
    events: list[dict[str, Any]] = []
    search = search_of(progress=events.append, should_stop=lambda: len(events) == 2)
    with pytest.raises(Cancelled, match="step 50 of 1000"):
        finder("edge-popup")(search)
    assert [(event["kind"], event["done"], event["total"]) for event in events] == [
        ("search", 25, 1000),
        ("search", 50, 1000),
    ]


def test_a_loss_that_is_not_finite_names_the_step() -> None:
    data = digits()
    broken = data._replace(train_x=np.full_like(data.train_x, np.inf))
    with pytest.raises(TrainingFailed, match="not finite at step 0"):
        finder("supermask")(search_of(data=broken))


def test_a_ticket_that_was_found_so_claims_its_untrained_accuracy() -> None:
    report = find("digits", "mlp-32", "edge-popup", density=DENSITY, recipe=SMALL)
    (ticket,) = report.tickets[-1:]
    claims = {claim["metric"]: claim["value"] for claim in ticket.claims}
    assert claims["untrained_test_accuracy"] > 0.85
    assert are_equal(MaskResult(dict(ticket.masks)), found_by("edge-popup"))
