"""Linear mode connectivity: error barriers between two trainings of one ticket."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Cancelled, Invalid, TrainingFailed
from nirvana.lab import barrier, first_ticket, load_values, train
from nirvana.torch.evaluate import _recompute_statistics, evaluate
from nirvana.torch.modules import build_module
from nirvana.verification.arms import ORDER_SEED
from tests.factories import make_ticket
from tests.lab.small import SMALL, digits, few, network

TICKET = make_ticket(recipe=SMALL.to_dict())


def test_the_line_runs_from_one_training_to_the_other() -> None:
    found = barrier(TICKET, digits(), pairs=[(0, 1)], points=3)
    ends = [
        train(
            TICKET.architecture,
            TICKET.initial_values(),
            TICKET.masks,
            digits(),
            SMALL,
            ORDER_SEED + j,
            keep_weights=True,
        )
        for j in (0, 1)
    ]
    weights = [end.weights or {} for end in ends]
    module = build_module(TICKET.architecture)
    load_values(module, {n: np.float32(0.5) * (weights[0][n] + weights[1][n]) for n in weights[0]})
    middle = 1 - evaluate(module, digits().test_x, digits().test_y)[1]
    errors = [1 - ends[0].final_test_accuracy, middle, 1 - ends[1].final_test_accuracy]
    assert found.errors[0] == pytest.approx(errors)
    assert found.mean == pytest.approx(max(errors) - (errors[0] + errors[2]) / 2)
    start = TICKET.initial_values()
    squares = [sum(np.sum((w[n] - start[n]) ** 2) for n in start) for w in weights]
    assert found.distances == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert found.cost.images == 2 * 30 * 32


def test_three_orders_make_three_pairs_and_the_result_is_json() -> None:
    events = list[dict[str, Any]]()
    found = barrier(TICKET, digits(), points=4, progress=events.append)
    assert found.pairs == [[0, 1], [1, 2], [2, 0]]
    assert [event["done"] for event in events] == [1, 2, 3]
    assert found.mean == pytest.approx(sum(found.barriers) / 3)
    assert found.stable == (found.mean < 0.02)
    assert all(len(line) == 4 for line in found.errors)
    assert found.statistics == "none"
    assert found.errors[0][-1] == found.errors[1][0]
    json.dumps(found.to_dict(), allow_nan=False)
    again = barrier(TICKET, digits(), points=4)
    assert {**again.to_dict(), "cost": 0} == {**found.to_dict(), "cost": 0}


def test_running_statistics_are_those_of_the_interpolated_weights() -> None:
    architecture = network("resnet-20")
    recipe = SMALL.override({"steps": 1, "batch_size": 8})
    ticket = first_ticket(tasks.get("digits"), architecture, recipe, 0)
    data = few(digits(), 60)
    module = build_module(architecture)
    load_values(module, ticket.initial_values())
    _recompute_statistics(module, data)
    x = data.train_x
    weight = ticket.initial_values()[f"{architecture.nodes[0]['name']}.weight"]
    sums = _first_convolution(x, weight)
    name = next(iter(architecture.buffers)).rpartition(".")[0]
    tensors = dict(module.named_buffers())
    assert tensors[f"{name}.running_mean"].numpy() == pytest.approx(sums.mean((0, 2, 3)), abs=1e-4)
    variance = sums.var((0, 2, 3), ddof=1)
    assert tensors[f"{name}.running_var"].numpy() == pytest.approx(variance, rel=1e-2, abs=1e-4)


def _first_convolution(x: Any, weight: Any) -> Any:
    """3 x 3, padding 1, stride 1: (n, channels, height, width)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(Invalid, match="different replicates"):
        barrier(TICKET, digits(), pairs=[(1, 1)])
    with pytest.raises(Invalid, match="at least one pair"):
        barrier(TICKET, digits(), pairs=[])
    with pytest.raises(Invalid, match="points is 2"):
        barrier(TICKET, digits(), points=2)
    with pytest.raises(Cancelled):
        barrier(TICKET, digits(), should_stop=lambda: True)
    failing = SMALL.override({"learning_rate": 1e30})
    with pytest.raises(TrainingFailed, match="not finite"):
        barrier(TICKET, digits(), failing, points=3)
