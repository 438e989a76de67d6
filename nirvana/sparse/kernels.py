# mypy: disable-error-code="no-untyped-call"
"""What runs in every update, compiled: forward, backward and optimiser over the kept weights alone.

A batch is cut into tiles of 16, 32 or 64 examples, its lanes. Activations lie unit by unit, each unit's lanes
side by side, so that a kept weight reads its column's index once and meets all lanes in a few vector
instructions: a row's sum stays in registers, where a plain loop would store and load it for every weight.
Vectors of LLVM say that, on any processor; numba alone has no word for them.

All compiled code is in this file, because numba's cache on disk looks at the date of this file alone: `touch`
it after a change to the constants or the order of fields that come from `nirvana.sparse.network`.
`lanes`, wherever it is an argument, is a tuple of one item per 16 lanes: its length is part of its type, so a
width is compiled when it is first met.

Reference: sparse storage and training by kept weights alone, surveyed by Hoefler et al. 2021
(arXiv 2102.00554).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from nirvana.sparse.network import RELU, TANH, WIDTH, Floats, Graph, Integers, Rule, Space, State

Tile = tuple[int, ...]
F = TypeVar("F", bound=Callable[..., Any])


def _compile(function: F, **options: bool) -> F:
    njit: Any = numba.njit
    return cast(F, njit(error_model="numpy", **options)(function))


def compiled(function: F) -> F:
    """For functions that the entry points call."""
    return _compile(function)


def entry(function: F) -> F:
    """For entry points: kept on disk where numba finds a folder that it may write to, else compiled anew in
    each process. They let other threads run."""
    try:
        return _compile(function, cache=True, nogil=True)
    except (RuntimeError, OSError):  # numba found no folder
        return _compile(function, nogil=True)


def instruction(function: Any) -> Any:
    """For functions that write LLVM's instructions; a call leaves out the first argument."""
    return intrinsic(function)


# vectors of lanes


class Lanes(types.Type):
    """A vector of float32 in registers."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"lanes{count}")
        self.count = count


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, _vector(kind.count))


def _vector(count: int) -> Any:
    return ir.VectorType(ir.FloatType(), count)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: int) -> Any:
    first = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [index]), _vector(count).as_pointer())


def _spread(builder: Any, scalar: Any, count: int) -> Any:
    """A vector with `scalar` in each lane."""
    empty = ir.Constant(_vector(count), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(
        builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0)), empty, zeros
    )


def _call(builder: Any, name: str, result: Any, arguments: list[Any], **flags: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


@instruction
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """lanes of array from index on; both are multiples of a cache line."""
    vector = Lanes(WIDTH * len(lanes))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        return builder.load(at, align=64)

    return vector(array, types.intp, lanes), build


@instruction
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        builder.store(arguments[2], at, align=64)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@instruction
def spread(typing: Any, scalar: Any, lanes: Any) -> Any:
    vector = Lanes(WIDTH * len(lanes))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0], vector.count)

    return vector(types.float32, lanes), build


@instruction
def multiply_add(typing: Any, scalar: Any, vector: Any, total: Any) -> Any:
    """scalar x vector + total."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(
            _spread(builder, arguments[0], vector.count), arguments[1], flags=("contract",)
        )
        return builder.fadd(product, arguments[2], flags=("contract",))

    return vector(types.float32, vector, vector), build


@instruction
def gate(typing: Any, signal: Any, vector: Any) -> Any:
    """The vector, with 0 in lanes where the signal is 0 or less; a NaN in the signal lets the lane through.

    A loop with a condition took 75 us of an update: its branches cannot be foreseen.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = ir.Constant(_vector(vector.count), None)
        is_off = builder.fcmp_ordered("<=", arguments[0], zeros)
        return builder.select(is_off, zeros, arguments[1])

    return vector(signal, vector), build


@instruction
def tanh_slope(typing: Any, output: Any, vector: Any) -> Any:
    """The vector x (1 - output^2)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ones = _spread(builder, ir.Constant(ir.FloatType(), 1.0), vector.count)
        slope = builder.fsub(ones, builder.fmul(arguments[0], arguments[0]))
        return builder.fmul(arguments[1], slope)

    return vector(output, vector), build


@instruction
def dot(typing: Any, one: Any, other: Any) -> Any:
    """The sum over lanes of one x other, in a fixed order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flags = ("reassoc", "contract")
        product = builder.fmul(*arguments, flags=flags)
        name = f"llvm.vector.reduce.fadd.v{one.count}f32"
        zero = ir.Constant(ir.FloatType(), -0.0)
        return _call(builder, name, ir.FloatType(), [zero, product], fastmath=flags)

    return types.float32(one, other), build


@instruction
def transpose(
    typing: Any, x: Any, examples: Any, at: Any, feature: Any, target: Any, to: Any, step: Any
) -> Any:
    """16 features of 16 examples from x, (n, features), to target: a feature's examples side by side, the
    features `step` apart. Four rounds of interleaving row i with row i + 8.
    """
    integers = ir.VectorType(ir.IntType(32), WIDTH)
    low, high = (
        ir.Constant(integers, [half * 8 + i // 2 + WIDTH * (i % 2) for i in range(WIDTH)]) for half in (0, 1)
    )

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, arguments[0])
        order = make_array(signature.args[1])(context, builder, arguments[1])
        width = builder.extract_value(source.shape, 1)
        rows = []
        for i in range(WIDTH):
            place = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            example = builder.load(builder.gep(order.data, [place]))
            start = builder.add(builder.mul(example, width), arguments[3])
            line = builder.bitcast(builder.gep(source.data, [start]), _vector(WIDTH).as_pointer())
            rows.append(builder.load(line, align=4))
        for _ in range(4):
            pairs = zip(rows[:8], rows[8:], strict=True)
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        for i, row in enumerate(rows):
            place = builder.add(arguments[5], builder.mul(arguments[6], ir.Constant(arguments[6].type, i)))
            builder.store(
                row, _pointer(context, builder, signature.args[4], arguments[4], place, WIDTH), align=64
            )
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, examples, integer, integer, target, integer, integer), build


@instruction
def float_of_bits(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


# subnormals


@instruction
def float_mode(typing: Any) -> Any:
    """This thread's floating-point control word (x86-64 and AArch64; elsewhere 0)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        if builder.module.triple.startswith("x86_64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            _call(
                builder,
                "llvm.x86.sse.stmxcsr",
                ir.VoidType(),
                [builder.bitcast(place, ir.IntType(8).as_pointer())],
            )
            return builder.zext(builder.load(place), word)
        if builder.module.triple.startswith(("aarch64", "arm64")):
            return _call(builder, "llvm.aarch64.get.fpcr", word, [])
        return ir.Constant(word, 0)

    return types.int64(), build


@instruction
def set_float_mode(typing: Any, mode: Any, is_flushing: Any) -> Any:
    """Take this control word; where `is_flushing`, with subnormals flushed to 0."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        triple = builder.module.triple
        bits = 0x8040 if triple.startswith("x86_64") else 1 << 24
        word = ir.IntType(64)
        flushed = builder.or_(arguments[0], ir.Constant(word, bits))
        mode = builder.select(arguments[1], flushed, arguments[0])
        if triple.startswith("x86_64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(builder.trunc(mode, ir.IntType(32)), place)
            address = builder.bitcast(place, ir.IntType(8).as_pointer())
            _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [address])
        elif triple.startswith(("aarch64", "arm64")):
            _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [mode])
        return context.get_dummy_value()

    return types.void(types.int64, types.boolean), build


# the network


@compiled
def gather(x: Floats, examples: Integers, windows: Integers, inputs: Floats, lanes: Tile) -> None:
    """Put the windows of 16 features of each example into `inputs`, feature by feature."""
    step = WIDTH * len(lanes)
    for group in range(len(lanes)):
        for window in range(len(windows)):
            to = window * WIDTH * step + group * WIDTH
            transpose(x, examples, group * WIDTH, windows[window], inputs, to, step)


@compiled
def forward(graph: Graph, parameters: Floats, space: Space, lanes: Tile) -> None:
    """Fill `space.outputs` from `space.inputs`."""
    step = WIDTH * len(lanes)
    biases = len(graph.columns)
    for layer in range(len(graph.layers)):
        first, end, source, activation, _ = graph.layers[layer]
        read, offset = (space.inputs, 0) if source < 0 else (space.outputs, source * step)
        for row in range(first, end):
            total = spread(parameters[biases + row], lanes)
            for k in range(graph.starts[row], graph.starts[row + 1]):
                total = multiply_add(
                    parameters[k], load(read, offset + graph.columns[k] * step, lanes), total
                )
            store(space.outputs, row * step, gate(total, total) if activation == RELU else total)
        if activation == TANH:
            for i in range(first * step, end * step):
                space.outputs[i] = np.float32(math.tanh(space.outputs[i]))


@compiled
def backward(graph: Graph, state: State, space: Space, lanes: Tile) -> None:
    """Add this tile's gradients to `state.gradients`; the deltas of the last layer are there."""
    step = WIDTH * len(lanes)
    biases = len(graph.columns)
    one = spread(np.float32(1), lanes)
    for layer in range(len(graph.layers) - 1, -1, -1):
        first, end, source, activation, has_bias = graph.layers[layer]
        read, offset = (space.inputs, 0) if source < 0 else (space.outputs, source * step)
        for row in range(first, end):
            is_last = row * step >= space.last
            delta = load(space.deltas, row * step, lanes) if is_last else spread(np.float32(0), lanes)
            for k in range(graph.exits[row], graph.exits[row + 1]):
                to = graph.exit_rows[k] * step
                delta = multiply_add(
                    state.parameters[graph.exit_weights[k]], load(space.deltas, to, lanes), delta
                )
            if activation == RELU:
                delta = gate(load(space.outputs, row * step, lanes), delta)
            elif activation == TANH:
                delta = tanh_slope(load(space.outputs, row * step, lanes), delta)
            store(space.deltas, row * step, delta)
            if has_bias:
                state.gradients[biases + row] += dot(delta, one)
            for k in range(graph.starts[row], graph.starts[row + 1]):
                state.gradients[k] += dot(delta, load(read, offset + graph.columns[k] * step, lanes))


@compiled
def exponential(x: Any) -> Any:
    """exp(x) of x <= 0 to 2 units in the last place; below -87 it is exp(-87). A loop of these becomes vector
    instructions, which one of math.exp does not.

    2^n exp(r) with |r| <= ln(2) / 2, exp(r) by its Taylor series, ln(2) in two parts.
    """
    low = np.float32(-87.0)
    x = low if x < low else x
    known = x if x >= low else low  # a NaN has no whole part
    n = np.floor(known * np.float32(1.44269504) + np.float32(0.5))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for inverse in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * r + np.float32(inverse)
    return series * float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@compiled
def softmax(logits: Floats, weights: Floats, rows: Floats, classes: int, lanes: Tile) -> None:
    """Each lane's exp(logit - its largest) into `weights`; that largest and their sum into `rows`."""
    step = WIDTH * len(lanes)
    top, total = rows[:step], rows[step : 2 * step]
    for j in range(step):
        top[j], total[j] = logits[j], np.float32(0)
    for i in range(1, classes):
        for j in range(step):
            logit = logits[i * step + j]
            top[j] = logit if logit > top[j] else top[j]
    for i in range(classes):
        for j in range(step):
            weight = exponential(logits[i * step + j] - top[j])
            weights[i * step + j] = weight
            total[j] += weight


@compiled
def loss(space: Space, labels: Integers, count: int, batch: int, lanes: Tile) -> float:
    """The sum of the tile's cross-entropies; the gradients of their mean over the batch into `deltas`.

    Args:
        labels: of the tile's first `count` lanes; the other lanes get gradients of 0.
    """
    step = WIDTH * len(lanes)
    classes = (len(space.outputs) - space.last) // step
    logits, deltas = space.outputs[space.last :], space.deltas[space.last :]
    softmax(logits, deltas, space.rows, classes, lanes)
    top, total, scale = space.rows[:step], space.rows[step : 2 * step], space.rows[2 * step :]
    found = 0.0
    for j in range(count):
        found += math.log(total[j]) + top[j] - logits[labels[j] * step + j]
    for j in range(step):
        scale[j] = np.float32(1) / (total[j] * np.float32(batch)) if j < count else np.float32(0)
    for i in range(classes):
        for j in range(step):
            deltas[i * step + j] *= scale[j]
    for j in range(count):
        deltas[labels[j] * step + j] -= np.float32(1) / np.float32(batch)
    return found


@compiled
def hits(space: Space, labels: Integers, count: int, lanes: Tile) -> int:
    """How many of the first `count` lanes have their first largest logit at their label."""
    step = WIDTH * len(lanes)
    logits = space.outputs[space.last :]
    right = 0
    for j in range(count):
        best = 0
        for i in range(1, len(logits) // step):
            if logits[i * step + j] > logits[best * step + j]:
                best = i
        right += best == labels[j]
    return right


# optimisers


@compiled
def descend(state: State, rule: Rule, rate: float, updates: int) -> None:
    """Update number `updates` (the first is 1) of every parameter; the gradients are 0 afterwards."""
    if rule.is_adam:
        adam(state, rule, rate, updates)
    else:
        sgd(state, rule, rate)


@compiled
def sgd(state: State, rule: Rule, rate: float) -> None:
    """SGD with momentum, as PyTorch has it: the decay is part of what the momentum gathers.

    Reference: Sutskever et al. 2013 (ICML) for Nesterov's form.
    """
    parameters, gradients, velocity = state.parameters, state.gradients, state.first
    momentum, decay, step = np.float32(rule.momentum), np.float32(rule.decay), np.float32(rate)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        velocity[k] = momentum * velocity[k] + gradient
        parameters[k] -= step * (gradient + momentum * velocity[k] if rule.is_nesterov else velocity[k])
        gradients[k] = np.float32(0)


@compiled
def adam(state: State, rule: Rule, rate: float, updates: int) -> None:
    """Adam, and AdamW where `rule.shrinkage` is not 0.

    Reference: Kingma & Ba 2015 (arXiv 1412.6980); Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    parameters, gradients, first, second = state
    beta1, beta2 = np.float32(1 - rule.momentum), np.float32(rule.beta2)
    rest2, decay, epsilon = np.float32(1 - rule.beta2), np.float32(rule.decay), np.float32(rule.epsilon)
    step = np.float32(rate / (1 - rule.momentum**updates))
    correction = np.float32(math.sqrt(1 - rule.beta2**updates))
    keep = np.float32(1 - rate * rule.shrinkage)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        first[k] += (gradient - first[k]) * beta1
        second[k] = beta2 * second[k] + rest2 * gradient * gradient
        parameters[k] = keep * parameters[k] - step * first[k] / (np.sqrt(second[k]) / correction + epsilon)
        gradients[k] = np.float32(0)


# entry points


@entry
def update(
    x: Floats,
    labels: Integers,
    order: Integers,
    rates: NDArray[np.float64],
    updates: int,
    windows: Integers,
    graph: Graph,
    state: State,
    space: Space,
    rule: Rule,
    losses: NDArray[np.float64],
    lanes: Tile,
) -> int:
    """Make one update for each row of `order`, up to the first loss that is not finite.

    Args:
        x: (n, features); labels: (n,); order: (updates, batch), the examples of each update.
        rates: (updates,) learning rates; `updates`: how many were made before, for Adam.
        losses: (updates,), filled: mean cross-entropies.

    Returns:
        how many losses were finite; the update with one that was not is made too.
    """
    mode = float_mode()
    set_float_mode(mode, True)
    step, batch = WIDTH * len(lanes), order.shape[1]
    examples, targets = np.empty(step, np.int64), np.empty(step, np.int64)
    made = 0
    while made < len(order):
        total = 0.0
        for start in range(0, batch, step):
            count = min(step, batch - start)
            for j in range(step):
                examples[j] = order[made, start + (j if j < count else 0)]
                targets[j] = labels[examples[j]]
            gather(x, examples, windows, space.inputs, lanes)
            forward(graph, state.parameters, space, lanes)
            total += loss(space, targets, count, batch, lanes)
            backward(graph, state, space, lanes)
        descend(state, rule, rates[made], updates + made + 1)
        losses[made] = total / batch
        if not math.isfinite(losses[made]):
            break
        made += 1
    set_float_mode(mode, False)
    return made


@entry
def measure(
    x: Floats,
    labels: Integers,
    windows: Integers,
    graph: Graph,
    parameters: Floats,
    space: Space,
    lanes: Tile,
) -> tuple[float, int]:
    """The sum of cross-entropies over all of x, (n, features), and how many examples have the logit of their
    label, (n,), largest."""
    mode = float_mode()
    set_float_mode(mode, True)
    step = WIDTH * len(lanes)
    examples, targets = np.empty(step, np.int64), np.empty(step, np.int64)
    total, right = 0.0, 0
    for start in range(0, len(x), step):
        count = min(step, len(x) - start)
        for j in range(step):
            examples[j] = start + (j if j < count else 0)
            targets[j] = labels[examples[j]]
        gather(x, examples, windows, space.inputs, lanes)
        forward(graph, parameters, space, lanes)
        total += loss(space, targets, count, count, lanes)
        right += hits(space, targets, count, lanes)
    set_float_mode(mode, False)
    return total, right
