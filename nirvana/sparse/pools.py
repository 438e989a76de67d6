"""Pooling and sums, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import WIDTH, Floats, Tile
from nirvana.sparse.program import Network
from nirvana.sparse.rows import activate, give, slope
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import larger, load, spread, store, where_equal


@kernel
def add_forward(network: Network, node: Any, outputs: Floats, share: Share, lanes: Tile) -> None:
    """Sums of all that the node reads."""
    step = WIDTH * len(lanes)
    for channel in range(*part(share, node.channels)):
        for y in range(node.height):
            for x in range(node.width):
                total = spread(np.float32(0), lanes)
                for number in range(node.read, node.reads_end):
                    total = total + load(outputs, _pixel(network.reads[number], channel, y, x) * step, lanes)
                store(outputs, _pixel(node, channel, y, x) * step, activate(node.activation, total))


@kernel
def add_backward(
    network: Network, node: Any, outputs: Floats, deltas: Floats, share: Share, lanes: Tile
) -> None:
    """The gradient goes to all that the node reads."""
    step = WIDTH * len(lanes)
    for number in range(node.read, node.reads_end):
        read = network.reads[number]
        if read.learns:
            for channel in range(*part(share, node.channels)):
                for y in range(node.height):
                    for x in range(node.width):
                        delta = load(deltas, _pixel(node, channel, y, x) * step, lanes)
                        give(read, outputs, deltas, _pixel(read, channel, y, x) * step, delta, lanes)


@compiled
def _pixel(place: Any, channel: int, y: int, x: int) -> int:
    return int(place.origin + channel * place.plane + y * place.pitch + x)


@compiled
def _bounds(start: int, size: int, end: int) -> tuple[int, int]:
    """The part of a window that lies inside."""
    return max(start, 0), min(start + size, end)


@kernel
def pool_forward(
    network: Network, node: Any, outputs: Floats, is_mean: bool, share: Share, lanes: Tile
) -> None:
    """The largest, or the mean, of each window; a mean counts the padding as zeros."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    fraction = spread(np.float32(1) / np.float32(node.kernel_y * node.kernel_x), lanes)
    for channel in range(*part(share, node.channels)):
        for y in range(node.height):
            first_y, end_y = _bounds(y * node.stride_y - node.padding_y, node.kernel_y, read.height)
            for x in range(node.width):
                first_x, end_x = _bounds(x * node.stride_x - node.padding_x, node.kernel_x, read.width)
                best = spread(np.float32(0 if is_mean else -np.inf), lanes)
                for i in range(first_y, end_y):
                    for j in range(first_x, end_x):
                        met = load(outputs, _pixel(read, channel, i, j) * step, lanes)
                        best = best + met if is_mean else larger(best, met)
                best = best * fraction if is_mean else best
                store(outputs, _pixel(node, channel, y, x) * step, best)


@kernel
def pool_backward(
    network: Network, node: Any, outputs: Floats, deltas: Floats, is_mean: bool, share: Share, lanes: Tile
) -> None:
    """The gradient goes to the first of each window's largest, or in equal shares to all of it."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    fraction = spread(np.float32(1) / np.float32(node.kernel_y * node.kernel_x), lanes)
    is_only = read.is_first and _is_tiled(node, read)
    for channel in range(*part(share, node.channels)):
        if read.is_first and not is_only:
            _clear(read, deltas, channel, step)
        for y in range(node.height):
            first_y, end_y = _bounds(y * node.stride_y - node.padding_y, node.kernel_y, read.height)
            for x in range(node.width):
                first_x, end_x = _bounds(x * node.stride_x - node.padding_x, node.kernel_x, read.width)
                at = _pixel(node, channel, y, x) * step
                left, best = load(deltas, at, lanes), load(outputs, at, lanes)
                left = left * fraction if is_mean else left
                for i in range(first_y, end_y):
                    for j in range(first_x, end_x):
                        place = _pixel(read, channel, i, j) * step
                        met = load(outputs, place, lanes)
                        taken = left if is_mean else where_equal(met, best, left)
                        left = left if is_mean else left - taken
                        found = slope(read.activation, met, taken)
                        store(deltas, place, found if is_only else load(deltas, place, lanes) + found)


@compiled
def _is_tiled(node: Any, read: Any) -> bool:
    """Whether each pixel that is read is in one window."""
    is_apart = node.kernel_y == node.stride_y and node.kernel_x == node.stride_x
    is_covered = node.height * node.kernel_y == read.height and node.width * node.kernel_x == read.width
    return bool(is_apart and is_covered and node.padding_y == 0 and node.padding_x == 0)


@compiled
def _clear(read: Any, deltas: Floats, channel: int, step: int) -> None:
    for y in range(read.height):
        at = _pixel(read, channel, y, 0) * step
        deltas[at : at + read.width * step] = np.float32(0)
