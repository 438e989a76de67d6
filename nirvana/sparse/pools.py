"""Pooling and sums, compiled."""

from __future__ import annotations

import numpy as np

from nirvana.sparse.activations import accumulate_grad, activate, activation_grad
from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import VECTOR_WIDTH, Floats, StaticSize
from nirvana.sparse.program import Network
from nirvana.sparse.threads import ThreadContext, partition
from nirvana.sparse.vectors import broadcast, load, maximum, store, where_equal


@kernel
def add_forward(
    network: Network, node: np.record, outputs: Floats, thread: ThreadContext, lanes: StaticSize
) -> None:
    """Compute the sum of all of the node's inputs."""
    tile_size = VECTOR_WIDTH * len(lanes)
    for channel in range(*partition(thread, node.channels)):
        for y in range(node.height):
            for x in range(node.width):
                total = broadcast(np.float32(0), lanes)
                for number in range(node.first_input, node.inputs_end):
                    at = _position(network.inputs[number], channel, y, x) * tile_size
                    total = total + load(outputs, at, lanes)
                to = _position(node, channel, y, x) * tile_size
                store(outputs, to, activate(node.activation, total))


@kernel
def add_backward(
    network: Network,
    node: np.record,
    outputs: Floats,
    deltas: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Pass the gradient on to all of the node's inputs."""
    tile_size = VECTOR_WIDTH * len(lanes)
    for number in range(node.first_input, node.inputs_end):
        source = network.inputs[number]
        if source.needs_grad:
            for channel in range(*partition(thread, node.channels)):
                for y in range(node.height):
                    for x in range(node.width):
                        delta = load(deltas, _position(node, channel, y, x) * tile_size, lanes)
                        to = _position(source, channel, y, x) * tile_size
                        accumulate_grad(source, outputs, deltas, to, delta, lanes)


@compiled
def _position(feature_map: np.record, channel: int, y: int, x: int) -> int:
    return int(feature_map.origin + channel * feature_map.plane + y * feature_map.pitch + x)


@compiled
def _clip_window(start: int, size: int, end: int) -> tuple[int, int]:
    """Return the part of a window that lies inside."""
    return max(start, 0), min(start + size, end)


@kernel
def pool_forward(
    network: Network,
    node: np.record,
    outputs: Floats,
    is_mean: bool,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute the largest, or the mean, of each window; a mean counts the padding as zeros."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    fraction = broadcast(np.float32(1) / np.float32(node.kernel_y * node.kernel_x), lanes)
    for channel in range(*partition(thread, node.channels)):
        for y in range(node.height):
            first_y, end_y = _clip_window(y * node.stride_y - node.padding_y, node.kernel_y, source.height)
            for x in range(node.width):
                first_x, end_x = _clip_window(x * node.stride_x - node.padding_x, node.kernel_x, source.width)
                result = broadcast(np.float32(0 if is_mean else -np.inf), lanes)
                for i in range(first_y, end_y):
                    for j in range(first_x, end_x):
                        pixel = load(outputs, _position(source, channel, i, j) * tile_size, lanes)
                        result = result + pixel if is_mean else maximum(result, pixel)
                result = result * fraction if is_mean else result
                store(outputs, _position(node, channel, y, x) * tile_size, result)


@kernel
def pool_backward(
    network: Network,
    node: np.record,
    outputs: Floats,
    deltas: Floats,
    is_mean: bool,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Pass the gradient on to the first of each window's largest, or in equal shares to all of it."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    fraction = broadcast(np.float32(1) / np.float32(node.kernel_y * node.kernel_x), lanes)
    is_stored = source.overwrites_grad and _is_tiled(node, source)
    for channel in range(*partition(thread, node.channels)):
        if source.overwrites_grad and not is_stored:
            _zero_grad(source, deltas, channel, tile_size)
        for y in range(node.height):
            first_y, end_y = _clip_window(y * node.stride_y - node.padding_y, node.kernel_y, source.height)
            for x in range(node.width):
                first_x, end_x = _clip_window(x * node.stride_x - node.padding_x, node.kernel_x, source.width)
                at = _position(node, channel, y, x) * tile_size
                rest, largest = load(deltas, at, lanes), load(outputs, at, lanes)
                rest = rest * fraction if is_mean else rest
                for i in range(first_y, end_y):
                    for j in range(first_x, end_x):
                        to = _position(source, channel, i, j) * tile_size
                        pixel = load(outputs, to, lanes)
                        share = rest if is_mean else where_equal(pixel, largest, rest)
                        rest = rest if is_mean else rest - share
                        delta = activation_grad(source.activation, pixel, share)
                        store(deltas, to, delta if is_stored else load(deltas, to, lanes) + delta)


@compiled
def _is_tiled(node: np.record, source: np.record) -> bool:
    """Tell whether each of the input's pixels is in one window."""
    is_apart = node.kernel_y == node.stride_y and node.kernel_x == node.stride_x
    is_covered = node.height * node.kernel_y == source.height and node.width * node.kernel_x == source.width
    return bool(is_apart and is_covered and node.padding_y == 0 and node.padding_x == 0)


@compiled
def _zero_grad(source: np.record, deltas: Floats, channel: int, tile_size: int) -> None:
    for y in range(source.height):
        at = _position(source, channel, y, 0) * tile_size
        deltas[at : at + source.width * tile_size] = np.float32(0)
