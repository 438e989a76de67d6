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
    fold,
    load,
    load_square,
    multiply_add,
    peek,
    spread,
    store_square,
)

SQUARES = 8  # whose inputs stay in the first cache while all output channels' gradients meet them


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
    pixels: Tile,
) -> None:
    """Add to the gradients of weights and biases."""
    first, last = part(share, node.channels)
    for begin in range(node.squares, node.squares_end, SQUARES):
        end = min(begin + SQUARES, node.squares_end)
        for piece in range(node.parts):
            for channel in range(first, last):
                row = node.row + channel * node.parts + piece
                to = node.origin + channel * node.plane
                stop = network.starts[row + 1]
                for k in range(network.starts[row], stop, 4):
                    _weigh_four(network, gradients, outputs, deltas, k, stop, to, begin, end, lanes, pixels)
    if node.has_bias:
        _add_biases(node, gradients, deltas, share, lanes)


@compiled
def _weigh_four(
    network: Network,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    k: int,
    stop: int,
    to: int,
    begin: int,
    end: int,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Add some squares to the gradients of four weights from k on, or of fewer before `stop`, of the channel
    whose gradient starts at cell `to`."""
    last, zero = stop - 1, spread(np.float32(0), lanes[:1])
    one, two = network.columns[k], network.columns[min(k + 1, last)]
    three, four = network.columns[min(k + 2, last)], network.columns[min(k + 3, last)]
    columns, sums = (one, two, three, four), (zero, zero, zero, zero)
    for number in range(begin, end):
        square = network.squares[number]
        if square.is_one:
            sums = _meet(outputs, deltas, square, columns, to, sums, lanes, lanes)
        else:
            sums = _meet(outputs, deltas, square, columns, to, sums, lanes, pixels)
    if k + 4 <= stop:
        add_sums(gradients, k, *sums)
    else:
        for i in range(stop - k):
            gradients[k + i] += add_up(sums[i])


@compiled
def _meet(
    outputs: Floats,
    deltas: Floats,
    square: Any,
    columns: Any,
    to: int,
    sums: Any,
    lanes: Tile,
    pixels: Tile,
) -> Any:
    """Add a square to four sums of 16 lanes: its gradient is loaded once."""
    step = WIDTH * len(lanes)
    right, down, read = square.read_right * step, square.read_down * step, square.read
    made = (to + square.made) * step
    delta = load_square(deltas, made, square.made_right * step, square.made_down * step, lanes, pixels)
    one = load_square(outputs, (read + columns[0]) * step, right, down, lanes, pixels)
    two = load_square(outputs, (read + columns[1]) * step, right, down, lanes, pixels)
    three = load_square(outputs, (read + columns[2]) * step, right, down, lanes, pixels)
    four = load_square(outputs, (read + columns[3]) * step, right, down, lanes, pixels)
    a, b, c, d = sums
    return fold(delta, one, a), fold(delta, two, b), fold(delta, three, c), fold(delta, four, d)


@compiled
def _add_biases(node: Any, gradients: Floats, deltas: Floats, share: Share, lanes: Tile) -> None:
    step = WIDTH * len(lanes)
    for channel in range(*part(share, node.channels)):
        for y in range(node.height):
            at = (node.origin + channel * node.plane + y * node.pitch) * step
            total = spread(np.float32(0), lanes)
            for x in range(node.width):
                total = total + load(deltas, at + x * step, lanes)
            gradients[node.bias + channel] += add_up(total)


@compiled
def convolve_back(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    share: Share,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Pass the gradient on to what was read, one phase of the stride after the other."""
    for number in range(node.returns, node.returns_end):
        square = network.squares[number]
        if square.is_one:
            _pull(network, node, parameters, outputs, deltas, share, square, lanes, lanes)
        else:
            _pull(network, node, parameters, outputs, deltas, share, square, lanes, pixels)


@compiled
def _pull(
    network: Network,
    node: Any,
    parameters: Floats,
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
                delta = multiply_add(peek(parameters, peek(network.exit_weights, k)), met, delta)
            if piece + 1 == node.exit_parts:
                output = load_square(outputs, at, right, down, lanes, pixels)
                delta = slope(read.activation, output, delta)
            store_square(deltas, at, right, down, lanes, delta)
