"""Effective density: the share of a network's weights that are kept and lie on a path from input to output.

Every parameter is 1 where its mask keeps it and 0 elsewhere, biases and running means are 0, and the input is
all ones. A weight lies on a path where the sum of the outputs has a positive derivative by it. All values are
zero or more, so no two paths cancel. Float64, in numpy alone: one function forward and one backward an op, in
`RULES`.

Shape suffixes: C channels, O output channels, H W height and width, K cells of a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import (
    BATCH_NORM_EPSILON,
    OPS,
    Node,
    Shape,
    find_refusal,
    ops_with,
    sizes,
    value,
)

Array = NDArray[np.float64]
Pair = tuple[int, int]
Gradients = tuple[list[Array], Array]
NO_WEIGHT = np.ones(())


class Rule(NamedTuple):
    """An op on paths.

    Attributes:
        forward: (node, inputs, weight) -> output, of one example.
        backward: (node, inputs, weight, the output's gradient) -> gradients of the inputs and of the weight
            (NO_WEIGHT for an op that has none).
    """

    forward: Callable[[Node, Sequence[Array], Array], Array]
    backward: Callable[[Node, Sequence[Array], Array, Array], Gradients]


def effective_density(ticket: Ticket) -> float | None:
    """Return the share of all weights, prunable or not, that are kept and lie on a path from input to output.

    Returns:
        In [0, 1]; None where paths say little (`no_paths_reason`).
    """
    found = find_on_paths(ticket)
    return None if found is None else sum(int(mask.sum()) for mask in found.values()) / ticket.total


def live_density(on_paths: Mapping[str, Mask]) -> float:
    """Return the density that is left when units without a path are taken out of the network: ballast that a
    mask cuts off, or hardly reaches, does not make it smaller.

    Args:
        on_paths: what `find_on_paths` returned, with at least one True.
    """
    live = 0
    for mask in on_paths.values():
        outputs = mask.any(axis=tuple(range(1, mask.ndim)))
        inputs = mask.any(axis=(0, *range(2, mask.ndim)))
        live += int(outputs.sum()) * int(inputs.sum()) * math.prod(mask.shape[2:])
    return sum(int(mask.sum()) for mask in on_paths.values()) / live


def find_on_paths(ticket: Ticket) -> dict[str, Mask] | None:
    """Return of each weight parameter which elements are kept and lie on a path from input to output.

    Returns:
        None where paths say little (`no_paths_reason`).

    Reference: Tanaka et al. 2020 (arXiv 2006.05467), whose SynFlow scores are these derivatives at the
    weights' absolute values.
    """
    if no_paths_reason(ticket.architecture):
        return None
    weights = _weights(ticket)
    gradients = _weight_gradients(ticket.architecture, weights)
    return {
        name: (gradients[name] > 0) & (weights[name] > 0)
        if name in gradients
        else np.zeros(weights[name].shape, bool)
        for name in ticket.architecture.weights
    }


def no_paths_reason(architecture: Architecture) -> str | None:
    """Name the first node whose paths are not counted; None where all are.

    An elementwise op on paths needs no rule of its own: see `_rule`.
    """
    counted = [name for name in ops_with(lambda op: op.on_paths) if name in RULES or OPS[name].elementwise]
    return find_refusal(architecture.nodes, counted, "is not among the ops whose paths are counted")


def _weights(ticket: Ticket) -> dict[str, Array]:
    """Return ones where a weight is kept; biases are left out, for they are 0."""
    return {
        name: ticket.mask(name).astype(np.float64) if name in ticket.masks else np.ones(shape)
        for name, shape in ticket.architecture.parameters.items()
        if name.endswith("weight")
    }


def _weight_gradients(architecture: Architecture, weights: dict[str, Array]) -> dict[str, Array]:
    """Differentiate the sum of the outputs by each weight that the output depends on."""
    steps, output = _run_forward(architecture, weights)
    gradients = {architecture.nodes[-1]["name"]: np.ones_like(output)}
    by_weight: dict[str, Array] = {}
    for node, sources, inputs, weight in reversed(steps):
        if node["name"] not in gradients:
            continue  # nothing that it computes reaches the output
        to_inputs, to_weight = _rule(node).backward(node, inputs, weight, gradients.pop(node["name"]))
        if weight is not NO_WEIGHT:
            by_weight[f"{node['name']}.weight"] = to_weight
        for source, gradient in zip(sources, to_inputs, strict=False):
            gradients[source] = gradients[source] + gradient if source in gradients else gradient
    return by_weight


def _run_forward(
    architecture: Architecture, weights: dict[str, Array]
) -> tuple[list[tuple[Node, list[str], list[Array], Array]], Array]:
    """Return each node with the nodes that it reads, its inputs and its weight; and the output."""
    values: dict[str, Array] = {}
    steps: list[tuple[Node, list[str], list[Array], Array]] = []
    before: list[str] = []
    for node in architecture.nodes:
        sources = inputs_of(node, before)
        inputs = [values[source] for source in sources] or [np.ones(architecture.input)]
        weight = weights.get(f"{node['name']}.weight", NO_WEIGHT)
        values[node["name"]] = _rule(node).forward(node, inputs, weight)
        steps.append((node, sources, inputs, weight))
        before = [node["name"]]
    return steps, values[before[0]]


def _rule(node: Node) -> Rule:
    """Return an op's rule; the identity for an elementwise op.

    A positive factor on a path changes no count, and neither does a derivative of 1 where ReLU has 0: what is
    0 there is a sum of products that are 0 each, so every weight before it reads a 0 or is pruned.
    """
    return RULES.get(node["op"], _IDENTITY)


def _pair(missing: int, *numbers: int) -> Pair:
    """Return two numbers, along the height and along the width: a signal's has `missing` along the height."""
    height, width = (missing, *numbers)[-2:]
    return height, width


@dataclass(frozen=True)
class _Sliding:
    """A kernel that slides over a value of shape (C, H, W), or (C, W) as if it were (C, 1, W).

    Attributes:
        shape: the value's own.
        kernel, stride, padding: (along the height, along the width).
    """

    shape: Shape
    kernel: Pair
    stride: Pair
    padding: Pair

    @classmethod
    def over(cls, node: Node, x: Array) -> _Sliding:
        dimensions = x.ndim - 1
        return cls(
            x.shape,
            _pair(1, *sizes(node, "kernel", dimensions)),
            _pair(1, *sizes(node, "stride", dimensions)),
            _pair(0, *sizes(node, "padding", dimensions)),
        )

    @property
    def sides(self) -> Pair:
        """Height and width of the value."""
        return _pair(1, *self.shape[1:])

    @property
    def places(self) -> Pair:
        """Number of places of the kernel along the height and along the width."""
        along = zip(self.sides, self.kernel, self.stride, self.padding, strict=True)
        height, width = ((side + 2 * pad - size) // step + 1 for side, size, step, pad in along)
        return height, width

    @property
    def output(self) -> Shape:
        """`places`, with as many dimensions as the value has."""
        return self.places[3 - len(self.shape) :]

    def windows(self, x: Array, padding: float = 0) -> Array:
        """The value under the kernel at each place: a view of shape (C, *places, *kernel)."""
        pads = ((0, 0), *((pad, pad) for pad in self.padding))
        padded = np.pad(x.reshape(len(x), *self.sides), pads, constant_values=padding)
        step_y, step_x = self.stride
        return sliding_window_view(padded, self.kernel, axis=(1, 2))[:, ::step_y, ::step_x]

    def fold(self, windows: Array) -> Array:
        """The sum of windows, shape (C, *places, *kernel), at the value's cells; padding is dropped."""
        (height, width), (pad_y, pad_x), (step_y, step_x) = self.sides, self.padding, self.stride
        padded = np.zeros((len(windows), height + 2 * pad_y, width + 2 * pad_x))
        (down, right), (tall, wide) = self.places, self.kernel
        if tall * wide <= down * right:
            for y, x in np.ndindex(tall, wide):
                cells = (
                    slice(y, y + step_y * (down - 1) + 1, step_y),
                    slice(x, x + step_x * (right - 1) + 1, step_x),
                )
                padded[:, *cells] += windows[..., y, x]
        else:
            for y, x in np.ndindex(down, right):
                padded[:, y * step_y : y * step_y + tall, x * step_x : x * step_x + wide] += windows[:, y, x]
        return padded[:, pad_y : pad_y + height, pad_x : pad_x + width].reshape(self.shape)


# layers


def _linear_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    return inputs[0] @ weight.T


def _linear_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    outputs, features = weight.shape
    return [gradient @ weight], gradient.reshape(-1, outputs).T @ inputs[0].reshape(-1, features)


def _conv_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    sliding = _Sliding.over(node, inputs[0])
    columns = _columns(node, sliding, inputs[0])
    return (_kernels(node, weight) @ columns).reshape(len(weight), *sliding.output)


def _conv_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    sliding = _Sliding.over(node, inputs[0])
    columns, kernels = _columns(node, sliding, inputs[0]), _kernels(node, weight)
    by_group = gradient.reshape(*kernels.shape[:2], -1)
    to_columns = kernels.transpose(0, 2, 1) @ by_group
    to_windows = to_columns.reshape(len(inputs[0]), *sliding.kernel, *sliding.places)
    to_weight = (by_group @ columns.transpose(0, 2, 1)).reshape(weight.shape)
    return [sliding.fold(to_windows.transpose(0, 3, 4, 1, 2))], to_weight


def _kernels(node: Node, weight: Array) -> Array:
    """A convolution's weight, shape (groups, O / groups, C / groups x K)."""
    groups = value(node, "groups")
    return weight.reshape(groups, len(weight) // groups, -1)


def _columns(node: Node, sliding: _Sliding, x: Array) -> Array:
    """The windows as columns, shape (groups, C / groups x K, H x W)."""
    windows_CKHW = sliding.windows(x).transpose(0, 3, 4, 1, 2)
    return windows_CKHW.reshape(value(node, "groups"), -1, math.prod(sliding.places))


def _norm_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    return inputs[0] * _as_channels(weight * _NORM_SCALE, inputs[0])


def _norm_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    to_weight = (gradient * inputs[0] * _NORM_SCALE).reshape(len(weight), -1).sum(axis=1)
    return [gradient * _as_channels(weight * _NORM_SCALE, gradient)], to_weight


_NORM_SCALE = 1 / math.sqrt(1 + BATCH_NORM_EPSILON)  # of a running variance of 1


def _as_channels(array: Array, like: Array) -> Array:
    """One number a channel, shape (C,), to multiply with (C, ...)."""
    return array.reshape(-1, *(1,) * (like.ndim - 1))


# pooling and shapes


def _max_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    sliding = _Sliding.over(node, inputs[0])
    windows = sliding.windows(inputs[0], padding=-math.inf)
    largest: Array = windows.max(axis=(3, 4))
    return largest.reshape(len(inputs[0]), *sliding.output)


def _max_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    """All of it goes to a window's first maximum in row-major order, as in torch."""
    sliding = _Sliding.over(node, inputs[0])
    windows = sliding.windows(inputs[0], padding=-math.inf)
    flat_CHWK = windows.reshape(*windows.shape[:3], -1)
    to_windows = np.zeros_like(flat_CHWK)
    first = flat_CHWK.argmax(axis=3, keepdims=True)
    np.put_along_axis(to_windows, first, gradient.reshape(first.shape), axis=3)
    return [sliding.fold(to_windows.reshape(windows.shape))], NO_WEIGHT


def _mean_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    sliding = _Sliding.over(node, inputs[0])
    means: Array = sliding.windows(inputs[0]).mean(axis=(3, 4))
    return means.reshape(len(inputs[0]), *sliding.output)


def _mean_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    sliding = _Sliding.over(node, inputs[0])
    share_CHW = gradient.reshape(len(gradient), *sliding.places) / math.prod(sliding.kernel)
    shape = (*share_CHW.shape, *sliding.kernel)
    return [sliding.fold(np.broadcast_to(share_CHW[..., None, None], shape))], NO_WEIGHT


def _global_mean_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    means: Array = inputs[0].reshape(len(inputs[0]), -1).mean(axis=1)
    return means


def _global_mean_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    share = gradient / math.prod(inputs[0].shape[1:])
    return [np.broadcast_to(_as_channels(share, inputs[0]), inputs[0].shape)], NO_WEIGHT


def _flatten_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    return [gradient.reshape(inputs[0].shape)], NO_WEIGHT


def _flatten_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    return inputs[0].reshape(-1)


def _add_forward(node: Node, inputs: Sequence[Array], weight: Array) -> Array:
    total = inputs[0] + inputs[1]
    for array in inputs[2:]:
        total = total + array
    return total


def _add_backward(node: Node, inputs: Sequence[Array], weight: Array, gradient: Array) -> Gradients:
    return [gradient] * len(inputs), NO_WEIGHT


_IDENTITY = Rule(lambda node, inputs, weight: inputs[0], _flatten_backward)
RULES: dict[str, Rule] = {
    "linear": Rule(_linear_forward, _linear_backward),
    "conv1d": Rule(_conv_forward, _conv_backward),
    "conv2d": Rule(_conv_forward, _conv_backward),
    "batch_norm": Rule(_norm_forward, _norm_backward),
    "max_pool": Rule(_max_forward, _max_backward),
    "avg_pool": Rule(_mean_forward, _mean_backward),
    "global_avg_pool": Rule(_global_mean_forward, _global_mean_backward),
    "flatten": Rule(_flatten_forward, _flatten_backward),
    "add": Rule(_add_forward, _add_backward),
}
