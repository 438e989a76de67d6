"""Layers that several architectures of the zoo are made of, and what they ask of their input."""

from __future__ import annotations

import math
from typing import Any

from nirvana.errors import InvalidArchitecture
from nirvana.ops import Shape

Nodes = list[dict[str, Any]]


def perceptron(widths: list[int], input_shape: Shape, classes: int, relus: int = 0) -> Nodes:
    """Linear layers fc1, fc2, ... with ReLU between them, numbered on from `relus`; it fits any input."""
    nodes: Nodes = [{"name": "flatten", "op": "flatten"}]
    fan_in = math.prod(input_shape)
    for number, width in enumerate([*widths, classes], 1):
        nodes.append({"name": f"fc{number}", "op": "linear", "in": fan_in, "out": width})
        if number <= len(widths):
            nodes.append({"name": f"relu{relus + number}", "op": "relu"})
        fan_in = width
    return nodes


def image(name: str, input_shape: Shape, least: int) -> tuple[int, int, int]:
    """Channels, height and width of an image that is at least `least` pixels high and wide.

    Raises:
        InvalidArchitecture: the input is none; names both shapes.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise does_not_fit(name, f"images (channels, height, width) of at least {least}x{least}", input_shape)
    channels, height, width = input_shape
    return channels, height, width


def does_not_fit(name: str, expected: str, input_shape: Shape) -> InvalidArchitecture:
    """The error that names both shapes."""
    return InvalidArchitecture(f"{name} needs {expected}, but the input has shape {list(input_shape)}")


def conv_norm(
    conv: str, norm: str, fan_in: int, out: int, kernel: int, stride: int = 1, **fields: Any
) -> Nodes:
    """A convolution that keeps the size (but for its stride) and its batch norm.

    Args:
        fields: more of the convolution's fields; one before a norm has no bias unless they say so.
    """
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
    return [node | fields, {"name": norm, "op": "batch_norm", "channels": out}]
