"""A graph's module computes what plain PyTorch modules compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nirvana.format.initial import default_laws, draw_all
from nirvana.lab import build_module, load_values, read_values
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture


def make_network(architecture: Architecture, seed: int = 3) -> nn.Module:
    network = build_module(architecture)
    values = draw_all(architecture, default_laws(architecture), seed)
    biases = np.random.default_rng(seed)
    shifted = {n: v + biases.normal(0, 0.1, v.shape).astype(np.float32) for n, v in values.items()}
    load_values(network, shifted)
    return network


def copy_into(plain: nn.Module, network: nn.Module) -> None:
    """By order: names of an nn.Sequential are numbers."""
    for target, source in zip(plain.parameters(), network.parameters(), strict=True):
        target.data.copy_(source.data)


def assert_same(network: nn.Module, plain: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(network(x), plain(x), rtol=1e-5, atol=1e-5)


def test_lenet_300_100_computes_what_plain_linear_layers_compute() -> None:
    network = make_network(zoo.build("lenet-300-100", (1, 8, 8), 10))
    plain = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    copy_into(plain, network)
    assert torch.equal(network(x := torch.randn(7, 1, 8, 8)), plain(x))


def test_lenet_5_computes_what_plain_layers_compute() -> None:
    network = make_network(zoo.build("lenet-5", (1, 28, 28), 10))
    convolutions = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()]
    linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    plain = nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), *linear)
    copy_into(plain, network)
    assert_same(network, plain, torch.randn(3, 1, 28, 28))


def test_conv_2_computes_what_plain_layers_compute() -> None:
    network = make_network(zoo.build("conv-2", (3, 8, 8), 10))
    convolutions = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    linear = [nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    plain = nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), *linear)
    copy_into(plain, network)
    assert_same(network, plain, torch.randn(3, 3, 8, 8))


class PlainBlock(nn.Module):
    """A residual block as everybody writes it."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        if stride != 1 or fan_in != width:
            self.shortcut: nn.Module = nn.Conv2d(fan_in, width, 1, stride, bias=False)
            self.shortcut_norm: nn.Module = nn.BatchNorm2d(width)
        else:
            self.shortcut = self.shortcut_norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut_norm(self.shortcut(x)))


def plain_resnet_20() -> nn.Module:
    widths = [(16, 16, 1), (16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1)]
    widths += [(32, 64, 2), (64, 64, 1), (64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *(PlainBlock(*width) for width in widths), *end)


def test_resnet_20_computes_what_plain_blocks_compute_in_training_and_in_evaluation() -> None:
    network, plain = make_network(zoo.build("resnet-20", (3, 16, 16), 10)), plain_resnet_20()
    copy_into(plain, network)
    x = torch.randn(4, 3, 16, 16)
    assert_same(network.train(), plain.train(), x)
    assert_same(network.eval(), plain.eval(), x)
    running = [b for name, b in plain.named_buffers() if "running" in name]
    for ours, theirs in zip(network.buffers(), running, strict=True):
        torch.testing.assert_close(ours, theirs)


def one_op(op: str, input: tuple[int, ...], **fields: Any) -> nn.Module:
    architecture = Architecture.make(op, input, [{"name": "n", "op": op, **fields}])
    return make_network(architecture) if architecture.parameters else build_module(architecture)


CASES: list[tuple[str, tuple[int, ...], dict[str, Any], nn.Module]] = [
    ("linear", (5,), {"in": 5, "out": 3}, nn.Linear(5, 3)),
    ("linear", (4, 5), {"in": 5, "out": 3, "bias": False}, nn.Linear(5, 3, bias=False)),
    ("conv1d", (4, 9), {"in": 4, "out": 6, "kernel": 3, "groups": 2}, nn.Conv1d(4, 6, 3, groups=2)),
    (
        "conv2d",
        (2, 9, 8),
        {"in": 2, "out": 3, "kernel": [3, 2], "stride": [2, 1], "padding": 1},
        nn.Conv2d(2, 3, (3, 2), (2, 1), 1),
    ),
    ("batch_norm", (3, 4, 4), {"channels": 3}, nn.BatchNorm2d(3)),
    ("layer_norm", (3, 4), {"shape": [4]}, nn.LayerNorm(4)),
    ("relu", (4,), {}, nn.ReLU()),
    ("gelu", (4,), {}, nn.GELU()),
    ("tanh", (4,), {}, nn.Tanh()),
    ("max_pool", (2, 6, 6), {"kernel": 3, "stride": 2, "padding": 1}, nn.MaxPool2d(3, 2, 1)),
    ("max_pool", (2, 7), {"kernel": 2}, nn.MaxPool1d(2)),
    ("avg_pool", (2, 6, 6), {"kernel": 3, "padding": 1}, nn.AvgPool2d(3, padding=1)),
    ("avg_pool", (2, 6), {"kernel": 2, "stride": 1}, nn.AvgPool1d(2, 1)),
    ("global_avg_pool", (3, 4, 5), {}, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
    ("flatten", (3, 4, 5), {}, nn.Flatten()),
]


@pytest.mark.parametrize(("op", "shape", "fields", "plain"), CASES, ids=lambda case: str(case)[:30])
def test_each_op_computes_what_its_pytorch_module_computes(
    op: str, shape: tuple[int, ...], fields: dict[str, Any], plain: nn.Module
) -> None:
    network = one_op(op, shape, **fields)
    copy_into(plain, network)
    assert_same(network, plain, torch.randn(4, *shape))


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_computes_what_multihead_attention_computes(causal: bool) -> None:
    fields: dict[str, Any] = {"causal": True} if causal else {}
    network = one_op("self_attention", (5, 8), features=8, heads=2, **fields)
    plain = nn.MultiheadAttention(8, 2, batch_first=True)
    values = dict(network.named_parameters())
    for theirs, ours in {
        "in_proj_weight": "in_proj.weight",
        "in_proj_bias": "in_proj.bias",
        "out_proj.weight": "out_proj.weight",
        "out_proj.bias": "out_proj.bias",
    }.items():
        plain.get_parameter(theirs).data.copy_(values[f"n.{ours}"].data)
    x = torch.randn(3, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    expected, _ = plain(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_an_embedding_looks_up_whole_numbers_and_dropout_acts_in_training_only() -> None:
    tokens = torch.tensor([[1.0, 0.0, 4.0]])
    embedding = one_op("embedding", (3,), tokens=5, features=2)
    weight = next(embedding.parameters())
    assert torch.equal(embedding(tokens)[0], weight[[1, 0, 4]])
    dropout, ones = one_op("dropout", (100,), rate=0.5), torch.ones(1, 100)
    assert torch.equal(dropout.eval()(ones), ones)
    assert set(dropout.train()(ones).unique().tolist()) == {0.0, 2.0}


def test_add_sums_all_its_inputs() -> None:
    nodes: list[dict[str, Any]] = [{"name": name, "op": "relu"} for name in ("a", "b")]
    nodes.append({"name": "sum", "op": "add", "inputs": ["a", "b", "a"]})
    network = build_module(Architecture.make("sum", (3,), nodes))
    assert torch.equal(network(torch.tensor([[1.0, -1.0, 2.0]])), torch.tensor([[3.0, 0.0, 6.0]]))


def test_state_dict_has_the_architectures_names_whatever_the_nodes_are_called() -> None:
    names = ["train", "double", "block.forward", "block", "block.weight", "parameters"]
    nodes: list[dict[str, Any]] = [{"name": name, "op": "linear", "in": 4, "out": 4} for name in names]
    architecture = Architecture.make("odd", (4,), nodes)
    network = make_network(architecture)
    assert set(network.state_dict()) == set(architecture.parameters)
    assert network(torch.ones(2, 4)).shape == (2, 4)
    assert network.train().training


def test_values_that_are_read_are_copies_under_the_architectures_names() -> None:
    architecture = zoo.build("resnet-20", (3, 8, 8), 10)
    network = build_module(architecture)
    values = read_values(network)
    assert list(values) == [*architecture.parameters, *architecture.buffers]
    values["conv.weight"][:] = 5
    assert not read_values(network)["conv.weight"].any()
