# mypy: disable-error-code="no-untyped-call"
"""SIMD vectors for numba: the LLVM instructions that it has no functions for, on any processor.

`lanes`, wherever it is an argument, is a tuple of one item per 16 lanes: its length is part of its type, so a
width is compiled when it is first met. A vector is as long as such a tuple says: a tile's lanes, or those of
several neighbouring pixels. Vectors know +, - and *.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import models, overload, register_model
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import VECTOR_WIDTH


def _has_wide_registers() -> bool:
    try:
        return bool(binding.get_host_cpu_features().get("avx512f"))
    except RuntimeError:  # LLVM does not know how to ask this processor
        return False


HAS_WIDE_REGISTERS = _has_wide_registers()  # 32 of 16 lanes; else 16 of 8, or 32 of 4
ACCUMULATORS = 16 if HAS_WIDE_REGISTERS else 4  # of 16 lanes, that sums may take: half of the registers
REGISTER_WIDTH = 16 if HAS_WIDE_REGISTERS else 8  # lanes
PATCH_SIZES = (
    16 if HAS_WIDE_REGISTERS else 6,
    4,
    1,
)  # pixels of 16 lanes, that a convolution takes at a time
COLUMN_BLOCK = VECTOR_WIDTH * min(2, ACCUMULATORS // 4)
"""Columns of a dense layer, whose lanes stay in the first cache while all units read them."""

Definition = tuple[
    Any, Callable[..., Any]
]  # of an intrinsic: its signature, and what writes its instructions


def intrinsic(function: Callable[..., Definition]) -> Any:
    """Decorate a function that writes LLVM's instructions; calls of it leave out the first argument."""
    return numba.extending.intrinsic(function)


class FloatVector(types.Type):
    """A vector of float32 in registers."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"float32x{count}")
        self.count = count


@register_model(FloatVector)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: FloatVector) -> None:
        super().__init__(manager, kind, vector_type(kind.count))


def vector_type(count: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), count)


def vector_pointer(
    context: Any, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, index: ir.Value, count: int
) -> ir.Value:
    """Return a pointer to `count` neighbours of an array of a numba type."""
    first = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [index]), vector_type(count).as_pointer())


def broadcast_scalar(builder: ir.IRBuilder, scalar: ir.Value, count: int) -> ir.Value:
    """Return a vector with `scalar` in each lane."""
    empty = ir.Constant(vector_type(count), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(
        builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0)), empty, zeros
    )


def _split(builder: ir.IRBuilder, vector: ir.Value, count: int, width: int) -> list[ir.Value]:
    """Split a vector of `count` into vectors of `width`."""
    if count == width:
        return [vector]
    empty = ir.Constant(vector_type(count), ir.Undefined)
    integers = ir.VectorType(ir.IntType(32), width)
    places = (range(start, start + width) for start in range(0, count, width))
    return [builder.shuffle_vector(vector, empty, ir.Constant(integers, list(part))) for part in places]


def call_external(
    builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value], **flags: Any
) -> ir.Value:
    """Call an intrinsic of LLVM's, or a function of the C library."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


@intrinsic
def load(typing: Any, array: types.Array, index: types.Type, lanes: types.UniTuple) -> Definition:
    """Return lanes of array from index on; both are multiples of a cache line."""
    vector = FloatVector(VECTOR_WIDTH * len(lanes))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        at = vector_pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        return builder.load(at, align=64)

    return vector(array, types.intp, lanes), build


@intrinsic
def store(typing: Any, array: types.Array, index: types.Type, vector: FloatVector) -> Definition:
    """Store a vector in array from index on; both are multiples of a cache line."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        at = vector_pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        builder.store(arguments[2], at, align=64)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@intrinsic
def accumulate(typing: Any, array: types.Array, index: types.Type, vector: FloatVector) -> Definition:
    """Add a vector to neighbours in array, with any alignment."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        at = vector_pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        builder.store(builder.fadd(builder.load(at, align=4), arguments[2]), at, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@intrinsic
def broadcast(typing: Any, scalar: types.Type, lanes: types.UniTuple) -> Definition:
    """Return a vector with a scalar in each lane."""
    vector = FloatVector(VECTOR_WIDTH * len(lanes))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return broadcast_scalar(builder, arguments[0], vector.count)

    return vector(types.float32, lanes), build


@intrinsic
def repeat(typing: Any, vector: FloatVector, units: types.UniTuple) -> Definition:
    """Return a tuple of as many of a vector as `units` has items."""
    kind = types.UniTuple(vector, len(units))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return context.make_tuple(builder, kind, [arguments[0]] * len(units))

    return kind(vector, units), build


@intrinsic
def multiply_add_strided(
    typing: Any,
    array: types.Array,
    index: types.Type,
    stride: types.Type,
    vector: FloatVector,
    sums: types.UniTuple,
) -> Definition:
    """Add to each of several sums the next scalar of array x vector: from index on, `stride` apart."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        start = make_array(signature.args[0])(context, builder, arguments[0]).data
        place, results = arguments[1], []
        for total in cgutils.unpack_tuple(builder, arguments[4]):
            factor = broadcast_scalar(builder, builder.load(builder.gep(start, [place])), vector.count)
            product = builder.fmul(factor, arguments[3], flags=("contract",))
            results.append(builder.fadd(product, total, flags=("contract",)))
            place = builder.add(place, arguments[2])
        return context.make_tuple(builder, sums, results)

    return sums(array, types.intp, types.intp, vector, sums), build


@intrinsic
def zero_accumulators(typing: Any, lanes: types.UniTuple) -> Definition:
    """Return zeros, enough that multiply-adds do not wait for one another: four of 16 lanes, one of 64."""
    kind = types.UniTuple(FloatVector(VECTOR_WIDTH * len(lanes)), max(1, 4 // len(lanes)))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        zeros = ir.Constant(vector_type(kind.dtype.count), None)
        return context.make_tuple(builder, kind, [zeros] * kind.count)

    return kind(lanes), build


@intrinsic
def multiply_add_gathered(
    typing: Any,
    scalars: types.Array,
    scalar_idx: types.Type,
    index: types.Type,
    array: types.Array,
    positions: types.Array,
    tile_size: types.Type,
    sums: types.UniTuple,
) -> Definition:
    """Add to each of several sums the next scalar x the lanes of array at its position.

    `positions` holds the positions from index on, `scalar_idx` the scalars' numbers; None: in the same order.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        kinds, vector, word = signature.args, sums.dtype, arguments[2].type

        def start(i: int) -> ir.Value:
            return make_array(kinds[i])(context, builder, arguments[i]).data

        results = []
        for i, total in enumerate(cgutils.unpack_tuple(builder, arguments[6])):
            place = builder.add(arguments[2], ir.Constant(word, i))
            position = builder.sext(builder.load(builder.gep(start(4), [place])), word)
            if scalar_idx != types.none:
                place = builder.sext(builder.load(builder.gep(start(1), [place])), word)
            factor = broadcast_scalar(builder, builder.load(builder.gep(start(0), [place])), vector.count)
            offset = builder.mul(position, arguments[5])
            at = vector_pointer(context, builder, kinds[3], arguments[3], offset, vector.count)
            product = builder.fmul(factor, builder.load(at, align=64), flags=("contract",))
            results.append(builder.fadd(product, total, flags=("contract",)))
        return context.make_tuple(builder, sums, results)

    return sums(scalars, scalar_idx, types.intp, array, positions, types.intp, sums), build


@intrinsic
def sum_accumulators(typing: Any, sums: types.UniTuple) -> Definition:
    """Return the sum of a tuple's vectors."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        total, *others = cgutils.unpack_tuple(builder, arguments[0])
        for other in others:
            total = builder.fadd(total, other)
        return total

    return sums.dtype(sums), build


@intrinsic
def dot(typing: Any, one: FloatVector, other: FloatVector) -> Definition:
    """Return the sum over lanes of one x other, in a fixed order."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        flags = ("reassoc", "contract")
        product = builder.fmul(*arguments, flags=flags)
        name = f"llvm.vector.reduce.fadd.v{one.count}f32"
        zero = ir.Constant(ir.FloatType(), -0.0)
        return call_external(builder, name, ir.FloatType(), [zero, product], fastmath=flags)

    return types.float32(one, other), build


@intrinsic
def load_scalar(typing: Any, array: types.Array, index: types.Type) -> Definition:
    """Return array[index], without a check for a negative index."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        start = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(start, [arguments[1]]))

    return array.dtype(array, types.intp), build


@intrinsic
def partial_dot(typing: Any, one: FloatVector, other: FloatVector, total: FloatVector) -> Definition:
    """Return total, of 16 lanes, + one x other, summed over their groups of 16 lanes."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        result = arguments[2]
        groups = (_split(builder, vector, one.count, VECTOR_WIDTH) for vector in arguments[:2])
        for a, b in zip(*groups, strict=True):
            product = builder.fmul(a, b, flags=("contract",))
            result = builder.fadd(product, result, flags=("contract",))
        return result

    return total(one, other, total), build


@intrinsic
def horizontal_sum(typing: Any, vector: FloatVector) -> Definition:
    """Return the sum over lanes, in a fixed order."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        name = f"llvm.vector.reduce.fadd.v{vector.count}f32"
        zero = ir.Constant(ir.FloatType(), -0.0)
        return call_external(builder, name, ir.FloatType(), [zero, arguments[0]], fastmath=("reassoc",))

    return types.float32(vector), build


@intrinsic
def accumulate_sums(
    typing: Any, array: types.Array, index: types.Type, end: types.Type, sums: types.UniTuple
) -> Definition:
    """Add to four or eight neighbours in array from index on, or to those of them before `end`, the sums over
    lanes of as many vectors.

    One by one, as `dot` does it, the sums took a third of an update: here they share their additions.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        array, index, end, sums = arguments
        start = make_array(signature.args[0])(context, builder, array).data
        vectors = cgutils.unpack_tuple(builder, sums)
        count = len(vectors)
        fours = [_reduce_four(builder, vectors[i : i + 4]) for i in range(0, count, 4)]
        ends = [0, 1, 2, 3, 8, 9, 10, 11][:count]
        totals = _add_shuffled(builder, fours[0], fours[-1], ends, 4)
        is_whole = builder.icmp_signed("<=", builder.add(index, ir.Constant(index.type, count)), end)
        with builder.if_else(is_whole) as (whole, rest):
            with whole:
                place = vector_pointer(context, builder, signature.args[0], array, index, count)
                builder.store(builder.fadd(builder.load(place, align=4), totals), place, align=4)
            with rest:
                for i in range(count - 1):
                    at = builder.add(index, ir.Constant(index.type, i))
                    with builder.if_then(builder.icmp_signed("<", at, end)):
                        place = builder.gep(start, [at])
                        total = builder.extract_element(totals, ir.Constant(ir.IntType(32), i))
                        builder.store(builder.fadd(builder.load(place), total), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, sums), build


def _reduce_four(builder: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """Return the sums of each of four vectors as two parts: one of each, then the others."""
    count = vectors[0].type.count
    fours = range(0, count, 4)  # shuffles within four lanes are the cheap ones
    low = [four + lane for four in fours for lane in (0, count, 1, count + 1)]
    pairs = [_add_shuffled(builder, vectors[i], vectors[i + 1], low, 2) for i in (0, 2)]
    low = [four + lane for four in fours for lane in (0, 1, count, count + 1)]
    sums = _add_shuffled(builder, pairs[0], pairs[1], low, 2)
    return sums if count == 8 else _add_shuffled(builder, sums, sums, list(range(8)), 8)


def _add_shuffled(
    builder: ir.IRBuilder, one: ir.Value, other: ir.Value, lanes: list[int], distance: int
) -> ir.Value:
    """Return these lanes of both vectors, each plus the lane at a distance from it."""
    kind = ir.VectorType(ir.IntType(32), len(lanes))
    early, late = (ir.Constant(kind, [lane + move for lane in lanes]) for move in (0, distance))
    return builder.fadd(builder.shuffle_vector(one, other, early), builder.shuffle_vector(one, other, late))


@intrinsic
def maximum(typing: Any, one: FloatVector, other: FloatVector) -> Definition:
    """Return each lane's maximum: `one` where they are equal, `other` where it is a NaN."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        is_nan = builder.fcmp_unordered("!=", arguments[1], arguments[1])
        is_other = builder.or_(builder.fcmp_ordered(">", arguments[1], arguments[0]), is_nan)
        return builder.select(is_other, arguments[1], arguments[0])

    return one(one, other), build


@intrinsic
def where_equal(typing: Any, one: FloatVector, other: FloatVector, vector: FloatVector) -> Definition:
    """Return the vector, with 0 in lanes where one and other differ."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        is_equal = builder.fcmp_ordered("==", arguments[0], arguments[1])
        return builder.select(is_equal, arguments[2], ir.Constant(vector_type(vector.count), None))

    return vector(one, other, vector), build


def _overload_operator(symbol: Callable[[Any, Any], Any], name: str) -> None:
    """Define an operator of Python's for vectors, by an instruction of LLVM's."""

    @intrinsic
    def apply(typing: Any, one: FloatVector, other: FloatVector) -> Definition:
        def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
            return getattr(builder, name)(*arguments, flags=("contract",))

        return one(one, other), build

    def choose(one: Any, other: Any) -> Any:
        if isinstance(one, FloatVector) and isinstance(other, FloatVector):
            return lambda one, other: apply(one, other)
        return None

    overload(symbol, strict=False)(choose)


_overload_operator(operator.add, "fadd")
_overload_operator(operator.sub, "fsub")
_overload_operator(operator.mul, "fmul")


@intrinsic
def bitcast_to_float(typing: Any, bits: types.Type) -> Definition:
    """Return the float32 that has these 32 bits."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build
