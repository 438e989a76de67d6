"""Plain convolutional networks: LeNet-5, Conv-2/4/6 and one for signals."""

from __future__ import annotations

from collections.abc import Callable

from nirvana.ops import Shape
from nirvana.zoo.layers import Nodes, conv_norm, does_not_fit, image, perceptron


def lenet_5(input_shape: Shape, classes: int) -> Nodes:
    """LeNet-5 with ReLU and max pooling: 61,706 parameters on (1, 28, 28) with 10 classes.

    Reference: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document
    recognition".
    """
    channels, height, width = image("lenet-5", input_shape, 12)
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


def conv_n(layers: int) -> Callable[[Shape, int], Nodes]:
    """Conv-2, -4 and -6: pairs of 3x3 convolutions and a pooling, then 256-256-classes.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635), figure 2.
    """

    def nodes(input_shape: Shape, classes: int) -> Nodes:
        channels, height, width = image(f"conv-{layers}", input_shape, 2 ** (layers // 2))
        found: Nodes = []
        for number in range(1, layers + 1):
            out = 64 * 2 ** ((number - 1) // 2)
            conv = {"name": f"conv{number}", "op": "conv2d", "in": channels, "out": out, "kernel": 3}
            found += [conv | {"padding": 1}, {"name": f"relu{number}", "op": "relu"}]
            if number % 2 == 0:
                found.append({"name": f"pool{number // 2}", "op": "max_pool", "kernel": 2})
                height, width = height // 2, width // 2
            channels = out
        return found + perceptron([256, 256], (channels, height, width), classes, relus=layers)

    return nodes


def conv1d_3(input_shape: Shape, classes: int) -> Nodes:
    """The fully convolutional network for signals (channels, length): 128, 256 and 128 channels with batch
    norm, the mean over time, one linear layer. It fits any length.

    The paper's first kernel, 8, cannot be padded alike on both sides; it is 7 here, as in tsai.
    285,446 parameters for 24 channels and 6 classes.

    Reference: Wang, Yan & Oates 2017, "Time series classification from scratch" (arXiv 1611.06455).
    """
    if len(input_shape) != 2:
        raise does_not_fit("conv1d-3", "signals (channels, length)", input_shape)
    fan_in, nodes = input_shape[0], Nodes()
    for number, (out, kernel) in enumerate(((128, 7), (256, 5), (128, 3)), 1):
        nodes += conv_norm(f"conv{number}", f"norm{number}", fan_in, out, kernel, op="conv1d")
        nodes.append({"name": f"relu{number}", "op": "relu"})
        fan_in = out
    pool = {"name": "pool", "op": "global_avg_pool"}
    return [*nodes, pool, {"name": "fc", "op": "linear", "in": fan_in, "out": classes}]
