"""The kernels of every update, compiled: forward, backward and optimiser over the kept weights alone.

A batch is cut into tiles of 16, 32 or 64 examples, its lanes. Values lie position by position, each
position's lanes side by side, so that a kept weight reads its column's index once and meets all lanes in a
few vector instructions. Without batch norm one tile goes all the way and back before the next; with it, each
node does all tiles. `all_ops` is None for networks of linear layers alone: the rest is then not compiled.

Reference: sparse storage and training by kept weights alone, surveyed by Hoefler et al. 2021
(arXiv 2102.00554).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nirvana.sparse.activations import activation_backward, tanh_forward
from nirvana.sparse.compiling import compiled, entry_point
from nirvana.sparse.convolutions import conv_forward, conv_input_grad, conv_weight_grad
from nirvana.sparse.gathering import transpose_examples
from nirvana.sparse.layout import (
    ADD,
    AVG_POOL,
    BATCH_NORM,
    CONVOLUTION,
    LINEAR,
    TANH,
    VECTOR_WIDTH,
    Floats,
    Integers,
    StaticSize,
)
from nirvana.sparse.linear import linear_backward, linear_forward
from nirvana.sparse.losses import count_correct, cross_entropy
from nirvana.sparse.norms import batch_norm_backward, batch_norm_forward
from nirvana.sparse.optimizers import optimizer_step
from nirvana.sparse.pools import add_backward, add_forward, pool_backward, pool_forward
from nirvana.sparse.program import AllOps, Examples, InputGather, Network, OptimizerParams, State, Workspace
from nirvana.sparse.threads import ThreadContext, barrier, get_float_mode, partition, set_float_mode


@compiled
def gather_inputs(
    examples: Examples,
    chosen: Integers,
    input_gather: InputGather,
    outputs: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Copy the features of the chosen examples, (lanes,), to the input's positions."""
    tile_size = VECTOR_WIDTH * len(lanes)
    scale, shift = examples.scale, examples.shift
    for group in range(len(lanes)):
        lane = group * VECTOR_WIDTH
        for window in range(*partition(thread, len(input_gather.features))):
            to = input_gather.positions[window] * tile_size + lane
            feature = input_gather.features[window]
            if len(examples.pixels):
                transpose_examples(
                    examples.pixels, chosen, lane, feature, scale, shift, outputs, to, tile_size
                )
            else:
                transpose_examples(examples.x, chosen, lane, feature, scale, shift, outputs, to, tile_size)


@compiled
def forward(
    network: Network,
    state: State,
    workspace: Workspace,
    batch: int,
    is_training: bool,
    thread: ThreadContext,
    lanes: StaticSize,
    all_ops: AllOps,
) -> None:
    """Compute every node's values from the input's. Arguments as for `batch_norm_forward`."""
    size = workspace.positions * VECTOR_WIDTH * len(lanes)
    for number in range(len(network.nodes)):
        node = network.nodes[number]
        if all_ops is not None and node.op == BATCH_NORM:
            batch_norm_forward(network, node, state, workspace, batch, is_training, thread, lanes)
        for tile in range(workspace.tiles):
            outputs = workspace.outputs[tile * size : (tile + 1) * size]
            if node.op == LINEAR:
                linear_forward(network, node, state.parameters, outputs, thread, lanes)
            elif all_ops is not None:
                _forward_other(network, node, state.parameters, outputs, thread, lanes)
            if node.activation == TANH:
                tanh_forward(node, outputs, thread, lanes)
        barrier(thread)


@compiled
def _forward_other(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    if node.op == CONVOLUTION:
        conv_forward(network, node, parameters, outputs, thread, lanes)
    elif node.op == ADD:
        add_forward(network, node, outputs, thread, lanes)
    elif node.op != BATCH_NORM:
        pool_forward(network, node, outputs, node.op == AVG_POOL, thread, lanes)


@compiled
def backward(
    network: Network,
    state: State,
    workspace: Workspace,
    batch: int,
    thread: ThreadContext,
    lanes: StaticSize,
    all_ops: AllOps,
) -> None:
    """Add the gradients of these tiles to `state.gradients`, from those of the logits in `deltas`."""
    size = workspace.positions * VECTOR_WIDTH * len(lanes)
    first, end = partition(thread, len(workspace.transposed))
    transposed = workspace.transposed[first:end]
    for number in range(len(network.nodes) - 1, -1, -1):
        node = network.nodes[number]
        if all_ops is not None and node.op == BATCH_NORM:
            batch_norm_backward(network, node, state, workspace, batch, thread, lanes)
        for tile in range(workspace.tiles):
            outputs = workspace.outputs[tile * size : (tile + 1) * size]
            deltas = workspace.deltas[tile * size : (tile + 1) * size]
            if node.op == LINEAR:
                linear_backward(network, node, state, outputs, deltas, transposed, thread, lanes)
            elif all_ops is not None:
                _backward_other(network, node, state, outputs, deltas, workspace.csc_weights, thread, lanes)
        barrier(thread)


@compiled
def _backward_other(
    network: Network,
    node: np.record,
    state: State,
    outputs: Floats,
    deltas: Floats,
    csc_weights: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    if node.op == CONVOLUTION:
        conv_weight_grad(network, node, state.gradients, outputs, deltas, thread, lanes)
        if network.inputs[node.first_input].needs_grad:
            conv_input_grad(network, node, state.parameters, outputs, deltas, csc_weights, thread, lanes)
    elif node.op == ADD:
        add_backward(network, node, outputs, deltas, thread, lanes)
    elif node.op != BATCH_NORM:
        pool_backward(network, node, outputs, deltas, node.op == AVG_POOL, thread, lanes)


@compiled
def _logits(network: Network, workspace: Workspace, values: Floats, tile: int, lanes: StaticSize) -> Floats:
    """Return the logits of a tile's values, or of its gradients, (classes x lanes,)."""
    tile_size = VECTOR_WIDTH * len(lanes)
    last = network.nodes[len(network.nodes) - 1]
    start = (tile * workspace.positions + last.origin) * tile_size
    return values[start : start + last.channels * tile_size]


@entry_point
def run_batches(
    examples: Examples,
    order: Integers,
    rates: NDArray[np.float64],
    updates: int,
    input_gather: InputGather,
    network: Network,
    state: State,
    workspace: Workspace,
    params: OptimizerParams,
    losses: NDArray[np.float64],
    correct: Integers,
    thread: ThreadContext,
    lanes: StaticSize,
    all_ops: AllOps,
) -> int:
    """Compute each batch, a row of `order`, and make an update after it where it has a learning rate: up to
    the first loss that is not finite, whose update is made too.

    Args:
        order: (batches, batch), the examples of each.
        rates: (batches,) learning rates; (0,): nothing is learned, and norms take their running statistics.
        updates: how many were made before, for Adam.
        losses: (batches,) zeros, filled: mean cross-entropies.
        correct: (batches,) zeros, filled where nothing is learned: how many examples have the logit of their
            label largest.
        thread: this one. All `thread_count` threads call this at once with the same other arguments.

    Returns:
        the number of losses that were finite, before the first that was not.
    """
    mode = get_float_mode()
    set_float_mode(mode, True)
    tile_size, batch, is_training = VECTOR_WIDTH * len(lanes), order.shape[1], len(rates) > 0
    targets = np.empty(workspace.tiles * tile_size, np.int64)
    done = 0
    while done < len(order):
        for start in range(0, batch, workspace.tiles * tile_size):
            _load_tiles(examples, order[done], start, input_gather, workspace, targets, thread, lanes)
            forward(network, state, workspace, batch, is_training, thread, lanes, all_ops)
            if thread.thread_id == 0:
                losses[done] += _compute_loss(network, workspace, targets, start, batch, lanes) / batch
                if not is_training:
                    correct[done] += _count_correct(network, workspace, targets, start, batch, lanes)
            barrier(thread)
            if is_training:
                backward(network, state, workspace, batch, thread, lanes, all_ops)
        if is_training:
            optimizer_step(state, params, rates[done], updates + done + 1, thread)
        if not math.isfinite(losses[done]):
            break
        done += 1
    set_float_mode(mode, False)
    return done


@compiled
def _load_tiles(
    examples: Examples,
    order: Integers,
    start: int,
    input_gather: InputGather,
    workspace: Workspace,
    targets: Integers,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Gather the examples from `start` on into all tiles, and mask the lanes that have none."""
    tile_size = VECTOR_WIDTH * len(lanes)
    size = workspace.positions * tile_size
    chosen = np.empty(tile_size, np.int64)
    for tile in range(workspace.tiles):
        for j in range(tile_size):
            place = start + tile * tile_size + j
            has_example = place < len(order)
            chosen[j] = order[place if has_example else start]
            targets[tile * tile_size + j] = examples.labels[chosen[j]]
            if thread.thread_id == 0:
                workspace.lane_mask[tile * tile_size + j] = np.float32(has_example)
        gather_inputs(
            examples, chosen, input_gather, workspace.outputs[tile * size : (tile + 1) * size], thread, lanes
        )
    barrier(thread)


@compiled
def _compute_loss(
    network: Network, workspace: Workspace, targets: Integers, start: int, batch: int, lanes: StaticSize
) -> float:
    """Return the sum of all tiles' cross-entropies; the gradients of the batch's mean go into `deltas`."""
    tile_size = VECTOR_WIDTH * len(lanes)
    last = network.nodes[len(network.nodes) - 1]
    total = 0.0
    for tile in range(workspace.tiles):
        logits = _logits(network, workspace, workspace.outputs, tile, lanes)
        deltas = _logits(network, workspace, workspace.deltas, tile, lanes)
        labels = targets[tile * tile_size : (tile + 1) * tile_size]
        count = max(0, min(tile_size, batch - start - tile * tile_size))
        total += cross_entropy(logits, deltas, workspace.loss_scratch, labels, count, batch, lanes)
        activation_backward(last.activation, logits, deltas, lanes)
    return total


@compiled
def _count_correct(
    network: Network, workspace: Workspace, targets: Integers, start: int, batch: int, lanes: StaticSize
) -> int:
    """Return how many of all tiles' examples have the logit of their label largest."""
    tile_size = VECTOR_WIDTH * len(lanes)
    correct = 0
    for tile in range(workspace.tiles):
        logits = _logits(network, workspace, workspace.outputs, tile, lanes)
        count = max(0, min(tile_size, batch - start - tile * tile_size))
        correct += count_correct(logits, targets[tile * tile_size : (tile + 1) * tile_size], count, lanes)
    return correct


@entry_point
def predict(
    examples: Examples,
    input_gather: InputGather,
    network: Network,
    state: State,
    workspace: Workspace,
    results: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
    all_ops: AllOps,
) -> None:
    """Fill `results`, (n, classes), with the logits of all examples."""
    mode = get_float_mode()
    set_float_mode(mode, True)
    tile_size, n = VECTOR_WIDTH * len(lanes), len(results)
    order, targets = np.arange(n), np.empty(workspace.tiles * tile_size, np.int64)
    for start in range(0, n, workspace.tiles * tile_size):
        _load_tiles(examples, order, start, input_gather, workspace, targets, thread, lanes)
        forward(network, state, workspace, n, False, thread, lanes, all_ops)
        if thread.thread_id:
            continue
        for tile in range(workspace.tiles):
            logits = _logits(network, workspace, workspace.outputs, tile, lanes)
            for j in range(min(tile_size, n - start - tile * tile_size)):
                for i in range(results.shape[1]):
                    results[start + tile * tile_size + j, i] = logits[i * tile_size + j]
    set_float_mode(mode, False)
