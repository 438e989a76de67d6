# mypy: disable-error-code="no-untyped-call"
"""What this core can do at most: float32 multiply-adds, and bytes read from each level of memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from benchmarks.machine import cache_bytes
from benchmarks.measuring import Timing, clock
from nirvana.sparse.vectors import HAS_WIDE_REGISTERS

LANES = 16  # float32 of a vector
CHAINS = 12 if HAS_WIDE_REGISTERS else 6  # sums that do not wait for each other, and fit into the registers
REPEATS = 5
DRAM_BYTES = 2**28
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_TINY_CACHES = {"L1": 2**15, "L2": 2**20, "L3": 2**25}  # where the system does not say
Floats = NDArray[np.float32]
F = TypeVar("F", bound=Callable[..., Any])


def _instruction(function: Any) -> Any:
    """For functions that write LLVM's instructions; a call leaves out the first argument."""
    return intrinsic(function)


def _compile(function: F) -> F:
    njit: Any = numba.njit
    return cast(F, njit(function))


def _compile_fast(function: F) -> F:
    njit: Any = numba.njit
    return cast(F, njit(fastmath=True)(function))


def _spread(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _sum_of(builder: Any, sums: list[Any]) -> Any:
    total = builder.load(sums[0])
    for part in sums[1:]:
        total = builder.fadd(total, builder.load(part), flags=("reassoc",))
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
    reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(reduce, [ir.Constant(ir.FloatType(), 0.0), total], fastmath=("reassoc",))


@_instruction
def _multiply_add(typing: Any, scalar: Any, rounds: Any) -> Any:
    """`rounds` times CHAINS multiply-adds of LANES, in registers."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factor = _spread(builder, arguments[0])
        sums = [cgutils.alloca_once_value(builder, factor) for _ in range(CHAINS)]
        with cgutils.for_range(builder, arguments[1]):
            for part in sums:
                product = builder.fmul(builder.load(part), factor, flags=("contract",))
                builder.store(builder.fadd(product, factor, flags=("contract",)), part)
        return _sum_of(builder, sums)

    return types.float32(types.float32, types.intp), build


@_instruction
def _add_up(typing: Any, array: Any, vectors: Any) -> Any:
    """The sum of the first `vectors` vectors of an array, CHAINS at a time."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        start = builder.bitcast(data, _VECTOR.as_pointer())
        zero = ir.Constant(_VECTOR, None)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(CHAINS)]
        count = builder.sdiv(arguments[1], ir.Constant(arguments[1].type, CHAINS))
        with cgutils.for_range(builder, count) as loop:
            first = builder.mul(loop.index, ir.Constant(loop.index.type, CHAINS))
            for chain, part in enumerate(sums):
                place = builder.gep(start, [builder.add(first, ir.Constant(first.type, chain))])
                builder.store(builder.fadd(builder.load(part), builder.load(place, align=4)), part)
        return _sum_of(builder, sums)

    return types.float32(array, types.intp), build


@_compile
def _run_multiply_add(factor: float, rounds: int) -> float:
    total: float = _multiply_add(np.float32(factor), rounds)
    return total


@_compile
def _read(array: Floats, passes: int) -> float:
    total = 0.0
    for _ in range(passes):
        total += _add_up(array, len(array) // LANES)
    return total


@_compile_fast
def _triad(a: Floats, b: Floats, c: Floats, passes: int) -> None:
    for _ in range(passes):
        for i in range(len(a)):
            a[i] = b[i] + np.float32(3) * c[i]


def peak_gflops() -> dict[str, float]:
    """10^9 float32 operations a second: multiply-adds in registers, and BLAS's product of two matrices."""
    rounds = 2_000_000
    operations = 2.0 * LANES * CHAINS * rounds
    registers = _median(lambda: _run_multiply_add(0.5, rounds))
    one, other = torch.rand(1024, 1024), torch.rand(1024, 1024)
    product = _median(lambda: torch.mm(one, other))
    return {"registers": operations / registers / 1e9, "sgemm": 2.0 * 1024**3 / product / 1e9}


def read_gigabytes() -> dict[str, float]:
    """10^9 bytes a second that one core reads from half of each cache, and from memory."""
    sizes = {level: size // 2 for level, size in (cache_bytes() or _TINY_CACHES).items()}
    return {level: _read_rate(size) for level, size in {**sizes, "DRAM": DRAM_BYTES}.items()}


def triad_gigabytes() -> dict[str, float]:
    """The same for a = b + 3 c: two arrays read and one written, 12 bytes an element."""
    sizes = {level: size // 2 for level, size in (cache_bytes() or _TINY_CACHES).items()}
    return {level: _triad_rate(size) for level, size in {**sizes, "DRAM": DRAM_BYTES}.items()}


def _read_rate(size: int) -> float:
    array = _ones(size // 4)
    passes = max(1, 2**29 // size)
    return passes * array.nbytes / _median(lambda: _read(array, passes)) / 1e9


def _triad_rate(size: int) -> float:
    a, b, c = (_ones(size // 12) for _ in range(3))
    passes = max(1, 2**29 // size)
    return passes * 3 * a.nbytes / _median(lambda: _triad(a, b, c, passes)) / 1e9


def _ones(count: int) -> Floats:
    """Ones that start at a cache line."""
    whole = np.ones(count + LANES, np.float32)
    start = -whole.ctypes.data % (4 * LANES) // 4
    return whole[start : start + count]


def _median(work: Callable[[], object]) -> float:
    """Median processor seconds; one call is made before, which compiles."""
    work()
    timings: list[Timing] = [clock(work) for _ in range(REPEATS)]
    return statistics.median(timing.processor for timing in timings)
