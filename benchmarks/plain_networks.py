"""The networks as anybody writes them in PyTorch, without Nirvana: for the peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nirvana.networks.architecture import Architecture

_LAYERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "flatten": lambda node: nn.Flatten(),
    "relu": lambda node: nn.ReLU(),
    "linear": lambda node: nn.Linear(node["in"], node["out"]),
    "conv2d": lambda node: nn.Conv2d(node["in"], node["out"], node["kernel"], padding=node.get("padding", 0)),
    "max_pool": lambda node: nn.MaxPool2d(node["kernel"]),
}


def build_plain(architecture: Architecture) -> nn.Module:
    """A plain module of LeNet-300-100, Conv-2 or ResNet-20; its parameters come in the architecture's order.

    Raises:
        KeyError: an op of a chain that is not in `_LAYERS`.
    """
    if architecture.name == "resnet-20":
        return ResNet20()
    return nn.Sequential(*(_LAYERS[node["op"]](node) for node in architecture.nodes))


@torch.no_grad()
def load_plain(network: nn.Module, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy values, in the architecture's order, into the parameters."""
    for parameter, value in zip(network.parameters(), values.values(), strict=True):
        parameter.copy_(torch.from_numpy(value))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """The CIFAR ResNet of 20 layers.

    Reference: He et al. 2015 (arXiv 1512.03385), section 4.2.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        ins, widths, strides = (
            (16, 16, 16, 16, 32, 32, 32, 64, 64),
            (16, 16, 16, 32, 32, 32, 64, 64, 64),
            (1, 1, 1, 2, 1, 1, 2, 1, 1),
        )
        self.blocks = nn.Sequential(*map(Block, ins, widths, strides))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.norm(self.conv(x))))
        logits: Tensor = self.fc(y.mean((2, 3)))
        return logits
