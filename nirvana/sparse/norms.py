"""Batch normalisation, compiled: over all tiles of a batch in training, from running statistics otherwise.

Reference: Ioffe & Szegedy 2015 (arXiv 1502.03167); the running variance is the unbiased one, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nirvana.ops import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import WIDTH, Tile
from nirvana.sparse.program import Network, Space, State
from nirvana.sparse.rows import activate, slope
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import add_up, load, spread, store


@kernel
def norm_forward(
    network: Network,
    node: Any,
    state: State,
    space: Space,
    batch: int,
    is_training: bool,
    share: Share,
    lanes: Tile,
) -> None:
    """Normalise each channel; in training by the batch's mean and variance, which move the running ones.

    Args:
        batch: examples in all of the space's tiles.
    """
    read = network.reads[node.read]
    count = batch * node.height * node.width
    means, variances = state.running
    for channel in range(*part(share, node.channels)):
        at = node.norm + channel
        mean, variance = float(means[at]), float(variances[at])
        if is_training:
            mean = _mean(read, space, channel, 0.0, False, lanes) / count
            variance = _mean(read, space, channel, mean, True, lanes) / count
            means[at] += np.float32(BATCH_NORM_MOMENTUM * (mean - means[at]))
            variances[at] += np.float32(
                BATCH_NORM_MOMENTUM * (variance * count / (count - 1) - variances[at])
            )
        scale = 1 / math.sqrt(variance + BATCH_NORM_EPSILON)
        space.moments[0, at], space.moments[1, at] = mean, scale
        gain = state.parameters[node.gain + channel] * scale
        _scale(node, read, space, channel, gain, state.parameters[node.bias + channel] - gain * mean, lanes)


@compiled
def _mean(read: Any, space: Space, channel: int, mean: float, is_squared: bool, lanes: Tile) -> float:
    """The sum over a channel of x - mean, or of its square; row by row, as float64."""
    step = WIDTH * len(lanes)
    total, middle = 0.0, spread(np.float32(mean), lanes)
    for slot in range(space.slots):
        live = load(space.live, slot * step, lanes)
        for y in range(read.height):
            at = (slot * space.cells + read.origin + channel * read.plane + y * read.pitch) * step
            row = spread(np.float32(0), lanes)
            for x in range(read.width):
                away = (load(space.outputs, at + x * step, lanes) - middle) * live
                row = row + (away * away if is_squared else away)
            total += add_up(row)
    return total


@compiled
def _scale(node: Any, read: Any, space: Space, channel: int, gain: float, shift: float, lanes: Tile) -> None:
    """gain * x + shift, and the node's activation."""
    step = WIDTH * len(lanes)
    gains, shifts = spread(np.float32(gain), lanes), spread(np.float32(shift), lanes)
    for slot in range(space.slots):
        for y in range(node.height):
            source = (slot * space.cells + read.origin + channel * read.plane + y * read.pitch) * step
            target = (slot * space.cells + node.origin + channel * node.plane + y * node.pitch) * step
            for x in range(node.width):
                found = load(space.outputs, source + x * step, lanes) * gains + shifts
                store(space.outputs, target + x * step, activate(node.activation, found))


@kernel
def norm_backward(
    network: Network, node: Any, state: State, space: Space, batch: int, share: Share, lanes: Tile
) -> None:
    """Gradients of gains and shifts, and of what was read, through the batch's mean and variance."""
    read = network.reads[node.read]
    count = batch * node.height * node.width
    for channel in range(*part(share, node.channels)):
        mean, scale = space.moments[0, node.norm + channel], space.moments[1, node.norm + channel]
        plain, along = _sums(node, read, space, channel, mean, scale, lanes)
        state.gradients[node.gain + channel] += np.float32(along)
        state.gradients[node.bias + channel] += np.float32(plain)
        gain = state.parameters[node.gain + channel] * scale
        if read.learns:
            _pass_on(node, read, space, channel, mean, scale, gain, plain / count, along / count, lanes)


@compiled
def _sums(
    node: Any, read: Any, space: Space, channel: int, mean: float, scale: float, lanes: Tile
) -> tuple[float, float]:
    """The sums of the gradient, and of the gradient x the normalised value."""
    step = WIDTH * len(lanes)
    plain, along, middle = 0.0, 0.0, spread(np.float32(mean), lanes)
    for slot in range(space.slots):
        for y in range(node.height):
            source = (slot * space.cells + read.origin + channel * read.plane + y * read.pitch) * step
            target = (slot * space.cells + node.origin + channel * node.plane + y * node.pitch) * step
            row, product = spread(np.float32(0), lanes), spread(np.float32(0), lanes)
            for x in range(node.width):
                delta = load(space.deltas, target + x * step, lanes)
                row = row + delta
                product = product + delta * (load(space.outputs, source + x * step, lanes) - middle)
            plain += add_up(row)
            along += add_up(product) * scale
    return plain, along


@compiled
def _pass_on(
    node: Any,
    read: Any,
    space: Space,
    channel: int,
    mean: float,
    scale: float,
    gain: float,
    plain: float,
    along: float,
    lanes: Tile,
) -> None:
    """gain * (gradient - its mean - normalised value * mean product), in lanes that have an example."""
    step = WIDTH * len(lanes)
    middle, gains = spread(np.float32(mean), lanes), spread(np.float32(gain), lanes)
    scales, mean_delta = spread(np.float32(scale * along), lanes), spread(np.float32(plain), lanes)
    for slot in range(space.slots):
        live = load(space.live, slot * step, lanes)
        for y in range(node.height):
            source = (slot * space.cells + read.origin + channel * read.plane + y * read.pitch) * step
            target = (slot * space.cells + node.origin + channel * node.plane + y * node.pitch) * step
            for x in range(node.width):
                met = load(space.outputs, source + x * step, lanes)
                delta = load(space.deltas, target + x * step, lanes) - mean_delta
                found = slope(read.activation, met, (delta - (met - middle) * scales) * gains * live)
                if not read.is_first:
                    found = load(space.deltas, source + x * step, lanes) + found
                store(space.deltas, source + x * step, found)
