# mypy: disable-error-code="no-untyped-call"
"""Activations and their gradients, compiled: of vectors in registers, and of a node's values in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import RELU, TANH, VECTOR_WIDTH, Floats, StaticSize
from nirvana.sparse.threads import ThreadContext, partition
from nirvana.sparse.vectors import Definition, FloatVector, broadcast_scalar, intrinsic, load, store


@compiled
def activate(activation: int, vector: Any) -> Any:
    """Apply relu or nothing; a NaN stays one. tanh comes afterwards: see `tanh_forward`."""
    return relu_mask(vector, vector) if activation == RELU else vector


@compiled
def activation_grad(activation: int, output: Any, delta: Any) -> Any:
    """Return the gradient before an activation, from its output and the gradient after it."""
    if activation == RELU:
        return relu_mask(output, delta)
    return tanh_grad(output, delta) if activation == TANH else delta


@compiled
def tanh_forward(node: np.record, outputs: Floats, thread: ThreadContext, lanes: StaticSize) -> None:
    """Apply tanh to the node's values, in place."""
    tile_size = VECTOR_WIDTH * len(lanes)
    for channel in range(*partition(thread, node.channels)):
        for y in range(node.height):
            at = (node.origin + channel * node.plane + y * node.pitch) * tile_size
            for i in range(at, at + node.width * tile_size):
                outputs[i] = np.float32(math.tanh(outputs[i]))


@compiled
def activation_backward(activation: int, outputs: Floats, deltas: Floats, lanes: StaticSize) -> None:
    """Replace the gradients after an activation by those before it."""
    tile_size = VECTOR_WIDTH * len(lanes)
    if activation:
        for at in range(0, len(outputs), tile_size):
            delta = activation_grad(activation, load(outputs, at, lanes), load(deltas, at, lanes))
            store(deltas, at, delta)


@compiled
def accumulate_grad(
    source: np.record, outputs: Floats, deltas: Floats, at: int, delta: Any, lanes: StaticSize
) -> None:
    """Store a gradient through the activation of what was read, or add it to that of later readers."""
    delta = activation_grad(source.activation, load(outputs, at, lanes), delta)
    store(deltas, at, delta if source.overwrites_grad else load(deltas, at, lanes) + delta)


@intrinsic
def relu_mask(typing: Any, signal: types.Type, vector: types.Type) -> Definition:
    """Return the vector, or each of a tuple's, with 0 in lanes where the signal is 0 or less; a NaN in the
    signal lets the lane through.

    A loop with a condition took 75 us of an update: its branches cannot be predicted.
    """

    def mask(builder: ir.IRBuilder, signal: ir.Value, vector: ir.Value) -> ir.Value:
        zeros = ir.Constant(vector.type, None)
        return builder.select(builder.fcmp_ordered("<=", signal, zeros), zeros, vector)

    return vector(signal, vector), _elementwise(mask, vector)


@intrinsic
def tanh_grad(typing: Any, output: types.Type, vector: types.Type) -> Definition:
    """Return the vector x (1 - output^2), or each of a tuple's."""

    def multiply(builder: ir.IRBuilder, output: ir.Value, vector: ir.Value) -> ir.Value:
        ones = broadcast_scalar(builder, ir.Constant(ir.FloatType(), 1.0), vector.type.count)
        return builder.fmul(vector, builder.fsub(ones, builder.fmul(output, output)))

    return vector(output, vector), _elementwise(multiply, vector)


def _elementwise(function: Callable[..., ir.Value], kind: types.Type) -> Callable[..., ir.Value]:
    """Return what builds a function of two vectors, or of each pair of two tuples of them."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        if isinstance(kind, FloatVector):
            return function(builder, *arguments)
        pairs = zip(*(cgutils.unpack_tuple(builder, argument) for argument in arguments), strict=True)
        return context.make_tuple(builder, kind, [function(builder, *pair) for pair in pairs])

    return build
