"""A linear layer, compiled: one pixel, its rows over features side by side.

A kept weight reads its column's cell once and meets all lanes in a few vector instructions: a row's sum stays
in registers, where a plain loop would store and load it for every weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.gathering import turn
from nirvana.sparse.layout import RELU, TANH, WIDTH, Floats, Places, Tile
from nirvana.sparse.program import Network, State
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import (
    CELLS,
    VECTORS,
    add_sums,
    add_to,
    add_up,
    dot,
    fold,
    gate,
    join_chains,
    load,
    multiply_add_cells,
    multiply_add_rows,
    peek,
    repeat,
    spread,
    start_chains,
    store,
    tanh_slope,
)

UNITS = (0,) * 6  # of a dense layer, that are taken together
SOME = VECTORS // 4  # 16s of lanes, which leave registers for all of their sums
TURNED = (0,) * (CELLS // WIDTH)


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


@kernel
def linear_forward(
    network: Network, node: Any, parameters: Floats, outputs: Floats, share: Share, lanes: Tile
) -> None:
    """Fill the node's cells from those that its weights read."""
    unit, end = part(share, node.channels)
    if node.is_even:
        while unit + len(UNITS) <= end:
            for first in range(0, len(lanes), SOME):
                _fill_units(network, node, parameters, outputs, unit, first * WIDTH, lanes, lanes[:SOME])
            unit += len(UNITS)
    step = WIDTH * len(lanes)
    while unit < end:
        first, last = network.starts[node.row + unit], network.starts[node.row + unit + 1]
        total = _sum_cells(parameters, None, first, last, outputs, network.columns, node.is_even, lanes)
        total = total + spread(parameters[node.bias + unit], lanes)  # last, as in `_fill_units`
        store(outputs, (node.origin + unit) * step, activate(node.activation, total))
        unit += 1


@compiled
def _sum_cells(
    parameters: Floats,
    weights: Places | None,
    k: int,
    end: int,
    array: Floats,
    cells: Places,
    is_in_order: bool,
    lanes: Tile,
) -> Any:
    """The sum of weights x lanes from number k of `cells` and of `weights` (None: of all weights) to `end`.

    Args:
        is_in_order: one after the other, as several units' sums are that share what they read: so that it
            does not matter which of them a thread takes together.
    """
    step, sums = WIDTH * len(lanes), start_chains(lanes)
    while k + len(sums) <= end and not is_in_order:
        sums = multiply_add_cells(parameters, weights, k, array, cells, step, sums)
        k += len(sums)
    rest = (join_chains(sums),)
    while k < end:
        rest = multiply_add_cells(parameters, weights, k, array, cells, step, rest)
        k += 1
    return rest[0]


@compiled
def _fill_units(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    unit: int,
    lane: int,
    lanes: Tile,
    some: Tile,
) -> None:
    """Some lanes of several units that read the same cells: each is loaded once, which is what limits a dense
    layer."""
    step = WIDTH * len(lanes)
    first, end = network.starts[node.row + unit], network.starts[node.row + unit + 1]
    sums = repeat(spread(np.float32(0), some), UNITS)
    for k in range(first, end):
        met = load(outputs, peek(network.columns, k) * step + lane, some)
        sums = multiply_add_rows(parameters, k, end - first, met, sums)
    for i in range(len(UNITS)):
        total = sums[i] + spread(parameters[node.bias + unit + i], some)
        store(outputs, (node.origin + unit + i) * step + lane, activate(node.activation, total))


@kernel
def linear_backward(
    network: Network,
    node: Any,
    state: State,
    outputs: Floats,
    deltas: Floats,
    turned: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """Add to the gradients of weights and biases, and pass the gradient on to what was read."""
    if node.has_bias:
        step, one = WIDTH * len(lanes), spread(np.float32(1), lanes)
        for unit in range(*part(share, node.channels)):
            delta = load(deltas, (node.origin + unit) * step, lanes)
            state.gradients[node.bias + unit] += dot(delta, one)
    if node.is_even:
        _weigh_even(network, node, state.gradients, outputs, deltas, turned, share, lanes)
    else:
        for unit in range(*part(share, node.channels)):
            first = network.starts[node.row + unit]
            _weigh_row(network, node, state.gradients, outputs, deltas, unit, first, lanes)
    if network.reads[node.read].learns:
        _pass_on(network, node, state.parameters, outputs, deltas, share, lanes)


@compiled
def _weigh_even(
    network: Network,
    node: Any,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    turned: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    """Add to the weights' gradients where all rows read the same cells: some cells of several units at once.

    The cells are turned first, so that neighbours in a vector are weights and no lanes are to be added up.
    """
    begin = network.starts[node.row]
    count, units = network.starts[node.row + 1] - begin, len(UNITS)
    whole = node.channels // units
    first, end = part(share, whole)  # the same units together on any number of threads
    for cell in range(0, count - CELLS + 1, CELLS):
        for group in range(len(lanes)):
            for half in range(0, CELLS, WIDTH):
                at = group * WIDTH * CELLS + half
                turn(outputs, network.columns, begin + cell + half, group * WIDTH, turned, at, CELLS, lanes)
        for number in range(first, end):
            _weigh_units(network, node, gradients, deltas, turned, number * units, cell, lanes)
    for unit in range(first * units, end * units):
        left = network.starts[node.row + unit] + count // CELLS * CELLS
        _weigh_row(network, node, gradients, outputs, deltas, unit, left, lanes)
    if share.number + 1 == share.threads:
        for unit in range(whole * units, node.channels):
            left = network.starts[node.row + unit]
            _weigh_row(network, node, gradients, outputs, deltas, unit, left, lanes)


@compiled
def _weigh_units(
    network: Network,
    node: Any,
    gradients: Floats,
    deltas: Floats,
    turned: Floats,
    unit: int,
    cell: int,
    lanes: Tile,
) -> None:
    """Add to the gradients of the cells in `turned`, (lanes, CELLS), for several units."""
    step = WIDTH * len(lanes)
    sums = repeat(spread(np.float32(0), TURNED), UNITS)
    for lane in range(step):
        met = load(turned, lane * CELLS, TURNED)
        sums = multiply_add_rows(deltas, (node.origin + unit) * step + lane, step, met, sums)
    for i in range(len(UNITS)):
        add_to(gradients, network.starts[node.row + unit + i] + cell, sums[i])


@compiled
def _weigh_row(
    network: Network,
    node: Any,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    unit: int,
    first: int,
    lanes: Tile,
) -> None:
    """Add to the gradients of a unit's weights from number `first` of all weights on."""
    delta = load(deltas, (node.origin + unit) * WIDTH * len(lanes), lanes)
    k, end = first, network.starts[node.row + unit + 1]
    while k + 4 <= end:
        one, two = _met(network, outputs, delta, k, lanes), _met(network, outputs, delta, k + 1, lanes)
        three = _met(network, outputs, delta, k + 2, lanes)
        add_sums(gradients, k, end, (one, two, three, _met(network, outputs, delta, k + 3, lanes)))
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
    feature, end = part(share, read.channels)
    if network.starts[node.row + node.channels] - network.starts[node.row] == node.channels * read.channels:
        while feature + len(UNITS) <= end:
            for first in range(0, len(lanes), SOME):
                lane = first * WIDTH
                _pull_features(network, node, parameters, outputs, deltas, feature, lane, lanes, lanes[:SOME])
            feature += len(UNITS)
    while feature < end:
        first, last = network.exits[node.exit + feature], network.exits[node.exit + feature + 1]
        weights, cells = network.exit_weights, network.exit_cells
        delta = _sum_cells(parameters, weights, first, last, deltas, cells, node.is_even, lanes)
        give(read, outputs, deltas, (read.origin + feature) * step, delta, lanes)
        feature += 1


@compiled
def _pull_features(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    feature: int,
    lane: int,
    lanes: Tile,
    some: Tile,
) -> None:
    """The gradient of some lanes of several features that all units read: each unit's is loaded once."""
    step = WIDTH * len(lanes)
    read = network.reads[node.read]
    sums = repeat(spread(np.float32(0), some), UNITS)
    for unit in range(node.channels):
        met = load(deltas, (node.origin + unit) * step + lane, some)
        sums = multiply_add_rows(parameters, network.starts[node.row + unit] + feature, 1, met, sums)
    for i in range(len(UNITS)):
        give(read, outputs, deltas, (read.origin + feature + i) * step + lane, sums[i], some)


@compiled
def give(read: Any, outputs: Floats, deltas: Floats, at: int, delta: Any, lanes: Tile) -> None:
    """A cell that was read gets its gradient."""
    delta = slope(read.activation, load(outputs, at, lanes), delta)
    store(deltas, at, delta if read.is_first else load(deltas, at, lanes) + delta)
