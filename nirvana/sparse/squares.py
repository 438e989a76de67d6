"""In what order, and how many at a time, a convolution's pixels are taken: four wherever four can be.

A square is two pixels of each of two neighbouring rows, or four of a signal, which has one row. What is left
over at an odd edge is taken one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.sparse.layout import PIXELS, Integers, Pair, Step
from nirvana.sparse.program import SQUARE


def find_squares(step: Step) -> NDArray[Any]:
    """Of what a convolution makes."""
    read, made, (stride_y, stride_x) = step.reads[0], step.makes, step.window.stride
    y, x, is_one = _cover(made.height, made.width)
    found = _allocate(is_one)
    _fill(found, "made", y * made.pitch + x, made.height, (made.pitch, 1))
    strides = (stride_y * read.pitch, stride_x)
    _fill(found, "read", y * strides[0] + x * strides[1], made.height, strides)
    return found


def find_returns(step: Step) -> NDArray[Any]:
    """Of what it reads, one phase of the stride after the other."""
    read, made, (stride_y, stride_x) = step.reads[0], step.makes, step.window.stride
    found = []
    for phase in np.ndindex(min(stride_y, read.height), min(stride_x, read.width)):
        height = len(range(phase[0], read.height, stride_y))
        y, x, is_one = _cover(height, len(range(phase[1], read.width, stride_x)))
        squares = _allocate(is_one)
        squares["phase"] = phase[0] * stride_x + phase[1]
        _fill(squares, "made", y * made.pitch + x, height, (made.pitch, 1))
        strides = (stride_y * read.pitch, stride_x)
        start = phase[0] * read.pitch + phase[1]
        _fill(squares, "read", start + y * strides[0] + x * strides[1], height, strides)
        found.append(squares)
    return np.concatenate(found)


def _cover(height: int, width: int) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Row and column of each square's first pixel, and whether it is its only one."""
    tall = min(2, height)
    broad = PIXELS // tall
    is_left = np.ones((height, width), bool)
    is_left[: height // tall * tall, : width // broad * broad] = False
    y, x = np.indices((height // tall, width // broad)).reshape(2, -1)
    left_y, left_x = np.nonzero(is_left)
    is_one = np.arange(len(y) + len(left_y)) >= len(y)
    return np.concatenate([y * tall, left_y]), np.concatenate([x * broad, left_x]), is_one


def _allocate(is_one: NDArray[np.bool_]) -> NDArray[Any]:
    found = np.zeros(len(is_one), SQUARE)
    found["is_one"] = is_one
    return found


def _fill(squares: NDArray[Any], name: str, first: Integers, height: int, strides: Pair) -> None:
    """Where squares are among the cells of one side; strides: cells to the pixel below, and to the right."""
    below, right = strides
    squares[name], squares[f"{name}_right"] = first, right
    squares[f"{name}_down"] = below if height > 1 else 2 * right
