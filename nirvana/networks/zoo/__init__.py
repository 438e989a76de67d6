"""The zoo: architectures by name, built for a task's input shape and number of classes."""

from __future__ import annotations

import re
from collections.abc import Callable

from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import Shape
from nirvana.networks.zoo.families import (
    Nodes,
    conv1d_3,
    conv_n,
    lenet_5,
    perceptron,
    resnet_6n_2,
    resnet_18,
    transformer,
    vgg,
)

_MLP = re.compile(r"mlp(-[1-9][0-9]{0,5}){1,20}")
_TRANSFORMER = re.compile(r"transformer-([1-9][0-9]?)(?:-([1-9][0-9]{0,6}))?")


def names() -> list[str]:
    """List the names that `build` knows; `<...>` stands for any whole number.

    `mlp-...` takes any list of widths, `transformer-N` any number of blocks.
    """
    return [*_FAMILIES, "mlp-<width>-<width>...", "transformer-<blocks>-<tokens>"]


def build(name: str, input_shape: Shape, classes: int) -> Architecture:
    """Build an architecture for inputs of `input_shape` and `classes` classes.

    Raises:
        NotFound: no such name; names those that there are.
        InvalidArchitecture: it does not fit the input shape or the classes; names the shape found and the
            one expected.
    """
    if classes < 1:
        raise InvalidArchitecture(f"{name}: found {classes} classes, expected at least 1")
    return Architecture.make(name, input_shape, _family(name)(tuple(input_shape), classes))


def _family(name: str) -> Callable[[Shape, int], Nodes]:
    if name in _FAMILIES:
        return _FAMILIES[name]
    if _MLP.fullmatch(name):
        widths = [int(width) for width in name.split("-")[1:]]
        return lambda input_shape, classes: perceptron(widths, input_shape, classes)
    if match := _TRANSFORMER.fullmatch(name):
        blocks, tokens = match.groups()
        return transformer(int(blocks), int(tokens) if tokens else None)
    raise NotFound(f"no architecture {name!r}: the zoo has {', '.join(names())}")


def _lenet_300_100(input_shape: Shape, classes: int) -> Nodes:
    """Make LeNet-300-100, LeCun et al. 1998, as in Frankle & Carbin 2019 (arXiv 1803.03635)."""
    return perceptron([300, 100], input_shape, classes)


_FAMILIES: dict[str, Callable[[Shape, int], Nodes]] = {
    "lenet-300-100": _lenet_300_100,
    "lenet-5": lenet_5,
    "conv-2": conv_n(2),
    "conv-4": conv_n(4),
    "conv-6": conv_n(6),
    "resnet-18": resnet_18,
    "resnet-20": resnet_6n_2(20),
    "resnet-32": resnet_6n_2(32),
    "resnet-56": resnet_6n_2(56),
    "vgg-11": vgg(11),
    "vgg-16": vgg(16),
    "vgg-19": vgg(19),
    "conv1d-3": conv1d_3,
    "transformer-2": transformer(2),
}
