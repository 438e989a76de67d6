"""Every architecture of the zoo computes what a plain module of torch computes, in training and evaluation.

The plain modules are written out here and share nothing with the zoo but the order of their parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nirvana.lab import build_module, load_values
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture


def lenet_300_100() -> nn.Module:
    layers = [nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def mlp_20_30() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def lenet_5() -> nn.Module:
    first = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    linear = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*first, *second, *linear)


def conv_n(layers: int) -> nn.Module:
    parts: list[nn.Module] = []
    fan_in = 3
    for width in (64, 128, 256)[: layers // 2]:
        parts += [nn.Conv2d(fan_in, width, 3, padding=1), nn.ReLU()]
        parts += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        fan_in = width
    flat = fan_in * (32 // 2 ** (layers // 2)) ** 2
    linear = [nn.Linear(flat, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*parts, nn.Flatten(), *linear)


class Block(nn.Module):
    """He's basic block with a projection where the shape changes."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if (fan_in, 1) != (width, stride):
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet(widths: tuple[int, ...], blocks: int) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0])]
    parts.append(nn.ReLU())
    fan_in = widths[0]
    for width in widths:
        for number in range(blocks):
            parts.append(Block(fan_in, width, 2 if number == 0 and width != widths[0] else 1))
            fan_in = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, 10))


VGG = {  # configurations A, D and E; M is a pooling
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512",
}


def vgg(depth: int) -> nn.Module:
    parts: list[nn.Module] = []
    fan_in = 3
    for entry in VGG[depth].split():
        if entry == "M":
            parts.append(nn.MaxPool2d(2, 2))
        else:
            parts += [nn.Conv2d(fan_in, int(entry), 3, padding=1), nn.BatchNorm2d(int(entry)), nn.ReLU()]
            fan_in = int(entry)
    return nn.Sequential(*parts, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 10))


def conv1d_3() -> nn.Module:
    parts: list[nn.Module] = []
    for fan_in, width, kernel in ((4, 128, 7), (128, 256, 5), (256, 128, 3)):
        parts += [nn.Conv1d(fan_in, width, kernel, padding="same", bias=False), nn.BatchNorm1d(width)]
        parts.append(nn.ReLU())
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 10))


def transformer(embed: nn.Module, length: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 256, 0.0, "gelu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(64), enable_nested_tensor=False)
    return nn.Sequential(embed, nn.LayerNorm([length, 64]), encoder, nn.Flatten(), nn.Linear(length * 64, 10))


IMAGE = (3, 32, 32)
PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": (lenet_300_100, (1, 8, 8)),
    "mlp-20-30": (mlp_20_30, (13,)),
    "lenet-5": (lenet_5, (1, 28, 28)),
    "conv-2": (lambda: conv_n(2), IMAGE),
    "conv-4": (lambda: conv_n(4), IMAGE),
    "conv-6": (lambda: conv_n(6), IMAGE),
    "resnet-18": (lambda: resnet((64, 128, 256, 512), 2), IMAGE),
    "resnet-20": (lambda: resnet((16, 32, 64), 3), IMAGE),
    "resnet-32": (lambda: resnet((16, 32, 64), 5), IMAGE),
    "resnet-56": (lambda: resnet((16, 32, 64), 9), IMAGE),
    "vgg-11": (lambda: vgg(11), IMAGE),
    "vgg-16": (lambda: vgg(16), IMAGE),
    "vgg-19": (lambda: vgg(19), IMAGE),
    "conv1d-3": (conv1d_3, (4, 30)),
    "transformer-2": (lambda: transformer(nn.Linear(8, 64), 6), (6, 8)),
    "transformer-2-50": (lambda: transformer(nn.Embedding(50, 64), 6), (6,)),
}


TORCH_NAMES = {  # a transformer's layers are declared in another order than they are called
    r"^0\.": "embed.",
    r"^1\.": "position.",
    r"^2\.layers\.0\.": "block1.",
    r"^2\.layers\.1\.": "block2.",
    r"^2\.norm\.": "norm.",
    r"^4\.": "fc.",
    r"self_attn\.in_proj_": "attention.in_proj.",
    r"self_attn\.": "attention.",
    r"linear(\d)": r"fc\1",
}


def under_our_names(architecture: Architecture, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A plain module's state: by name for a transformer, or else by order."""
    if architecture.family == "transformer":
        for torchs, ours in TORCH_NAMES.items():
            state = {re.sub(torchs, ours, name): tensor for name, tensor in state.items()}
        return state
    buffers = [tensor for name, tensor in state.items() if "running" in name]
    parameters = [tensor for name, tensor in state.items() if "running" not in name]
    names = [*architecture.parameters, *architecture.buffers]
    return dict(zip(names, parameters + buffers, strict=True))


def test_every_architecture_of_the_zoo_is_compared() -> None:
    listed = {name for name in zoo.names() if "<" not in name}
    assert listed <= set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
def test_the_forward_pass_is_that_of_a_plain_module(name: str) -> None:
    make, shape = PLAIN[name]
    torch.manual_seed(2)
    plain = make()
    for tensor in plain.state_dict().values():  # biases, norms and statistics away from zeros and ones
        if tensor.dim() == 1:
            tensor += 0.1 * torch.rand_like(tensor)
    architecture = zoo.build(name, shape, 10)
    assert architecture.parameter_count == sum(parameter.numel() for parameter in plain.parameters())
    state = {key: tensor for key, tensor in plain.state_dict().items() if "num_batches" not in key}
    values = under_our_names(architecture, state)
    assert set(values) == {*architecture.parameters, *architecture.buffers}
    network = build_module(architecture)
    load_values(network, {key: tensor.numpy() for key, tensor in values.items()})
    x = torch.randint(50, (2, *shape)) if name == "transformer-2-50" else torch.randn(2, *shape)
    with torch.no_grad():
        for training in (False, True, False):  # the last one with statistics that training moved
            found, expected = network.train(training)(x), plain.train(training)(x)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
