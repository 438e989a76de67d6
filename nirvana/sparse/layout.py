"""Where a network's values lie in memory: which nodes share one, and how much room each has around it.

A value is what a node computes: channels of pixels (a linear layer's units are channels of one pixel), one
cell of lanes for each. A convolution reads beyond the edge of what it is given, so such a value has a halo of
zeros; so has the gradient of what a convolution makes, and both lie alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture, inputs_of
from nirvana.ops import OPS, Node, Shape, sizes

WIDTH = 16  # float32 of a cache line: what a kernel loads at a time
MOST_KEPT = (
    0.6  # of a linear layer; one that keeps more is stored whole, for its units then share what they load
)
RELU, TANH = 1, 2
ACTIVATIONS = {"relu": RELU, "tanh": TANH}
CONVOLUTIONS = ("conv1d", "conv2d")
POOLS = ("max_pool", "avg_pool", "global_avg_pool")
_FUSES = ("linear", "batch_norm", "add", *CONVOLUTIONS)  # an activation after these is part of them
_INPUT = ""  # the name of the network's input, among those of nodes

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Places = NDArray[np.int32]
Pair = tuple[int, int]
Tile = tuple[int, ...]  # an item for each 16 lanes


@dataclass
class Value:
    """What a node computes, its activation included.

    Attributes:
        channels, height, width: a signal has height 1, a row of features height and width 1.
        learns: whether anything before it has a gradient.
        halo: rows above and below, and columns on either side.
        start: its first cell; its gradient has the same place among gradients.
        activation: RELU, TANH or 0.
    """

    channels: int
    height: int
    width: int
    learns: bool = True
    halo: Pair = (0, 0)
    start: int = 0
    activation: int = 0

    @property
    def pitch(self) -> int:
        """Cells from a row to the next."""
        return self.width + 2 * self.halo[1]

    @property
    def plane(self) -> int:
        """Cells from a channel to the next."""
        return self.pitch * (self.height + 2 * self.halo[0])

    @property
    def origin(self) -> int:
        """The cell of the first channel's first pixel."""
        return self.start + self.halo[0] * self.pitch + self.halo[1]

    @property
    def end(self) -> int:
        """The cell after its last."""
        return self.start + self.channels * self.plane

    def as_features(self) -> Value:
        """The same cells as one row of features; without a halo only."""
        return replace(self, channels=self.channels * self.plane, height=1, width=1)


class Window(NamedTuple):
    """What slides over a value: (along the height, along the width)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class Step:
    """A node that computes: what it reads and makes, and its window, if it has one.

    A flatten that moves something, and an activation of its own, are an `add` of one value.
    """

    op: str
    node: Node
    reads: list[Value]
    makes: Value
    window: Window


@dataclass
class Layout:
    """A network's steps in order, and the value that they start from."""

    input: Value
    steps: list[Step] = field(default_factory=list)

    @property
    def last(self) -> Value:
        """The logits."""
        return self.steps[-1].makes

    @property
    def cells(self) -> int:
        """How many there are in all."""
        return max(WIDTH, self.input.end, *(step.makes.end for step in self.steps))


def lay_out(architecture: Architecture) -> Layout:
    """The steps and values of a network that `find_unsupported` lets pass."""
    shapes, fused, halos = _shapes(architecture), _find_fused(architecture), _find_halos(architecture)
    found = Layout(make_value(architecture.input, learns=False))
    values, end = {_INPUT: found.input}, max(found.input.end, WIDTH)
    if halos[_INPUT] != (0, 0):
        values[_INPUT] = make_value(architecture.input, False, halos[_INPUT], end)
        found.steps.append(Step("add", {}, [found.input], values[_INPUT], Window()))
        end = values[_INPUT].end
    for node, names in walk(architecture):
        name, reads = node["name"], [values[source] for source in names]
        if name in fused:
            reads[0].activation = ACTIVATIONS[node["op"]]
            values[name] = reads[0]
        elif node["op"] == "flatten" and reads[0].halo == (0, 0):
            values[name] = reads[0].as_features()
        else:
            step = _make_step(node, reads, shapes[names[0]], shapes[name], halos[name], end)
            found.steps.append(step)
            values[name] = step.makes.as_features() if node["op"] == "flatten" else step.makes
            end = step.makes.end
    return found


def _make_step(node: Node, reads: list[Value], read: Shape, made: Shape, halo: Pair, start: int) -> Step:
    op = node["op"]
    if op == "flatten":
        return Step("add", node, reads, replace(reads[0], halo=halo, start=start, activation=0), Window())
    learns = bool(OPS[op].parameters(node)) or any(value.learns for value in reads)
    makes = make_value(made, learns, halo, start)
    if op in ACTIVATIONS:
        return Step("add", node, reads, replace(makes, activation=ACTIVATIONS[op]), Window())
    window = find_window(node, read) if op in (*CONVOLUTIONS, *POOLS) else Window()
    return Step(op, node, reads, makes, window)


def make_value(shape: Shape, learns: bool = True, halo: Pair = (0, 0), start: int = 0) -> Value:
    """A value of a shape (features,), (channels, length) or (channels, height, width)."""
    height, width = (1, 1, *shape[1:])[-2:]
    return Value(shape[0], height, width, learns, halo, start)


def find_window(node: Node, read: Shape) -> Window:
    """A convolution's or a pooling's window over a value of shape (channels, *spatial)."""
    along = len(read) - 1
    missing = (1,) * (2 - along)
    if node["op"] == "global_avg_pool":
        whole = (*missing, *read[1:])
        return Window(_pair(whole), _pair(whole))
    kernel, stride = ((*missing, *sizes(node, name, along)) for name in ("kernel", "stride"))
    padding = (*(0,) * (2 - along), *sizes(node, "padding", along))
    return Window(_pair(kernel), _pair(stride), _pair(padding))


def walk(architecture: Architecture) -> Iterator[tuple[Node, list[str]]]:
    """Each node with the names of the nodes that it reads; the network's input has the name ''."""
    before = list[str]()
    for node in architecture.nodes:
        yield node, inputs_of(node, before) or [_INPUT]
        before = [node["name"]]


def _shapes(architecture: Architecture) -> dict[str, Shape]:
    return {_INPUT: architecture.input, **architecture.shapes}


def _find_fused(architecture: Architecture) -> dict[str, str]:
    """Activations that are part of the node before them, for nobody else reads it, and that node."""
    readers = Counter(name for _, names in walk(architecture) for name in names)
    ops = {node["name"]: node["op"] for node in architecture.nodes}
    return {
        node["name"]: names[0]
        for node, names in walk(architecture)
        if node["op"] in ACTIVATIONS and readers[names[0]] == 1 and ops.get(names[0]) in _FUSES
    }


def _find_halos(architecture: Architecture) -> dict[str, Pair]:
    """The halo of each node's value, and of the input."""
    fused, shapes = _find_fused(architecture), _shapes(architecture)
    halos = dict.fromkeys(shapes, (0, 0))
    for node, names in walk(architecture):
        if node["op"] in CONVOLUTIONS:
            name, source = node["name"], fused.get(names[0], names[0])
            window = find_window(node, shapes[names[0]])
            halos[source] = _larger(halos[source], window.padding)
            halos[name] = _larger(halos[name], _reach(window, shapes[names[0]], shapes[name]))
    return halos


def _reach(window: Window, read: Shape, made: Shape) -> Pair:
    """How far beyond the edge of a convolution's gradient its input's gradient reads."""
    source, out = make_value(read), make_value(made)
    along = zip(*window, (source.height, source.width), (out.height, out.width), strict=True)
    return _pair([_reach_along(*numbers) for numbers in along])


def _reach_along(kernel: int, stride: int, padding: int, read: int, made: int) -> int:
    reach = 0
    for phase in range(min(stride, read)):
        for tap in range(kernel):
            first, rest = divmod(phase + padding - tap, stride)
            if not rest:
                reach = max(reach, -first, first + (read - 1 - phase) // stride - (made - 1))
    return reach


def _larger(one: Pair, other: Pair) -> Pair:
    return max(one[0], other[0]), max(one[1], other[1])


def _pair(numbers: tuple[int, ...] | list[int]) -> Pair:
    height, width = numbers
    return height, width
