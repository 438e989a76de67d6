# mypy: disable-error-code="no-untyped-call"
"""SIMD operations of convolutions: some pixels of one weight, or one pixel of some weights."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import VECTOR_WIDTH
from nirvana.sparse.vectors import (
    REGISTER_WIDTH,
    Definition,
    FloatVector,
    broadcast_scalar,
    intrinsic,
    vector_pointer,
    vector_type,
)


@intrinsic
def load_pixels(
    typing: Any,
    array: types.Array,
    index: types.Type,
    right: types.Type,
    down: types.Type,
    lanes: types.UniTuple,
    pixels: types.UniTuple,
) -> Definition:
    """Return the lanes of as many pixels as `pixels` has items, a tuple of vectors: one, or half of them in
    each of two rows. The first is at `index`; the others are `right` of their neighbour, or `down` from the
    one above."""
    kind = types.UniTuple(FloatVector(VECTOR_WIDTH * len(lanes)), len(pixels))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        pointers = _pixel_pointers(context, builder, signature.args[0], arguments[:4], kind)
        return context.make_tuple(builder, kind, [builder.load(place, align=64) for place in pointers])

    return kind(array, types.intp, types.intp, types.intp, lanes, pixels), build


@intrinsic
def store_pixels(
    typing: Any,
    array: types.Array,
    index: types.Type,
    right: types.Type,
    down: types.Type,
    vectors: types.UniTuple,
) -> Definition:
    """Store pixels as `load_pixels` loads them."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        pointers = _pixel_pointers(context, builder, signature.args[0], arguments[:4], vectors)
        for place, vector in zip(pointers, cgutils.unpack_tuple(builder, arguments[4]), strict=True):
            builder.store(vector, place, align=64)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, vectors), build


@intrinsic
def multiply_add_pixels(
    typing: Any,
    scalar: types.Type,
    array: types.Array,
    index: types.Type,
    right: types.Type,
    down: types.Type,
    sums: types.UniTuple,
) -> Definition:
    """Add scalar x the pixels that `load_pixels` loads to as many sums."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        factor = broadcast_scalar(builder, arguments[0], sums.dtype.count)
        pointers = _pixel_pointers(context, builder, signature.args[1], arguments[1:5], sums)
        results = []
        for place, total in zip(pointers, cgutils.unpack_tuple(builder, arguments[5]), strict=True):
            product = builder.fmul(factor, builder.load(place, align=64), flags=("contract",))
            results.append(builder.fadd(product, total, flags=("contract",)))
        return context.make_tuple(builder, sums, results)

    return sums(types.float32, array, types.intp, types.intp, types.intp, sums), build


def _pixel_pointers(
    context: Any, builder: ir.IRBuilder, kind: types.Type, corner: list[ir.Value], vectors: types.UniTuple
) -> list[ir.Value]:
    """Return pointers to as many pixels as a tuple has vectors, from (array, the first's start, right, down).

    Each is the first one's and a distance that a loop over weights need not compute anew.
    """
    array, index, right, down = corner
    first = builder.gep(make_array(kind)(context, builder, array).data, [index])
    row = [builder.mul(right, ir.Constant(right.type, i)) for i in range(max(1, vectors.count // 2))]
    distances = [*row, *(builder.add(down, one) for one in row)][: vectors.count]
    pixel = vector_type(vectors.dtype.count).as_pointer()
    return [builder.bitcast(builder.gep(first, [one]), pixel) for one in distances]


@intrinsic
def gather_offsets(
    typing: Any,
    indices: types.Array,
    first: types.Type,
    last: types.Type,
    scale: types.Type,
    block: types.UniTuple,
) -> Definition:
    """Return as many neighbours of an int32 array as `block` has items, x scale; past the last, the last."""
    kind = types.UniTuple(types.intp, len(block))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        start, offsets = make_array(signature.args[0])(context, builder, arguments[0]).data, []
        for i in range(len(block)):
            place = builder.add(arguments[1], ir.Constant(arguments[1].type, i))
            is_inside = builder.icmp_signed("<", place, arguments[2])
            place = builder.select(is_inside, place, arguments[2])
            one = builder.sext(builder.load(builder.gep(start, [place])), arguments[3].type)
            offsets.append(builder.mul(one, arguments[3]))
        return context.make_tuple(builder, kind, offsets)

    return kind(indices, types.intp, types.intp, types.intp, block), build


@intrinsic
def zero_registers(typing: Any, block: types.UniTuple) -> Definition:
    """Return a tuple of zeros, a register for each item of `block`."""
    kind = types.UniTuple(FloatVector(REGISTER_WIDTH), len(block))

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        return context.make_tuple(
            builder, kind, [ir.Constant(vector_type(REGISTER_WIDTH), None)] * len(block)
        )

    return kind(block), build


@intrinsic
def multiply_add_shifted(
    typing: Any,
    one: types.Array,
    index: types.Type,
    other: types.Array,
    starts: types.UniTuple,
    shift: types.Type,
    lanes: types.UniTuple,
    sums: types.UniTuple,
) -> Definition:
    """Add to each of several sums, a register each, the lanes of array `one` at index x those of `other` that
    are `shift` from the sum's start."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        kinds, results = signature.args, cgutils.unpack_tuple(builder, arguments[6])
        starts = cgutils.unpack_tuple(builder, arguments[3])
        first = make_array(kinds[2])(context, builder, arguments[2]).data
        bases = [builder.gep(first, [start]) for start in starts]
        for lane in range(0, VECTOR_WIDTH * len(lanes), REGISTER_WIDTH):
            place, shift = (
                builder.add(at, ir.Constant(at.type, lane)) for at in (arguments[1], arguments[4])
            )
            address = vector_pointer(context, builder, kinds[0], arguments[0], place, REGISTER_WIDTH)
            vector = builder.load(address, align=32)
            for i, base in enumerate(bases):
                at = builder.bitcast(builder.gep(base, [shift]), vector_type(REGISTER_WIDTH).as_pointer())
                product = builder.fmul(vector, builder.load(at, align=32), flags=("contract",))
                results[i] = builder.fadd(product, results[i], flags=("contract",))
        return context.make_tuple(builder, sums, results)

    return sums(one, types.intp, other, starts, types.intp, lanes, sums), build
