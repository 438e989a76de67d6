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
from nirvana.sparse.vectors import dot, gate, load, multiply_add, spread, store, tanh_slope

Tile = tuple[int, ...]


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
def bend(node: Any, outputs: Floats, lanes: Tile) -> None:
    """tanh of the node's cells."""
    step = WIDTH * len(lanes)
    for channel in range(node.channels):
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
def linear_forward(network: Network, node: Any, parameters: Floats, outputs: Floats, lanes: Tile) -> None:
    """Fill the node's cells from those that its weights read."""
    step = WIDTH * len(lanes)
    for unit in range(node.channels):
        total = spread(parameters[node.bias + unit], lanes)
        row = node.row + unit
        for k in range(network.starts[row], network.starts[row + 1]):
            total = multiply_add(parameters[k], load(outputs, network.columns[k] * step, lanes), total)
        store(outputs, (node.origin + unit) * step, activate(node.activation, total))


@compiled
def linear_backward(
    network: Network, node: Any, state: State, outputs: Floats, deltas: Floats, lanes: Tile
) -> None:
    """Add to the gradients of weights and biases, and pass the gradient on to what was read."""
    step = WIDTH * len(lanes)
    one = spread(np.float32(1), lanes)
    for unit in range(node.channels):
        delta = load(deltas, (node.origin + unit) * step, lanes)
        row = node.row + unit
        if node.has_bias:
            state.gradients[node.bias + unit] += dot(delta, one)
        for k in range(network.starts[row], network.starts[row + 1]):
            state.gradients[k] += dot(delta, load(outputs, network.columns[k] * step, lanes))
    read = network.reads[node.read]
    if not read.learns:
        return
    for feature in range(read.channels):
        at = (read.origin + feature) * step
        delta = spread(np.float32(0), lanes)
        for k in range(network.exits[node.exit + feature], network.exits[node.exit + feature + 1]):
            to = network.exit_cells[k] * step
            delta = multiply_add(state.parameters[network.exit_weights[k]], load(deltas, to, lanes), delta)
        delta = slope(read.activation, load(outputs, at, lanes), delta)
        store(deltas, at, delta if read.is_first else load(deltas, at, lanes) + delta)
