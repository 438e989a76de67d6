"""Memory layout of a network's feature maps: which nodes share one, and how wide its halo is.

A feature map is a node's output: channels of pixels (a linear layer's units are channels of one pixel). Each
pixel of each channel has one position, whose lanes (the examples of a tile) lie side by side. A convolution
reads beyond the edge of its input, which therefore has a halo of zeros; so has the gradient of a
convolution's output, and both have the same layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import OPS, Node, Shape, sizes

VECTOR_WIDTH = 16  # float32 of a cache line: what a kernel loads at a time
MAX_SPARSE_DENSITY = 0.6  # a denser linear layer is stored whole: its units then share what they load
RELU, TANH = 1, 2
ACTIVATIONS = {"relu": RELU, "tanh": TANH}
LINEAR, CONVOLUTION, BATCH_NORM, MAX_POOL, AVG_POOL, ADD = range(6)
KERNELS = {
    "linear": LINEAR,
    "conv1d": CONVOLUTION,
    "conv2d": CONVOLUTION,
    "batch_norm": BATCH_NORM,
    "max_pool": MAX_POOL,
    "avg_pool": AVG_POOL,
    "global_avg_pool": AVG_POOL,
    "add": ADD,
}
_SLIDING = (CONVOLUTION, MAX_POOL, AVG_POOL)
_FUSABLE = (LINEAR, CONVOLUTION, BATCH_NORM, ADD)  # an activation after these is part of them
_INPUT = ""  # the name of the network's input, among those of nodes

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Indices = NDArray[np.int32]
Pair = tuple[int, int]
StaticSize = tuple[int, ...]  # one whose length is a size (lanes: in 16s), for which code is compiled anew


@dataclass
class FeatureMap:
    """A node's output, its activation included.

    Attributes:
        channels, height, width: a signal has height 1, a row of features height and width 1.
        needs_grad: whether anything before it has a gradient.
        halo: rows above and below, and columns on either side.
        start: its first position; its gradient has the same among gradients.
        activation: RELU, TANH or 0.
    """

    channels: int
    height: int
    width: int
    needs_grad: bool = True
    halo: Pair = (0, 0)
    start: int = 0
    activation: int = 0

    @property
    def pitch(self) -> int:
        """Positions from a row to the next."""
        return self.width + 2 * self.halo[1]

    @property
    def plane(self) -> int:
        """Positions from a channel to the next."""
        return self.pitch * (self.height + 2 * self.halo[0])

    @property
    def origin(self) -> int:
        """Position of the first channel's first pixel."""
        return self.start + self.halo[0] * self.pitch + self.halo[1]

    @property
    def end(self) -> int:
        """Position after its last."""
        return self.start + self.channels * self.plane

    def flatten(self) -> FeatureMap:
        """Return the same positions as one row of features; without a halo only."""
        return replace(self, channels=self.channels * self.plane, height=1, width=1)


class Window(NamedTuple):
    """A sliding window over a feature map: (along the height, along the width)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class Operation:
    """A node that computes: its inputs and its output, and its window, if it has one.

    A flatten that moves something, and an activation of its own, are an `add` of one feature map.
    """

    op: str
    node: Node
    inputs: list[FeatureMap]
    output: FeatureMap
    window: Window

    @property
    def kernel(self) -> int:
        """The kernel that computes it: LINEAR, CONVOLUTION, ..."""
        return KERNELS[self.op]


@dataclass
class Layout:
    """A network's operations in order, and the feature map that they start from."""

    input: FeatureMap
    operations: list[Operation] = field(default_factory=list)

    @property
    def logits(self) -> FeatureMap:
        """The last output."""
        return self.operations[-1].output

    @property
    def positions(self) -> int:
        """Number of positions in all."""
        return max(VECTOR_WIDTH, self.input.end, *(operation.output.end for operation in self.operations))


def make_layout(architecture: Architecture) -> Layout:
    """Lay out the operations and feature maps of a network that `find_unsupported` lets pass."""
    shapes, fused, halos = _shapes(architecture), _find_fused(architecture), _halos(architecture)
    layout = Layout(make_feature_map(architecture.input, needs_grad=False))
    outputs, end = {_INPUT: layout.input}, max(layout.input.end, VECTOR_WIDTH)
    if halos[_INPUT] != (0, 0):
        outputs[_INPUT] = make_feature_map(architecture.input, False, halos[_INPUT], end)
        layout.operations.append(Operation("add", {}, [layout.input], outputs[_INPUT], Window()))
        end = outputs[_INPUT].end
    for node, names in nodes_with_inputs(architecture):
        name, inputs = node["name"], [outputs[source] for source in names]
        if name in fused:
            inputs[0].activation = ACTIVATIONS[node["op"]]
            outputs[name] = inputs[0]
        elif OPS[node["op"]].flattens and inputs[0].halo == (0, 0):
            outputs[name] = inputs[0].flatten()
        else:
            operation = _make_operation(node, inputs, shapes[names[0]], shapes[name], halos[name], end)
            layout.operations.append(operation)
            outputs[name] = operation.output.flatten() if OPS[node["op"]].flattens else operation.output
            end = operation.output.end
    return layout


def _make_operation(
    node: Node, inputs: list[FeatureMap], input_shape: Shape, output_shape: Shape, halo: Pair, start: int
) -> Operation:
    op = node["op"]
    if OPS[op].flattens:
        copy = replace(inputs[0], halo=halo, start=start, activation=0)
        return Operation("add", node, inputs, copy, Window())
    needs_grad = bool(OPS[op].parameters(node)) or any(source.needs_grad for source in inputs)
    output = make_feature_map(output_shape, needs_grad, halo, start)
    if op in ACTIVATIONS:
        return Operation("add", node, inputs, replace(output, activation=ACTIVATIONS[op]), Window())
    window = make_window(node, input_shape) if KERNELS[op] in _SLIDING else Window()
    return Operation(op, node, inputs, output, window)


def make_feature_map(
    shape: Shape, needs_grad: bool = True, halo: Pair = (0, 0), start: int = 0
) -> FeatureMap:
    """Make a feature map of a shape (features,), (channels, length) or (channels, height, width)."""
    height, width = (1, 1, *shape[1:])[-2:]
    return FeatureMap(shape[0], height, width, needs_grad, halo, start)


def make_window(node: Node, input_shape: Shape) -> Window:
    """Make a convolution's or a pooling's window over an input of shape (channels, *spatial)."""
    dimensions = len(input_shape) - 1
    missing = (1,) * (2 - dimensions)
    if "kernel" not in OPS[node["op"]].fields:  # it covers all pixels
        whole = (*missing, *input_shape[1:])
        return Window(_pair(whole), _pair(whole))
    kernel, stride = ((*missing, *sizes(node, name, dimensions)) for name in ("kernel", "stride"))
    padding = (*(0,) * (2 - dimensions), *sizes(node, "padding", dimensions))
    return Window(_pair(kernel), _pair(stride), _pair(padding))


def nodes_with_inputs(architecture: Architecture) -> Iterator[tuple[Node, list[str]]]:
    """Yield each node with the names of its inputs; the network's input has the name ''."""
    before = list[str]()
    for node in architecture.nodes:
        yield node, inputs_of(node, before) or [_INPUT]
        before = [node["name"]]


def _shapes(architecture: Architecture) -> dict[str, Shape]:
    return {_INPUT: architecture.input, **architecture.shapes}


def _find_fused(architecture: Architecture) -> dict[str, str]:
    """Find activations that are fused into the node before them, which nothing else reads, and that node."""
    readers = Counter(name for _, names in nodes_with_inputs(architecture) for name in names)
    ops = {node["name"]: node["op"] for node in architecture.nodes}
    return {
        node["name"]: names[0]
        for node, names in nodes_with_inputs(architecture)
        if node["op"] in ACTIVATIONS
        and readers[names[0]] == 1
        and KERNELS.get(ops.get(names[0], "")) in _FUSABLE
    }


def _halos(architecture: Architecture) -> dict[str, Pair]:
    """Return the halo of each node's output, and of the input."""
    fused, shapes = _find_fused(architecture), _shapes(architecture)
    halos = dict.fromkeys(shapes, (0, 0))
    for node, names in nodes_with_inputs(architecture):
        if KERNELS.get(node["op"]) == CONVOLUTION:
            name, source = node["name"], fused.get(names[0], names[0])
            window = make_window(node, shapes[names[0]])
            halos[source] = _maximum(halos[source], window.padding)
            halos[name] = _maximum(halos[name], _gradient_halo(window, shapes[names[0]], shapes[name]))
    return halos


def _gradient_halo(window: Window, input_shape: Shape, output_shape: Shape) -> Pair:
    """Return the distance beyond the edge of a convolution's gradient that its input's gradient reads."""
    source, output = make_feature_map(input_shape), make_feature_map(output_shape)
    sides = zip(*window, (source.height, source.width), (output.height, output.width), strict=True)
    return _pair([_gradient_halo_along(*side) for side in sides])


def _gradient_halo_along(kernel: int, stride: int, padding: int, input_size: int, output_size: int) -> int:
    halo = 0
    for phase in range(min(stride, input_size)):
        for tap in range(kernel):
            first, rest = divmod(phase + padding - tap, stride)
            if not rest:
                halo = max(halo, -first, first + (input_size - 1 - phase) // stride - (output_size - 1))
    return halo


def _maximum(one: Pair, other: Pair) -> Pair:
    return max(one[0], other[0]), max(one[1], other[1])


def _pair(numbers: tuple[int, ...] | list[int]) -> Pair:
    height, width = numbers
    return height, width
