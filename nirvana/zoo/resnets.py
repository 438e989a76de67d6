"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Callable

from nirvana.ops import Shape
from nirvana.zoo.layers import Nodes, conv_norm, image


def resnet_6n_2(depth: int) -> Callable[[Shape, int], Nodes]:
    """The CIFAR ResNet of 6n + 2 layers with 16, 32 and 64 channels: 272,474, 466,906 and 855,770 parameters
    at depth 20, 32 and 56 on (3, 32, 32) with 10 classes.

    "Resnet-18" of Frankle & Carbin 2019 (arXiv 1803.03635) is the one of depth 20.

    Reference: He et al. 2015 (arXiv 1512.03385), section 4.2; projections as in open_lth.
    """
    return lambda input_shape, classes: _resnet(
        f"resnet-{depth}", (16, 32, 64), (depth - 2) // 6, input_shape, classes
    )


def resnet_18(input_shape: Shape, classes: int) -> Nodes:
    """ResNet-18 with a 3x3 stem and no pooling before the blocks: 11,173,962 parameters on (3, 32, 32) with
    10 classes. SynFlow and its followers prune this one on CIFAR.

    Reference: He et al. 2015 (arXiv 1512.03385), table 1; the stem as in Tanaka et al. 2020
    (arXiv 2006.05467) and in the repositories kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100.
    """
    return _resnet("resnet-18", (64, 128, 256, 512), 2, input_shape, classes)


def _resnet(name: str, widths: tuple[int, ...], blocks: int, input_shape: Shape, classes: int) -> Nodes:
    """Where the shape changes, the shortcut is a 1x1 convolution with batch norm (option B)."""
    channels, _, _ = image(name, input_shape, 2 ** (len(widths) - 1))
    found = [*conv_norm("conv", "norm", channels, widths[0], 3), {"name": "relu", "op": "relu"}]
    last, fan_in = "relu", widths[0]
    for group, width in enumerate(widths, 1):
        for block in range(blocks):
            stride = 2 if group > 1 and block == 0 else 1
            found += _block(f"group{group}.block{block}", last, fan_in, width, stride)
            last, fan_in = f"group{group}.block{block}.relu2", width
    pool = {"name": "pool", "op": "global_avg_pool"}
    return [*found, pool, {"name": "fc", "op": "linear", "in": fan_in, "out": classes}]


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
