"""A sparse network as the arrays that compiled code reads, and its parameters as one array and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.masks import Mask
from nirvana.sparse.layout import Floats, Integers, Layout, Places, Step
from nirvana.training import Values

LINEAR, CONVOLUTION, NORM, MAX_POOL, MEAN_POOL, ADD = range(6)

PLACE = ("origin", "channels", "height", "width", "pitch", "plane", "activation")
_NODE = (
    "op",
    *PLACE,  # of what it makes
    "row",  # its first row in `starts`
    "parts",  # of each of its rows, by the channels that they read
    "has_bias",
    "is_even",  # all of its rows read the same cells
    "bias",  # the parameter that is its first channel's bias
    "gain",  # ... and, for a norm, gain; `norm`: its first channel among all norms'
    "norm",
    "exit",  # its first entry in `exits`
    "exit_parts",  # of each channel's exits, by the channels that they reach
    "read",  # what it reads: from here to `reads_end` in `reads`
    "reads_end",
    "patches",  # of what it makes: from here to `patches_end` in `patches`
    "patches_end",
    "returns",  # ... and of what it read, whose gradient it pulls
    "returns_end",
    *(f"{name}_{along}" for name in ("kernel", "stride", "padding") for along in ("y", "x")),
)
_READ = (*PLACE, "learns", "is_first")
NODE = np.dtype([(name, np.int64) for name in _NODE])
READ = np.dtype([(name, np.int64) for name in _READ])
_PATCH = (
    *("read", "read_right", "read_down"),  # its first cell in a channel that is read, and the way on
    *("made", "made_right", "made_down"),  # ... and in one that is made
    "phase",  # of the stride
    "pixels",  # how many
)
PATCH = np.dtype([(name, np.int64) for name in _PATCH])


class Network(NamedTuple):
    """A network's kept weights, row by row, and how they are joined. A row is one unit or output channel.

    Cells count lanes-wide places among a tile's values (see `nirvana.sparse.layout`).

    Attributes:
        nodes: (nodes,) of NODE. reads: of READ, what each node reads; `is_first`: its gradient is stored by
            this reader, and added to by those that come later (backward: from the end).
        patches: of PATCH, the pixels of convolutions, as they are taken.
        starts: where each row's weights start, part by part, and where the last one's end.
        columns: (weights,): the cell that each weight reads, for the first pixel that the row makes.
        exits: where the weights that read each channel start in the next two, for each phase of the stride,
            part by part.
        exit_weights: which weights those are. exit_cells: the gradients that they bring, for the first pixel.
    """

    nodes: NDArray[Any]
    reads: NDArray[Any]
    patches: NDArray[Any]
    starts: Integers
    columns: Places
    exits: Integers
    exit_weights: Places
    exit_cells: Places


class Space(NamedTuple):
    """Room for what a batch computes: `slots` tiles at a time.

    Attributes:
        outputs, deltas: values and their gradients, (slots x cells x lanes,). cells: of one tile.
        live: (slots x lanes,): 1 for a lane that has an example, else 0.
        rows: three rows of lanes for the loss.
        turned: for each thread, some cells of a dense layer as rows of lanes (lanes, cells).
        leaving: weights of convolutions in the order of exits, (weights,).
        moments: mean and 1 / standard deviation of each norm's channels, (2, channels).
    """

    outputs: Floats
    deltas: Floats
    live: Floats
    rows: Floats
    turned: Floats
    leaving: Floats
    moments: Floats
    cells: int
    slots: int


class State(NamedTuple):
    """What an update changes: parameters (stored weights, then biases, gains and shifts of norms), their
    gradients, the optimiser's two memories, all (parameters,); running statistics (2, channels).

    `kept`: 1, or 0 for a pruned weight of a layer that is stored whole; (0,) where there is no such layer.
    """

    parameters: Floats
    gradients: Floats
    first: Floats
    second: Floats
    running: Floats
    kept: Floats


class Rule(NamedTuple):
    """The optimiser: momentum is beta1 for Adam; `decay` is added to the gradient, `shrinkage` times the
    rate is taken from the parameter (AdamW)."""

    is_adam: bool
    is_nesterov: bool
    momentum: float
    beta2: float
    epsilon: float
    decay: float
    shrinkage: float


class Examples(NamedTuple):
    """A split, none of it to be written to.

    Attributes:
        x: (n, features), or (0, features) where there are `pixels` of that shape instead, which stand for
            pixel * scale - shift, rounded twice; scale and shift: (features,). labels: (n,).
    """

    x: Floats
    pixels: NDArray[np.uint8]
    scale: Floats
    shift: Floats
    labels: Integers


class Feed(NamedTuple):
    """How examples get into the input's cells: windows of 16 neighbouring features, by the feature and by the
    cell where each starts. Together they hold every feature that a kept weight reads."""

    features: Integers
    cells: Integers


@dataclass(frozen=True)
class Program:
    """What `build` makes of an architecture and its masks.

    Attributes:
        layout, network, feed: see there.
        links: each linear or convolution's step with its stored weights: a mask (out, in / groups, height,
            width).
        norms: the batch norms' steps.
        kept: of the stored weights, those that the masks keep.
        has_pixels: whether any step is more than a linear layer.
    """

    architecture: Architecture
    layout: Layout
    network: Network
    feed: Feed
    links: list[tuple[Step, Mask]]
    norms: list[Step]
    kept: NDArray[np.bool_]

    @property
    def weights(self) -> int:
        return len(self.network.columns)

    @property
    def has_pixels(self) -> bool:
        return any(step.op != "linear" for step in self.layout.steps)

    def pack(self, values: Mapping[str, Floats]) -> Floats:
        """Stored weights by layer and row, biases (0 where there are none), gains and shifts of norms."""
        parts = [values[f"{step.node['name']}.weight"].reshape(one.shape)[one] for step, one in self.links]
        parts = [np.where(self.kept, np.concatenate(parts), 0)]
        for step, kept in self.links:
            bias = values.get(f"{step.node['name']}.bias")
            parts.append(np.zeros(len(kept), np.float32) if bias is None else bias)
        parts += [values[f"{step.node['name']}.{part}"] for part in ("weight", "bias") for step in self.norms]
        return np.concatenate(parts, dtype=np.float32)

    def pack_running(self, values: Mapping[str, Floats]) -> Floats:
        """Running means and variances, (2, channels); 0 and 1 where there are none yet."""
        rows = []
        for part, default in (("running_mean", np.zeros), ("running_var", np.ones)):
            found = [
                values.get(f"{step.node['name']}.{part}", default(step.makes.channels)) for step in self.norms
            ]
            rows.append(np.concatenate([np.zeros(0), *found]))
        return np.array(rows, np.float32)

    def unpack(self, parameters: Floats, running: Floats) -> Values:
        """Whole tensors, 0 where pruned, and running statistics, in the architecture's order."""
        found, at = Values(), 0
        for step, kept in self.links:
            weight = np.zeros(kept.shape, np.float32)
            weight[kept] = parameters[at : at + int(kept.sum())]
            found[f"{step.node['name']}.weight"] = weight
            at += int(kept.sum())
        for step, kept in self.links:
            found[f"{step.node['name']}.bias"] = parameters[at : at + len(kept)].copy()
            at += len(kept)
        for part in ("weight", "bias"):
            for step in self.norms:
                found[f"{step.node['name']}.{part}"] = parameters[at : at + step.makes.channels].copy()
                at += step.makes.channels
        found |= self._unpack_running(running)
        shapes = {**self.architecture.parameters, **self.architecture.buffers}
        return {name: found[name].reshape(shape) for name, shape in shapes.items()}

    def _unpack_running(self, running: Floats) -> Values:
        found, at = Values(), 0
        for step in self.norms:
            name, channels = step.node["name"], step.makes.channels
            found[f"{name}.running_mean"] = running[0, at : at + channels].copy()
            found[f"{name}.running_var"] = running[1, at : at + channels].copy()
            at += channels
        return found
