"""Convolutions, compiled: a kept weight meets a patch of pixels, all their lanes, at a time.

Direct, without im2col: a weight is a distance between positions, the same for every pixel, so nothing is
copied. `pixels`, wherever it is an argument, is a tuple of one item for each pixel of a patch.
"""

from __future__ import annotations

import numpy as np

from nirvana.sparse.activations import activate, activation_grad
from nirvana.sparse.compiling import compiled, kernel
from nirvana.sparse.layout import VECTOR_WIDTH, Floats, StaticSize
from nirvana.sparse.pixels import (
    gather_offsets,
    load_pixels,
    multiply_add_pixels,
    multiply_add_shifted,
    store_pixels,
    zero_registers,
)
from nirvana.sparse.program import Network
from nirvana.sparse.threads import ThreadContext, partition
from nirvana.sparse.vectors import (
    HAS_WIDE_REGISTERS,
    PATCH_SIZES,
    accumulate_sums,
    broadcast,
    horizontal_sum,
    load,
    load_scalar,
    repeat,
)

LARGE, SMALL, ONE = ((0,) * size for size in PATCH_SIZES)
WEIGHT_BLOCK = (0,) * 8  # weights whose gradients are summed together
JOINED_BLOCKS = (
    2 if HAS_WIDE_REGISTERS else 1
)  # of a row, in gradients: such processors have larger L2 caches
PIXEL_BLOCK = 128  # times 16 lanes of a channel, in whole rows: a shorter sum costs more to begin and to end


@kernel
def conv_forward(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute the node's pixels from those that its weights read."""
    for number in range(node.forward_patches, node.forward_patches_end):
        patch = network.patches[number]
        if patch.pixels == len(LARGE):
            _forward_patch(network, node, parameters, outputs, thread, patch, lanes, LARGE)
        elif patch.pixels == len(SMALL):
            _forward_patch(network, node, parameters, outputs, thread, patch, lanes, SMALL)
        else:
            _forward_patch(network, node, parameters, outputs, thread, patch, lanes, ONE)


@compiled
def _forward_patch(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    thread: ThreadContext,
    patch: np.record,
    lanes: StaticSize,
    pixels: StaticSize,
) -> None:
    """Compute all channels of a patch."""
    tile_size = VECTOR_WIDTH * len(lanes)
    right, down = patch.input_right * tile_size, patch.input_down * tile_size
    to_right, to_down = patch.output_right * tile_size, patch.output_down * tile_size
    first, end = partition(thread, node.channels)
    for block in range(node.row_blocks):
        for channel in range(first, end):
            to = (node.origin + patch.output + channel * node.plane) * tile_size
            total = repeat(broadcast(parameters[node.bias + channel], lanes), pixels)
            if block:
                total = load_pixels(outputs, to, to_right, to_down, lanes, pixels)
            row = node.first_row + channel * node.row_blocks + block
            for k in range(network.row_ptr[row], network.row_ptr[row + 1]):
                at = (patch.input + load_scalar(network.col_idx, k)) * tile_size
                total = multiply_add_pixels(load_scalar(parameters, k), outputs, at, right, down, total)
            if block + 1 == node.row_blocks:
                total = activate(node.activation, total)
            store_pixels(outputs, to, to_right, to_down, total)


@kernel
def conv_weight_grad(
    network: Network,
    node: np.record,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Add to the gradients of weights and biases."""
    first, last = partition(thread, node.channels)
    height = max(1, PIXEL_BLOCK // (node.width * len(lanes)))
    for y in range(0, node.height, height):
        rows = (y, min(y + height, node.height))
        if node.has_bias:
            for channel in range(first, last):
                gradients[node.bias + channel] += _bias_grad(node, deltas, channel, rows, lanes)
        for block in range(0, node.row_blocks, JOINED_BLOCKS):
            for channel in range(first, last):
                row = node.first_row + channel * node.row_blocks + block
                end = network.row_ptr[row + min(JOINED_BLOCKS, node.row_blocks - block)]
                for k in range(network.row_ptr[row], end, len(WEIGHT_BLOCK)):
                    _weight_grad(network, node, gradients, outputs, deltas, channel, k, end, rows, lanes)


@compiled
def _weight_grad(
    network: Network,
    node: np.record,
    gradients: Floats,
    outputs: Floats,
    deltas: Floats,
    channel: int,
    k: int,
    end: int,
    rows: tuple[int, int],
    lanes: StaticSize,
) -> None:
    """Add the gradients over a block of rows of pixels to those of a channel's weights from k on to `end`."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    starts = gather_offsets(network.col_idx, k, end - 1, tile_size, WEIGHT_BLOCK)
    sums = zero_registers(WEIGHT_BLOCK)
    for y in range(rows[0], rows[1]):
        at = (node.origin + channel * node.plane + y * node.pitch) * tile_size
        shift = y * node.stride_y * source.pitch * tile_size
        for _ in range(node.width):
            sums = multiply_add_shifted(deltas, at, outputs, starts, shift, lanes, sums)
            at += tile_size
            shift += node.stride_x * tile_size
    accumulate_sums(gradients, k, end, sums)


@compiled
def _bias_grad(
    node: np.record, deltas: Floats, channel: int, rows: tuple[int, int], lanes: StaticSize
) -> np.float32:
    """Return the sum of a channel's gradients over a block of rows of pixels."""
    tile_size = VECTOR_WIDTH * len(lanes)
    total = broadcast(np.float32(0), lanes)
    for y in range(rows[0], rows[1]):
        at = (node.origin + channel * node.plane + y * node.pitch) * tile_size
        for x in range(node.width):
            total = total + load(deltas, at + x * tile_size, lanes)
    return np.float32(horizontal_sum(total))


@kernel
def conv_input_grad(
    network: Network,
    node: np.record,
    parameters: Floats,
    outputs: Floats,
    deltas: Floats,
    csc_weights: Floats,
    thread: ThreadContext,
    lanes: StaticSize,
) -> None:
    """Compute the input's gradient, one phase of the stride after the other.

    Args:
        csc_weights: room for all weights in the order of `network.row_idx`, (weights,), in which each patch
            reads them.
    """
    _gather_csc_weights(network, node, parameters, csc_weights, thread)
    for number in range(node.backward_patches, node.backward_patches_end):
        patch = network.patches[number]
        if patch.pixels == len(LARGE):
            _input_grad_patch(network, node, csc_weights, outputs, deltas, thread, patch, lanes, LARGE)
        elif patch.pixels == len(SMALL):
            _input_grad_patch(network, node, csc_weights, outputs, deltas, thread, patch, lanes, SMALL)
        else:
            _input_grad_patch(network, node, csc_weights, outputs, deltas, thread, patch, lanes, ONE)


@compiled
def _gather_csc_weights(
    network: Network, node: np.record, parameters: Floats, csc_weights: Floats, thread: ThreadContext
) -> None:
    """Fill `csc_weights` with those of this thread's channels."""
    channels = network.inputs[node.first_input].channels
    first, end = partition(thread, channels)
    for phase in range(node.stride_y * node.stride_x):
        column = node.first_col + phase * channels * node.col_blocks
        start, stop = column + first * node.col_blocks, column + end * node.col_blocks
        for k in range(network.col_ptr[start], network.col_ptr[stop]):
            csc_weights[k] = parameters[network.weight_idx[k]]


@compiled
def _input_grad_patch(
    network: Network,
    node: np.record,
    csc_weights: Floats,
    outputs: Floats,
    deltas: Floats,
    thread: ThreadContext,
    patch: np.record,
    lanes: StaticSize,
    pixels: StaticSize,
) -> None:
    """Compute the gradient of all of the input's channels, at a patch of one phase."""
    tile_size = VECTOR_WIDTH * len(lanes)
    source = network.inputs[node.first_input]
    right, down = patch.input_right * tile_size, patch.input_down * tile_size
    from_right, from_down = patch.output_right * tile_size, patch.output_down * tile_size
    first, end = partition(thread, source.channels)
    for block in range(node.col_blocks):
        for channel in range(first, end):
            to = (source.origin + patch.input + channel * source.plane) * tile_size
            column = node.first_col + (patch.phase * source.channels + channel) * node.col_blocks + block
            delta = repeat(broadcast(np.float32(0), lanes), pixels)
            if block or not source.overwrites_grad:
                delta = load_pixels(deltas, to, right, down, lanes, pixels)
            for k in range(network.col_ptr[column], network.col_ptr[column + 1]):
                at = (patch.output + load_scalar(network.row_idx, k)) * tile_size
                weight = load_scalar(csc_weights, k)
                delta = multiply_add_pixels(weight, deltas, at, from_right, from_down, delta)
            if block + 1 == node.col_blocks:
                output = load_pixels(outputs, to, right, down, lanes, pixels)
                delta = activation_grad(source.activation, output, delta)
            store_pixels(deltas, to, right, down, delta)
