"""In what order, and how many at a time, a convolution's pixels are taken.

A patch has half of its pixels in each of two neighbouring rows, or all in one: of a signal, or in the last
row of an odd number. What is then left over is taken one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.sparse.layout import Integers, Pair, Step
from nirvana.sparse.program import PATCH


def find_patches(step: Step) -> NDArray[Any]:
    """Of what a convolution makes."""
    read, made, (stride_y, stride_x) = step.reads[0], step.makes, step.window.stride
    cover = _cover(made.height, made.width)
    found = np.zeros(len(cover), PATCH)
    _fill(found, "made", cover, 0, (made.pitch, 1))
    _fill(found, "read", cover, 0, (stride_y * read.pitch, stride_x))
    return found


def find_returns(step: Step) -> NDArray[Any]:
    """Of what it reads, one phase of the stride after the other."""
    read, made, (stride_y, stride_x) = step.reads[0], step.makes, step.window.stride
    found = []
    for y, x in np.ndindex(min(stride_y, read.height), min(stride_x, read.width)):
        cover = _cover(len(range(y, read.height, stride_y)), len(range(x, read.width, stride_x)))
        patches = np.zeros(len(cover), PATCH)
        patches["phase"] = y * stride_x + x
        _fill(patches, "made", cover, 0, (made.pitch, 1))
        _fill(patches, "read", cover, y * read.pitch + x, (stride_y * read.pitch, stride_x))
        found.append(patches)
    return np.concatenate(found)


def _cover(height: int, width: int) -> Integers:
    """Of each patch, (patches, 4): row and column of its first pixel, its rows and its columns."""
    found = []
    for y in range(0, height, 2):
        tall, x = min(2, height - y), 0
        for broad in _cut(width, tall):
            if broad > 1:
                found.append((y, x, tall, broad))
            else:
                found += [(y + i, x, 1, 1) for i in range(tall)]
            x += broad
    return np.array(found)


def _cut(width: int, tall: int) -> list[int]:
    """The columns of patches that fill one or two rows: as few single ones as can be, then as many of the
    largest."""
    from nirvana.sparse.vectors import PIXELS

    large, small = PIXELS[0] // tall, PIXELS[1] // tall
    for ones in range(width):
        for smalls in range(large):
            left = width - ones - smalls * small
            if left >= 0 and left % large == 0:
                return [large] * (left // large) + [small] * smalls + [1] * ones
    return [1] * width


def _fill(patches: NDArray[Any], name: str, cover: Integers, start: int, strides: Pair) -> None:
    """Where patches are among the cells of one side; strides: cells to the pixel below, and to the right."""
    (y, x, tall, broad), (below, right) = cover.T, strides
    patches["pixels"] = tall * broad
    patches[name], patches[f"{name}_right"] = start + y * below + x * right, right
    second = np.where(tall == 2, below, broad // 2 * right)  # a line's second half counts as its second row
    patches[f"{name}_down"] = second
