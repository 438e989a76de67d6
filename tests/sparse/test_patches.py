"""Patches take every pixel of a convolution once, and the gradients of what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nirvana.networks.architecture import Architecture
from nirvana.sparse.building import backward_patches, forward_patches
from nirvana.sparse.layout import FeatureMap, Operation, make_layout
from nirvana.sparse.vectors import PATCH_SIZES


def make_convolution(height: int, width: int, stride: int, op: str = "conv2d") -> Operation:
    shape = (1, width) if op == "conv1d" else (1, height, width)
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": op, "in": 1, "out": 1, "kernel": 3, "stride": stride, "padding": 1},
        {"name": "flat", "op": "flatten"},
    ]
    layout = make_layout(Architecture.make("one convolution", shape, nodes))
    return next(operation for operation in layout.operations if operation.op == op)


def positions(feature_map: FeatureMap) -> list[int]:
    """The pixels of a channel, counted from its first."""
    y, x = np.indices((feature_map.height, feature_map.width))
    return sorted((y * feature_map.pitch + x).ravel().tolist())


def taken(patches: NDArray[np.void], side: str) -> list[int]:
    """The pixels that patches take on one side."""
    found = []
    for patch in patches:
        row = [patch[f"{side}_right"] * i for i in range(max(1, patch["pixels"] // 2))]
        places = [*row, *(patch[f"{side}_down"] + right for right in row)][: patch["pixels"]]
        found += [int(patch[side] + place) for place in places]
    return sorted(found)


SIZES = [(1, 1), (1, 5), (2, 2), (3, 3), (4, 7), (5, 4), (7, 1), (7, 7), (8, 8), (9, 16), (32, 32)]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_pixel_is_made_once_and_gives_its_gradient_once(height: int, width: int, stride: int) -> None:
    convolution = make_convolution(height, width, stride)
    assert taken(forward_patches(convolution), "output") == positions(convolution.output)
    assert taken(backward_patches(convolution), "input") == positions(convolution.inputs[0])


@pytest.mark.parametrize("width", [1, 2, 3, 7, 24, 31])
def test_a_signals_patches_lie_along_it(width: int) -> None:
    convolution = make_convolution(1, width, 1, "conv1d")
    assert taken(forward_patches(convolution), "output") == positions(convolution.output)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (8, 8), (14, 14), (28, 28), (32, 32)])
def test_even_sides_leave_no_single_pixel(height: int, width: int) -> None:
    assert set(forward_patches(make_convolution(height, width, 1))["pixels"]) <= set(PATCH_SIZES[:2])
