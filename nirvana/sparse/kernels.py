"""What runs in every update, compiled: forward, backward and optimiser over the kept weights alone.

A batch is cut into tiles of 16, 32 or 64 examples, its lanes. Values lie cell by cell, each cell's lanes side
by side, so that a kept weight reads its column's place once and meets all lanes in a few vector instructions.
Without batch norm one tile goes all the way and back before the next; with it, each node does all tiles.
`pixels` is None for networks of linear layers alone: the rest is then not compiled.

Reference: sparse storage and training by kept weights alone, surveyed by Hoefler et al. 2021
(arXiv 2102.00554).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.sparse.compiling import compiled, entry
from nirvana.sparse.convolutions import convolve, convolve_back, convolve_weights
from nirvana.sparse.gathering import transpose
from nirvana.sparse.layout import TANH, WIDTH, Floats, Integers, Tile
from nirvana.sparse.losses import count_hits, loss
from nirvana.sparse.norms import norm_backward, norm_forward
from nirvana.sparse.optimizers import descend
from nirvana.sparse.pools import add_backward, add_forward, pool_backward, pool_forward
from nirvana.sparse.program import (
    ADD,
    CONVOLUTION,
    LINEAR,
    MEAN_POOL,
    NORM,
    Examples,
    Feed,
    Network,
    Rule,
    Space,
    State,
)
from nirvana.sparse.rows import bend, linear_backward, linear_forward, straighten
from nirvana.sparse.sharing import part, wait
from nirvana.sparse.subnormals import float_mode, set_float_mode
from nirvana.sparse.threads import Share

Pixels = bool | None


@compiled
def gather(x: Examples, chosen: Integers, feed: Feed, outputs: Floats, share: Share, lanes: Tile) -> None:
    """Put the feed's features of the chosen examples, (lanes,), into the input's cells."""
    step = WIDTH * len(lanes)
    for group in range(len(lanes)):
        for window in range(*part(share, len(feed.features))):
            to = feed.cells[window] * step + group * WIDTH
            feature = feed.features[window]
            if len(x.pixels):
                transpose(x.pixels, chosen, group * WIDTH, feature, x.scale, x.shift, outputs, to, step)
            else:
                transpose(x.x, chosen, group * WIDTH, feature, x.scale, x.shift, outputs, to, step)


@compiled
def forward(
    network: Network,
    state: State,
    space: Space,
    batch: int,
    is_training: bool,
    share: Share,
    lanes: Tile,
    pixels: Pixels,
) -> None:
    """Fill every value from the input's. Arguments as for `norm_forward`."""
    size = space.cells * WIDTH * len(lanes)
    for number in range(len(network.nodes)):
        node = network.nodes[number]
        if pixels is not None and node.op == NORM:
            norm_forward(network, node, state, space, batch, is_training, share, lanes)
        for slot in range(space.slots):
            outputs = space.outputs[slot * size : (slot + 1) * size]
            if node.op == LINEAR:
                linear_forward(network, node, state.parameters, outputs, share, lanes)
            elif pixels is not None:
                _forward_pixels(network, node, state.parameters, outputs, share, lanes)
            if node.activation == TANH:
                bend(node, outputs, share, lanes)
        wait(share)


@compiled
def _forward_pixels(
    network: Network,
    node: Any,
    parameters: Floats,
    outputs: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    if node.op == CONVOLUTION:
        convolve(network, node, parameters, outputs, share, lanes)
    elif node.op == ADD:
        add_forward(network, node, outputs, share, lanes)
    elif node.op != NORM:
        pool_forward(network, node, outputs, node.op == MEAN_POOL, share, lanes)


@compiled
def backward(
    network: Network, state: State, space: Space, batch: int, share: Share, lanes: Tile, pixels: Pixels
) -> None:
    """Add the gradients of these tiles to `state.gradients`; those of the logits are there."""
    size = space.cells * WIDTH * len(lanes)
    first, end = part(share, len(space.turned))
    turned = space.turned[first:end]
    for number in range(len(network.nodes) - 1, -1, -1):
        node = network.nodes[number]
        if pixels is not None and node.op == NORM:
            norm_backward(network, node, state, space, batch, share, lanes)
        for slot in range(space.slots):
            outputs = space.outputs[slot * size : (slot + 1) * size]
            deltas = space.deltas[slot * size : (slot + 1) * size]
            if node.op == LINEAR:
                linear_backward(network, node, state, outputs, deltas, turned, share, lanes)
            elif pixels is not None:
                _backward_pixels(network, node, state, outputs, deltas, space.leaving, share, lanes)
        wait(share)


@compiled
def _backward_pixels(
    network: Network,
    node: Any,
    state: State,
    outputs: Floats,
    deltas: Floats,
    leaving: Floats,
    share: Share,
    lanes: Tile,
) -> None:
    if node.op == CONVOLUTION:
        convolve_weights(network, node, state.gradients, outputs, deltas, share, lanes)
        if network.reads[node.read].learns:
            convolve_back(network, node, state.parameters, outputs, deltas, leaving, share, lanes)
    elif node.op == ADD:
        add_backward(network, node, outputs, deltas, share, lanes)
    elif node.op != NORM:
        pool_backward(network, node, outputs, deltas, node.op == MEAN_POOL, share, lanes)


@compiled
def _logits(network: Network, space: Space, values: Floats, slot: int, lanes: Tile) -> Floats:
    """The logits' part of a tile's values or gradients, (classes x lanes,)."""
    step = WIDTH * len(lanes)
    last = network.nodes[len(network.nodes) - 1]
    start = (slot * space.cells + last.origin) * step
    return values[start : start + last.channels * step]


@entry
def visit(
    examples: Examples,
    order: Integers,
    rates: NDArray[np.float64],
    updates: int,
    feed: Feed,
    network: Network,
    state: State,
    space: Space,
    rule: Rule,
    losses: NDArray[np.float64],
    hits: Integers,
    share: Share,
    lanes: Tile,
    pixels: Pixels,
) -> int:
    """Compute each batch, a row of `order`, and make an update after it where it has a learning rate: up to
    the first loss that is not finite, whose update is made too.

    Args:
        order: (batches, batch), the examples of each.
        rates: (batches,) learning rates; (0,): nothing is learned, and norms take their running statistics.
        updates: how many were made before, for Adam.
        losses: (batches,) zeros, filled: mean cross-entropies.
        hits: (batches,) zeros, filled where nothing is learned: how many examples have the logit of their
            label largest.
        share: this thread's. All of `share.threads` threads call this at once with the same other arguments.

    Returns:
        how many losses were finite, before the first that was not.
    """
    mode = float_mode()
    set_float_mode(mode, True)
    step, batch, is_training = WIDTH * len(lanes), order.shape[1], len(rates) > 0
    targets = np.empty(space.slots * step, np.int64)
    made = 0
    while made < len(order):
        for start in range(0, batch, space.slots * step):
            _fill(examples, order[made], start, feed, space, targets, share, lanes)
            forward(network, state, space, batch, is_training, share, lanes, pixels)
            if share.number == 0:
                losses[made] += _lose(network, space, targets, start, batch, lanes) / batch
                if not is_training:
                    hits[made] += _count_hits(network, space, targets, start, batch, lanes)
            wait(share)
            if is_training:
                backward(network, state, space, batch, share, lanes, pixels)
        if is_training:
            descend(state, rule, rates[made], updates + made + 1, share)
        if not math.isfinite(losses[made]):
            break
        made += 1
    set_float_mode(mode, False)
    return made


@compiled
def _fill(
    examples: Examples,
    order: Integers,
    start: int,
    feed: Feed,
    space: Space,
    targets: Integers,
    share: Share,
    lanes: Tile,
) -> None:
    """Gather the examples from `start` on into all slots; a lane without one does not live."""
    step = WIDTH * len(lanes)
    size = space.cells * step
    chosen = np.empty(step, np.int64)
    for slot in range(space.slots):
        for j in range(step):
            place = start + slot * step + j
            is_live = place < len(order)
            chosen[j] = order[place if is_live else start]
            targets[slot * step + j] = examples.labels[chosen[j]]
            if share.number == 0:
                space.live[slot * step + j] = np.float32(is_live)
        gather(examples, chosen, feed, space.outputs[slot * size : (slot + 1) * size], share, lanes)
    wait(share)


@compiled
def _lose(network: Network, space: Space, targets: Integers, start: int, batch: int, lanes: Tile) -> float:
    """The sum of all slots' cross-entropies; leaves the gradients of the batch's mean, too."""
    step = WIDTH * len(lanes)
    last = network.nodes[len(network.nodes) - 1]
    total = 0.0
    for slot in range(space.slots):
        logits = _logits(network, space, space.outputs, slot, lanes)
        deltas = _logits(network, space, space.deltas, slot, lanes)
        labels = targets[slot * step : (slot + 1) * step]
        count = max(0, min(step, batch - start - slot * step))
        total += loss(logits, deltas, space.rows, labels, count, batch, lanes)
        straighten(last.activation, logits, deltas, lanes)
    return total


@compiled
def _count_hits(
    network: Network, space: Space, targets: Integers, start: int, batch: int, lanes: Tile
) -> int:
    """How many of all slots' examples have the logit of their label largest."""
    step = WIDTH * len(lanes)
    right = 0
    for slot in range(space.slots):
        logits = _logits(network, space, space.outputs, slot, lanes)
        count = max(0, min(step, batch - start - slot * step))
        right += count_hits(logits, targets[slot * step : (slot + 1) * step], count, lanes)
    return right


@entry
def predict(
    examples: Examples,
    feed: Feed,
    network: Network,
    state: State,
    space: Space,
    found: Floats,
    share: Share,
    lanes: Tile,
    pixels: Pixels,
) -> None:
    """Fill `found`, (n, classes), with the logits of all examples."""
    mode = float_mode()
    set_float_mode(mode, True)
    step, n = WIDTH * len(lanes), len(found)
    order, targets = np.arange(n), np.empty(space.slots * step, np.int64)
    for start in range(0, n, space.slots * step):
        _fill(examples, order, start, feed, space, targets, share, lanes)
        forward(network, state, space, n, False, share, lanes, pixels)
        if share.number:
            continue
        for slot in range(space.slots):
            logits = _logits(network, space, space.outputs, slot, lanes)
            for j in range(min(step, n - start - slot * step)):
                for i in range(found.shape[1]):
                    found[start + slot * step + j, i] = logits[i * step + j]
    set_float_mode(mode, False)
