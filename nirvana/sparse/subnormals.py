# mypy: disable-error-code="no-untyped-call"
"""Whether a thread takes numbers below float32's normal range as 0: with them, training gets slow late on."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from nirvana.sparse.vectors import call, instruction


@instruction
def float_mode(typing: Any) -> Any:
    """This thread's floating-point control word (x86-64 and AArch64; elsewhere 0)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        if builder.module.triple.startswith("x86_64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            call(
                builder,
                "llvm.x86.sse.stmxcsr",
                ir.VoidType(),
                [builder.bitcast(place, ir.IntType(8).as_pointer())],
            )
            return builder.zext(builder.load(place), word)
        if builder.module.triple.startswith(("aarch64", "arm64")):
            return call(builder, "llvm.aarch64.get.fpcr", word, [])
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
            call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [address])
        elif triple.startswith(("aarch64", "arm64")):
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [mode])
        return context.get_dummy_value()

    return types.void(types.int64, types.boolean), build
