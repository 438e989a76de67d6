# mypy: disable-error-code="no-untyped-call"
"""How 16 features of 16 examples get into cells, in registers, and 16 cells back into rows."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.np.arrayobj import make_array

from nirvana.sparse.layout import WIDTH
from nirvana.sparse.vectors import instruction, pointer, vector_type

_EIGHT = ir.VectorType(ir.IntType(32), 8)
_ROUNDS = ((0, 8, 1, 9, 4, 12, 5, 13), (0, 1, 8, 9, 4, 5, 12, 13), (0, 1, 2, 3, 8, 9, 10, 11))


@instruction
def transpose(
    typing: Any,
    x: Any,
    examples: Any,
    at: Any,
    feature: Any,
    scale: Any,
    shift: Any,
    target: Any,
    to: Any,
    step: Any,
) -> Any:
    """16 features of 16 examples from x, (n, features), to target: a feature's examples side by side, the
    features `step` apart.

    x is float32, or uint8 and becomes pixel * scale - shift, rounded twice.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = {
            i: make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1, 4, 5, 6)
        }
        width = builder.extract_value(make_array(signature.args[0])(context, builder, arguments[0]).shape, 1)
        scaled = [_line(builder, arrays[i], arguments[3], vector_type(WIDTH)) for i in (4, 5)]
        rows = []
        for i in range(WIDTH):
            place = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            example = builder.load(builder.gep(arrays[1], [place]))
            start = builder.add(builder.mul(example, width), arguments[3])
            rows.append(_read_row(builder, signature.args[0].dtype, arrays[0], start, scaled))
        _store_turned(context, builder, rows, signature.args[6], *arguments[6:9])
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, examples, integer, integer, scale, shift, target, integer, integer), build


@instruction
def turn(
    typing: Any,
    outputs: Any,
    columns: Any,
    first: Any,
    lane: Any,
    target: Any,
    to: Any,
    apart: Any,
    lanes: Any,
) -> Any:
    """16 lanes of the cells that `columns` names from `first` on, to target: a lane's 16 cells side by side,
    the lanes `apart` from each other."""
    step = WIDTH * len(lanes)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = make_array(signature.args[1])(context, builder, arguments[1]).data
        rows = []
        for i in range(WIDTH):
            place = builder.add(arguments[2], ir.Constant(arguments[2].type, i))
            column = builder.sext(builder.load(builder.gep(places, [place])), arguments[3].type)
            start = builder.add(builder.mul(column, ir.Constant(column.type, step)), arguments[3])
            at = pointer(context, builder, signature.args[0], arguments[0], start, WIDTH)
            rows.append(builder.load(at, align=64))
        _store_turned(context, builder, rows, signature.args[4], *arguments[4:7])
        return context.get_dummy_value()

    integer = types.intp
    return types.void(outputs, columns, integer, integer, target, integer, integer, lanes), build


def _store_turned(
    context: Any, builder: Any, rows: list[Any], kind: Any, target: Any, to: Any, apart: Any
) -> None:
    """16 vectors of 16, as columns, `apart` from each other: by squares of 8, as short registers have it."""
    for first in (0, 8):
        left, right = (_turn(builder, _cut(builder, rows[i : i + 8], first)) for i in (0, 8))
        for i in range(8):
            place = builder.add(to, builder.mul(apart, ir.Constant(apart.type, first + i)))
            for part in (left[i], right[i]):
                builder.store(part, pointer(context, builder, kind, target, place, 8), align=32)
                place = builder.add(place, ir.Constant(place.type, 8))


def _cut(builder: Any, rows: list[Any], first: int) -> list[Any]:
    """Eight of each row's elements."""
    places = ir.Constant(_EIGHT, list(range(first, first + 8)))
    return [builder.shuffle_vector(row, ir.Constant(row.type, ir.Undefined), places) for row in rows]


def _turn(builder: Any, rows: list[Any]) -> list[Any]:
    """Eight vectors of 8 as columns: three rounds of joining two. Two stay within the halves of short
    registers, which is what those are quick at, and leave the columns in another order."""
    for away, low in zip((1, 2, 4), _ROUNDS, strict=True):
        high = [place + max(2, away) for place in low]
        found = list(rows)
        for i in range(8):
            if not i & away:
                pair = (rows[i], rows[i + away])
                found[i], found[i + away] = (
                    builder.shuffle_vector(*pair, ir.Constant(_EIGHT, places)) for places in (low, high)
                )
        rows = found
    return [rows[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)]


def _line(builder: Any, start: Any, index: Any, kind: Any) -> Any:
    """A vector from an array whose elements lie anywhere."""
    return builder.load(builder.bitcast(builder.gep(start, [index]), kind.as_pointer()), align=1)


def _read_row(builder: Any, kind: Any, start: Any, index: Any, scaled: list[Any]) -> Any:
    """16 features of an example as float32."""
    if kind == types.float32:
        return _line(builder, start, index, vector_type(WIDTH))
    pixels = _line(builder, start, index, ir.VectorType(ir.IntType(8), WIDTH))
    wide = builder.zext(pixels, ir.VectorType(ir.IntType(32), WIDTH))
    return builder.fsub(builder.fmul(builder.sitofp(wide, vector_type(WIDTH)), scaled[0]), scaled[1])
