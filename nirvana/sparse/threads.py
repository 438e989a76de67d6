# mypy: disable-error-code="no-untyped-call"
"""Several threads at one update: each computes a range of every node's channels, then meets the barrier.

Every number is computed by one thread, in the same way on any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import make_array

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import Integers
from nirvana.sparse.vectors import Definition, call_external, intrinsic

_SPINS_BEFORE_YIELD = 2000  # of a waiting thread's loop, before it lets another run on its core


class ThreadContext(NamedTuple):
    """One of an update's threads: its number from 0, of how many, and how often any arrived at a barrier."""

    thread_id: int
    thread_count: int
    arrivals: Integers


def make_thread_contexts(thread_count: int) -> list[ThreadContext]:
    """Make a context for each of the threads that work on one update."""
    arrivals = np.zeros(8, np.int64)  # a cache line, of which the first is used
    return [ThreadContext(number, thread_count, arrivals) for number in range(thread_count)]


class Threads:
    """A team of threads, this one included; the others begin with the first call that needs them."""

    def __init__(self, count: int) -> None:
        self.contexts = make_thread_contexts(count)
        self._pools = [ThreadPoolExecutor(1) for _ in self.contexts[1:]]

    def run(self, function: Callable[..., Any], *arguments: Any, tail: tuple[Any, ...]) -> Any:
        """Call an entry point on all threads, each with its context, and return this thread's result."""
        futures = [
            pool.submit(function, *arguments, context, *tail)
            for pool, context in zip(self._pools, self.contexts[1:], strict=True)
        ]
        result = function(*arguments, self.contexts[0], *tail)
        for future in futures:
            future.result()
        return result


@compiled
def partition(thread: ThreadContext, size: int) -> tuple[int, int]:
    """Return this thread's range of `size` things."""
    first = size * thread.thread_id // thread.thread_count
    return first, size * (thread.thread_id + 1) // thread.thread_count


@compiled
def barrier(thread: ThreadContext) -> None:
    """Wait until all threads are here."""
    if thread.thread_count > 1:
        goal = (_arrive(thread.arrivals) // thread.thread_count + 1) * thread.thread_count
        spins = 0
        while _load_arrivals(thread.arrivals) < goal:
            spins += 1
            if spins > _SPINS_BEFORE_YIELD:
                _yield_core()


@intrinsic
def _arrive(typing: Any, arrivals: types.Array) -> Definition:
    """Count this thread in, and return how many arrived before it."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        counter = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(arrivals), build


@intrinsic
def _load_arrivals(typing: Any, arrivals: types.Array) -> Definition:
    """Return how many have arrived by now."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        counter = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(counter, "seq_cst", 8)

    return types.int64(arrivals), build


@intrinsic
def _yield_core(typing: Any) -> Definition:
    """Give the core to another thread that wants it, where the system can."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        if hasattr(os, "sched_yield"):
            call_external(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def get_float_mode(typing: Any) -> Definition:
    """Return this thread's floating-point control word (x86-64 and AArch64; elsewhere 0)."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        word = ir.IntType(64)
        if builder.module.triple.startswith("x86_64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            address = builder.bitcast(place, ir.IntType(8).as_pointer())
            call_external(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [address])
            return builder.zext(builder.load(place), word)
        if builder.module.triple.startswith(("aarch64", "arm64")):
            return call_external(builder, "llvm.aarch64.get.fpcr", word, [])
        return ir.Constant(word, 0)

    return types.int64(), build


@intrinsic
def set_float_mode(typing: Any, mode: types.Type, flushes_subnormals: types.Type) -> Definition:
    """Set this thread's control word, and flush subnormals to 0 where asked: they make late training slow."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> ir.Value:
        triple = builder.module.triple
        bits = 0x8040 if triple.startswith("x86_64") else 1 << 24
        word = ir.IntType(64)
        flushed = builder.or_(arguments[0], ir.Constant(word, bits))
        mode = builder.select(arguments[1], flushed, arguments[0])
        if triple.startswith("x86_64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(builder.trunc(mode, ir.IntType(32)), place)
            address = builder.bitcast(place, ir.IntType(8).as_pointer())
            call_external(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [address])
        elif triple.startswith(("aarch64", "arm64")):
            call_external(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), [mode])
        return context.get_dummy_value()

    return types.void(types.int64, types.boolean), build
