"""How functions are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from nirvana.sparse.parts import make_pipeline

F = TypeVar("F", bound=Callable[..., Any])


def _find_sources() -> str:
    """What tells the sources of this package from other versions of them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _find_sources()
_PART, _KERNEL = make_pipeline(is_optimised=False), make_pipeline(is_optimised=True)


def _compile(function: F, **options: Any) -> F:
    njit: Any = numba.njit
    return cast(F, njit(error_model="numpy", **options)(function))


def compiled(function: F) -> F:
    """For functions that others call. Python cannot: that spares the compiler much of its work."""
    return _compile_part(function, _PART)


def kernel(function: F) -> F:
    """As `compiled`, for a node's whole work: optimised by itself before it becomes part of its callers,
    whose optimiser is less good at all in one piece (LeNet-300-100 at 3.6 %: 1.1 of the time)."""
    return _compile_part(function, _KERNEL)


def _compile_part(function: F, pipeline: Any) -> F:
    options = {"pipeline_class": pipeline} if pipeline else {}
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


def entry(function: F) -> F:
    """For entry points: kept on disk where numba finds a folder that it may write to, else compiled anew in
    each process. They let other threads run.

    numba's cache looks at the date of an entry point's own file alone. So its name, which is part of the
    cached file's, holds a digest of all files that it may call.
    """
    function.__qualname__ += f"_{_SOURCES}"
    try:
        return _compile(function, cache=True, nogil=True)
    except (RuntimeError, OSError):  # numba found no folder
        return _compile(function, nogil=True)
