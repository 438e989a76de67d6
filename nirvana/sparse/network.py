"""A fully connected network as rows of kept weights, and back to whole tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.masks import Mask
from nirvana.ops import Node, value
from nirvana.training import Values

WIDTH = 16  # float32 of a cache line: what a kernel loads at a time
RELU, TANH = 1, 2
ACTIVATIONS = {"relu": RELU, "tanh": TANH}

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Places = NDArray[np.int32]


class Graph(NamedTuple):
    """A network's kept weights, row by row. Rows are the units of all layers, one layer after another.

    Attributes:
        layers: (layers, 5): first unit, end of its units, first unit of what it reads (-1: the inputs),
            activation, whether it has biases.
        starts: (units + 1,): where each row's weights start.
        columns: (weights,): what each weight reads, counted from the first unit that its layer reads.
        exits: (units + 1,): where the weights that read each unit start in the next two.
        exit_weights: which weights those are. exit_rows: the units that they lead to.
    """

    layers: Integers
    starts: Integers
    columns: Places
    exits: Integers
    exit_weights: Places
    exit_rows: Places


class Space(NamedTuple):
    """Room for one tile: inputs (features x lanes,), outputs and their gradients (units x lanes,), three rows
    of lanes for the loss, and where in `outputs` the logits start."""

    inputs: Floats
    outputs: Floats
    deltas: Floats
    rows: Floats
    last: int


class State(NamedTuple):
    """What an update changes, each (weights + units,): kept weights, then a bias for each unit."""

    parameters: Floats
    gradients: Floats
    first: Floats
    second: Floats


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


@dataclass(frozen=True)
class Layer:
    """One linear layer with what follows it.

    Attributes:
        name: its node's.
        activation: RELU, TANH or 0.
        has_bias: whether the architecture gives it one; without, its bias stays 0.
        kept: (out, in), True = kept.
    """

    name: str
    activation: int
    has_bias: bool
    kept: Mask


def read_layers(architecture: Architecture, masks: Mapping[str, Mask]) -> list[Layer]:
    """The linear layers of a chain that `find_unsupported` let pass."""
    nodes = list(architecture.nodes)
    following: list[Node | None] = [*nodes[1:], None]
    layers = []
    for node, after in zip(nodes, following, strict=True):
        if node["op"] == "linear":
            name = f"{node['name']}.weight"
            kept = masks.get(name, np.ones(architecture.parameters[name], bool))
            activation = ACTIVATIONS.get(after["op"], 0) if after else 0
            layers.append(Layer(node["name"], activation, value(node, "bias"), kept))
    return layers


def find_windows(layer: Layer) -> Integers:
    """Where windows of 16 neighbouring features start that hold every feature which a kept weight reads.

    The last one is moved back where it would pass the end; fewer than 16 features are one window.
    """
    features = layer.kept.shape[1]
    windows, end = list[int](), 0
    for feature in np.flatnonzero(layer.kept.any(0)):
        if feature >= end:
            windows.append(max(0, min(int(feature), features - WIDTH)))
            end = windows[-1] + WIDTH
    return np.array(windows or [0], np.int64)


def build_graph(layers: list[Layer], windows: Integers) -> Graph:
    """The rows of every layer, one layer after another."""
    places = np.zeros(layers[0].kept.shape[1] + WIDTH, np.int64)  # of each feature among those gathered
    for number, start in reversed(list(enumerate(windows))):
        places[start : start + WIDTH] = number * WIDTH + np.arange(WIDTH)
    described, counts, columns = [], [], []
    first, source = 0, -1
    for layer in layers:
        end = first + len(layer.kept)
        described.append((first, end, source, layer.activation, layer.has_bias))
        counts.append(layer.kept.sum(1))
        read = np.nonzero(layer.kept)[1]
        columns.append(places[read] if source < 0 else read)
        first, source = end, first
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    all_columns = np.concatenate(columns).astype(np.int32)
    return Graph(np.array(described, np.int64), starts, all_columns, *_find_exits(layers))


def _find_exits(layers: list[Layer]) -> tuple[Integers, Places, Places]:
    """The kept weights after the first layer by the unit that they read: see `kernels.Graph`."""
    counts, weights, rows = list[Integers](), list[Integers](), list[Integers]()
    weight, unit = int(layers[0].kept.sum()), len(layers[0].kept)
    for layer in layers[1:]:
        row, column = np.nonzero(layer.kept)
        order = np.argsort(column, kind="stable")
        counts.append(layer.kept.sum(0))
        weights.append(weight + order)
        rows.append(unit + row[order])
        weight, unit = weight + len(order), unit + len(layer.kept)
    exits = np.concatenate([[0], np.cumsum(np.concatenate([*counts, np.zeros(len(layers[-1].kept), int)]))])
    of_weights, of_rows = (
        np.concatenate([np.zeros(0, int), *parts]).astype(np.int32) for parts in (weights, rows)
    )
    return exits, of_weights, of_rows


def pack(layers: list[Layer], values: Mapping[str, Floats]) -> Floats:
    """Kept weights layer by layer and row by row, then a bias for each unit."""
    weights = [values[f"{layer.name}.weight"][layer.kept] for layer in layers]
    biases = [
        values[f"{layer.name}.bias"] if layer.has_bias else np.zeros(len(layer.kept), np.float32)
        for layer in layers
    ]
    return np.concatenate([*weights, *biases], dtype=np.float32)


def unpack(layers: list[Layer], parameters: Floats) -> Values:
    """Whole tensors, 0 where pruned, in the architecture's order."""
    sizes = [int(layer.kept.sum()) for layer in layers] + [len(layer.kept) for layer in layers]
    parts = np.split(parameters, np.cumsum(sizes)[:-1])
    tensors: Values = {}
    for number, layer in enumerate(layers):
        weight = np.zeros(layer.kept.shape, np.float32)
        weight[layer.kept] = parts[number]
        tensors[f"{layer.name}.weight"] = weight
        if layer.has_bias:
            tensors[f"{layer.name}.bias"] = parts[len(layers) + number].copy()
    return tensors


def make_space(features: int, layers: list[Layer], lanes: int) -> Space:
    """Room for one tile of `lanes` examples with `features` gathered features."""
    units = sum(len(layer.kept) for layer in layers)
    last = (units - len(layers[-1].kept)) * lanes
    sizes = (features * lanes, units * lanes, units * lanes, 3 * lanes)
    inputs, outputs, deltas, rows = (aligned(size) for size in sizes)
    return Space(inputs, outputs, deltas, rows, last)


def aligned(size: int) -> Floats:
    """Zeros that start at a cache line, as the kernels' vectors need it."""
    whole = np.zeros(size + WIDTH, np.float32)
    start = -whole.ctypes.data % (4 * WIDTH) // 4
    return whole[start : start + size]


def choose_lanes(batch_size: int) -> int:
    """How many examples a tile has: the least of 16, 32 and 64 that holds a batch, or 64."""
    return next((lanes for lanes in (16, 32) if lanes >= batch_size), 64)
