"""A linear layer, compiled: sparse rows (CSR) forward, their transpose (CSC) for the gradient of the input.

A kept weight loads its column's lanes once and meets all of them in a few vector instructions: a row's sum
stays in registers, where a plain loop would store and load it for every weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nirvana.sparse.activations import accumulate_grad, activate
from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.gathering import transpose_columns
from nirvana.sparse.layout import VECTOR_WIDTH, Floats, Indices, StaticSize
from nirvana.sparse.program import Network, State
from nirvana.sparse.threads import ThreadContext, partition
from nirvana.sparse.vectors import (
    ACCUMULATORS,
    COLUMN_BLOCK,
    accumulate,
    accumulate_sums,
    broadcast,
    dot,
    horizontal_sum,
    load,
    load_scalar,
    multiply_add_gathered,
    multiply_add_strided,
    partial_dot,
    repeat,
    store,
    sum_accumulators,
    zero_accumulators,
)

UNIT_BLOCK = (0,) * 6  # units of a dense layer, that are computed together
LANE_BLOCK = ACCUMULATORS // 4  # 16s of lanes, which leave registers for all of their sums
COLUMNS = (0,) * (COLUMN_BLOCK // VECTOR_WIDTH)


@kernel
def linear_forward(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute the node's units from the features that its weights read."""
    unit, end = partition(thread, node.channels)
    if node.shares_columns:
        while unit + len(UNIT_BLOCK) <= end:
            for first in range(0, len(lanes), LANE_BLOCK):
                lane, some = first * VECTOR_WIDTH, lanes[:LANE_BLOCK]
                _forward_block(network, node, parameters, outputs, unit, lane, lanes, some)
            unit += len(UNIT_BLOCK)
    tile_size = VECTOR_WIDTH * len(lanes)
    while unit < end:
        row = node.first_row + unit
        first, last = network.row_ptr[row], network.row_ptr[row + 1]
        is_in_order = node.shares_columns
        total = _sparse_dot(parameters, None, first, last, outputs, network.col_idx, is_in_order, lanes)
        total = total + broadcast(parameters[node.bias + unit], lanes)  # last, as in `_forward_block`
        store(outputs, (node.origin + unit) * tile_size, activate(node.activation, total))
        unit += 1


@compiled
def _sparse_dot(
    parameters: Floats,
    weight_idx: Indices | None,
    k: int,
    end: int,
    array: Floats,
    positions: Indices,
    is_in_order: bool,
    lanes: StaticSize,
) -> Any:
    """Return the sum of weights x lanes from number k of `positions` and of `weight_idx` (None: of all
    weights) to `end`.

    Args:
        is_in_order: one after the other, as several units' sums are that share what they load: so that it
            does not matter which of them a thread computes together.
    """
    tile_size, sums = VECTOR_WIDTH * len(lanes), zero_accumulators(lanes)
    while k + len(sums) <= end and not is_in_order:
        sums = multiply_add_gathered(parameters, weight_idx, k, array, positions, tile_size, sums)
        k += len(sums)
    rest = (sum_accumulators(sums),)
    while k < end:
        rest = multiply_add_gathered(parameters, weight_idx, k, array, positions, tile_size, rest)
        k += 1
    return rest[0]


@compiled
def _forward_block(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    unit: int,
    lane: int,
    lanes: StaticSize,
    some: StaticSize,
) -> None:
    """Compute some lanes of several units that read the same columns: each is loaded once, which is what
    limits a dense layer."""
    tile_size = VECTOR_WIDTH * len(lanes)
    first, end = network.row_ptr[node.first_row + unit], network.row_ptr[node.first_row + unit + 1]
    sums = repeat(broadcast(np.float32(0), some), UNIT_BLOCK)
    for k in range(first, end):
        x = load(outputs, load_scalar(network.col_idx, k) * tile_size + lane, some)
        sums = multiply_add_strided(parameters, k, end - first, x, sums)
    for i in range(len(UNIT_BLOCK)):
        total = sums[i] + broadcast(parameters[node.bias + unit + i], some)
        store(outputs, (node.origin + unit + i) * tile_size + lane, activate(node.activation, total))


@kernel
def linear_backward(
    network: Network,
    node: np.record,
    state: State,
    outputs: Floats,
    deltas: Floats,
    transposed: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Add to the gradients of weights and biases, and compute the input's."""
    if node.has_bias:
        tile_size, ones = VECTOR_WIDTH * len(lanes), broadcast(np.float32(1), lanes)
        for unit in range(*partition(thread, node.channels)):
            delta = load(deltas, (node.origin + unit) * tile_size, lanes)
            state.gradients[node.bias + unit] += dot(delta, ones)
    if node.shares_columns:
        _weight_grad_shared(network, node, state.gradients, outputs, deltas, transposed, thread, lanes)
    else:
        for unit in range(*partition(thread, node.channels)):
            first = network.row_ptr[node.first_row + unit]
            _weight_grad_row(network, node, state.gradients, outputs, deltas, unit, first, lanes)
    if network.inputs[node.first_input].needs_grad:
        _input_grad(network, node, state.parameters, outputs, deltas, thread, lanes)


@compiled
def _weight_grad_shared(
    network: Network,
    node: np.record,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    transposed: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Add to the weights' gradients where all rows have the same columns: a block of them, of several units
    at once.

    The columns are transposed first, so that neighbours in a vector are weights and no sum runs over lanes.
    """
    begin = network.row_ptr[node.first_row]
    count, units = network.row_ptr[node.first_row + 1] - begin, len(UNIT_BLOCK)
    whole = node.channels // units
    first, end = partition(thread, whole)  # the same units together on any number of threads
    for column in range(0, count - COLUMN_BLOCK + 1, COLUMN_BLOCK):
        for group in range(len(lanes)):
            lane = group * VECTOR_WIDTH
            for half in range(0, COLUMN_BLOCK, VECTOR_WIDTH):
                at, k = lane * COLUMN_BLOCK + half, begin + column + half
                transpose_columns(outputs, network.col_idx, k, lane, transposed, at, COLUMN_BLOCK, lanes)
        for number in range(first, end):
            _weight_grad_block(network, node, gradients, deltas, transposed, number * units, column, lanes)
    for unit in range(first * units, end * units):
        rest = network.row_ptr[node.first_row + unit] + count // COLUMN_BLOCK * COLUMN_BLOCK
        _weight_grad_row(network, node, gradients, outputs, deltas, unit, rest, lanes)
    if thread.thread_id + 1 == thread.thread_count:
        for unit in range(whole * units, node.channels):
            rest = network.row_ptr[node.first_row + unit]
            _weight_grad_row(network, node, gradients, outputs, deltas, unit, rest, lanes)


@compiled
def _weight_grad_block(
    network: Network,
    node: np.record,
    gradients: Floats,
    deltas: Floats,
    transposed: Floats,
    unit: int,
    column: int,
    lanes: StaticSize,
) -> None:
    """Add to the gradients of the columns in `transposed`, (lanes, COLUMN_BLOCK), for several units."""
    tile_size = VECTOR_WIDTH * len(lanes)
    sums = repeat(broadcast(np.float32(0), COLUMNS), UNIT_BLOCK)
    for lane in range(tile_size):
        x = load(transposed, lane * COLUMN_BLOCK, COLUMNS)
        sums = multiply_add_strided(deltas, (node.origin + unit) * tile_size + lane, tile_size, x, sums)
    for i in range(len(UNIT_BLOCK)):
        accumulate(gradients, network.row_ptr[node.first_row + unit + i] + column, sums[i])


@compiled
def _weight_grad_row(
    network: Network,
    node: np.record,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    unit: int,
    first: int,
    lanes: StaticSize,
) -> None:
    """Add to the gradients of a unit's weights from number `first` of all weights on."""
    delta = load(deltas, (node.origin + unit) * VECTOR_WIDTH * len(lanes), lanes)
    k, end = first, network.row_ptr[node.first_row + unit + 1]
    while k + 4 <= end:
        one = _partial_weight_grad(network, outputs, delta, k, lanes)
        two = _partial_weight_grad(network, outputs, delta, k + 1, lanes)
        three = _partial_weight_grad(network, outputs, delta, k + 2, lanes)
        four = _partial_weight_grad(network, outputs, delta, k + 3, lanes)
        accumulate_sums(gradients, k, end, (one, two, three, four))
        k += 4
    while k < end:
        gradients[k] += horizontal_sum(_partial_weight_grad(network, outputs, delta, k, lanes))
        k += 1


@compiled
def _partial_weight_grad(network: Network, outputs: Floats, delta: Any, k: int, lanes: StaticSize) -> Any:
    """Return 16 lanes whose sum is a weight's gradient."""
    zeros = broadcast(np.float32(0), lanes[:1])
    return partial_dot(delta, load(outputs, network.col_idx[k] * VECTOR_WIDTH * len(lanes), lanes), zeros)


@compiled
def _input_grad(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute the gradient of each feature of the input."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    feature, end = partition(thread, source.channels)
    count = network.row_ptr[node.first_row + node.channels] - network.row_ptr[node.first_row]
    if count == node.channels * source.channels:
        while feature + len(UNIT_BLOCK) <= end:
            for first in range(0, len(lanes), LANE_BLOCK):
                lane, some = first * VECTOR_WIDTH, lanes[:LANE_BLOCK]
                _input_grad_block(network, node, parameters, outputs, deltas, feature, lane, lanes, some)
            feature += len(UNIT_BLOCK)
    while feature < end:
        column = node.first_col + feature
        first, last = network.col_ptr[column], network.col_ptr[column + 1]
        weight_idx, row_idx = network.weight_idx, network.row_idx
        delta = _sparse_dot(parameters, weight_idx, first, last, deltas, row_idx, node.shares_columns, lanes)
        accumulate_grad(source, outputs, deltas, (source.origin + feature) * tile_size, delta, lanes)
        feature += 1


@compiled
def _input_grad_block(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    feature: int,
    lane: int,
    lanes: StaticSize,
    some: StaticSize,
) -> None:
    """Compute some lanes of the gradient of several features, each unit's gradient being loaded once."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    sums = repeat(broadcast(np.float32(0), some), UNIT_BLOCK)
    for unit in range(node.channels):
        delta = load(deltas, (node.origin + unit) * tile_size + lane, some)
        k = network.row_ptr[node.first_row + unit] + feature
        sums = multiply_add_strided(parameters, k, 1, delta, sums)
    for i in range(len(UNIT_BLOCK)):
        at = (source.origin + feature + i) * tile_size + lane
        accumulate_grad(source, outputs, deltas, at, sums[i], some)
