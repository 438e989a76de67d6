"""A linear layer, compiled: one pixel, its rows over features side by side.

A kept weight reads its column's cell once and meets all lanes in a few vector instructions: a row's sum stays
in registers, where a plain loop would store and load it for every weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import RELU, TANH, WIDTH, Floats
from nirvana.sparse.program import Network, State
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import (
    add_sums,
    add_up,
    dot,
    fold,
    gate,
    load,
    multiply_add,
    spread,
    store,
    tanh_slope,
)

Tile = tuple[int, ...]
UNITS, CELLS = 16, 32  # of a dense layer, whose gradients and outputs fit into the first cache


@compiled
def activate(activation: int, vector: Any) -> Any:
    """relu or nothing; a NaN stays one. tanh comes afterwards: see `bend`."""
    return gate(vector, vector) if activation == RELU else vector


@compiled
def slope(activation: int, output: Any, vector: Any) -> Any:
    """The gradient before an activation, from its output and the gradient after it."""
    if activation == RELU:
        return gate(output, vector)
    return tanh_slope(output, vector) if activation == TANH else vector


@compiled
def bend(node: Any, outputs: Floats, share: Share, lanes: Tile) -> None:
    """tanh of the node's cells."""
    step = WIDTH * len(lanes)
    for channel in range(*part(share, node.channels)):
        for y in range(node.height):
            at = (node.origin + channel * node.plane + y * node.pitch) * step
            for i in range(at, at + node.width * step):
                outputs[i] = np.float32(math.tanh(outputs[i]))


@compiled
def straighten(activation: int, outputs: Floats, deltas: Floats, lanes: Tile) -> None:
    """The gradients of cells before their activation."""
    step = WIDTH * len(lanes)
    if activation:
        for at in range(0, len(outputs), step):
            store(deltas, at, slope(activation, load(outputs, at, lanes), load(deltas, at, lanes)))


@compiled
def linear_forward(
    network: Network, node: Any, parameters: Floats, outputs: Floats, share: Share, lanes: Tile
) -> None:
    """Fill the node's cells from those that its weights read."""
    unit, end = part(share, node.channels)
    if node.is_even:
        while unit + 4 <= end:
            _four_units(network, node, parameters, outputs, unit, lanes)
            unit += 4
    step = WIDTH * len(lanes)
    while unit < end:
        total = spread(parameters[node.bias + unit], lanes)
        row = node.row + unit
        for k in range(network.starts[row], network.starts[row + 1]):
            total = multiply_add(parameters[k], load(outputs, network.columns[k] * step, lanes), total)
        store(outputs, (node.origin + unit) * step, activate(node.activation, total))
        unit += 1


@compiled
def _four_units(
    network: Network, node: Any, parameters: Floats, outputs: Floats, unit: int, lanes: Tile
) -> None:
    """Four units that read the same cells: each is loaded once, which is what limits a dense layer."""
    step = WIDTH * len(lanes)
    first, two, three, four, end = network.starts[node.row + unit : node.row + unit + 5]
    count = end - four
    a, b = spread(parameters[node.bias + unit], lanes), spread(parameters[node.bias + unit + 1], lanes)
    c, d = spread(parameters[node.bias + unit + 2], lanes), spread(parameters[node.bias + unit + 3], lanes)
    for i in range(count):
        met = load(outputs, network.columns[first + i] * step, lanes)
        a = multiply_add(parameters[first + i], met, a)
        b = multiply_add(parameters[two + i], met, b)
        c = multiply_add(parameters[three + i], met, c)
        d = multiply_add(parameters[four + i], met, d)
    at = (node.origin + unit) * step
    store(outputs, at, activate(node.activation, a))
    store(outputs, at + step, activate(node.activation, b))
    store(outputs, at + 2 * step, activate(node.activation, c))
    store(outputs, at + 3 * step, activate(node.activation, d))


@compiled
def linear_backward(
    network: Network, node: Any, state: State, outputs: Floats, deltas: Floats, share: Share, lanes: Tile
) -> None:
    """Add to the gradients of weights and biases, and pass the gradient on to what was read."""
    if node.has_bias:
        step, one = WIDTH * len(lanes), spread(np.float32(1), lanes)
        for unit in range(*part(share, node.channels)):
            delta = load(deltas, (node.origin + unit) * step, lanes)
            state.gradients[node.bias + unit] += dot(delta, one)
    _weigh(network, node, state.gradients, outputs, deltas, share, lanes)
    if network.reads[node.read].learns:
        _pass_on(network, node, state.parameters, outputs, deltas, share, lanes)


@compiled
def _weigh(
    network: Network, node: Any, gradients: Floats, outputs: Floats, deltas: Floats, share: Share, lanes: Tile
) -> None:
    """Add to the weights' gradients: row by row, or where all rows read the same cells, a few cells of a few
    units at a time."""
    units = UNITS if node.is_even else 1
    begin_unit, end_unit = part(share, node.channels)
    for first in range(begin_unit, end_unit, units):
        row = node.row + first
        count = network.starts[row + 1] - network.starts[row]
        cells = CELLS if node.is_even else max(count, 1)
        for start in range(0, count, cells):
            for unit in range(first, min(first + units, end_unit)):
                begin = network.starts[node.row + unit] + start
                end = min(begin + cells, network.starts[node.row + unit + 1])
                delta = load(deltas, (node.origin + unit) * WIDTH * len(lanes), lanes)
                _weigh_row(network, gradients, outputs, delta, begin, end, lanes)


@compiled
def _weigh_row(
    network: Network, gradients: Floats, outputs: Floats, delta: Any, begin: int, end: int, lanes: Tile
) -> None:
    k = begin
    while k + 4 <= end:
        one, two = _met(network, outputs, delta, k, lanes), _met(network, outputs, delta, k + 1, lanes)
        three = _met(network, outputs, delta, k + 2, lanes)
        add_sums(gradients, k, one, two, three, _met(network, outputs, delta, k + 3, lanes))
        k += 4
    while k < end:
        gradients[k] += add_up(_met(network, outputs, delta, k, lanes))
        k += 1


@compiled
def _met(network: Network, outputs: Floats, delta: Any, k: int, lanes: Tile) -> Any:
    """16 lanes whose sum is what a weight's gradient gets."""
    empty = spread(np.float32(0), lanes[:1])
    return fold(delta, load(outputs, network.columns[k] * WIDTH * len(lanes), lanes), empty)


@compiled
def _pass_on(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """The gradient of each feature that was read."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    for feature in range(*part(share, read.channels)):
        at = (read.origin + feature) * step
        delta = spread(np.float32(0), lanes)
        for k in range(network.exits[node.exit + feature], network.exits[node.exit + feature + 1]):
            to = network.exit_cells[k] * step
            delta = multiply_add(parameters[network.exit_weights[k]], load(deltas, to, lanes), delta)
        delta = slope(read.activation, load(outputs, at, lanes), delta)
        store(deltas, at, delta if read.is_first else load(deltas, at, lanes) + delta)
