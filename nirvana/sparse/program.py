"""A sparse network as the arrays that compiled code reads, and its parameters as one array and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.sparse.layout import LINEAR, Floats, Indices, Integers, Layout, Operation
from nirvana.training.spec import Values

AllOps = Literal[True] | None  # None: code for linear layers alone is compiled

FEATURE_MAP = ("origin", "channels", "height", "width", "pitch", "plane", "activation")
_NODE = (
    "op",
    *FEATURE_MAP,  # of its output
    "first_row",  # in `row_ptr`
    "row_blocks",  # of each of its rows, by input channels
    "has_bias",
    "shares_columns",  # all of its rows have the same columns
    "bias",  # the parameter that is its first channel's bias
    "gain",  # ... and, for a norm, gain; `norm_channel`: its first channel among all norms'
    "norm_channel",
    "first_col",  # in `col_ptr`
    "col_blocks",  # of each of its columns, by output channels
    "first_input",  # its inputs: from here to `inputs_end` in `inputs`
    "inputs_end",
    "forward_patches",  # of its output: from here to `forward_patches_end` in `patches`
    "forward_patches_end",
    "backward_patches",  # ... and of its input, whose gradient is computed
    "backward_patches_end",
    *(f"{name}_{along}" for name in ("kernel", "stride", "padding") for along in ("y", "x")),
)
_INPUT = (*FEATURE_MAP, "needs_grad", "overwrites_grad")
NODE = np.dtype([(name, np.int64) for name in _NODE])
INPUT = np.dtype([(name, np.int64) for name in _INPUT])
_PATCH = (
    *("input", "input_right", "input_down"),  # its first position in an input channel, and the way on
    *("output", "output_right", "output_down"),  # ... and in an output channel
    "phase",  # of the stride
    "pixels",  # how many
)
PATCH = np.dtype([(name, np.int64) for name in _PATCH])


class Network(NamedTuple):
    """A network's kept weights as compressed sparse rows (CSR) and columns (CSC), and its nodes.

    A row is one unit or output channel, a column one feature, or one input channel at one phase of the
    stride. Weights are stored row by row; their indices are positions in a tile (see
    `nirvana.sparse.layout`), so that a column index is where a weight reads, and a row index where its
    output's gradient is. Rows and columns of convolutions are cut into blocks, by channels of the other
    side, each with its own pointer.

    Attributes:
        nodes: (nodes,) of NODE. inputs: of INPUT, the inputs of each node; `overwrites_grad`: its gradient is
            stored by this reader, and added to by those that come later (backward: from the end).
        patches: of PATCH, the pixels of convolutions, in the order in which they are computed.
        row_ptr: the first weight of each block of each row, and the end of the last.
        col_idx: (weights,): the position that each weight reads, for the first pixel of its row's output.
        col_ptr: the first entry of each block of each column in the next two, for each phase of the stride.
        weight_idx: the weights in the order of columns. row_idx: the positions of the gradients that they
            read, for the first pixel of the input.
    """

    nodes: NDArray[Any]
    inputs: NDArray[Any]
    patches: NDArray[Any]
    row_ptr: Integers
    col_idx: Indices
    col_ptr: Integers
    weight_idx: Indices
    row_idx: Indices


class Workspace(NamedTuple):
    """Buffers for a batch: `tiles` of them at a time.

    Attributes:
        outputs, deltas: values and their gradients, (tiles x positions x lanes,).
        lane_mask: (tiles x lanes,): 1 for a lane that has an example, else 0.
        loss_scratch: three rows of lanes.
        transposed: for each thread, a block of columns of a dense layer as rows (lanes, columns).
        csc_weights: weights of convolutions in the order of columns, (weights,).
        batch_stats: mean and 1 / standard deviation of each norm's channels, (2, channels).
        positions: of one tile.
    """

    outputs: Floats
    deltas: Floats
    lane_mask: Floats
    loss_scratch: Floats
    transposed: Floats
    csc_weights: Floats
    batch_stats: Floats
    positions: int
    tiles: int


class State(NamedTuple):
    """The state that an update changes: parameters (stored weights, then biases, gains and shifts of norms),
    their gradients, the optimiser's moments, all (parameters,); running statistics (2, channels).

    `mask`: 1, or 0 for a pruned weight of a layer that is stored whole; (0,) where there is no such layer.
    """

    parameters: Floats
    gradients: Floats
    first_moment: Floats
    second_moment: Floats
    running: Floats
    mask: Floats


class OptimizerParams(NamedTuple):
    """The optimiser's: momentum is beta1 for Adam; `weight_decay` is added to the gradient, `decoupled_decay`
    times the rate is subtracted from the parameter (AdamW)."""

    is_adam: bool
    is_nesterov: bool
    momentum: float
    beta2: float
    epsilon: float
    weight_decay: float
    decoupled_decay: float


class Examples(NamedTuple):
    """A split, read-only.

    Attributes:
        x: (n, features), or (0, features) where there are `pixels` of that shape instead, which stand for
            pixel * scale - shift, rounded twice; scale and shift: (features,). labels: (n,).
    """

    x: Floats
    pixels: NDArray[np.uint8]
    scale: Floats
    shift: Floats
    labels: Integers


class InputGather(NamedTuple):
    """Windows of 16 neighbouring features that are copied to the input's positions: the feature and the
    position at which each starts. Together they hold every feature that a kept weight reads."""

    features: Integers
    positions: Integers


@dataclass(frozen=True)
class Program:
    """An architecture and its masks, as `build` compiles them.

    Attributes:
        layout, network, input_gather: see there.
        layers: each linear or convolution with its stored weights: a mask (out, in / groups, height, width).
        norms: the batch norms.
        kept: of the stored weights, those that the masks keep.
    """

    architecture: Architecture
    layout: Layout
    network: Network
    input_gather: InputGather
    layers: list[tuple[Operation, Mask]]
    norms: list[Operation]
    kept: NDArray[np.bool_]

    @property
    def weight_count(self) -> int:
        """Number of stored weights."""
        return len(self.network.col_idx)

    @property
    def needs_all_ops(self) -> bool:
        """Tell whether any operation is more than a linear layer."""
        return any(operation.kernel != LINEAR for operation in self.layout.operations)

    def pack(self, values: Mapping[str, Floats]) -> Floats:
        """Return stored weights by layer and row, biases (0 if there are none), gains and shifts of norms."""
        stored = [
            values[f"{layer.node['name']}.weight"].reshape(one.shape)[one] for layer, one in self.layers
        ]
        parts = [np.where(self.kept, np.concatenate(stored), 0)]
        for layer, one in self.layers:
            bias = values.get(f"{layer.node['name']}.bias")
            parts.append(np.zeros(len(one), np.float32) if bias is None else bias)
        parts += [values[f"{norm.node['name']}.{part}"] for part in ("weight", "bias") for norm in self.norms]
        return np.concatenate(parts, dtype=np.float32)

    def pack_running(self, values: Mapping[str, Floats]) -> Floats:
        """Return running means and variances, (2, channels); 0 and 1 where there are none yet."""
        rows = []
        for part, default in (("running_mean", np.zeros), ("running_var", np.ones)):
            statistics = [
                values.get(f"{norm.node['name']}.{part}", default(norm.output.channels))
                for norm in self.norms
            ]
            rows.append(np.concatenate([np.zeros(0), *statistics]))
        return np.array(rows, np.float32)

    def unpack(self, parameters: Floats, running: Floats) -> Values:
        """Return whole tensors, 0 where pruned, and running statistics, in the architecture's order."""
        values, at = Values(), 0
        for layer, stored in self.layers:
            weight = np.zeros(stored.shape, np.float32)
            weight[stored] = parameters[at : at + int(stored.sum())]
            values[f"{layer.node['name']}.weight"] = weight
            at += int(stored.sum())
        for layer, stored in self.layers:
            values[f"{layer.node['name']}.bias"] = parameters[at : at + len(stored)].copy()
            at += len(stored)
        for part in ("weight", "bias"):
            for norm in self.norms:
                values[f"{norm.node['name']}.{part}"] = parameters[at : at + norm.output.channels].copy()
                at += norm.output.channels
        values |= self._unpack_running(running)
        shapes = {**self.architecture.parameters, **self.architecture.buffers}
        return {name: values[name].reshape(shape) for name, shape in shapes.items()}

    def _unpack_running(self, running: Floats) -> Values:
        values, at = Values(), 0
        for norm in self.norms:
            name, channels = norm.node["name"], norm.output.channels
            values[f"{name}.running_mean"] = running[0, at : at + channels].copy()
            values[f"{name}.running_var"] = running[1, at : at + channels].copy()
            at += channels
        return values
