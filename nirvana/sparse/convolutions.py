"""Convolutions, compiled: a kept weight meets four pixels, all their lanes, at a time.

Direct, without im2col: a weight is a distance between cells, the same for every pixel, so nothing is copied.
`pixels`, wherever it is an argument, is a tuple as `lanes` is, of four times its items: a square's lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import WIDTH, Floats
from nirvana.sparse.program import Network
from nirvana.sparse.rows import Tile, activate, slope
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import (
    add_sums,
    add_up,
    load,
    load_square,
    meet,
    multiply_add,
    peek,
    pick,
    spread,
    start_sums,
    store_square,
)

SOME = (0,) * 8  # weights whose gradients are summed together
BLOCK = 128  # times 16 lanes of a channel, in whole rows: a shorter sum costs more to begin and to end


@compiled
def convolve(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Fill the node's pixels from those that its weights read."""
    for number in range(node.squares, node.squares_end):
        square = network.squares[number]
        if square.is_one:
            _convolve_at(network, node, parameters, outputs, share, square, lanes, lanes)
        else:
            _convolve_at(network, node, parameters, outputs, share, square, lanes, pixels)


@compiled
def _convolve_at(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    square: Any,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """All channels of a square."""
    step = WIDTH * len(lanes)
    right, down = square.read_right * step, square.read_down * step
    to_right, to_down = square.made_right * step, square.made_down * step
    first, end = part(share, node.channels)
    for piece in range(node.parts):
        for channel in range(first, end):
            to = (node.origin + square.made + channel * node.plane) * step
            total = spread(parameters[node.bias + channel], pixels)
            if piece:
                total = load_square(outputs, to, to_right, to_down, lanes, pixels)
            row = node.row + channel * node.parts + piece
            for k in range(network.starts[row], network.starts[row + 1]):
                at = (square.read + peek(network.columns, k)) * step
                met = load_square(outputs, at, right, down, lanes, pixels)
                total = multiply_add(peek(parameters, k), met, total)
            if piece + 1 == node.parts:
                total = activate(node.activation, total)
            store_square(outputs, to, to_right, to_down, lanes, total)


@compiled
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
        for piece in range(node.parts):
            for channel in range(first, last):
                row = node.row + channel * node.parts + piece
                end = network.starts[row + 1]
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


@compiled
def convolve_back(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    leaving: Floats,
    share: Share,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Pass the gradient on to what was read, one phase of the stride after the other.

    Args:
        leaving: room for all weights in the order of exits, (weights,), in which each square meets them.
    """
    _reorder(network, node, parameters, leaving, share)
    for number in range(node.returns, node.returns_end):
        square = network.squares[number]
        if square.is_one:
            _pull(network, node, leaving, outputs, deltas, share, square, lanes, lanes)
        else:
            _pull(network, node, leaving, outputs, deltas, share, square, lanes, pixels)


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
    square: Any,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """The gradient of all channels that were read, at a square of one phase."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    right, down = square.read_right * step, square.read_down * step
    from_right, from_down = square.made_right * step, square.made_down * step
    first, end = part(share, read.channels)
    for piece in range(node.exit_parts):
        for channel in range(first, end):
            at = (read.origin + square.read + channel * read.plane) * step
            place = node.exit + (square.phase * read.channels + channel) * node.exit_parts + piece
            delta = spread(np.float32(0), pixels)
            if piece or not read.is_first:
                delta = load_square(deltas, at, right, down, lanes, pixels)
            for k in range(network.exits[place], network.exits[place + 1]):
                cell = (square.made + peek(network.exit_cells, k)) * step
                met = load_square(deltas, cell, from_right, from_down, lanes, pixels)
                delta = multiply_add(peek(leaving, k), met, delta)
            if piece + 1 == node.exit_parts:
                output = load_square(outputs, at, right, down, lanes, pixels)
                delta = slope(read.activation, output, delta)
            store_square(deltas, at, right, down, lanes, delta)
