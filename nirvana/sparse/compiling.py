"""How functions are compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _find_sources() -> str:
    """What tells the sources of this package from other versions of them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _find_sources()


def _compile(function: F, **options: bool) -> F:
    njit: Any = numba.njit
    return cast(F, njit(error_model="numpy", **options)(function))


def compiled(function: F) -> F:
    """For functions that entry points call. Python cannot: that spares the compiler a quarter of its work."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


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
