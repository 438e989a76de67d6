# mypy: disable-error-code="no-untyped-call, attr-defined"
"""The compiler's options: decorators for compiled functions, and a shorter pipeline for inlined ones.

By itself numba makes machine code of each function, and optimises each anew wherever it is inlined: two
fifths of the time to a first update. Functions that are only ever part of others are compiled without that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
_TESTED = ((0, 61), (0, 68))  # versions of numba, first and last


def make_inline_pipeline(is_optimised: bool) -> Any:
    """Make the compiler of functions that are only ever inlined.

    It leans on numba's internals, which other versions may have changed: they compile longer, to the same
    numbers.

    Args:
        is_optimised: by itself already, and not only with its callers.

    Returns:
        a class for numba's `pipeline_class`, or None in a version of numba that this was not tested with.
    """
    if not _TESTED[0] <= numba.version_info[:2] <= _TESTED[1]:
        return None
    from numba import _dynfunc
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.compiler_machinery import register_pass
    from numba.core.typed_passes import NativeLowering

    class InlineLibrary(JITCodeLibrary):
        """A function's code as its callers inline it: never finished as machine code."""

        def _optimize_final_module(self) -> None:
            if is_optimised:
                super()._optimize_final_module()

        def _finalize_final_module(self) -> None:
            self._finalized = True

    @register_pass(mutates_CFG=True, analysis_only=False)
    class InlineLowering(NativeLowering):
        _name = f"inline_lowering_{is_optimised}"

        def run_pass(self, state: Any) -> bool:
            state.library = InlineLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            descriptor = state.cr.fndesc
            name, address = descriptor.qualname.rpartition(".")[2], 0  # callers know it by a Python object
            module = descriptor.lookup_module()
            stand_in = _dynfunc.make_function(module, name, "", address, state.cr.env, ())
            state.targetctx.insert_user_function(stand_in, descriptor, [state.library])
            state["cr"] = state.cr._replace(cfunc=stand_in)
            return True

    class InlinePipeline(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
            builder.passes = [
                (InlineLowering if one is NativeLowering else one, reason) for one, reason in builder.passes
            ]
            builder.finalize()
            return [builder]

    return InlinePipeline


def _digest_sources() -> str:
    """Return a digest of all of this package's sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_SOURCES = _digest_sources()
_INLINE, _KERNEL = make_inline_pipeline(is_optimised=False), make_inline_pipeline(is_optimised=True)


def compiled(function: F) -> F:
    """Compile a function for compiled callers alone: a wrapper for Python is much of the compiler's work."""
    return _compile_inline(function, _INLINE)


def kernel(function: F) -> F:
    """Compile a node's whole work, as `compiled` does, but optimise it by itself before it is inlined: the
    optimiser is less good at all of it in one piece (LeNet-300-100 at 3.6 %: 1.1 of the time)."""
    return _compile_inline(function, _KERNEL)


def entry_point(function: F) -> F:
    """Compile a function that Python calls: it lets other threads run, and is kept on disk where numba finds
    a folder that it may write to, else compiled anew in each process.

    Numba's cache looks at the date of an entry point's own file alone. So its name, which is part of the
    cached file's, holds a digest of all files that it may call.
    """
    function.__qualname__ += f"_{_SOURCES}"
    try:
        return _compile(function, cache=True, nogil=True)
    except (RuntimeError, OSError):  # numba found no folder
        return _compile(function, nogil=True)


def _compile_inline(function: F, pipeline: Any) -> F:
    options = {"pipeline_class": pipeline} if pipeline else {}
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


def _compile(function: F, **options: Any) -> F:
    njit: Any = numba.njit
    return cast(F, njit(error_model="numpy", **options)(function))
