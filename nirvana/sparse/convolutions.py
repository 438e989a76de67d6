"""Convolutions, compiled: a kept weight meets several neighbouring pixels, all their lanes, at a time.

Direct, without im2col: a weight is a distance between cells, the same for every pixel, so nothing is copied.
`pixels`, wherever it is an argument, is a tuple as `lanes` is, of as many pixels' lanes as are taken at once.
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
    add_up,
    fold,
    load,
    load_apart,
    multiply_add,
    spread,
    store,
    store_apart,
)

BLOCK = 16  # pixels of a row whose inputs stay in cache while all output channels read them


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
    for y in range(node.height):
        x, several = 0, len(pixels) // len(lanes)
        while x + several <= node.width:
            _convolve_at(network, node, parameters, outputs, share, y, x, lanes, pixels)
            x += several
        while x < node.width:
            _convolve_at(network, node, parameters, outputs, share, y, x, lanes, lanes)
            x += 1


@compiled
def _convolve_at(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    y: int,
    x: int,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """All channels of the pixels from (y, x) on."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    source = (y * node.stride_y * read.pitch + x * node.stride_x) * step
    target = (node.origin + y * node.pitch + x) * step
    apart = node.stride_x * step
    first, end = part(share, node.channels)
    for piece in range(node.parts):
        for channel in range(first, end):
            to = target + channel * node.plane * step
            total = spread(parameters[node.bias + channel], pixels)
            if piece:
                total = load_apart(outputs, to, step, lanes, pixels)
            row = node.row + channel * node.parts + piece
            for k in range(network.starts[row], network.starts[row + 1]):
                at = source + network.columns[k] * step
                total = multiply_add(parameters[k], load_apart(outputs, at, apart, lanes, pixels), total)
            if piece + 1 == node.parts:
                total = activate(node.activation, total)
            store_apart(outputs, to, step, lanes, total)


@compiled
def convolve_weights(
    network: Network,
    node: Any,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    scratch: Floats,
    share: Share,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Add to the gradients of weights and biases."""
    first_channel, end_channel = part(share, node.channels)
    for y in range(node.height):
        for first in range(0, node.width, BLOCK):
            end = min(first + BLOCK, node.width)
            for piece in range(node.parts):
                for channel in range(first_channel, end_channel):
                    row = node.row + channel * node.parts + piece
                    _weigh_row(
                        network, node, outputs, deltas, scratch, channel, row, y, first, end, lanes, pixels
                    )
                    count = network.starts[row + 1] - network.starts[row]
                    for k in range(count):
                        gradients[network.starts[row] + k] += add_up(load(scratch, k * WIDTH, lanes[:1]))
    if node.has_bias:
        _add_biases(node, gradients, deltas, share, lanes)


@compiled
def _weigh_row(
    network: Network,
    node: Any,
    outputs: Floats,
    deltas: Floats,
    scratch: Floats,
    channel: int,
    row: int,
    y: int,
    first: int,
    end: int,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Fill `scratch`, 16 lanes for each weight of a row's part, from some pixels of a line."""
    for k in range(network.starts[row + 1] - network.starts[row]):
        store(scratch, k * WIDTH, spread(np.float32(0), lanes[:1]))
    x, several = first, len(pixels) // len(lanes)
    while x + several <= end:
        _weigh(network, node, outputs, deltas, scratch, channel, row, y, x, lanes, pixels)
        x += several
    while x < end:
        _weigh(network, node, outputs, deltas, scratch, channel, row, y, x, lanes, lanes)
        x += 1


@compiled
def _weigh(
    network: Network,
    node: Any,
    outputs: Floats,
    deltas: Floats,
    scratch: Floats,
    channel: int,
    row: int,
    y: int,
    x: int,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """Add the pixels from (y, x) on to `scratch`."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    source = (y * node.stride_y * read.pitch + x * node.stride_x) * step
    target = (node.origin + channel * node.plane + y * node.pitch + x) * step
    apart = node.stride_x * step
    delta = load_apart(deltas, target, step, lanes, pixels)
    first, end = network.starts[row], network.starts[row + 1]
    for k in range(first, end):
        at = (k - first) * WIDTH
        met = load_apart(outputs, source + network.columns[k] * step, apart, lanes, pixels)
        store(scratch, at, fold(delta, met, load(scratch, at, lanes[:1])))


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
    read = network.reads[node.read]
    several = len(pixels) // len(lanes)
    for phase_y in range(min(node.stride_y, read.height)):
        for phase_x in range(min(node.stride_x, read.width)):
            entry = (phase_y * node.stride_x + phase_x) * read.channels
            width = (read.width - phase_x + node.stride_x - 1) // node.stride_x
            for y in range((read.height - phase_y + node.stride_y - 1) // node.stride_y):
                row = read.origin + (phase_y + y * node.stride_y) * read.pitch + phase_x
                x = 0
                while x + several <= width:
                    _pull(network, node, parameters, outputs, deltas, share, entry, row, y, x, lanes, pixels)
                    x += several
                while x < width:
                    _pull(network, node, parameters, outputs, deltas, share, entry, row, y, x, lanes, lanes)
                    x += 1


@compiled
def _pull(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    share: Share,
    entry: int,
    row: int,
    y: int,
    x: int,
    lanes: Tile,
    pixels: Tile,
) -> None:
    """The gradient of all channels that were read, at some pixels of one phase."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    made = (y * node.pitch + x) * step
    apart = node.stride_x * step
    first, end = part(share, read.channels)
    for piece in range(node.exit_parts):
        for channel in range(first, end):
            at = (row + x * node.stride_x + channel * read.plane) * step
            place = node.exit + (entry + channel) * node.exit_parts + piece
            delta = spread(np.float32(0), pixels)
            if piece or not read.is_first:
                delta = load_apart(deltas, at, apart, lanes, pixels)
            for k in range(network.exits[place], network.exits[place + 1]):
                met = load_apart(deltas, made + network.exit_cells[k] * step, step, lanes, pixels)
                delta = multiply_add(parameters[network.exit_weights[k]], met, delta)
            if piece + 1 == node.exit_parts:
                delta = slope(read.activation, load_apart(outputs, at, apart, lanes, pixels), delta)
            store_apart(deltas, at, apart, lanes, delta)
