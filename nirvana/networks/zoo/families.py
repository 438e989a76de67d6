"""The families of the zoo: perceptrons, convolutional networks, ResNets, VGGs and transformers.

Shared layers and checks of their input come first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nirvana.errors import InvalidArchitecture
from nirvana.networks.ops import Shape

Nodes = list[dict[str, object]]
FEATURES = 64
HEADS = 4
HIDDEN = 256
_VGG_CHANNELS = (64, 128, 256, 512, 512)
_VGG_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def perceptron(widths: list[int], input_shape: Shape, classes: int, relus: int = 0) -> Nodes:
    """Make linear layers fc1, fc2, ... with ReLU between, numbered on from `relus`; they fit any input."""
    nodes: Nodes = [{"name": "flatten", "op": "flatten"}]
    fan_in = math.prod(input_shape)
    for number, width in enumerate([*widths, classes], 1):
        nodes.append({"name": f"fc{number}", "op": "linear", "in": fan_in, "out": width})
        if number <= len(widths):
            nodes.append({"name": f"relu{relus + number}", "op": "relu"})
        fan_in = width
    return nodes


def image(name: str, input_shape: Shape, least: int) -> tuple[int, int, int]:
    """Return channels, height and width of an image that is at least `least` pixels high and wide.

    Raises:
        InvalidArchitecture: the input is none; names both shapes.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise does_not_fit(name, f"images (channels, height, width) of at least {least}x{least}", input_shape)
    channels, height, width = input_shape
    return channels, height, width


def does_not_fit(name: str, expected: str, input_shape: Shape) -> InvalidArchitecture:
    """Return the error that names both shapes."""
    return InvalidArchitecture(f"{name} needs {expected}, but the input has shape {list(input_shape)}")


def conv_norm(
    conv: str, norm: str, fan_in: int, out: int, kernel: int, stride: int = 1, **fields: object
) -> Nodes:
    """Make a convolution that keeps the size (but for its stride) and its batch norm.

    Args:
        fields: more of the convolution's fields; one before a norm has no bias unless they say so.
    """
    node: dict[str, object] = {
        "name": conv,
        "op": "conv2d",
        "in": fan_in,
        "out": out,
        "kernel": kernel,
        "stride": stride,
        "padding": kernel // 2,
        "bias": False,
    }
    return [node | fields, {"name": norm, "op": "batch_norm", "channels": out}]


def lenet_5(input_shape: Shape, classes: int) -> Nodes:
    """Make LeNet-5 with ReLU and max pooling: 61,706 parameters on (1, 28, 28) with 10 classes.

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
    """Return the maker of Conv-2, -4 or -6: pairs of 3x3 convolutions and a pooling, then 256-256-classes.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635), figure 2.
    """

    def build(input_shape: Shape, classes: int) -> Nodes:
        channels, height, width = image(f"conv-{layers}", input_shape, 2 ** (layers // 2))
        nodes: Nodes = []
        for number in range(1, layers + 1):
            out = 64 * 2 ** ((number - 1) // 2)
            conv = {"name": f"conv{number}", "op": "conv2d", "in": channels, "out": out, "kernel": 3}
            nodes += [conv | {"padding": 1}, {"name": f"relu{number}", "op": "relu"}]
            if number % 2 == 0:
                nodes.append({"name": f"pool{number // 2}", "op": "max_pool", "kernel": 2})
                height, width = height // 2, width // 2
            channels = out
        return nodes + perceptron([256, 256], (channels, height, width), classes, relus=layers)

    return build


def conv1d_3(input_shape: Shape, classes: int) -> Nodes:
    """Make the fully convolutional network for signals (channels, length): 128, 256 and 128 channels with
    batch norm, the mean over time, one linear layer. It fits any length.

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
    return nodes + _head(fan_in, classes)


def _head(fan_in: int, classes: int) -> Nodes:
    """Make the mean over each channel and one linear layer."""
    return [
        {"name": "pool", "op": "global_avg_pool"},
        {"name": "fc", "op": "linear", "in": fan_in, "out": classes},
    ]


def vgg(depth: int) -> Callable[[Shape, int], Nodes]:
    """Return the maker of VGG-11, -16 or -19 with batch norm: 9,231,114, 14,728,266 and 20,040,522 parameters
    on (3, 32, 32) with 10 classes.

    The variant of open_lth and SynFlow: convolutions keep their biases, max pooling between the groups, the
    mean of the last map (theirs: average pooling of the 2x2 that 32x32 ends in), one linear layer. A pooling
    that would leave less than 2x2 is left out, so that no weight of a 3x3 kernel sees padding alone: digits
    of 8x8 are pooled twice.

    Reference: Simonyan & Zisserman 2014 (arXiv 1409.1556), configurations A, D and E; open_lth,
    models/cifar_vgg.py; Tanaka et al. 2020 (arXiv 2006.05467).
    """

    def build(input_shape: Shape, classes: int) -> Nodes:
        fan_in, *sides = image(f"vgg-{depth}", input_shape, 2)
        nodes: Nodes = []
        groups = zip(_VGG_CHANNELS, _VGG_CONVOLUTIONS[depth], strict=True)
        for group, (out, convolutions) in enumerate(groups, 1):
            if group > 1 and min(sides) >= 4:
                nodes.append({"name": f"pool{group - 1}", "op": "max_pool", "kernel": 2})
                sides = [side // 2 for side in sides]
            for number in range(1, convolutions + 1):
                at = f"group{group}"
                nodes += conv_norm(f"{at}.conv{number}", f"{at}.norm{number}", fan_in, out, 3, bias=True)
                nodes.append({"name": f"{at}.relu{number}", "op": "relu"})
                fan_in = out
        return nodes + _head(fan_in, classes)

    return build


def resnet_6n_2(depth: int) -> Callable[[Shape, int], Nodes]:
    """Return the maker of the CIFAR ResNet of 6n + 2 layers with 16, 32 and 64 channels: 272,474, 466,906
    and 855,770 parameters at depth 20, 32 and 56 on (3, 32, 32) with 10 classes.

    "Resnet-18" of Frankle & Carbin 2019 (arXiv 1803.03635) is the one of depth 20.

    Reference: He et al. 2015 (arXiv 1512.03385), section 4.2; projections as in open_lth.
    """
    return lambda input_shape, classes: _resnet(
        f"resnet-{depth}", (16, 32, 64), (depth - 2) // 6, input_shape, classes
    )


def resnet_18(input_shape: Shape, classes: int) -> Nodes:
    """Make ResNet-18 with a 3x3 stem and no pooling before the blocks: 11,173,962 parameters on (3, 32, 32)
    with 10 classes. SynFlow and its followers prune this one on CIFAR.

    Reference: He et al. 2015 (arXiv 1512.03385), table 1; the stem as in Tanaka et al. 2020
    (arXiv 2006.05467) and in the repositories kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100.
    """
    return _resnet("resnet-18", (64, 128, 256, 512), 2, input_shape, classes)


def _resnet(name: str, widths: tuple[int, ...], blocks: int, input_shape: Shape, classes: int) -> Nodes:
    """Make groups of blocks; where the shape changes, the shortcut is a 1x1 convolution with batch norm
    (option B)."""
    channels, _, _ = image(name, input_shape, 2 ** (len(widths) - 1))
    nodes = conv_norm("conv", "norm", channels, widths[0], 3)
    nodes.append({"name": "relu", "op": "relu"})
    last, fan_in = "relu", widths[0]
    for group, width in enumerate(widths, 1):
        for block in range(blocks):
            stride = 2 if group > 1 and block == 0 else 1
            nodes += _block(f"group{group}.block{block}", last, fan_in, width, stride)
            last, fan_in = f"group{group}.block{block}.relu2", width
    return nodes + _head(fan_in, classes)


def _block(name: str, source: str, fan_in: int, width: int, stride: int) -> Nodes:
    nodes = conv_norm(f"{name}.conv1", f"{name}.norm1", fan_in, width, 3, stride)
    nodes.append({"name": f"{name}.relu1", "op": "relu"})
    nodes += conv_norm(f"{name}.conv2", f"{name}.norm2", width, width, 3)
    shortcut = source
    if stride != 1 or fan_in != width:
        shortcut = f"{name}.shortcut_norm"
        nodes += conv_norm(f"{name}.shortcut", shortcut, fan_in, width, 1, stride, inputs=[source])
    nodes.append({"name": f"{name}.add", "op": "add", "inputs": [f"{name}.norm2", shortcut]})
    return [*nodes, {"name": f"{name}.relu2", "op": "relu"}]


def transformer(blocks: int, tokens: int | None = None) -> Callable[[Shape, int], Nodes]:
    """Return the maker of `transformer-2` or `transformer-2-256`: blocks of self-attention and a two-layer
    perceptron with GELU, each behind a layer norm (49,984 parameters a block); 64 features, 4 heads, 256
    hidden.

    Without `tokens` an input is (rows, features), such as a signal's channels or a series of measurements:
    each row is projected to a token. With it an input is (length,) of whole numbers in [0, tokens). Images
    are refused: no op turns (channels, height, width) into rows.

    A graph has no parameter that is added to its tokens. Their positions come from `position`, a layer norm
    over the whole (length, features), whose bias is one learned vector for each position and starts at zero;
    the output layer reads all tokens, laid end to end.

    Reference: Vaswani et al. 2017 (arXiv 1706.03762); norm first as in Xiong et al. 2020 (arXiv 2002.04745).
    """

    def build(input_shape: Shape, classes: int) -> Nodes:
        nodes: Nodes = [_embed(blocks, tokens, input_shape)]
        nodes.append({"name": "position", "op": "layer_norm", "shape": [input_shape[0], FEATURES]})
        last = "position"
        for number in range(1, blocks + 1):
            nodes += _encoder_block(f"block{number}", last)
            last = f"block{number}.add2"
        return [
            *nodes,
            {"name": "norm", "op": "layer_norm", "shape": [FEATURES]},
            {"name": "flatten", "op": "flatten"},
            {"name": "fc", "op": "linear", "in": input_shape[0] * FEATURES, "out": classes},
        ]

    return build


def _embed(blocks: int, tokens: int | None, input_shape: Shape) -> dict[str, object]:
    if tokens is None:
        if len(input_shape) != 2:
            raise does_not_fit(f"transformer-{blocks}", "rows of numbers (rows, features)", input_shape)
        return {"name": "embed", "op": "linear", "in": input_shape[1], "out": FEATURES}
    if len(input_shape) != 1:
        raise does_not_fit(f"transformer-{blocks}-{tokens}", "tokens (length,)", input_shape)
    return {"name": "embed", "op": "embedding", "tokens": tokens, "features": FEATURES}


def _encoder_block(name: str, source: str) -> Nodes:
    return [
        {"name": f"{name}.norm1", "op": "layer_norm", "shape": [FEATURES]},
        {"name": f"{name}.attention", "op": "self_attention", "features": FEATURES, "heads": HEADS},
        {"name": f"{name}.add1", "op": "add", "inputs": [source, f"{name}.attention"]},
        {"name": f"{name}.norm2", "op": "layer_norm", "shape": [FEATURES]},
        {"name": f"{name}.fc1", "op": "linear", "in": FEATURES, "out": HIDDEN},
        {"name": f"{name}.gelu", "op": "gelu"},
        {"name": f"{name}.fc2", "op": "linear", "in": HIDDEN, "out": FEATURES},
        {"name": f"{name}.add2", "op": "add", "inputs": [f"{name}.add1", f"{name}.fc2"]},
    ]
