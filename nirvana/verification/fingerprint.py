"""A ticket's fingerprint: the same for every order of its hidden units and channels, and for every name.

Each unit gets a number that follows from its own kept weights, their values and the numbers of the units
that it reads: from the inputs, whose places are fixed, to the outputs. A sum of numbers knows no order, so
units that change places take their numbers along. What no output depends on has no part in it.

Reference: the refinement of Weisfeiler & Leman 1968 ("The reduction of a graph to canonical form"), on the
directed graph of units, where one pass from the inputs on is enough.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import OPS, Node, Shape, value

Numbers = NDArray[np.uint64]
MOST_UNITS = 1 << 22  # of all nodes together, and inputs of one unit: seconds, and some hundred megabytes
SKETCH = 16
WITNESSES = 8
_AT_ONCE = 1 << 20  # weights
_REMEMBERED = 1 << 14  # inputs of a unit whose orders are remembered
_LARGEST = np.uint64(2**64 - 1)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


class Units(NamedTuple):
    """The numbers of a node's units.

    Attributes:
        numbers: one a unit; one for all places of the network's input, where `axis` is None.
        axis: of one example's output, along which the units lie; None where every place is fixed.
    """

    numbers: Numbers
    axis: int | None


class Layer(NamedTuple):
    """A node with what it reads.

    Attributes:
        sources: the units of each node that it reads.
        shape: of what the first of them puts out.
        arrays: suffix -> the values of its parameters and running statistics, 0 where pruned.
        mask: of its weight; None where it is kept whole.
    """

    node: Node
    sources: Sequence[Units]
    shape: Shape
    arrays: Mapping[str, NDArray[np.float32]]
    mask: NDArray[np.bool_] | None

    def along(self, axis: int) -> Numbers | None:
        """Return the numbers of the first source's units along an axis; None where they lie along another."""
        (numbers, own), axis = self.sources[0], axis % len(self.shape)
        if own is None:
            return _mix(numbers, np.arange(self.shape[axis], dtype=np.uint64))
        return numbers if own == axis else None


def fingerprint(ticket: Ticket) -> str | None:
    """Return `sha256:<hex>` of a ticket's masks and kept values, whatever the order of its units.

    Tasks, recipes, laws and the names of nodes have no part in it, and neither have the outputs' order and
    units without a path to the output.

    Returns:
        None where an op has no rule here (attention, embedding), or for more than MOST_UNITS units.
    """
    if _too_large(ticket.architecture):
        return None
    with np.errstate(over="ignore"):
        output = _output_units(ticket)
    if output is None or output.axis is None:
        return None
    return "sha256:" + hashlib.sha256(np.sort(output.numbers).astype("<u8").tobytes()).hexdigest()


def sketch(ticket: Ticket) -> list[int]:
    """Return SKETCH numbers of a ticket's masks, some of which a near-copy shares, whatever its units' order.

    They are the least hashes of the units of the first layer. A unit is known by the first WITNESSES of its
    kept inputs in as many fixed orders, which most units keep where few weights change.

    Returns:
        Integers in [0, 2^63), sorted; none where an embedding or attention comes first, and for a first layer
        that is kept whole or too large.

    Reference: Broder 1997, "On the resemblance and containment of documents" (least hashes).
    """
    graph = ticket.architecture
    weight = next(iter(graph.weights), "")
    node = next((node for node in graph.nodes if f"{node['name']}.weight" == weight), None)
    if weight not in ticket.masks or node is None or OPS[node["op"]].unit_axis is None or _too_large(graph):
        return []
    mask = ticket.masks[weight].reshape(len(ticket.masks[weight]), -1)
    mask = mask[mask.any(axis=1) & ~mask.all(axis=1)]
    places, units = np.arange(mask.shape[1], dtype=np.uint64), np.zeros(len(mask), np.uint64)
    order_of = _witness_order if mask.shape[1] <= _REMEMBERED else _witness_order.__wrapped__
    with np.errstate(over="ignore"):
        for number in range(WITNESSES):
            order = order_of(number, mask.shape[1])
            units = _mix(units, places[order][mask[:, order].argmax(axis=1)])
        least = _mix(_sketch_numbers(), units).min(axis=1, initial=_LARGEST)
    return sorted({int(one) >> 1 for one in least}) if len(mask) else []


@lru_cache(maxsize=64)
def _witness_order(number: int, inputs: int) -> NDArray[np.intp]:
    """Return one of the fixed orders of a unit's inputs."""
    places = np.arange(inputs, dtype=np.uint64)
    return np.argsort(_mix(_number("witness", number), places), kind="stable")


@cache
def _sketch_numbers() -> Numbers:
    """Return the numbers that tell the hashes of a sketch apart; shape (SKETCH, 1)."""
    return np.stack([_number("sketch", number) for number in range(SKETCH)])


def _too_large(architecture: Architecture) -> bool:
    """Bound what is allocated: shapes alone, and no weights, may say billions of units."""
    shapes = architecture.shapes
    units = max(architecture.input) + sum(
        shape[0] if len(shape) == 1 else max(shape[0], shape[-1]) for shape in shapes.values()
    )
    edges = sum(len(node.get("inputs", ())) * max(shapes[node["name"]]) for node in architecture.nodes)
    fan_in = max((math.prod(shape[1:]) for shape in architecture.weights.values()), default=0)
    cells = max((math.prod(shape[2:]) for shape in architecture.weights.values()), default=1)
    return max(units * cells, edges, fan_in) > MOST_UNITS


def _output_units(ticket: Ticket) -> Units | None:
    architecture, values = ticket.architecture, ticket.initial
    units = {"": Units(_number("input", list(architecture.input)), None)}
    shapes = {"": tuple(architecture.input)} | architecture.shapes
    before: list[str] = []
    for node in architecture.nodes:
        name, op = node["name"], OPS[node["op"]]
        sources = inputs_of(node, before) or [""]
        suffixes = op.parameters(node).keys() | op.buffers(node).keys()
        arrays = {s: values[f"{name}.{s}"] for s in suffixes if f"{name}.{s}" in values}
        mask = ticket.masks.get(f"{name}.weight")
        layer = Layer(node, [units[source] for source in sources], shapes[sources[0]], arrays, mask)
        made = _rule(layer)
        if made is None:
            return None
        units[name] = made
        before = [name]
    return units[before[0]]


def _rule(layer: Layer) -> Units | None:
    """Return the units of a node by its traits; None where they say too little."""
    op = OPS[layer.node["op"]]
    first = layer.sources[0]
    if op.elementwise:
        return Units(_mix(_salt(layer.node), first.numbers), first.axis)
    if op.flattens:
        return Units(_flatten(layer), 0)
    if op.unit_axis is not None:
        return _weighted(layer, op.unit_axis)
    if op.sums:
        return _sum(layer)
    if op.per_channel:
        return _scaled(layer, 0)
    if op.normalises and len(layer.arrays["weight"].shape) == 1:
        return _scaled(layer, -1)
    return None


def _flatten(layer: Layer) -> Numbers:
    """Number each place of each unit, in row-major order of the shape."""
    numbers, axis = layer.sources[0]
    size = math.prod(layer.shape)
    places = np.arange(size, dtype=np.uint64)
    if axis is None:
        return _mix(numbers, places)
    unit = (places // np.uint64(math.prod(layer.shape[axis + 1 :]))) % np.uint64(layer.shape[axis])
    stride = np.uint64(math.prod(layer.shape[axis + 1 :]))
    around = places - unit * stride  # the place without its unit's part
    return _mix(numbers[unit.astype(np.intp)], around)


def _weighted(layer: Layer, axis: int) -> Units | None:
    """Number the units of a linear or convolution layer: a sum over their kept weights, then the bias."""
    sources, weight = layer.along(axis), layer.arrays["weight"]
    if sources is None:
        return None
    rows, fan_in = len(weight), math.prod(weight.shape[1:])
    groups = value(layer.node, "groups") if "groups" in OPS[layer.node["op"]].fields else 1
    cells = np.arange(math.prod(weight.shape[2:]), dtype=np.uint64)
    inputs = _mix(sources[:, None], cells).reshape(groups, fan_in)
    kept = np.ones((rows, fan_in), bool) if layer.mask is None else layer.mask.reshape(rows, fan_in)
    values, sums = weight.reshape(rows, fan_in), [np.zeros(0, np.uint64)]
    step = max(1, _AT_ONCE // fan_in)
    for start in range(0, rows, step):
        row, column = np.nonzero(kept[start : start + step])
        group = (row + start) // (rows // groups)
        numbers = _mix(inputs[group, column], _bits(values[row + start, column]))
        sums.append(_sums_of_runs(numbers, np.count_nonzero(kept[start : start + step], axis=1)))
    numbers = _mix(_salt(layer.node), np.concatenate(sums))
    if "bias" in layer.arrays:
        numbers = _mix(numbers, _bits(layer.arrays["bias"]))
    return Units(numbers, axis % len(layer.shape))


def _sums_of_runs(numbers: Numbers, lengths: NDArray[np.intp]) -> Numbers:
    """Return the sum, modulo 2^64, of each run of neighbours; 0 of an empty one."""
    ends = np.cumsum(lengths)
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers, dtype=np.uint64)])
    sums: Numbers = totals[ends] - totals[ends - lengths]
    return sums


def _sum(layer: Layer) -> Units | None:
    axes = {source.axis for source in layer.sources}
    if len(axes) > 1:
        return None
    total = np.zeros_like(layer.sources[0].numbers)
    for source in layer.sources:
        total += _mix(_salt(layer.node), source.numbers)
    return Units(_mix(_salt(layer.node), total), axes.pop())


def _scaled(layer: Layer, axis: int) -> Units | None:
    """Number the units of a pooling or normalisation: each keeps its own, and takes its parameters in."""
    numbers = layer.along(axis)
    if numbers is None:
        return None
    numbers = _mix(_salt(layer.node), numbers)
    for suffix in sorted(layer.arrays):
        numbers = _mix(numbers, _bits(layer.arrays[suffix]))
    return Units(numbers, axis % len(layer.shape))


def _salt(node: Node) -> Numbers:
    """Return a number of an op and its fields, without names."""
    return _number(*sorted((key, node[key]) for key in node.keys() - {"name", "inputs"}))


def _number(*parts: object) -> Numbers:
    """Return a number of JSON-able parts; shape (1,)."""
    return np.frombuffer(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "<u8").astype(np.uint64)


def _bits(values: NDArray[np.float32]) -> Numbers:
    """Return the values' bits; -0 has those of 0."""
    bits: Numbers = (values + np.float32(0)).view(np.uint32).astype(np.uint64)
    return bits


def _mix(one: Numbers, other: Numbers) -> Numbers:
    """Return numbers that follow from two, in that order; spread by the finaliser of SplitMix64.

    Reference: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
    """
    return _spread(_spread(one + _FACTORS[0]) + other)


def _spread(x: Numbers) -> Numbers:
    x = (x ^ (x >> np.uint64(30))) * _FACTORS[1]
    x = (x ^ (x >> np.uint64(27))) * _FACTORS[2]
    return x ^ (x >> np.uint64(31))
