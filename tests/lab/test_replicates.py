"""Replicates in one batch train as each does alone, but for rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nirvana.engines import stacking_pays
from nirvana.errors import Cancelled, Invalid, InvalidRecipe, Unavailable
from nirvana.lab import train_replicates
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from nirvana.torch.stacked import find_unstackable
from nirvana.torch.stacked.backend import StackedReplicates, capture
from nirvana.training.recipe import Recipe
from nirvana.training.spec import InitialState, TrainResult, TrainSpec
from tests.factories import make_masks
from tests.lab.small import SMALL, digits, few, network, train_dense, values_of

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.05, "nesterov": True, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "learning_rate": 1.2e-3, "weight_decay": 1e-3},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1},
    "cosine and warm-up": {"schedule": {"kind": "cosine"}, "warmup_steps": 7},
    "steps": {"schedule": {"kind": "step", "factor": 0.1, "at": [8, 17]}},
    "l1": {"l1": 1e-4},
    "augmented": {"augmentation": ["crop", "flip"]},
}


def recipe(**fields: Any) -> Recipe:
    return SMALL.override({"steps": 25, "evaluate_every": 1, **fields})


def starts_of(architecture: Architecture, count: int = 3, step: int = 0) -> list[InitialState]:
    """Replicates of other values, masks and orders; the last one keeps all."""
    masks = [make_masks(architecture, seed=seed) for seed in range(count - 1)] + [{}]
    return [InitialState(values_of(architecture, seed), masks[seed], seed, step) for seed in range(count)]


def compare(
    architecture: Architecture, starts: list[InitialState], data: TaskData, how: Recipe, **options: Any
) -> tuple[list[TrainResult], list[TrainResult]]:
    """Results together and alone, told to be the same step by step."""
    together = train_replicates(architecture, starts, data, how, keep_weights=True, **options)
    alone = [
        train_dense(
            architecture,
            one.values,
            one.masks,
            data,
            how,
            one.order_seed,
            start_step=one.start_step,
            keep_weights=True,
            **options,
        )
        for one in starts
    ]
    assert [result.engine for result in together] == ["stacked"] * len(starts)
    for a, b in zip(together, alone, strict=True):
        same(a, b)
    return together, alone


def same(a: TrainResult, b: TrainResult) -> None:
    assert [point[0] for point in a.curve] == [point[0] for point in b.curve]
    for place in (1, 2, 3):  # training loss, validation loss, validation accuracy
        found, expected = ([point[place] or 0.0 for point in one.curve] for one in (a, b))
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5 if place < 3 else 0.005)
    assert (a.failed, a.failed_step, a.early_stop_step) == (b.failed, b.failed_step, b.early_stop_step)
    for name in ("early_stop_test_accuracy", "final_test_accuracy", "untrained_test_accuracy"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=0.003)
    assert (a.cost.images, a.flops_dense, a.flops_sparse) == (b.cost.images, b.flops_dense, b.flops_sparse)
    assert a.weights is not None
    assert b.weights is not None
    if not a.failed:
        for name, weight in b.weights.items():
            np.testing.assert_allclose(a.weights[name], weight, rtol=5e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("fields", RECIPES.values(), ids=list(RECIPES))
def test_a_perceptron_trains_step_by_step_as_each_replicate_alone(fields: dict[str, Any]) -> None:
    architecture = network("lenet-300-100")
    starts = starts_of(architecture)
    together, _ = compare(architecture, starts, few(digits(), 300), recipe(**fields))
    for start, result in zip(starts, together, strict=True):
        assert result.weights is not None
        for name, mask in start.masks.items():
            assert not result.weights[name][~mask].any()


def test_replicates_go_on_from_a_later_step() -> None:
    architecture = network()
    how = recipe(schedule={"kind": "cosine"}, warmup_steps=12)
    together, _ = compare(architecture, starts_of(architecture, step=10), digits(), how)
    assert together[0].curve[0][0] == 10
    assert together[0].cost.images == 15 * 32


def test_a_training_long_enough_to_learn_stops_early_where_it_does_alone() -> None:
    architecture = network()
    how = recipe(steps=230, evaluate_every=10, learning_rate=0.2, weight_decay=0.0)
    together, _ = compare(architecture, starts_of(architecture), few(digits(), 60), how)
    assert len({result.early_stop_step for result in together}) > 1, "each has its own"
    assert all(result.early_stop_step < 230 for result in together)


@pytest.mark.parametrize("name", ["resnet-20", "conv1d-3", "lenet-5"])
def test_convolutions_batch_norm_and_adds_train_as_alone(name: str) -> None:
    shape = {"conv1d-3": (1, 32)}.get(name, (1, 28, 28) if name == "lenet-5" else (1, 8, 8))
    architecture = zoo.build(name, shape, 10)
    random = np.random.default_rng(0)
    parts = [(random.normal(size=(40, *shape)).astype(np.float32), random.integers(0, 10, 40)) for _ in "abc"]
    data = TaskData(*(array for part in parts for array in part))  # type: ignore[arg-type]
    how = recipe(steps=3, batch_size=8, learning_rate=0.01)
    together, alone = compare(architecture, starts_of(architecture, 2), data, how)
    assert alone[0].weights is not None
    assert together[0].weights is not None
    assert set(together[0].weights) == {*architecture.parameters, *architecture.buffers}


def test_a_teacher_teaches_every_replicate() -> None:
    architecture, data = network(), digits()
    teacher = np.random.default_rng(0).normal(size=(len(data.train_y), 10)).astype(np.float32)
    how = recipe(distillation={"temperature": 2.0, "weight": 0.7})
    compare(architecture, starts_of(architecture), data, how, teacher=teacher)
    with pytest.raises(Invalid, match="teacher's logits"):
        train_replicates(architecture, starts_of(architecture), data, how)


def test_a_replicate_that_leaves_the_numbers_fails_as_alone_and_leaves_the_others_as_they_are() -> None:
    architecture, data = network(), digits()
    starts = starts_of(architecture)
    values = {name: np.float32(1e25) * value for name, value in starts[1].values.items()}
    broken = [starts[0], starts[1]._replace(values=values), starts[2]]
    together, _ = compare(architecture, broken, data, recipe())
    assert [result.failed for result in together] == [False, True, False]
    assert together[1].early_stop_test_accuracy == together[1].final_test_accuracy == 0.1
    untouched = train_replicates(architecture, starts, data, recipe(), keep_weights=True)
    for place in (0, 2):
        assert together[place].curve == untouched[place].curve
        assert bits(together[place]) == bits(untouched[place])


def test_a_replicate_that_fails_midway_names_its_step_and_keeps_its_curve() -> None:
    architecture, data = network(), digits()
    how = recipe(steps=120, evaluate_every=7, learning_rate=1e5, momentum=0.0, weight_decay=0.01)
    together, alone = compare_failures(architecture, starts_of(architecture), data, how)
    assert all(result.failed for result in together)
    assert [result.failed_step for result in together] == [result.failed_step for result in alone]
    assert [len(result.curve) for result in together] == [len(result.curve) for result in alone]
    assert all(0 < (result.failed_step or 0) < 120 for result in alone)


def compare_failures(
    architecture: Architecture, starts: list[InitialState], data: TaskData, how: Recipe
) -> tuple[list[TrainResult], list[TrainResult]]:
    together = train_replicates(architecture, starts, data, how)
    return together, [train_dense(architecture, s.values, s.masks, data, how, s.order_seed) for s in starts]


def bits(result: TrainResult) -> dict[str, bytes]:
    assert result.weights is not None
    return {name: weight.tobytes() for name, weight in result.weights.items()}


def test_the_same_stack_gives_the_same_bits() -> None:
    architecture = network("lenet-300-100")
    starts = starts_of(architecture, 5)
    results = []
    for noise in range(3):
        kept = [np.ones(1000 * noise + 1)]  # other addresses
        results.append(train_replicates(architecture, starts, digits(), recipe(), keep_weights=True))
        kept.clear()
    for again in results[1:]:
        assert [one.curve for one in again] == [one.curve for one in results[0]]
        assert [bits(one) for one in again] == [bits(one) for one in results[0]]


def test_what_does_not_stack_is_trained_one_by_one() -> None:
    nodes = [dict(node) for node in network().nodes]
    nodes.insert(-1, {"name": "drop", "op": "dropout", "rate": 0.3})
    dropped = Architecture.make("dropped", (1, 8, 8), nodes)
    assert find_unstackable(dropped) == (
        "dropout (drop) is not among the ops that stack: linear, conv2d, conv1d, batch_norm, layer_norm, "
        "relu, gelu, tanh, flatten, global_avg_pool, max_pool, avg_pool, add"
    )
    starts, events = starts_of(dropped), list[dict[str, Any]]()
    found = train_replicates(dropped, starts, digits(), recipe(), progress=events.append)
    alone = [train_dense(dropped, s.values, s.masks, digits(), recipe(), s.order_seed) for s in starts]
    assert [result.engine for result in found] == ["dense"] * 3
    assert [result.curve for result in found] == [result.curve for result in alone]
    assert {event["replicate"] for event in events} == {0, 1, 2}
    later = [starts_of(network())[0], starts_of(network(), step=5)[1]]
    found = train_replicates(network(), later, digits(), recipe())
    assert [result.engine for result in found] == ["dense"] * 2
    assert [result.curve[0][0] for result in found] == [0, 5]


def test_progress_names_the_replicate_and_a_stop_is_heard_before_the_next_update() -> None:
    architecture, events = network(), list[dict[str, Any]]()
    train_replicates(architecture, starts_of(architecture), digits(), recipe(), progress=events.append)
    last = [event for event in events if event["step"] == 25]
    assert [(event["kind"], event["replicate"], event["done"]) for event in last] == [
        ("point", place, 25) for place in range(3)
    ]
    asked = iter([False] * 4 + [True])
    with pytest.raises(Cancelled, match="step 4 of 25"):
        train_replicates(
            architecture, starts_of(architecture), digits(), recipe(), should_stop=lambda: next(asked)
        )


def test_bad_input_is_refused_by_name() -> None:
    architecture = network()
    with pytest.raises(Invalid, match="no replicates to train"):
        train_replicates(architecture, [], digits(), SMALL)
    with pytest.raises(Invalid, match="device is 'tpu', expected one of cpu, cuda"):
        train_replicates(architecture, starts_of(architecture), digits(), SMALL, device="tpu")
    with pytest.raises(InvalidRecipe, match="starts at step 30"):
        train_replicates(architecture, starts_of(architecture, step=30), digits(), SMALL)
    flat = Architecture.make("flat", (64,), [{"name": "out", "op": "linear", "in": 64, "out": 10}])
    how = recipe(augmentation=["flip"])
    with pytest.raises(InvalidRecipe, match="augmentation needs images"):
        train_replicates(flat, starts_of(flat), digits(), how)


def test_without_a_cuda_device_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    architecture = network()
    with pytest.raises(Unavailable, match="no CUDA device"):
        train_replicates(architecture, starts_of(architecture), digits(), SMALL, device="cuda")


def test_an_update_that_cannot_be_captured_runs_op_by_op_from_the_same_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def record(backend: StackedReplicates, static: torch.Tensor) -> None:
        backend.backward(static, 0)
        raise RuntimeError("an op that needs the host")

    monkeypatch.setattr("nirvana.torch.stacked.backend._record", record)
    architecture = zoo.build("resnet-20", (1, 8, 8), 10)
    starts, data, how = starts_of(architecture, 2), few(digits()), recipe(batch_size=8)
    specs = [TrainSpec(architecture, start, data, how) for start in starts]
    backend = StackedReplicates(specs, torch.device("cpu"))
    before = backend.network.copies()
    assert capture(backend) == backend.backward
    assert all(torch.equal(before[name], tensor) for name, tensor in backend.network.copies().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cuda_device_measures_the_same() -> None:
    architecture = network("lenet-300-100")
    starts, how = starts_of(architecture), recipe(**RECIPES["adam"])
    on_cpu = train_replicates(architecture, starts, digits(), how, keep_weights=True)
    on_cuda = train_replicates(architecture, starts, digits(), how, keep_weights=True, device="cuda")
    for a, b in zip(on_cuda, on_cpu, strict=True):
        same(a, b)


def test_small_chains_of_linear_layers_are_worth_stacking_and_other_networks_are_not() -> None:
    how = recipe(batch_size=60)
    assert stacking_pays(network("lenet-300-100"), how, 5)
    assert not stacking_pays(network("lenet-300-100"), how, 1)
    assert not stacking_pays(zoo.build("lenet-300-100", (1, 28, 28), 10), how, 5)
    assert not stacking_pays(zoo.build("lenet-5", (1, 28, 28), 10), how, 5)


def test_a_single_layer_and_missing_biases_stack() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "one", "op": "linear", "in": 64, "out": 20, "bias": False},
        {"name": "bend", "op": "tanh"},
        {"name": "two", "op": "linear", "in": 20, "out": 10},
    ]
    architecture = Architecture.make("unbiased", (64,), nodes)
    flat = digits()
    data = TaskData(*(a.reshape(len(a), -1) if a.ndim > 1 else a for a in flat))  # type: ignore[arg-type]
    compare(architecture, starts_of(architecture), data, recipe())
