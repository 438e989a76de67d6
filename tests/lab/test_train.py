"""The training loop: exact masks, exact order, one look at the test data, honest failures."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nirvana.engines import advance
from nirvana.errors import Cancelled
from nirvana.format.initial import epoch_order
from nirvana.training.cost import environment, training_flops
from nirvana.training.recipe import Recipe, learning_rate
from nirvana.training.schedule import batch_indices
from tests.factories import make_masks
from tests.lab.small import SMALL, digits, few, network, spec_of, train_dense, values_of

OPTIMIZERS = [
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.01},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
]


def recipe(**fields: Any) -> Recipe:
    return dataclasses.replace(SMALL, **fields)


@pytest.mark.parametrize("fields", OPTIMIZERS, ids=lambda fields: str(fields["optimizer"]))
def test_pruned_weights_are_0_after_training_and_kept_ones_move(fields: dict[str, Any]) -> None:
    architecture = network()
    masks, values = make_masks(architecture), values_of(architecture)
    found = train_dense(architecture, values, masks, digits(), recipe(**fields), 0, keep_weights=True)
    assert found.weights is not None
    for name, mask in masks.items():
        assert not found.weights[name][~mask].any()
        assert (found.weights[name][mask] != values[name][mask]).all()


def test_training_learns_and_records_the_first_least_validation_loss() -> None:
    architecture = network("mlp-32")
    found = train_dense(architecture, values_of(architecture), {}, digits(), recipe(steps=100), 0)
    losses = [loss for _, _, loss, _ in found.curve]
    assert [step for step, *_ in found.curve] == list(range(0, 101, 10))
    assert found.early_stop_step == found.curve[int(np.argmin(losses))][0]
    assert found.early_stop_validation_loss == min(losses)
    assert found.untrained_test_accuracy < 0.3 < 0.85 < found.early_stop_test_accuracy
    assert found.curve[0][1] is None


def test_the_last_step_is_looked_at_when_it_is_no_multiple() -> None:
    architecture = network()
    found = train_dense(architecture, values_of(architecture), {}, digits(), recipe(steps=25), 0)
    assert [step for step, *_ in found.curve] == [0, 10, 20, 25]


def test_the_test_data_decide_nothing() -> None:
    architecture, data = network(), digits()
    odd = data._replace(test_y=np.roll(data.test_y, 1))
    one = train_dense(architecture, values_of(architecture), {}, data, SMALL, 0)
    other = train_dense(architecture, values_of(architecture), {}, odd, SMALL, 0)
    assert one.curve == other.curve
    assert one.early_stop_step == other.early_stop_step
    assert one.early_stop_test_accuracy != other.early_stop_test_accuracy


def test_the_loop_does_what_a_plain_pytorch_loop_does() -> None:
    architecture, data, order_seed = network(), digits(), 5
    values = values_of(architecture)
    found = train_dense(architecture, values, {}, data, SMALL, order_seed, keep_weights=True)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    for parameter, array in zip(plain.parameters(), values.values(), strict=True):
        parameter.data.copy_(torch.from_numpy(array))
    optimiser = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    order = epoch_order(order_seed, 0, 1000)
    for step in range(30):
        index = order[step * 32 : (step + 1) * 32]
        optimiser.zero_grad()
        loss = F.cross_entropy(
            plain(torch.from_numpy(data.train_x[index])), torch.from_numpy(data.train_y[index])
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert found.weights is not None
    for parameter, array in zip(plain.parameters(), found.weights.values(), strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), array, rtol=1e-4, atol=1e-6)


def test_one_seed_gives_the_same_bits_and_another_does_not() -> None:
    architecture = network()
    one, same, other = (
        train_dense(architecture, values_of(architecture), {}, digits(), SMALL, seed, keep_weights=True)
        for seed in (1, 1, 2)
    )
    assert one.weights is not None
    assert same.weights is not None
    assert other.weights is not None
    assert one.curve == same.curve
    assert all(one.weights[n].tobytes() == same.weights[n].tobytes() for n in one.weights)
    assert any(one.weights[n].tobytes() != other.weights[n].tobytes() for n in one.weights)


def test_dropout_follows_the_order_seed_and_not_the_process() -> None:
    from nirvana.networks.architecture import Architecture

    nodes = [dict(node) for node in network().nodes]
    nodes.insert(-1, {"name": "drop", "op": "dropout", "rate": 0.3})
    architecture = Architecture.make("dropped", (1, 8, 8), nodes)
    curves = []
    for noise in range(2):
        torch.manual_seed(noise)
        curves.append(train_dense(architecture, values_of(architecture), {}, digits(), SMALL, 3).curve)
    assert curves[0] == curves[1]


def test_batches_lay_epochs_end_to_end_and_leave_nobody_out() -> None:
    taken = np.concatenate(list(itertools.islice(batch_indices(9, 10, 4, 0), 5)))
    assert taken.tolist() == [*epoch_order(9, 0, 10), *epoch_order(9, 1, 10)]


@pytest.mark.parametrize("start_step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [3, 10, 25])
def test_batches_from_a_later_step_are_the_same_ones(start_step: int, batch_size: int) -> None:
    late = itertools.islice(batch_indices(2, 10, batch_size, start_step), 4)
    all_of_them = itertools.islice(batch_indices(2, 10, batch_size, 0), start_step, start_step + 4)
    for one, other in zip(late, all_of_them, strict=True):
        assert len(one) == batch_size
        assert np.array_equal(one, other)


def test_training_from_step_k_goes_on_where_k_dense_steps_ended() -> None:
    """Without momentum nothing but the weights passes over the seam."""
    architecture, data, plain = network("mlp-32"), digits(), recipe(momentum=0.0, warmup_steps=20)
    whole = train_dense(architecture, values_of(architecture), {}, data, plain, 4, keep_weights=True)
    values, is_finite = advance(spec_of(architecture, values_of(architecture), {}, data, plain, 4), 13)
    rest = train_dense(architecture, values, {}, data, plain, 4, start_step=13, keep_weights=True)
    assert is_finite
    assert whole.weights is not None
    assert rest.weights is not None
    assert all(whole.weights[n].tobytes() == rest.weights[n].tobytes() for n in whole.weights)
    assert [step for step, *_ in rest.curve] == [13, 20, 30]


def test_rewinding_carries_running_statistics() -> None:
    architecture = network("resnet-20")
    data = few(digits(), 16)
    values, _ = advance(spec_of(architecture, values_of(architecture), {}, data, recipe(batch_size=8)), 2)
    assert set(values) == {*architecture.parameters, *architecture.buffers}
    assert values["norm.running_mean"].any()
    found = train_dense(architecture, values, {}, data, recipe(batch_size=8, steps=3), 0, start_step=2)
    assert not found.failed


def test_a_loss_that_is_not_finite_is_shown_and_counts_as_chance() -> None:
    architecture = network()
    found = train_dense(architecture, values_of(architecture), {}, digits(), recipe(learning_rate=1e30), 0)
    assert found.failed
    assert found.failed_step is not None
    assert found.failed_step < 30
    assert found.early_stop_test_accuracy == found.final_test_accuracy == 0.1
    assert found.early_stop_step == 30
    assert found.early_stop_validation_loss is None


def test_cancelling_stops_before_the_next_update() -> None:
    architecture, asked = network(), iter(range(100))
    with pytest.raises(Cancelled, match="step 3 of 30"):
        train_dense(
            architecture,
            values_of(architecture),
            {},
            digits(),
            SMALL,
            0,
            should_stop=lambda: next(asked) >= 3,
        )


def test_progress_ends_with_the_last_point() -> None:
    architecture, events = network(), list[dict[str, Any]]()
    train_dense(architecture, values_of(architecture), {}, digits(), SMALL, 0, progress=events.append)
    assert events[-1]["kind"] == "point"
    assert (events[-1]["done"], events[-1]["total"], events[-1]["step"]) == (30, 30, 30)
    assert 0 <= events[-1]["validation_accuracy"] <= 1


def test_schedules_and_warm_up() -> None:
    step = recipe(learning_rate=1.0, schedule={"kind": "step", "at": [10, 20], "factor": 0.5})
    assert [learning_rate(step, s) for s in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = recipe(learning_rate=1.0, schedule={"kind": "cosine"})
    assert [learning_rate(cosine, s) for s in (0, 15, 30)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    warm = recipe(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(warm, s) for s in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1]


def test_cost_counts_multiply_adds_of_kept_weights_three_times_over() -> None:
    from nirvana.networks import zoo

    lenet = zoo.build("lenet-300-100", (1, 28, 28), 10)
    dense, sparse = training_flops(lenet, {}, 600_000)
    assert dense == sparse == 532_400 * 3 * 600_000
    masks = make_masks(lenet, 0.1)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert training_flops(lenet, masks, 7) == (532_400 * 21, kept * 2 * 21)


def test_every_result_says_what_it_cost_and_where() -> None:
    architecture = network()
    found = train_dense(architecture, values_of(architecture), make_masks(architecture), digits(), SMALL, 0)
    assert found.cost.images == 30 * 32
    assert found.flops_sparse < found.flops_dense
    assert found.seconds > 0
    assert found.cost.peak_memory_bytes > 10_000_000
    assert {"nirvana", "torch", "numpy", "python", "platform", "cpu", "threads"} == set(environment())


def test_training_leaves_torchs_settings_and_random_numbers_as_they_were() -> None:
    architecture = network()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    train_dense(architecture, values_of(architecture), {}, digits(), SMALL, 0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert np.float64(1e-308) * np.float64(0.5) > 0, "subnormals are still flushed"
