# mypy: disable-error-code="no-untyped-call"
"""Several threads at one update: each does its share of every node's channels, and all wait for one another
between nodes. Every number is computed by one thread, in the same way on any number of threads.
"""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.np.arrayobj import make_array

from nirvana.sparse.compiling import compiled
from nirvana.sparse.threads import Share
from nirvana.sparse.vectors import call, instruction

_TURNS = 2000  # round a waiting thread's loop before it lets another run on its core


@instruction
def _arrive(typing: Any, arrivals: Any) -> Any:
    """Count this thread in; how many have arrived before it."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(arrivals), build


@instruction
def _count(typing: Any, arrivals: Any) -> Any:
    """How many have arrived by now."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(arrivals), build


@instruction
def _let_others_run(typing: Any) -> Any:
    """Give the core to another thread that wants it, where the system has a word for that."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if hasattr(os, "sched_yield"):
            call(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(), build


@compiled
def part(share: Share, size: int) -> tuple[int, int]:
    """The range of `size` things that is this thread's."""
    return size * share.number // share.threads, size * (share.number + 1) // share.threads


@compiled
def wait(share: Share) -> None:
    """Until all threads are here."""
    if share.threads > 1:
        goal = (_arrive(share.arrivals) // share.threads + 1) * share.threads
        turns = 0
        while _count(share.arrivals) < goal:
            turns += 1
            if turns > _TURNS:
                _let_others_run()
