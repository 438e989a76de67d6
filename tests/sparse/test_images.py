"""Convolutions, batch norm, pooling and sums do what torch does, step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nirvana import sparse
from nirvana.errors import Cancelled
from nirvana.format.initial import epoch_order
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from tests.factories import make_masks
from tests.lab.small import digits, train_dense, train_sparse, values_of
from tests.sparse.test_engine import ADAM, chain, check_equal, linear, recipe

RELU, TANH, FLATTEN = ({"op": op} for op in ("relu", "tanh", "flatten"))
MEAN = {"op": "global_avg_pool"}
PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.02}


def conv(fan_in: int, out: int, kernel: int | list[int] = 3, **fields: Any) -> dict[str, Any]:
    return {"op": "conv2d", "in": fan_in, "out": out, "kernel": kernel, **fields}


def norm(channels: int) -> dict[str, Any]:
    return {"op": "batch_norm", "channels": channels}


def pool(op: str, kernel: int, **fields: Any) -> dict[str, Any]:
    return {"op": f"{op}_pool", "kernel": kernel, **fields}


CHAINS: dict[str, tuple[dict[str, Any], ...]] = {
    "a convolution with padding": (conv(1, 4, padding=1), RELU, FLATTEN, linear(256, 10)),
    "without": (conv(1, 4), RELU, conv(4, 5), RELU, FLATTEN, linear(80, 10)),
    "with more padding than it needs": (conv(1, 3, padding=3), conv(3, 4), FLATTEN, linear(400, 10)),
    "of one pixel": (conv(1, 4, 1), RELU, conv(4, 6, 1, padding=1), TANH, MEAN, linear(6, 10)),
    "as large as the image": (conv(1, 12, 8), RELU, FLATTEN, linear(12, 10)),
    "unequal sides": (conv(1, 4, kernel=[3, 2], padding=[0, 1]), RELU, FLATTEN, linear(216, 10)),
    "stride 2": (
        conv(1, 4, padding=1, stride=2),
        RELU,
        conv(4, 6, stride=2, padding=1),
        TANH,
        FLATTEN,
        linear(24, 10),
    ),
    "stride 3 that leaves a rest": (conv(1, 4, padding=1), conv(4, 6, stride=3), FLATTEN, linear(24, 10)),
    "a stride beyond the kernel": (conv(1, 4, 1), conv(4, 6, 1, stride=3), FLATTEN, linear(54, 10)),
    "unequal strides": (conv(1, 4, 1), conv(4, 6, stride=[2, 1], padding=1), FLATTEN, linear(192, 10)),
    "groups": (
        conv(1, 4, padding=1),
        RELU,
        conv(4, 6, groups=2),
        RELU,
        conv(6, 6, groups=6),
        MEAN,
        linear(6, 10),
    ),
    "no bias": (conv(1, 4, bias=False), RELU, FLATTEN, linear(144, 10, bias=False)),
    "the largest of each window": (conv(1, 4, padding=1), RELU, pool("max", 2), FLATTEN, linear(64, 10)),
    "windows that overlap": (conv(1, 4), pool("max", 3, stride=2, padding=1), TANH, FLATTEN, linear(36, 10)),
    "a mean": (conv(1, 4, padding=1), TANH, pool("avg", 2), conv(4, 4), MEAN, linear(4, 10)),
    "a mean with padding": (conv(1, 4), pool("avg", 3, stride=1, padding=1), RELU, FLATTEN, linear(144, 10)),
    "pooling that leaves a rest": (conv(1, 4), RELU, pool("max", 4), FLATTEN, linear(4, 10)),
    "pooling first": (pool("max", 2), conv(1, 4), RELU, FLATTEN, linear(16, 10)),
    "batch norm": (conv(1, 4, bias=False), norm(4), RELU, conv(4, 5), norm(5), RELU, MEAN, linear(5, 10)),
    "batch norm of features": (FLATTEN, linear(64, 20), norm(20), RELU, linear(20, 10)),
    "batch norm of the input": (norm(1), conv(1, 4), TANH, FLATTEN, norm(144), linear(144, 10)),
    "batch norm last": (FLATTEN, linear(64, 10), norm(10)),
    "an activation last": (FLATTEN, linear(64, 10), TANH),
    "activations in a row": (RELU, conv(1, 4), TANH, RELU, FLATTEN, TANH, linear(144, 10)),
    "flatten twice": (conv(1, 4, padding=1), FLATTEN, linear(256, 20), FLATTEN, linear(20, 10)),
    "no linear layer": (conv(1, 10), RELU, conv(10, 10), MEAN),
}


@pytest.mark.parametrize("nodes", CHAINS.values(), ids=CHAINS)
def test_every_op_does_what_torch_does(nodes: tuple[dict[str, Any], ...]) -> None:
    architecture = chain(*nodes)
    check_equal(architecture, make_masks(architecture, 0.5), recipe(**PLAIN))


SIGNALS: dict[str, tuple[dict[str, Any], ...]] = {
    "convolution": (
        {"op": "conv1d", "in": 2, "out": 4, "kernel": 5, "padding": 2},
        RELU,
        FLATTEN,
        linear(128, 10),
    ),
    "stride and pooling": (
        {"op": "conv1d", "in": 2, "out": 4, "kernel": 3, "stride": 2},
        pool("max", 3),
        norm(4),
        pool("avg", 2),
        MEAN,
        linear(4, 10),
    ),
}


@pytest.mark.parametrize("nodes", SIGNALS.values(), ids=SIGNALS)
def test_signals_are_trained_alike(nodes: tuple[dict[str, Any], ...]) -> None:
    architecture = chain(*nodes, input=(2, 32))
    check_equal(architecture, make_masks(architecture, 0.5), recipe(**PLAIN), data=reshaped(2, 32))


def reshaped(*shape: int) -> TaskData:
    """The digits as examples of another shape of 64 features."""
    data = digits()
    parts = {
        f"{name}_x": getattr(data, f"{name}_x").reshape(-1, *shape)
        for name in ("train", "validation", "test")
    }
    return data._replace(**parts)


def residual(*, twice: bool = False) -> Architecture:
    """Sums of two and three values, one of them of the input, and one value read by four."""
    nodes: list[dict[str, Any]] = [
        {"name": "conv1", **conv(1, 4, padding=1)},
        {"name": "relu1", **RELU},
        {"name": "conv2", **conv(4, 4, padding=1)},
        {"name": "norm2", **norm(4)},
        {"name": "add1", "op": "add", "inputs": ["norm2", "relu1"]},
        {"name": "relu2", **RELU},
        {"name": "conv3", **conv(4, 4, 1)},
        {"name": "pool3", **pool("max", 3, stride=1, padding=1), "inputs": ["relu2"]},
        {"name": "add2", "op": "add", "inputs": ["conv3", "relu1", "relu1" if twice else "pool3"]},
        {"name": "tanh2", **TANH},
        {"name": "add3", "op": "add", "inputs": ["tanh2", "pool3"]},
        {"name": "pool", **MEAN},
        {"name": "fc", **linear(4, 10)},
    ]
    return Architecture.make("residual", (1, 8, 8), nodes)


@pytest.mark.parametrize("twice", [False, True])
def test_sums_pass_gradients_on_to_all_that_they_read(twice: bool) -> None:
    architecture = residual(twice=twice)
    check_equal(architecture, make_masks(architecture, 0.5), recipe(**PLAIN))


@pytest.mark.parametrize("batch_size", [2, 16, 17, 33, 64, 65, 150])
def test_batch_norm_looks_at_the_whole_batch(batch_size: int) -> None:
    """Less than a tile, one, several, and several with a rest, whose idle lanes must not count."""
    architecture = residual()
    plan = recipe(batch_size=batch_size, **PLAIN | {"learning_rate": 0.01})
    check_equal(architecture, make_masks(architecture, 0.5), plan)


@pytest.mark.parametrize("fields", [ADAM, {"momentum": 0.9, "weight_decay": 0.01}], ids=["adam", "sgd"])
@pytest.mark.parametrize("density", [1.0, 0.2, 0.0])
def test_norms_and_convolutions_take_part_in_optimisers(fields: dict[str, Any], density: float) -> None:
    """Density 0 stands for one kept weight a layer: most rows and columns are empty. A bias before a norm
    would have no gradient but rounding, which Adam blows up."""
    first = conv(1, 4, bias=False)
    architecture = chain(first, norm(4), TANH, conv(4, 4), TANH, FLATTEN, linear(64, 10))
    check_equal(architecture, make_masks(architecture, density), recipe(**fields | {"learning_rate": 0.002}))


@pytest.mark.parametrize("name", ["lenet-5", "conv-2", "resnet-20"])
def test_networks_of_the_zoo_start_alike(name: str) -> None:
    """Two updates: later ones of deep networks tell float32's rounding."""
    architecture, data = zoo.build(name, (1, 16, 16), 10), larger_digits()
    plan = recipe(batch_size=20, **PLAIN | {"learning_rate": 0.001})
    brief = dataclasses.replace(plan, steps=2, evaluate_every=1)
    arguments: Any = (architecture, values_of(architecture), make_masks(architecture, 0.2), data, brief, 3)
    found = train_sparse(*arguments, keep_weights=True)
    expected = train_dense(*arguments, keep_weights=True)
    for one, other in zip(found.curve, expected.curve, strict=True):
        assert one[2] == pytest.approx(other[2], rel=1e-4)
    assert found.weights is not None
    assert expected.weights is not None
    assert list(found.weights) == list(expected.weights)
    for tensor, weight in expected.weights.items():
        np.testing.assert_allclose(found.weights[tensor], weight, rtol=1e-3, atol=2e-5, err_msg=tensor)


def larger_digits() -> TaskData:
    """100 digits of each split, 16 pixels wide."""
    parts: dict[str, Any] = {name: part[:100] for name, part in digits()._asdict().items()}
    wide = ((0, 0), (0, 0), (4, 4), (4, 4))
    return TaskData(**{name: np.pad(part, wide) if part.ndim == 4 else part for name, part in parts.items()})


def test_running_statistics_go_on_from_those_given() -> None:
    architecture = chain(conv(1, 4), norm(4), RELU, FLATTEN, linear(144, 10))
    values = values_of(architecture)
    values |= {"n1.running_mean": np.full(4, 0.5, np.float32), "n1.running_var": np.full(4, 2.0, np.float32)}
    check_equal(architecture, {}, recipe(**PLAIN), values=values)


def test_a_loss_that_is_not_finite_ends_the_training_as_in_torch() -> None:
    architecture = chain(conv(1, 4), RELU, pool("max", 2), FLATTEN, linear(36, 10))
    found = check_failing(architecture)
    assert found.failed


def check_failing(architecture: Architecture) -> Any:
    arguments: Any = (
        architecture,
        values_of(architecture),
        {},
        digits(),
        recipe(**PLAIN | {"learning_rate": 1e30}),
        3,
    )
    found, expected = train_sparse(*arguments), train_dense(*arguments)
    assert (found.failed, found.failed_step) == (expected.failed, expected.failed_step)
    assert found.final_test_accuracy == expected.final_test_accuracy
    return found


def test_the_same_bits_whatever_ran_before() -> None:
    """Idle lanes and halos keep nothing of earlier batches."""
    architecture, plan = residual(), recipe(batch_size=33, **PLAIN)
    first = train_sparse(architecture, values_of(architecture), {}, digits(), plan, 3, keep_weights=True)
    second = train_sparse(architecture, values_of(architecture), {}, digits(), plan, 3, keep_weights=True)
    assert first.weights is not None
    assert second.weights is not None
    for name, weight in first.weights.items():
        assert np.array_equal(weight, second.weights[name])


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_several_threads_at_an_update_give_the_same_bits(threads: int) -> None:
    """As many as there are cores, and more, also than a layer has channels."""
    plan = recipe(batch_size=70, **PLAIN)
    layers = chain(FLATTEN, linear(64, 40), TANH, linear(40, 10))
    for architecture, density in ((residual(), 0.5), (layers, 0.5), (layers, 0.9)):
        arguments: Any = (
            architecture,
            values_of(architecture),
            make_masks(architecture, density),
            digits(),
            plan,
            3,
        )
        alone = train_sparse(*arguments, keep_weights=True)
        shared = train_sparse(*arguments, keep_weights=True, threads=threads)
        assert shared.curve == alone.curve
        assert shared.final_test_accuracy == alone.final_test_accuracy
        assert alone.weights is not None
        assert shared.weights is not None
        for name, weight in alone.weights.items():
            assert np.array_equal(weight, shared.weights[name])


def test_several_threads_stop_when_they_are_told_to() -> None:
    architecture, asked = residual(), iter(range(100))
    arguments: Any = (architecture, values_of(architecture), {}, digits(), recipe(**PLAIN), 3)
    with pytest.raises(Cancelled, match="step 5 of 20"):
        train_sparse(*arguments, threads=2, should_stop=lambda: next(asked) >= 5)


@pytest.mark.parametrize("n", [0, 1, 70])
def test_logits_are_those_of_torch(n: int) -> None:
    import torch

    from nirvana import lab

    architecture = residual()
    values, masks = values_of(architecture), make_masks(architecture, 0.5)
    x = digits().test_x[epoch_order(0, 0, 200)[:n]]
    network = lab.build_module(architecture)
    lab.load_values(network, {k: v * masks[k] if k in masks else v for k, v in values.items()})
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(x)).numpy() if n else np.zeros((0, 10), np.float32)
    found = sparse.predict_logits(architecture, values, masks, x)
    assert found.shape == (n, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
