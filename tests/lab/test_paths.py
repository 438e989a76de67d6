"""Effective density in numpy is the number that torch's gradients give."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, ops_with
from nirvana.torch.modules import build_module, tensors_of
from nirvana.verification.paths import RULES, effective_density, no_paths_reason
from tests.lab.small import SMALL

CASES: list[tuple[str, tuple[int, ...]]] = [
    *(
        (name, (3, 32, 32))
        for name in ("lenet-300-100", "lenet-5", "conv-2", "conv-6", "resnet-20", "vgg-16")
    ),
    *((name, (1, 28, 28)) for name in ("conv-4", "resnet-32", "vgg-11")),
    *((name, (3, 16, 16)) for name in ("resnet-18", "resnet-56", "vgg-19")),
    ("mlp-20-30", (7,)),
    ("conv1d-3", (9, 64)),
]
WINDOWS: list[dict[str, Any]] = [
    {"name": "conv1", "op": "conv2d", "in": 3, "out": 4, "kernel": [3, 2], "stride": [2, 1]},
    {"name": "norm1", "op": "batch_norm", "channels": 4},
    {"name": "unread", "op": "conv2d", "in": 4, "out": 4, "kernel": 1},
    {"name": "conv2", "op": "conv2d", "in": 4, "out": 4, "kernel": 3, "padding": 1, "groups": 2,
     "inputs": ["norm1"]},
    {"name": "sum", "op": "add", "inputs": ["norm1", "conv2", "norm1"]},
    {"name": "pool1", "op": "avg_pool", "kernel": 3, "stride": 2, "padding": 1},
    {"name": "pool2", "op": "max_pool", "kernel": [2, 1], "stride": [1, 2], "padding": [1, 0]},
    {"name": "whole", "op": "conv2d", "in": 4, "out": 6, "kernel": [4, 2]},
    {"name": "drop", "op": "dropout", "rate": 0.5},
    {"name": "flat", "op": "flatten"},
    {"name": "norm2", "op": "batch_norm", "channels": 6},
    {"name": "logits", "op": "linear", "in": 6, "out": 5, "bias": False},
]  # fmt: skip
TOKENS: list[dict[str, Any]] = [
    {"name": "each", "op": "linear", "in": 6, "out": 4},
    {"name": "conv", "op": "conv1d", "in": 5, "out": 10, "kernel": 2, "stride": 2, "groups": 5},
    {"name": "pool", "op": "max_pool", "kernel": 2, "stride": 1},
    {"name": "mean", "op": "global_avg_pool"},
    {"name": "fc", "op": "linear", "in": 10, "out": 3},
]


def masked(architecture: Architecture, *densities: float) -> Iterator[Ticket]:
    """Tickets with random masks, put together without being written, which takes seconds for large ones."""
    laws, recipe = dict.fromkeys(architecture.parameters, "zeros"), SMALL.to_dict()
    whole = Ticket.create(architecture, {}, task="digits", recipe=recipe, laws=laws, seed=1)
    random = np.random.default_rng(0)
    for density in densities:
        masks = {name: random.random(architecture.parameters[name]) < density for name in whole.prunable}
        yield dataclasses.replace(whole, masks=masks)


def density_by_torch(ticket: Ticket) -> float:
    """Path products from ones as values and inputs, differentiated by the weights."""
    network = build_module(ticket.architecture).double().eval()
    tensors = tensors_of(network)
    with torch.no_grad():
        for name, tensor in tensors.items():
            is_shift = name.endswith(("bias", "running_mean"))
            mask = torch.from_numpy(ticket.mask(name)) if name in ticket.masks else torch.ones_like(tensor)
            tensor.copy_(torch.zeros_like(tensor) if is_shift else mask)
    outputs = network(torch.ones((1, *ticket.architecture.input), dtype=torch.float64))
    outputs.sum().backward()
    alive = 0
    for name in ticket.prunable:
        gradient = tensors[name].grad
        if gradient is not None:
            alive += int(((gradient > 0) & (tensors[name] > 0)).sum())
    return alive / ticket.total


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_zoos_networks_have_the_density_that_torch_finds(name: str, shape: tuple[int, ...]) -> None:
    architecture = zoo.build(name, shape, 10)
    for ticket in masked(architecture, 0.3, 0.01):
        assert effective_density(ticket) == density_by_torch(ticket)


@pytest.mark.parametrize(("nodes", "shape"), [(WINDOWS, (3, 11, 8)), (TOKENS, (5, 6))])
def test_windows_groups_sums_and_signals_have_it_too(
    nodes: list[dict[str, Any]], shape: tuple[int, ...]
) -> None:
    architecture = Architecture.make("made", shape, nodes)
    for ticket in masked(architecture, *[0.3] * 20):
        assert effective_density(ticket) == density_by_torch(ticket)


def test_ops_on_paths_have_a_rule_or_are_elementwise() -> None:
    assert set(ops_with(lambda op: op.on_paths)) == set(RULES) | {"relu", "dropout"}
    assert all(OPS[name].elementwise for name in ("relu", "dropout"))


def test_an_op_without_paths_is_named_and_has_no_density() -> None:
    architecture = zoo.build("transformer-2", (9, 64), 10)
    assert effective_density(next(masked(architecture, 0.5))) is None
    reason = no_paths_reason(architecture)
    assert reason is not None
    assert reason.startswith("layer_norm (position) is not among the ops whose paths are counted: linear, ")
