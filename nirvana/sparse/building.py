"""Compilation of a network and its masks into index arrays: CSR and CSC, nodes, and patches of pixels.

A patch has half of its pixels in each of two neighbouring rows, or all in one: of a signal, or in the last
row of an odd number. The remaining pixels are computed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import value
from nirvana.sparse.layout import (
    BATCH_NORM,
    CONVOLUTION,
    LINEAR,
    MAX_SPARSE_DENSITY,
    VECTOR_WIDTH,
    FeatureMap,
    Integers,
    Layout,
    Operation,
    Pair,
    make_layout,
)
from nirvana.sparse.program import (
    FEATURE_MAP,
    INPUT,
    NODE,
    PATCH,
    InputGather,
    Network,
    Program,
)

MIN_BLOCK_CHANNELS, MIN_BLOCK_WEIGHTS = 4, 32
_Taps = tuple[Integers, ...]  # of the stored weights: row, channel, y and x


def build(architecture: Architecture, masks: Mapping[str, Mask]) -> Program:
    """Build the program of a network that `find_unsupported` lets pass."""
    layout = make_layout(architecture)
    weighted = [operation for operation in layout.operations if operation.kernel in (LINEAR, CONVOLUTION)]
    kept = [_kept_weights(architecture, layer, masks) for layer in weighted]
    layers = [(layer, _stored_weights(layer, one)) for layer, one in zip(weighted, kept, strict=True)]
    norms = [operation for operation in layout.operations if operation.kernel == BATCH_NORM]
    input_gather, input_positions = _make_input_gather(layout, layers)
    network = _build_network(layout, layers, norms, input_positions)
    kept_of_stored = [one[stored] for one, (_, stored) in zip(kept, layers, strict=True)]
    return Program(architecture, layout, network, input_gather, layers, norms, np.concatenate(kept_of_stored))


def _kept_weights(architecture: Architecture, layer: Operation, masks: Mapping[str, Mask]) -> Mask:
    """Return a layer's mask as (out, in / groups, kernel height, kernel width)."""
    name = f"{layer.node['name']}.weight"
    shape = architecture.parameters[name]
    kept = masks.get(name, np.ones(shape, bool))
    return kept.reshape(shape[0], shape[1], *layer.window.kernel)


def _stored_weights(layer: Operation, kept: Mask) -> Mask:
    """Return the weights that are computed with: those that are kept, or all of a dense linear layer."""
    is_dense = layer.kernel == LINEAR and kept.mean() > MAX_SPARSE_DENSITY
    return np.ones_like(kept) if is_dense else kept


def _make_input_gather(layout: Layout, layers: list[tuple[Operation, Mask]]) -> tuple[InputGather, Integers]:
    """Return the input's gather, and the position of each feature of the input.

    Where linear layers alone read the input, features that no kept weight reads are left out.
    """
    features = layout.input.end
    used = np.zeros(features, bool)
    for operation in layout.operations:
        if any(source.start == 0 for source in operation.inputs):
            used |= (
                next(stored.any((0, 2, 3)) for layer, stored in layers if layer is operation)
                if operation.kernel == LINEAR
                else True
            )
    windows, end = list[int](), 0
    for feature in np.flatnonzero(used):
        if feature >= end:
            windows.append(max(0, min(int(feature), features - VECTOR_WIDTH)))
            end = windows[-1] + VECTOR_WIDTH
    starts = np.array(windows or [0], np.int64)
    is_whole = bool(used.all())
    targets = starts if is_whole else VECTOR_WIDTH * np.arange(len(starts))
    positions = np.zeros(max(features, VECTOR_WIDTH), np.int64)
    for feature, target in zip(starts[::-1], targets[::-1], strict=True):
        positions[feature : feature + VECTOR_WIDTH] = target + np.arange(VECTOR_WIDTH)
    return InputGather(starts, targets), positions[:features]


def _build_network(
    layout: Layout, layers: list[tuple[Operation, Mask]], norms: list[Operation], input_positions: Integers
) -> Network:
    counts, col_idx, columns = list[Integers](), list[Integers](), list[_Columns]()
    weight = 0
    for layer, stored in layers:
        taps = np.nonzero(stored)
        counts.append(_count_row_blocks(layer, stored, taps))
        col_idx.append(_column_indices(layer, stored, taps, input_positions))
        columns.append(_make_columns(layer, stored, taps, weight))
        weight += len(taps[0])
    nodes, inputs, patches = _make_records(layout, _parameter_offsets(layers, norms, counts, columns, weight))
    first = np.cumsum([0, *(len(one.weight_idx) for one in columns)])
    return Network(
        nodes,
        inputs,
        patches,
        row_ptr=np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        col_idx=np.concatenate(col_idx).astype(np.int32),
        col_ptr=np.concatenate([one.col_ptr + at for one, at in zip(columns, first, strict=False)]),
        weight_idx=np.concatenate([one.weight_idx for one in columns]).astype(np.int32),
        row_idx=np.concatenate([one.row_idx for one in columns]).astype(np.int32),
    )


def _count_blocks(layer: Operation, weights: int, rows: int, channels: int) -> int:
    """Return how many blocks each row's weights are cut into, by channel, so that a block's inputs stay in
    the first cache while all rows read them; 1 for a linear layer.

    As many as leave MIN_BLOCK_WEIGHTS in each: fewer cost more to begin and end than the cache gives back.
    """
    if layer.kernel == LINEAR:
        return 1
    return max(1, min(channels // MIN_BLOCK_CHANNELS, weights // (max(rows, 1) * MIN_BLOCK_WEIGHTS)))


def _count_row_blocks(layer: Operation, stored: Mask, taps: _Taps) -> Integers:
    """Count the weights in each block of each row."""
    row, channel, _, _ = taps
    blocks = _count_blocks(layer, len(row), len(stored), stored.shape[1])
    block = channel * blocks // stored.shape[1]
    return np.bincount(row * blocks + block, minlength=len(stored) * blocks)


def _column_indices(layer: Operation, stored: Mask, taps: _Taps, input_positions: Integers) -> Integers:
    """Return the position that each weight reads, for the first pixel of its row's output."""
    source, window = layer.inputs[0], layer.window
    row, channel, y, x = taps
    if layer.kernel == LINEAR and source.start == 0:
        return input_positions[channel]
    channel = channel + _first_channel(layer, stored, row)
    y, x = y - window.padding[0], x - window.padding[1]
    return np.asarray(source.origin + channel * source.plane + y * source.pitch + x, np.int64)


def _first_channel(layer: Operation, stored: Mask, row: Integers) -> Integers:
    """Return the first channel that each row's group reads."""
    groups = value(layer.node, "groups") if layer.kernel == CONVOLUTION else 1
    return np.asarray(row // (len(stored) // groups) * stored.shape[1], np.int64)


class _Columns(NamedTuple):
    """A layer in CSC, as in `Network`; col_ptr: (phases x channels x blocks + 1,)."""

    col_ptr: Integers
    weight_idx: Integers
    row_idx: Integers
    blocks: int


def _make_columns(layer: Operation, stored: Mask, taps: _Taps, first_weight: int) -> _Columns:
    """Sort the weights by the channel that they read, and by the phase of the pixels that they reach: with a
    stride s, pixel p of the input meets those taps t for which s divides p + padding - t."""
    source, output, window = layer.inputs[0], layer.output, layer.window
    row, channel, y, x = taps
    channel = channel + _first_channel(layer, stored, row)
    stride_y, stride_x = window.stride
    phase_y, phase_x = (y - window.padding[0]) % stride_y, (x - window.padding[1]) % stride_x
    out_y = (phase_y + window.padding[0] - y) // stride_y
    out_x = (phase_x + window.padding[1] - x) // stride_x
    columns = stride_y * stride_x * source.channels
    blocks = _count_blocks(layer, len(row), columns, output.channels)
    block = ((phase_y * stride_x + phase_x) * source.channels + channel) * blocks
    block = block + row * blocks // output.channels
    order = np.argsort(
        block.astype(np.min_scalar_type(columns * blocks)), kind="stable"
    )  # 16 bits: radix sort
    counts = np.bincount(block, minlength=columns * blocks)
    row_idx = output.origin + row * output.plane + out_y * output.pitch + out_x
    return _Columns(np.concatenate([[0], np.cumsum(counts)]), first_weight + order, row_idx[order], blocks)


def _make_records(
    layout: Layout, offsets: Mapping[int, dict[str, int]]
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.void]]:
    """Make the records of nodes, of their inputs, and of their patches."""
    nodes, inputs, patches = list[dict[str, int]](), list[dict[str, int]](), [np.zeros(0, PATCH)]
    for operation in layout.operations:
        node = _feature_map_fields(operation.output)
        node |= {"op": operation.kernel, "first_input": len(inputs)}
        node |= offsets.get(operation.output.start, {})
        for name, (y, x) in operation.window._asdict().items():
            node |= {f"{name}_y": y, f"{name}_x": x}
        if operation.kernel == CONVOLUTION:
            for name, own in (
                ("forward", forward_patches(operation)),
                ("backward", backward_patches(operation)),
            ):
                node[f"{name}_patches"] = sum(map(len, patches))
                node[f"{name}_patches_end"] = node[f"{name}_patches"] + len(own)
                patches.append(own)
        inputs += [_feature_map_fields(one) | {"needs_grad": one.needs_grad} for one in operation.inputs]
        nodes.append(node | {"inputs_end": len(inputs)})
    seen = set[int]()
    for node in reversed(nodes):
        for source in inputs[node["first_input"] : node["inputs_end"]]:
            source["overwrites_grad"] = source["origin"] not in seen
            seen.add(source["origin"])
    return _to_records(nodes, NODE), _to_records(inputs, INPUT), np.concatenate(patches)


def _parameter_offsets(
    layers: list[tuple[Operation, Mask]],
    norms: list[Operation],
    counts: list[Integers],
    columns: list[_Columns],
    weights: int,
) -> dict[int, dict[str, int]]:
    """Return where each operation's parameters, rows and columns start, by the first place of its output."""
    offsets, row, bias, column, channel = dict[int, dict[str, int]](), 0, weights, 0, 0
    for (layer, stored), count, own in zip(layers, counts, columns, strict=True):
        blocks = len(count) // len(stored)
        offsets[layer.output.start] = {
            "first_row": row,
            "row_blocks": blocks,
            "first_col": column,
            "col_blocks": own.blocks,
            "bias": bias,
            "has_bias": value(layer.node, "bias"),
            "shares_columns": bool((stored == stored[:1]).all()),
        }
        row, bias = row + len(stored) * blocks, bias + len(stored)
        column += len(own.col_ptr)
    channels = sum(norm.output.channels for norm in norms)
    for norm in norms:
        gain = bias + channel
        offsets[norm.output.start] = {"norm_channel": channel, "gain": gain, "bias": gain + channels}
        channel += norm.output.channels
    return offsets


def _feature_map_fields(feature_map: FeatureMap) -> dict[str, int]:
    return {name: getattr(feature_map, name) for name in FEATURE_MAP}


def _to_records(rows: list[dict[str, int]], kind: np.dtype[np.void]) -> NDArray[np.void]:
    names = kind.names or ()
    return np.array([tuple(row.get(name, 0) for name in names) for row in rows], kind)


def forward_patches(convolution: Operation) -> NDArray[np.void]:
    """Cut a convolution's output into patches."""
    source, output = convolution.inputs[0], convolution.output
    stride_y, stride_x = convolution.window.stride
    cover = _cover(output.height, output.width)
    patches = np.zeros(len(cover), PATCH)
    _fill_side(patches, "output", cover, 0, (output.pitch, 1))
    _fill_side(patches, "input", cover, 0, (stride_y * source.pitch, stride_x))
    return patches


def backward_patches(convolution: Operation) -> NDArray[np.void]:
    """Cut a convolution's input into patches, one phase of the stride after the other."""
    source, output = convolution.inputs[0], convolution.output
    stride_y, stride_x = convolution.window.stride
    phases = []
    for y, x in np.ndindex(min(stride_y, source.height), min(stride_x, source.width)):
        cover = _cover(len(range(y, source.height, stride_y)), len(range(x, source.width, stride_x)))
        patches = np.zeros(len(cover), PATCH)
        patches["phase"] = y * stride_x + x
        _fill_side(patches, "output", cover, 0, (output.pitch, 1))
        _fill_side(patches, "input", cover, y * source.pitch + x, (stride_y * source.pitch, stride_x))
        phases.append(patches)
    return np.concatenate(phases)


def _cover(height: int, width: int) -> Integers:
    """Return row and column of each patch's first pixel, its rows and its columns, (patches, 4)."""
    patches = []
    for y in range(0, height, 2):
        rows, x = min(2, height - y), 0
        for columns in _patch_widths(width, rows):
            if columns > 1:
                patches.append((y, x, rows, columns))
            else:
                patches += [(y + i, x, 1, 1) for i in range(rows)]
            x += columns
    return np.array(patches)


def _patch_widths(width: int, rows: int) -> list[int]:
    """Return the columns of patches that fill one or two rows: as few single ones as can be, then as many of
    the largest."""
    from nirvana.sparse.vectors import PATCH_SIZES

    large, small = PATCH_SIZES[0] // rows, PATCH_SIZES[1] // rows
    for ones in range(width):
        for smalls in range(large):
            rest = width - ones - smalls * small
            if rest >= 0 and rest % large == 0:
                return [large] * (rest // large) + [small] * smalls + [1] * ones
    return [1] * width


def _fill_side(patches: NDArray[np.void], side: str, cover: Integers, start: int, strides: Pair) -> None:
    """Fill in patches on one side; strides: positions to the pixel below, and to the right."""
    (y, x, rows, columns), (below, right) = cover.T, strides
    patches["pixels"] = rows * columns
    patches[side], patches[f"{side}_right"] = start + y * below + x * right, right
    second = np.where(rows == 2, below, columns // 2 * right)  # a line's second half counts as its second row
    patches[f"{side}_down"] = second
