"""Convolutions, compiled: a kept weight meets a patch of pixels, all their lanes, at a time.

Direct, without im2col: a weight is a distance between cells, the same for every pixel, so nothing is copied.
`pixels`, wherever it is an argument, is a tuple of one item for each pixel of a patch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import WIDTH, Floats, Tile
from nirvana.sparse.pixels import (
    load_pixels,
    meet,
    multiply_add_pixels,
    pick,
    start_sums,
    store_pixels,
)
from nirvana.sparse.program import Network
from nirvana.sparse.rows import activate, slope
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import HAS_WIDE_REGISTERS, PIXELS, add_sums, add_up, load, peek, repeat, spread

LARGE, SMALL, ONE = ((0,) * count for count in PIXELS)
SOME = (0,) * 8  # weights whose gradients are summed together
JOINED = 2 if HAS_WIDE_REGISTERS else 1  # parts, in gradients: such processors have larger second caches
BLOCK = 128  # times 16 lanes of a channel, in whole rows: a shorter sum costs more to begin and to end


@kernel
def convolve(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """Fill the node's pixels from those that its weights read."""
    for number in range(node.patches, node.patches_end):
        patch = network.patches[number]
        if patch.pixels == len(LARGE):
            _convolve_at(network, node, parameters, outputs, share, patch, lanes, LARGE)
        elif patch.pixels == len(SMALL):
            _convolve_at(network, node, parameters, outputs, share, patch, lanes, SMALL)
        else:
            _convolve_at(network, node, parameters, outputs, share, patch, lanes, ONE)


@compiled
def _convolve_at(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    patch: Any,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """All channels of a patch."""
    step = WIDTH * len(lanes)
    right, down = patch.read_right * step, patch.read_down * step
    to_right, to_down = patch.made_right * step, patch.made_down * step
    first, end = part(share, node.channels)
    for piece in range(node.parts):
        for channel in range(first, end):
            to = (node.origin + patch.made + channel * node.plane) * step
            total = repeat(spread(parameters[node.bias + channel], lanes), pixels)
            if piece:
                total = load_pixels(outputs, to, to_right, to_down, lanes, pixels)
            row = node.row + channel * node.parts + piece
            for k in range(network.starts[row], network.starts[row + 1]):
                at = (patch.read + peek(network.columns, k)) * step
                total = multiply_add_pixels(peek(parameters, k), outputs, at, right, down, total)
            if piece + 1 == node.parts:
                total = activate(node.activation, total)
            store_pixels(outputs, to, to_right, to_down, total)


@kernel
def convolve_weights(
    network: Network,
    node: Any,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """Add to the gradients of weights and biases."""
    first, last = part(share, node.channels)
    tall = max(1, BLOCK // (node.width * len(lanes)))
    for y in range(0, node.height, tall):
        block = (y, min(y + tall, node.height))
        if node.has_bias:
            for channel in range(first, last):
                gradients[node.bias + channel] += _add_up_rows(node, deltas, channel, block, lanes)
        for piece in range(0, node.parts, JOINED):
            for channel in range(first, last):
                row = node.row + channel * node.parts + piece
                end = network.starts[row + min(JOINED, node.parts - piece)]
                for k in range(network.starts[row], end, len(SOME)):
                    _weigh(network, node, gradients, outputs, deltas, channel, k, end, block, lanes)


@compiled
def _weigh(
    network: Network,
    node: Any,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    channel: int,
    k: int,
    end: int,
    block: tuple[int, int],
    lanes: Tile,
) -> None:
    """Add a block of rows to the gradients of some of a channel's weights from k on, before `end`."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    starts, sums = pick(network.columns, k, end - 1, step, SOME), start_sums(SOME)
    for y in range(block[0], block[1]):
        made = (node.origin + channel * node.plane + y * node.pitch) * step
        away = y * node.stride_y * read.pitch * step
        for _ in range(node.width):
            sums = meet(deltas, made, outputs, starts, away, lanes, sums)
            made += step
            away += node.stride_x * step
    add_sums(gradients, k, end, sums)


@compiled
def _add_up_rows(node: Any, deltas: Floats, channel: int, block: tuple[int, int], lanes: Tile) -> Any:
    """The sum of a channel's gradients over a block of rows."""
    step = WIDTH * len(lanes)
    total = spread(np.float32(0), lanes)
    for y in range(block[0], block[1]):
        at = (node.origin + channel * node.plane + y * node.pitch) * step
        for x in range(node.width):
            total = total + load(deltas, at + x * step, lanes)
    return add_up(total)


@kernel
def convolve_back(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    leaving: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """Pass the gradient on to what was read, one phase of the stride after the other.

    Args:
        leaving: room for all weights in the order of exits, (weights,), in which each patch meets them.
    """
    _reorder(network, node, parameters, leaving, share)
    for number in range(node.returns, node.returns_end):
        patch = network.patches[number]
        if patch.pixels == len(LARGE):
            _pull(network, node, leaving, outputs, deltas, share, patch, lanes, LARGE)
        elif patch.pixels == len(SMALL):
            _pull(network, node, leaving, outputs, deltas, share, patch, lanes, SMALL)
        else:
            _pull(network, node, leaving, outputs, deltas, share, patch, lanes, ONE)


@compiled
def _reorder(network: Network, node: Any, parameters: Floats, leaving: Floats, share: Share) -> None:
    """Fill `leaving` with what this thread's channels need."""
    channels = network.reads[node.read].channels
    first, end = part(share, channels)
    for phase in range(node.stride_y * node.stride_x):
        place = node.exit + phase * channels * node.exit_parts
        start, stop = place + first * node.exit_parts, place + end * node.exit_parts
        for k in range(network.exits[start], network.exits[stop]):
            leaving[k] = parameters[network.exit_weights[k]]


@compiled
def _pull(
    network: Network,
    node: Any,
    leaving: Floats,
    outputs: Floats,
    deltas: Floats,
    share: Share,
    patch: Any,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """The gradient of all channels that were read, at a patch of one phase."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    right, down = patch.read_right * step, patch.read_down * step
    from_right, from_down = patch.made_right * step, patch.made_down * step
    first, end = part(share, read.channels)
    for piece in range(node.exit_parts):
        for channel in range(first, end):
            at = (read.origin + patch.read + channel * read.plane) * step
            place = node.exit + (patch.phase * read.channels + channel) * node.exit_parts + piece
            delta = repeat(spread(np.float32(0), lanes), pixels)
            if piece or not read.is_first:
                delta = load_pixels(deltas, at, right, down, lanes, pixels)
            for k in range(network.exits[place], network.exits[place + 1]):
                cell = (patch.made + peek(network.exit_cells, k)) * step
                delta = multiply_add_pixels(peek(leaving, k), deltas, cell, from_right, from_down, delta)
            if piece + 1 == node.exit_parts:
                output = load_pixels(outputs, at, right, down, lanes, pixels)
                delta = slope(read.activation, output, delta)
            store_pixels(deltas, at, right, down, delta)
