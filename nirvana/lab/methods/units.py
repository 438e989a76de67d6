"""Whole units: which weights go when a layer's output channel or neuron is cut.

A unit of a linear or convolution layer is one row of its weight. Where it is cut, the row goes, and with it
the columns of the layers that read the unit: through ReLU, GELU, tanh, dropout, pooling, batch norm and
flatten, which treat each unit by itself. (The columns must go: a cut unit still has its bias or its
normalisation's.)

Left whole: units that reach the network's output, an `add` (a residual sum mixes the units of its branches),
a layer norm, attention, an embedding or a grouped convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture, inputs_of
from nirvana.lab.methods.ranking import Masks
from nirvana.masks import Mask
from nirvana.ops import Node, Shape, value

Index = NDArray[np.int64]
_EACH_BY_ITSELF = ("relu", "gelu", "tanh", "dropout")
_CHANNELS_FIRST = ("batch_norm", "max_pool", "avg_pool", "global_avg_pool")


@dataclass
class Layer:
    """A layer whose units may be cut.

    Attributes:
        weight: the parameter whose rows the units are.
        units: how many there are.
        norm: the weight (gamma) of the batch norm that reads the layer, if one does.
        readers: weight -> which unit each of its columns reads, shape (columns,).
    """

    weight: str
    units: int
    norm: str | None = None
    readers: dict[str, Index] = field(default_factory=dict)


@dataclass(frozen=True)
class _Flow:
    """What a node puts out: the layer that it comes from, and the unit of each element of one example."""

    layer: Layer
    unit: Index


def cuttable_layers(architecture: Architecture) -> list[Layer]:
    """The layers whose units can be cut, in the architecture's order."""
    layers: list[Layer] = []
    whole: list[str] = []
    flows: dict[str, _Flow | None] = {}
    last: list[str] = []
    for node in architecture.nodes:
        sources = [flows[name] for name in inputs_of(node, last)]
        flows[node["name"]] = _follow(node, sources, architecture.shapes[node["name"]], layers, whole)
        last = [node["name"]]
    end = flows[last[0]]
    whole += [end.layer.weight] if end else []
    return [layer for layer in layers if layer.weight not in whole]


def cut(layers: Sequence[Layer], kept: Sequence[Mask], shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """Masks without the units that are cut.

    Args:
        kept: for each layer, which units stay, shape (units,).
        shapes: of each prunable parameter.
    """
    masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    for layer, units in zip(layers, kept, strict=True):
        masks[layer.weight][~units] = False
        for reader, unit in layer.readers.items():
            masks[reader][:, ~units[unit]] = False
    return masks


def weights_left(layers: Sequence[Layer], kept: Sequence[Mask], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Weights that the masks of `cut` keep: rows that stay times columns that stay, layer by layer."""
    rows = {name: shape[0] for name, shape in shapes.items()}
    columns = {name: math.prod(shape[1:]) for name, shape in shapes.items()}
    for layer, units in zip(layers, kept, strict=True):
        rows[layer.weight] = int(np.count_nonzero(units))
        for reader, unit in layer.readers.items():
            columns[reader] = int(np.count_nonzero(units[unit])) * math.prod(shapes[reader][2:])
    return sum(rows[name] * columns[name] for name in shapes)


def _follow(
    node: Node, sources: list[_Flow | None], shape: Shape, layers: list[Layer], whole: list[str]
) -> _Flow | None:
    """The flow out of a node; notes down who reads whom, and which layers must stay whole."""
    flow = sources[0] if sources else None
    if node["op"] in ("linear", "conv1d", "conv2d"):
        if flow and not _read(node, flow):
            whole.append(flow.layer.weight)
        layers.append(Layer(f"{node['name']}.weight", node["out"]))
        return _Flow(layers[-1], _spread(np.arange(node["out"]), shape, -1 if node["op"] == "linear" else 0))
    if flow and node["op"] in _EACH_BY_ITSELF:
        return flow
    if flow and node["op"] == "flatten":
        return _Flow(flow.layer, flow.unit.ravel())
    if flow and node["op"] in _CHANNELS_FIRST and (units := _along(flow.unit, 0)) is not None:
        if node["op"] == "batch_norm":
            flow.layer.norm = flow.layer.norm or f"{node['name']}.weight"
        return _Flow(flow.layer, _spread(units, shape, 0))
    whole += [source.layer.weight for source in sources if source]
    return None


def _read(node: Node, flow: _Flow) -> bool:
    """Note that a layer reads a flow; False where its columns are not one unit each."""
    is_linear = node["op"] == "linear"
    units = _along(flow.unit, -1 if is_linear else 0)
    if units is None or (not is_linear and value(node, "groups") != 1):
        return False
    flow.layer.readers[f"{node['name']}.weight"] = units
    return True


def _along(unit: Index, axis: int) -> Index | None:
    """The unit of each place along an axis; None where other axes matter too."""
    rows = np.moveaxis(unit, axis, -1).reshape(-1, unit.shape[axis])
    return rows[0] if (rows == rows[0]).all() else None


def _spread(units: Index, shape: Shape, axis: int) -> Index:
    """The other way round: an array of `shape` whose places along an axis are these units."""
    sides = [1] * len(shape)
    sides[axis] = len(units)
    return np.broadcast_to(units.reshape(sides), shape)
