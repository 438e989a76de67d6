# mypy: disable-error-code="no-untyped-call"
"""What convolutions do with vectors of lanes: some pixels of one weight, or one pixel of some weights."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import WIDTH
from nirvana.sparse.vectors import REGISTER, Lanes, instruction, pointer, spread_scalar, vector_type


@instruction
def load_pixels(typing: Any, array: Any, index: Any, right: Any, down: Any, lanes: Any, pixels: Any) -> Any:
    """The lanes of as many pixels as `pixels` has items, a tuple of vectors: one, or half of them in each of
    two rows. The first is at `index`; the others are `right` of their neighbour, or `down` from the one
    above."""
    found = types.UniTuple(Lanes(WIDTH * len(lanes)), len(pixels))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = _pixels(context, builder, signature.args[0], arguments[:4], found)
        return context.make_tuple(builder, found, [builder.load(place, align=64) for place in places])

    return found(array, types.intp, types.intp, types.intp, lanes, pixels), build


@instruction
def store_pixels(typing: Any, array: Any, index: Any, right: Any, down: Any, vectors: Any) -> Any:
    """Put what `load_pixels` takes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = _pixels(context, builder, signature.args[0], arguments[:4], vectors)
        for place, vector in zip(places, cgutils.unpack_tuple(builder, arguments[4]), strict=True):
            builder.store(vector, place, align=64)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, vectors), build


@instruction
def multiply_add_pixels(
    typing: Any, scalar: Any, array: Any, index: Any, right: Any, down: Any, sums: Any
) -> Any:
    """To each of several sums, scalar x what `load_pixels` takes there."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor = spread_scalar(builder, arguments[0], sums.dtype.count)
        places = _pixels(context, builder, signature.args[1], arguments[1:5], sums)
        found = []
        for place, total in zip(places, cgutils.unpack_tuple(builder, arguments[5]), strict=True):
            product = builder.fmul(factor, builder.load(place, align=64), flags=("contract",))
            found.append(builder.fadd(product, total, flags=("contract",)))
        return context.make_tuple(builder, sums, found)

    return sums(types.float32, array, types.intp, types.intp, types.intp, sums), build


def _pixels(context: Any, builder: Any, kind: Any, corner: Any, vectors: Any) -> list[Any]:
    """Pointers to as many pixels as a tuple has vectors, from (array, the first one's start, right, down).

    Each is the first one's and a distance that a loop over weights need not compute anew.
    """
    array, index, right, down = corner
    first = builder.gep(make_array(kind)(context, builder, array).data, [index])
    row = [builder.mul(right, ir.Constant(right.type, i)) for i in range(max(1, vectors.count // 2))]
    away = [*row, *(builder.add(down, one) for one in row)][: vectors.count]
    pixel = vector_type(vectors.dtype.count).as_pointer()
    return [builder.bitcast(builder.gep(first, [one]), pixel) for one in away]


@instruction
def pick(typing: Any, array: Any, first: Any, last: Any, scale: Any, some: Any) -> Any:
    """As many neighbours of an array of int32 as `some` has items, x scale; the last for those after it."""
    found = types.UniTuple(types.intp, len(some))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, picked = make_array(signature.args[0])(context, builder, arguments[0]).data, []
        for i in range(len(some)):
            place = builder.add(arguments[1], ir.Constant(arguments[1].type, i))
            is_there = builder.icmp_signed("<", place, arguments[2])
            place = builder.select(is_there, place, arguments[2])
            one = builder.sext(builder.load(builder.gep(start, [place])), arguments[3].type)
            picked.append(builder.mul(one, arguments[3]))
        return context.make_tuple(builder, found, picked)

    return found(array, types.intp, types.intp, types.intp, some), build


@instruction
def start_sums(typing: Any, some: Any) -> Any:
    """A tuple of zeros, a register for each item of `some`."""
    found = types.UniTuple(Lanes(REGISTER), len(some))

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_tuple(builder, found, [ir.Constant(vector_type(REGISTER), None)] * len(some))

    return found(some), build


@instruction
def meet(typing: Any, one: Any, index: Any, other: Any, starts: Any, away: Any, lanes: Any, sums: Any) -> Any:
    """To each of several sums, a register each, add the lanes of array `one` at index x those of `other` that
    are `away` from the sum's start."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, found = signature.args, cgutils.unpack_tuple(builder, arguments[6])
        starts = cgutils.unpack_tuple(builder, arguments[3])
        first = make_array(kinds[2])(context, builder, arguments[2]).data
        bases = [builder.gep(first, [start]) for start in starts]
        for part in range(0, WIDTH * len(lanes), REGISTER):
            place, move = (builder.add(at, ir.Constant(at.type, part)) for at in (arguments[1], arguments[4]))
            met = builder.load(pointer(context, builder, kinds[0], arguments[0], place, REGISTER), align=32)
            for i, base in enumerate(bases):
                at = builder.bitcast(builder.gep(base, [move]), vector_type(REGISTER).as_pointer())
                product = builder.fmul(met, builder.load(at, align=32), flags=("contract",))
                found[i] = builder.fadd(product, found[i], flags=("contract",))
        return context.make_tuple(builder, sums, found)

    return sums(one, types.intp, other, starts, types.intp, lanes, sums), build
