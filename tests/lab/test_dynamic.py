"""Dynamic sparse training: a mask that moves, with as many weights in every layer; it decides nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.lab import verify
from nirvana.torch import dynamic
from nirvana.torch.dynamic import Dynamic, move_every, move_mask
from nirvana.training import loop
from nirvana.training.events import SILENT
from nirvana.training.spec import InitialState, TrainSpec
from tests.factories import make_masks, make_ticket
from tests.lab.small import SMALL, digits, network, values_of
from tests.lab.test_arms import rewound

RECIPE = SMALL.override({"steps": 120, "evaluate_every": 40})


def spec(seed: int = 0) -> TrainSpec:
    graph = network("mlp-16")
    start = InitialState(values_of(graph), make_masks(graph, 0.2), seed)
    return TrainSpec(graph, start, digits(), RECIPE, sealed=tasks.load_sealed("digits"))


def test_a_move_drops_the_smallest_and_grows_the_highest_scores() -> None:
    weight = torch.tensor([[0.1, -0.5, 0.0, 0.0], [0.3, 0.0, 0.0, -0.2]])
    mask = (weight != 0).float()
    scores = torch.tensor([[9.0, 9.0, 0.1, 0.4], [9.0, 0.3, 0.2, 9.0]])
    moved = move_mask(weight, mask, scores, 0.5)
    assert moved.tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    assert torch.equal(move_mask(weight, mask, scores, 0.0), mask)
    assert move_mask(weight, torch.ones_like(mask), scores, 0.5).sum() == 8, "nothing is pruned to grow"


@pytest.mark.parametrize(("steps", "every"), [(250, 6), (10_000, 100), (4_000, 100), (40, 1), (1, 1)])
def test_a_short_recipe_moves_more_often(steps: int, every: int) -> None:
    assert move_every(steps) == every


@pytest.mark.parametrize("kind", dynamic.KINDS)
def test_every_layer_keeps_as_many_weights_and_pruned_ones_stay_at_0(kind: str) -> None:
    backends = list[Dynamic]()

    def make() -> Dynamic:
        backends.append(Dynamic(spec(), kind))
        return backends[-1]

    (result,) = loop.train(make, [spec()], [SILENT], keep_weights=True)
    assert result.weights is not None
    assert not result.failed
    for name, mask in zip(spec().initial.masks, backends[0].masks, strict=True):
        first = spec().initial.masks[name]
        assert int(mask.sum()) == int(first.sum())
        assert (mask.numpy() != first).any(), "it has moved"
        assert not result.weights[name][mask.numpy() == 0].any()


def test_rigl_grows_where_the_loss_falls_fastest_and_forgets_their_momentum() -> None:
    backend = Dynamic(spec(), "rigl")
    index = torch.arange(60)
    backend._step(index, 0.001, 0)
    before = [mask.clone() for mask in backend.masks]
    gradients = [weight.grad.abs().clone() for weight in backend.weights if weight.grad is not None]
    backend._move(0.1)
    for weight, mask, was, gradient in zip(backend.weights, backend.masks, before, gradients, strict=True):
        grown = (mask > was).bool()
        assert grown.any()
        left = (mask == 0) & (was == 0)
        assert gradient[grown].min() >= gradient[left].max()
        assert not weight.detach()[grown].any()
        assert not any(state[grown].any() for state in backend._momenta(weight))


@pytest.mark.parametrize("kind", dynamic.KINDS)
def test_one_seed_gives_the_same_run_and_another_does_not(kind: str) -> None:
    runs = [dynamic.train(spec(seed), kind) for seed in (1, 1, 2)]
    assert runs[0].curve == runs[1].curve != runs[2].curve
    assert runs[0].sealed is not None


@pytest.mark.parametrize("kind", dynamic.KINDS)
def test_it_stands_beside_the_verdict_and_changes_nothing_of_it(kind: str) -> None:
    ticket = make_ticket(recipe=RECIPE.to_dict())
    plain = verify(ticket, replicates=3, seed=0, cache=None).to_dict()
    events = list[dict[str, Any]]()
    beside = verify(ticket, replicates=3, seed=0, cache=None, dynamic=kind, progress=events.append).to_dict()
    found = beside.pop("dynamic")
    assert {**beside, "cost": 0} == {**plain, "cost": 0}
    assert (found["kind"], len(found["accuracies"]), len(found["test"])) == (kind, 3, 3)
    mean = np.mean(beside["arms"]["ticket"]) - np.mean(found["accuracies"])
    assert found["difference"]["mean"] == pytest.approx(mean)
    assert [event["done"] for event in events if event.get("arm") == kind] == [1, 2, 3]


def test_another_kind_and_a_rewound_ticket_are_refused() -> None:
    with pytest.raises(Invalid, match="dynamic is 'magic', expected one of rigl, set"):
        verify(make_ticket(), replicates=2, dynamic="magic", cache=None)
    with pytest.raises(Invalid, match="trains from step 0"):
        verify(rewound(), replicates=2, dynamic="set", cache=None)
