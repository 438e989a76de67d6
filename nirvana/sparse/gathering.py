# mypy: disable-error-code="no-untyped-call"
"""Gathers with a transpose of 16 x 16 in registers: from rows of features to rows of lanes, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import VECTOR_WIDTH
from nirvana.sparse.vectors import Definition, intrinsic, vector_pointer, vector_type

_EIGHT = ir.VectorType(ir.IntType(32), 8)
_LOW_LANES = ((0, 8, 1, 9, 4, 12, 5, 13), (0, 1, 8, 9, 4, 5, 12, 13), (0, 1, 2, 3, 8, 9, 10, 11))


@intrinsic
def transpose_examples(
    typing: Any,
    x: types.Array,
    examples: types.Array,
    at: types.Type,
    feature: types.Type,
    scale: types.Array,
    shift: types.Array,
    target: types.Array,
    to: types.Type,
    tile_size: types.Type,
) -> Definition:
    """Copy 16 features of 16 examples from x, (n, features), to target: a feature's examples side by side,
    the features `tile_size` apart.

    x is float32, or uint8 and becomes pixel * scale - shift, rounded twice.
    """

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        arrays = {
            i: make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1, 4, 5, 6)
        }
        width = builder.extract_value(make_array(signature.args[0])(context, builder, arguments[0]).shape, 1)
        scaling = [
            _load_unaligned(builder, arrays[i], arguments[3], vector_type(VECTOR_WIDTH)) for i in (4, 5)
        ]
        rows = []
        for i in range(VECTOR_WIDTH):
            place = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            example = builder.load(builder.gep(arrays[1], [place]))
            start = builder.add(builder.mul(example, width), arguments[3])
            rows.append(_load_features(builder, signature.args[0].dtype, arrays[0], start, scaling))
        _store_transposed(context, builder, rows, signature.args[6], *arguments[6:9])
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, examples, integer, integer, scale, shift, target, integer, integer), build


@intrinsic
def transpose_columns(
    typing: Any,
    outputs: types.Array,
    col_idx: types.Array,
    first: types.Type,
    lane: types.Type,
    target: types.Array,
    to: types.Type,
    stride: types.Type,
    lanes: types.UniTuple,
) -> Definition:
    """Copy 16 lanes of the 16 columns that `col_idx` holds from `first` on to target: a lane's columns side
    by side, the lanes `stride` apart."""
    tile_size = VECTOR_WIDTH * len(lanes)

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        indices = make_array(signature.args[1])(context, builder, arguments[1]).data
        rows = []
        for i in range(VECTOR_WIDTH):
            place = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            column = builder.sext(builder.load(builder.gep(indices, [place])), arguments[3].type)
            start = builder.add(builder.mul(column, ir.Constant(column.type, tile_size)), arguments[3])
            at = vector_pointer(context, builder, signature.args[0], arguments[0], start, VECTOR_WIDTH)
            rows.append(builder.load(at, align=64))
        _store_transposed(context, builder, rows, signature.args[4], *arguments[4:7])
        return context.get_dummy_value()

    integer = types.intp
    return types.void(outputs, col_idx, integer, integer, target, integer, integer, lanes), build


def _store_transposed(
    context: Any,
    builder: ir.IRBuilder,
    rows: list[ir.Value],
    kind: types.Type,
    target: ir.Value,
    to: ir.Value,
    stride: ir.Value,
) -> None:
    """Store 16 vectors of 16 as columns, `stride` apart: by blocks of 8 x 8, which suit short registers."""
    for first in (0, 8):
        left, right = (_transpose_8x8(builder, _take_eight(builder, rows[i : i + 8], first)) for i in (0, 8))
        for i in range(8):
            place = builder.add(to, builder.mul(stride, ir.Constant(stride.type, first + i)))
            for half in (left[i], right[i]):
                builder.store(half, vector_pointer(context, builder, kind, target, place, 8), align=32)
                place = builder.add(place, ir.Constant(place.type, 8))


def _take_eight(builder: ir.IRBuilder, rows: Iterable[ir.Value], first: int) -> list[ir.Value]:
    """Return eight of each row's elements."""
    lanes = ir.Constant(_EIGHT, list(range(first, first + 8)))
    return [builder.shuffle_vector(row, ir.Constant(row.type, ir.Undefined), lanes) for row in rows]


def _transpose_8x8(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transpose eight vectors of 8: three rounds of joining two. Two rounds stay within the halves of short
    registers, which is what those are quick at, and leave the columns in another order."""
    for distance, low in zip((1, 2, 4), _LOW_LANES, strict=True):
        high = [lane + max(2, distance) for lane in low]
        joined = list(rows)
        for i in range(8):
            if not i & distance:
                pair = (rows[i], rows[i + distance])
                joined[i], joined[i + distance] = (
                    builder.shuffle_vector(*pair, ir.Constant(_EIGHT, lanes)) for lanes in (low, high)
                )
        rows = joined
    return [rows[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)]


def _load_unaligned(builder: ir.IRBuilder, start: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
    """Return a vector from an array with any alignment."""
    return builder.load(builder.bitcast(builder.gep(start, [index]), kind.as_pointer()), align=1)


def _load_features(
    builder: ir.IRBuilder, kind: types.Type, start: ir.Value, index: ir.Value, scaling: list[ir.Value]
) -> ir.Value:
    """Return 16 features of an example as float32."""
    if kind == types.float32:
        return _load_unaligned(builder, start, index, vector_type(VECTOR_WIDTH))
    pixels = _load_unaligned(builder, start, index, ir.VectorType(ir.IntType(8), VECTOR_WIDTH))
    wide = builder.zext(pixels, ir.VectorType(ir.IntType(32), VECTOR_WIDTH))
    return builder.fsub(builder.fmul(builder.sitofp(wide, vector_type(VECTOR_WIDTH)), scaling[0]), scaling[1])
