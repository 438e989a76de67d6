"""Whole units: which weights go when a layer's output channel or neuron is cut.

A unit of a linear or convolution layer is one row of its weight. Where it is cut, the row goes, and with it
the columns of the layers that read the unit: through ops that treat each unit by itself, which have the
trait `elementwise`, `per_channel` (on channels) or `flattens`. (The columns must go: a cut unit still has its
bias or its normalisation's.)

Left whole: units that reach the network's output or any other op, such as `add` (a residual sum mixes the
units of its branches), a layer norm, attention or a grouped convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import OPS, Node, Op, Shape, value
from nirvana.pruning.ranking import Masks

Index = NDArray[np.int64]


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
    """A node's output: the layer that it comes from, and the unit of each element of one example."""

    layer: Layer
    unit: Index


def cuttable_layers(architecture: Architecture) -> list[Layer]:
    """Return the layers whose units can be cut, in the architecture's order."""
    layers, whole = _follow_units(architecture)
    return [layer for layer in layers if layer.weight not in whole]


def whole_reasons(architecture: Architecture) -> dict[str, str]:
    """Say for each weight whose units must stay which node mixes them."""
    return _follow_units(architecture)[1]


def _follow_units(architecture: Architecture) -> tuple[list[Layer], dict[str, str]]:
    layers: list[Layer] = []
    whole: dict[str, str] = {}
    flows: dict[str, _Flow | None] = {}
    last: list[str] = []
    for node in architecture.nodes:
        sources = [flow for name in inputs_of(node, last) if (flow := flows[name])]
        flows[node["name"]] = _follow(node, sources, architecture.shapes[node["name"]], layers, whole)
        last = [node["name"]]
    if end := flows[last[0]]:
        whole.setdefault(end.layer.weight, f"{last[0]} is the network's output")
    return layers, whole


def cut(layers: Sequence[Layer], kept: Sequence[Mask], shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """Return masks without the units that are cut.

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
    """Count the weights that the masks of `cut` keep: rows times columns that stay, layer by layer."""
    rows = {name: shape[0] for name, shape in shapes.items()}
    columns = {name: math.prod(shape[1:]) for name, shape in shapes.items()}
    for layer, units in zip(layers, kept, strict=True):
        rows[layer.weight] = int(np.count_nonzero(units))
        for reader, unit in layer.readers.items():
            columns[reader] = int(np.count_nonzero(units[unit])) * math.prod(shapes[reader][2:])
    return sum(rows[name] * columns[name] for name in shapes)


def _follow(
    node: Node, sources: list[_Flow], shape: Shape, layers: list[Layer], whole: dict[str, str]
) -> _Flow | None:
    """Return the flow out of a node; note down who reads whom, and which layers must stay whole."""
    op = OPS[node["op"]]
    passed = _pass(node, op, sources[0], shape) if sources and op.most_inputs == 1 else None
    if passed is None:
        for source in sources:
            whole.setdefault(source.layer.weight, f"{node['op']} ({node['name']}) mixes its units")
    if op.unit_axis is None:
        return passed
    units = shape[op.unit_axis]
    layers.append(Layer(f"{node['name']}.weight", units))
    return _Flow(layers[-1], _spread(np.arange(units), shape, op.unit_axis))


def _pass(node: Node, op: Op, flow: _Flow, shape: Shape) -> _Flow | None:
    """Return the flow after a node that treats each unit by itself, or None where it mixes them; note down
    the columns of a layer that reads one unit with each."""
    if op.elementwise or op.flattens:
        return _Flow(flow.layer, flow.unit.reshape(shape))
    axis = 0 if op.per_channel else op.unit_axis
    units = None if axis is None else _along(flow.unit, axis)
    if units is None or ("groups" in op.fields and value(node, "groups") != 1):
        return None
    if op.unit_axis is not None:
        flow.layer.readers[f"{node['name']}.weight"] = units
        return flow
    if op.normalises:
        flow.layer.norm = flow.layer.norm or f"{node['name']}.weight"
    return _Flow(flow.layer, _spread(units, shape, 0))


def _along(unit: Index, axis: int) -> Index | None:
    """Return the unit of each place along an axis; None where other axes matter too."""
    rows = np.moveaxis(unit, axis, -1).reshape(-1, unit.shape[axis])
    return rows[0] if (rows == rows[0]).all() else None


def _spread(units: Index, shape: Shape, axis: int) -> Index:
    """Return the reverse: an array of `shape` whose places along an axis are these units."""
    sides = [1] * len(shape)
    sides[axis] = len(units)
    return np.broadcast_to(units.reshape(sides), shape)
