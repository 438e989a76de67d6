"""Batch normalisation, compiled: over all tiles of a batch in training, from running statistics otherwise.

Reference: Ioffe & Szegedy 2015 (arXiv 1502.03167); the running variance is the unbiased one, as in PyTorch.
"""

from __future__ import annotations

import math

import numpy as np

from nirvana.networks.ops import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM
from nirvana.sparse.activations import activate, activation_grad
from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import VECTOR_WIDTH, StaticSize
from nirvana.sparse.program import Network, State, Workspace
from nirvana.sparse.threads import ThreadContext, partition
from nirvana.sparse.vectors import broadcast, horizontal_sum, load, store


@kernel
def batch_norm_forward(
    network: Network,
    node: np.record,
    state: State,
    workspace: Workspace,
    batch: int,
    is_training: bool,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Normalise each channel; in training by the batch's mean and variance, which update the running ones.

    Args:
        batch: examples in all of the workspace's tiles.
    """
    source = network.inputs[node.first_input]
    count = batch * node.height * node.width
    means, variances = state.running
    for channel in range(*partition(thread, node.channels)):
        at = node.norm_channel + channel
        mean, variance = float(means[at]), float(variances[at])
        if is_training:
            mean = _centred_sum(source, workspace, channel, 0.0, False, lanes) / count
            variance = _centred_sum(source, workspace, channel, mean, True, lanes) / count
            means[at] += np.float32(BATCH_NORM_MOMENTUM * (mean - means[at]))
            variances[at] += np.float32(
                BATCH_NORM_MOMENTUM * (variance * count / (count - 1) - variances[at])
            )
        inverse_std = 1 / math.sqrt(variance + BATCH_NORM_EPSILON)
        workspace.batch_stats[0, at], workspace.batch_stats[1, at] = mean, inverse_std
        scale = state.parameters[node.gain + channel] * inverse_std
        shift = state.parameters[node.bias + channel] - scale * mean
        _scale_and_shift(node, source, workspace, channel, scale, shift, lanes)


@compiled
def _centred_sum(
    source: np.record, workspace: Workspace, channel: int, mean: float, is_squared: bool, lanes: StaticSize
) -> float:
    """Return the sum over a channel of x - mean, or of its square; row by row, as float64."""
    tile_size = VECTOR_WIDTH * len(lanes)
    total, means = 0.0, broadcast(np.float32(mean), lanes)
    for tile in range(workspace.tiles):
        mask = load(workspace.lane_mask, tile * tile_size, lanes)
        first = tile * workspace.positions + source.origin + channel * source.plane
        for y in range(source.height):
            at = (first + y * source.pitch) * tile_size
            row = broadcast(np.float32(0), lanes)
            for x in range(source.width):
                centred = (load(workspace.outputs, at + x * tile_size, lanes) - means) * mask
                row = row + (centred * centred if is_squared else centred)
            total += horizontal_sum(row)
    return total


@compiled
def _scale_and_shift(
    node: np.record,
    source: np.record,
    workspace: Workspace,
    channel: int,
    scale: float,
    shift: float,
    lanes: StaticSize,
) -> None:
    """Compute scale * x + shift, and the node's activation."""
    tile_size = VECTOR_WIDTH * len(lanes)
    scales, shifts = broadcast(np.float32(scale), lanes), broadcast(np.float32(shift), lanes)
    for tile in range(workspace.tiles):
        first_in = tile * workspace.positions + source.origin + channel * source.plane
        first_out = tile * workspace.positions + node.origin + channel * node.plane
        for y in range(node.height):
            at = (first_in + y * source.pitch) * tile_size
            to = (first_out + y * node.pitch) * tile_size
            for x in range(node.width):
                result = load(workspace.outputs, at + x * tile_size, lanes) * scales + shifts
                store(workspace.outputs, to + x * tile_size, activate(node.activation, result))


@kernel
def batch_norm_backward(
    network: Network,
    node: np.record,
    state: State,
    workspace: Workspace,
    batch: int,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute gradients of gains and shifts, and of the input, through the batch's mean and variance."""
    source = network.inputs[node.first_input]
    count = batch * node.height * node.width
    for channel in range(*partition(thread, node.channels)):
        at = node.norm_channel + channel
        mean, inverse_std = workspace.batch_stats[0, at], workspace.batch_stats[1, at]
        bias_grad, gain_grad = _parameter_grads(node, source, workspace, channel, mean, inverse_std, lanes)
        state.gradients[node.gain + channel] += np.float32(gain_grad)
        state.gradients[node.bias + channel] += np.float32(bias_grad)
        scale = state.parameters[node.gain + channel] * inverse_std
        if source.needs_grad:
            slope, offset = inverse_std * (gain_grad / count), bias_grad / count
            _input_grad(node, source, workspace, channel, mean, scale, slope, offset, lanes)


@compiled
def _parameter_grads(
    node: np.record,
    source: np.record,
    workspace: Workspace,
    channel: int,
    mean: float,
    inverse_std: float,
    lanes: StaticSize,
) -> tuple[float, float]:
    """Return the gradients of shift and gain: the sums of delta, and of delta x the normalised value."""
    tile_size = VECTOR_WIDTH * len(lanes)
    bias_grad, gain_grad, means = 0.0, 0.0, broadcast(np.float32(mean), lanes)
    for tile in range(workspace.tiles):
        first_in = tile * workspace.positions + source.origin + channel * source.plane
        first_out = tile * workspace.positions + node.origin + channel * node.plane
        for y in range(node.height):
            at = (first_in + y * source.pitch) * tile_size
            to = (first_out + y * node.pitch) * tile_size
            row, product = broadcast(np.float32(0), lanes), broadcast(np.float32(0), lanes)
            for x in range(node.width):
                delta = load(workspace.deltas, to + x * tile_size, lanes)
                row = row + delta
                product = product + delta * (load(workspace.outputs, at + x * tile_size, lanes) - means)
            bias_grad += horizontal_sum(row)
            gain_grad += horizontal_sum(product) * inverse_std
    return bias_grad, gain_grad


@compiled
def _input_grad(
    node: np.record,
    source: np.record,
    workspace: Workspace,
    channel: int,
    mean: float,
    scale: float,
    slope: float,
    offset: float,
    lanes: StaticSize,
) -> None:
    """Compute scale * (delta - offset - slope * (x - mean)), in lanes that have an example."""
    tile_size = VECTOR_WIDTH * len(lanes)
    means, scales = broadcast(np.float32(mean), lanes), broadcast(np.float32(scale), lanes)
    slopes, offsets = broadcast(np.float32(slope), lanes), broadcast(np.float32(offset), lanes)
    for tile in range(workspace.tiles):
        mask = load(workspace.lane_mask, tile * tile_size, lanes)
        first_in = tile * workspace.positions + source.origin + channel * source.plane
        first_out = tile * workspace.positions + node.origin + channel * node.plane
        for y in range(node.height):
            at = (first_in + y * source.pitch) * tile_size
            to = (first_out + y * node.pitch) * tile_size
            for number in range(node.width):
                x = load(workspace.outputs, at + number * tile_size, lanes)
                delta = load(workspace.deltas, to + number * tile_size, lanes) - offsets
                delta = (delta - (x - means) * slopes) * scales * mask
                delta = activation_grad(source.activation, x, delta)
                if not source.overwrites_grad:
                    delta = load(workspace.deltas, at + number * tile_size, lanes) + delta
                store(workspace.deltas, at + number * tile_size, delta)
