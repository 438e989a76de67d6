"""The zoo: architectures by name, built for a task's input shape and number of classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from nirvana.architecture import Architecture
from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.ops import Shape

Nodes = list[dict[str, Any]]
_MLP = re.compile(r"mlp(-[1-9][0-9]{0,5}){1,20}")


def names() -> list[str]:
    """The names that `build` knows; `mlp-...` stands for any list of widths."""
    return [*_FAMILIES, "mlp-<width>-<width>..."]


def build(name: str, input_shape: Shape, classes: int) -> Architecture:
    """An architecture for inputs of `input_shape` and `classes` classes.

    Raises:
        NotFound: no such name; names those that there are.
        InvalidArchitecture: it does not fit the input shape.
    """
    if _MLP.fullmatch(name):
        nodes = _perceptron([int(width) for width in name.split("-")[1:]], input_shape, classes)
    elif name in _FAMILIES:
        nodes = _FAMILIES[name](input_shape, classes)
    else:
        raise NotFound(f"no architecture {name!r}: the zoo has {', '.join(names())}")
    return Architecture.make(name, input_shape, nodes)


def _flat(shape: Shape) -> int:
    size = 1
    for dimension in shape:
        size *= dimension
    return size


def _perceptron(widths: list[int], input_shape: Shape, classes: int, relus: int = 0) -> Nodes:
    """Linear layers fc1, fc2, ... with ReLU between them, numbered on from `relus`."""
    nodes: Nodes = [{"name": "flatten", "op": "flatten"}]
    fan_in = _flat(input_shape)
    for number, width in enumerate([*widths, classes], 1):
        nodes.append({"name": f"fc{number}", "op": "linear", "in": fan_in, "out": width})
        if number <= len(widths):
            nodes.append({"name": f"relu{relus + number}", "op": "relu"})
        fan_in = width
    return nodes


def _lenet_300_100(input_shape: Shape, classes: int) -> Nodes:
    """LeCun et al. 1998, as in Frankle & Carbin 2019 (arXiv 1803.03635)."""
    return _perceptron([300, 100], input_shape, classes)


def _image(name: str, input_shape: Shape, least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise InvalidArchitecture(
            f"{name} needs images (channels, height, width) of at least {least}x{least}, "
            f"but the input has shape {list(input_shape)}"
        )
    channels, height, width = input_shape
    return channels, height, width


def _lenet_5(input_shape: Shape, classes: int) -> Nodes:
    """LeNet-5 with ReLU and max pooling: 61,706 parameters on (1, 28, 28) with 10 classes.

    Reference: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document
    recognition".
    """
    channels, height, width = _image("lenet-5", input_shape, 12)
    padding = 2 if min(height, width) < 32 else 0
    after = [((size + 2 * padding - 4) // 2 - 4) // 2 for size in (height, width)]
    return [
        {"name": "conv1", "op": "conv2d", "in": channels, "out": 6, "kernel": 5, "padding": padding},
        {"name": "relu1", "op": "relu"},
        {"name": "pool1", "op": "max_pool", "kernel": 2},
        {"name": "conv2", "op": "conv2d", "in": 6, "out": 16, "kernel": 5},
        {"name": "relu2", "op": "relu"},
        {"name": "pool2", "op": "max_pool", "kernel": 2},
        {"name": "flatten", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in": 16 * after[0] * after[1], "out": 120},
        {"name": "relu3", "op": "relu"},
        {"name": "fc2", "op": "linear", "in": 120, "out": 84},
        {"name": "relu4", "op": "relu"},
        {"name": "fc3", "op": "linear", "in": 84, "out": classes},
    ]


def _conv_n(layers: int) -> Callable[[Shape, int], Nodes]:
    """Conv-2, -4 and -6: pairs of 3x3 convolutions and a pooling, then 256-256-classes.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635), figure 2.
    """

    def nodes(input_shape: Shape, classes: int) -> Nodes:
        channels, height, width = _image(f"conv-{layers}", input_shape, 2 ** (layers // 2))
        found: Nodes = []
        for number in range(1, layers + 1):
            out = 64 * 2 ** ((number - 1) // 2)
            conv = {"name": f"conv{number}", "op": "conv2d", "in": channels, "out": out, "kernel": 3}
            found += [conv | {"padding": 1}, {"name": f"relu{number}", "op": "relu"}]
            if number % 2 == 0:
                found.append({"name": f"pool{number // 2}", "op": "max_pool", "kernel": 2})
                height, width = height // 2, width // 2
            channels = out
        return found + _perceptron([256, 256], (channels, height, width), classes, relus=layers)

    return nodes


def _resnet(depth: int) -> Callable[[Shape, int], Nodes]:
    """The CIFAR ResNet of 6n + 2 layers with 16, 32 and 64 channels; where the shape changes, the shortcut
    is a 1x1 convolution with batch norm (option B): 272,474 parameters at depth 20 on (3, 32, 32).

    Reference: He et al. 2015 (arXiv 1512.03385), section 4.2; projections as in open_lth.
    """

    def nodes(input_shape: Shape, classes: int) -> Nodes:
        channels, _, _ = _image(f"resnet-{depth}", input_shape, 4)
        found = [*_conv_norm("conv", "norm", channels, 16, 3, 1), {"name": "relu", "op": "relu"}]
        last, fan_in = "relu", 16
        for group, width in enumerate((16, 32, 64), 1):
            for block in range((depth - 2) // 6):
                stride = 2 if group > 1 and block == 0 else 1
                name = f"group{group}.block{block}"
                found += _residual_block(name, last, fan_in, width, stride)
                last, fan_in = f"{name}.relu2", width
        return [
            *found,
            {"name": "pool", "op": "global_avg_pool"},
            {"name": "fc", "op": "linear", "in": 64, "out": classes},
        ]

    return nodes


def _conv_norm(
    conv: str, norm: str, fan_in: int, out: int, kernel: int, stride: int, source: str | None = None
) -> Nodes:
    """A convolution without a bias and its batch norm; it reads `source`, or else the node before it."""
    node: dict[str, Any] = {
        "name": conv,
        "op": "conv2d",
        "in": fan_in,
        "out": out,
        "kernel": kernel,
        "stride": stride,
        "padding": kernel // 2,
        "bias": False,
    }
    if source:
        node["inputs"] = [source]
    return [node, {"name": norm, "op": "batch_norm", "channels": out}]


def _residual_block(name: str, source: str, fan_in: int, width: int, stride: int) -> Nodes:
    nodes = _conv_norm(f"{name}.conv1", f"{name}.norm1", fan_in, width, 3, stride)
    nodes.append({"name": f"{name}.relu1", "op": "relu"})
    nodes += _conv_norm(f"{name}.conv2", f"{name}.norm2", width, width, 3, 1)
    shortcut = source
    if stride != 1 or fan_in != width:
        shortcut = f"{name}.shortcut_norm"
        nodes += _conv_norm(f"{name}.shortcut", shortcut, fan_in, width, 1, stride, source)
    nodes.append({"name": f"{name}.add", "op": "add", "inputs": [f"{name}.norm2", shortcut]})
    return [*nodes, {"name": f"{name}.relu2", "op": "relu"}]


_FAMILIES: dict[str, Callable[[Shape, int], Nodes]] = {
    "lenet-300-100": _lenet_300_100,
    "lenet-5": _lenet_5,
    "conv-2": _conv_n(2),
    "conv-4": _conv_n(4),
    "conv-6": _conv_n(6),
    "resnet-20": _resnet(20),
}
