# mypy: disable-error-code="no-untyped-call"
"""Vectors of lanes for numba: the words of LLVM that it has none for, on any processor.

`lanes`, wherever it is an argument, is a tuple of one item per 16 lanes: its length is part of its type, so a
width is compiled when it is first met. A vector is as long as such a tuple says: a tile's lanes, or those of
several neighbouring pixels. Vectors know +, - and *.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import WIDTH


def _has_wide_registers() -> bool:
    try:
        return bool(binding.get_host_cpu_features().get("avx512f"))
    except RuntimeError:  # LLVM does not know how to ask this processor
        return False


HAS_WIDE_REGISTERS = _has_wide_registers()  # 32 of 16 lanes; else 16 of 8, or 32 of 4
VECTORS = 16 if HAS_WIDE_REGISTERS else 4  # of 16 lanes, that sums may take: half of the registers
REGISTER = 16 if HAS_WIDE_REGISTERS else 8  # lanes
PIXELS = (16 if HAS_WIDE_REGISTERS else 6, 4, 1)  # of 16 lanes, that a convolution takes at a time
CELLS = WIDTH * min(
    2, VECTORS // 4
)  # of a dense layer, whose lanes stay in the first cache while all units meet them


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
        super().__init__(manager, kind, vector_type(kind.count))


def vector_type(count: int) -> Any:
    return ir.VectorType(ir.FloatType(), count)


def pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: int) -> Any:
    first = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [index]), vector_type(count).as_pointer())


def spread_scalar(builder: Any, scalar: Any, count: int) -> Any:
    """A vector with `scalar` in each lane."""
    empty = ir.Constant(vector_type(count), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(
        builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0)), empty, zeros
    )


def _cut(builder: Any, vector: Any, count: int, width: int) -> list[Any]:
    """The parts of `width` of a vector of `count`."""
    if count == width:
        return [vector]
    empty = ir.Constant(vector_type(count), ir.Undefined)
    integers = ir.VectorType(ir.IntType(32), width)
    places = (range(start, start + width) for start in range(0, count, width))
    return [builder.shuffle_vector(vector, empty, ir.Constant(integers, list(part))) for part in places]


def call(builder: Any, name: str, result: Any, arguments: list[Any], **flags: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


@instruction
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """lanes of array from index on; both are multiples of a cache line."""
    vector = Lanes(WIDTH * len(lanes))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        return builder.load(at, align=64)

    return vector(array, types.intp, lanes), build


@instruction
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        builder.store(arguments[2], at, align=64)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@instruction
def add_to(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Add a vector to neighbours in array, which lie anywhere."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = pointer(context, builder, signature.args[0], arguments[0], arguments[1], vector.count)
        builder.store(builder.fadd(builder.load(at, align=4), arguments[2]), at, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@instruction
def spread(typing: Any, scalar: Any, lanes: Any) -> Any:
    vector = Lanes(WIDTH * len(lanes))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread_scalar(builder, arguments[0], vector.count)

    return vector(types.float32, lanes), build


@instruction
def repeat(typing: Any, vector: Any, units: Any) -> Any:
    """A tuple of as many of a vector as `units` has items."""
    found = types.UniTuple(vector, len(units))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_tuple(builder, found, [arguments[0]] * len(units))

    return found(vector, units), build


@instruction
def multiply_add_rows(typing: Any, array: Any, index: Any, apart: Any, vector: Any, sums: Any) -> Any:
    """To each of several sums, what array holds at its place x vector: from index on, `apart`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = make_array(signature.args[0])(context, builder, arguments[0]).data
        place, found = arguments[1], []
        for total in cgutils.unpack_tuple(builder, arguments[4]):
            factor = spread_scalar(builder, builder.load(builder.gep(start, [place])), vector.count)
            product = builder.fmul(factor, arguments[3], flags=("contract",))
            found.append(builder.fadd(product, total, flags=("contract",)))
            place = builder.add(place, arguments[2])
        return context.make_tuple(builder, sums, found)

    return sums(array, types.intp, types.intp, vector, sums), build


@instruction
def start_chains(typing: Any, lanes: Any) -> Any:
    """Zeros, as many as keep multiply-adds from waiting for one another: four of 16 lanes, one of 64."""
    found = types.UniTuple(Lanes(WIDTH * len(lanes)), max(1, 4 // len(lanes)))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = ir.Constant(vector_type(found.dtype.count), None)
        return context.make_tuple(builder, found, [zeros] * found.count)

    return found(lanes), build


@instruction
def multiply_add_cells(
    typing: Any, factors: Any, numbers: Any, index: Any, array: Any, cells: Any, step: Any, sums: Any
) -> Any:
    """To each of several sums, the next factor x the lanes of its cell: `cells`, from index on, says which
    cell, and `numbers` which factor; None: factors lie in the same order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, vector, word = signature.args, sums.dtype, arguments[2].type

        def start(i: int) -> Any:
            return make_array(kinds[i])(context, builder, arguments[i]).data

        found = []
        for i, total in enumerate(cgutils.unpack_tuple(builder, arguments[6])):
            place = builder.add(arguments[2], ir.Constant(word, i))
            cell = builder.sext(builder.load(builder.gep(start(4), [place])), word)
            if numbers != types.none:
                place = builder.sext(builder.load(builder.gep(start(1), [place])), word)
            factor = spread_scalar(builder, builder.load(builder.gep(start(0), [place])), vector.count)
            at = pointer(
                context, builder, kinds[3], arguments[3], builder.mul(cell, arguments[5]), vector.count
            )
            product = builder.fmul(factor, builder.load(at, align=64), flags=("contract",))
            found.append(builder.fadd(product, total, flags=("contract",)))
        return context.make_tuple(builder, sums, found)

    return sums(factors, numbers, types.intp, array, cells, types.intp, sums), build


@instruction
def join_chains(typing: Any, sums: Any) -> Any:
    """The sum of a tuple's vectors."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, *others = cgutils.unpack_tuple(builder, arguments[0])
        for other in others:
            total = builder.fadd(total, other)
        return total

    return sums.dtype(sums), build


@instruction
def gate(typing: Any, signal: Any, vector: Any) -> Any:
    """The vector, or each of a tuple's, with 0 in lanes where the signal is 0 or less; a NaN in the signal
    lets the lane through.

    A loop with a condition took 75 us of an update: its branches cannot be foreseen.
    """

    def one(builder: Any, signal: Any, vector: Any) -> Any:
        zeros = ir.Constant(vector.type, None)
        return builder.select(builder.fcmp_ordered("<=", signal, zeros), zeros, vector)

    return vector(signal, vector), _for_each(one, vector)


@instruction
def tanh_slope(typing: Any, output: Any, vector: Any) -> Any:
    """The vector x (1 - output^2), or each of a tuple's."""

    def one(builder: Any, output: Any, vector: Any) -> Any:
        ones = spread_scalar(builder, ir.Constant(ir.FloatType(), 1.0), vector.type.count)
        return builder.fmul(vector, builder.fsub(ones, builder.fmul(output, output)))

    return vector(output, vector), _for_each(one, vector)


def _for_each(one: Any, kind: Any) -> Any:
    """What builds `one` of two vectors, or of each pair of two tuples of them."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if isinstance(kind, Lanes):
            return one(builder, *arguments)
        pairs = zip(*(cgutils.unpack_tuple(builder, argument) for argument in arguments), strict=True)
        return context.make_tuple(builder, kind, [one(builder, *pair) for pair in pairs])

    return build


@instruction
def dot(typing: Any, one: Any, other: Any) -> Any:
    """The sum over lanes of one x other, in a fixed order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flags = ("reassoc", "contract")
        product = builder.fmul(*arguments, flags=flags)
        name = f"llvm.vector.reduce.fadd.v{one.count}f32"
        zero = ir.Constant(ir.FloatType(), -0.0)
        return call(builder, name, ir.FloatType(), [zero, product], fastmath=flags)

    return types.float32(one, other), build


@instruction
def peek(typing: Any, array: Any, index: Any) -> Any:
    """array[index], not asking whether the index is negative."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(start, [arguments[1]]))

    return array.dtype(array, types.intp), build


@instruction
def fold(typing: Any, one: Any, other: Any, total: Any) -> Any:
    """total, of 16 lanes, + one x other, their 16s added up."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = arguments[2]
        for a, b in zip(*(_cut(builder, vector, one.count, WIDTH) for vector in arguments[:2]), strict=True):
            product = builder.fmul(a, b, flags=("contract",))
            found = builder.fadd(product, found, flags=("contract",))
        return found

    return total(one, other, total), build


@instruction
def add_up(typing: Any, vector: Any) -> Any:
    """The sum over lanes, in a fixed order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{vector.count}f32"
        zero = ir.Constant(ir.FloatType(), -0.0)
        return call(builder, name, ir.FloatType(), [zero, arguments[0]], fastmath=("reassoc",))

    return types.float32(vector), build


@instruction
def add_sums(typing: Any, array: Any, index: Any, end: Any, sums: Any) -> Any:
    """Add to four or eight neighbours in array from index on, or to those of them before `end`, the sums over
    lanes of as many vectors.

    One by one, as `dot` does it, the sums took a third of an update: here they share their additions.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, end, sums = arguments
        start = make_array(signature.args[0])(context, builder, array).data
        vectors = cgutils.unpack_tuple(builder, sums)
        count = len(vectors)
        fours = [_add_four(builder, vectors[i : i + 4]) for i in range(0, count, 4)]
        ends = [0, 1, 2, 3, 8, 9, 10, 11][:count]
        found = _add_shuffled(builder, fours[0], fours[-1], ends, 4)
        is_whole = builder.icmp_signed("<=", builder.add(index, ir.Constant(index.type, count)), end)
        with builder.if_else(is_whole) as (whole, some):
            with whole:
                place = pointer(context, builder, signature.args[0], array, index, count)
                builder.store(builder.fadd(builder.load(place, align=4), found), place, align=4)
            with some:
                for i in range(count - 1):
                    at = builder.add(index, ir.Constant(index.type, i))
                    with builder.if_then(builder.icmp_signed("<", at, end)):
                        place = builder.gep(start, [at])
                        one = builder.extract_element(found, ir.Constant(ir.IntType(32), i))
                        builder.store(builder.fadd(builder.load(place), one), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, sums), build


def _add_four(builder: Any, vectors: list[Any]) -> Any:
    """The sums of each of four vectors as two parts: one of each, then the others."""
    count = vectors[0].type.count
    fours = range(0, count, 4)  # shuffles within four lanes are the cheap ones
    low = [four + lane for four in fours for lane in (0, count, 1, count + 1)]
    pairs = [_add_shuffled(builder, vectors[i], vectors[i + 1], low, 2) for i in (0, 2)]
    low = [four + lane for four in fours for lane in (0, 1, count, count + 1)]
    found = _add_shuffled(builder, pairs[0], pairs[1], low, 2)
    return found if count == 8 else _add_shuffled(builder, found, found, list(range(8)), 8)


def _add_shuffled(builder: Any, one: Any, other: Any, places: list[int], away: int) -> Any:
    """The lanes at these places of both vectors, added to those that are so far away."""
    kind = ir.VectorType(ir.IntType(32), len(places))
    early, late = (ir.Constant(kind, [place + move for place in places]) for move in (0, away))
    return builder.fadd(builder.shuffle_vector(one, other, early), builder.shuffle_vector(one, other, late))


@instruction
def larger(typing: Any, one: Any, other: Any) -> Any:
    """Each lane's larger; `one` where they are equal, `other` where it is a NaN."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_nan = builder.fcmp_unordered("!=", arguments[1], arguments[1])
        is_other = builder.or_(builder.fcmp_ordered(">", arguments[1], arguments[0]), is_nan)
        return builder.select(is_other, arguments[1], arguments[0])

    return one(one, other), build


@instruction
def where_equal(typing: Any, one: Any, other: Any, vector: Any) -> Any:
    """The vector, with 0 in lanes where one and other differ."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        is_equal = builder.fcmp_ordered("==", arguments[0], arguments[1])
        return builder.select(is_equal, arguments[2], ir.Constant(vector_type(vector.count), None))

    return vector(one, other, vector), build


def _arithmetic(symbol: Any, name: str) -> None:
    """Let vectors of lanes know an operator."""

    @instruction
    def apply(typing: Any, one: Any, other: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments, flags=("contract",))

        return one(one, other), build

    def choose(one: Any, other: Any) -> Any:
        if isinstance(one, Lanes) and isinstance(other, Lanes):
            return lambda one, other: apply(one, other)
        return None

    overload(symbol, strict=False)(choose)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


@instruction
def float_of_bits(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build
