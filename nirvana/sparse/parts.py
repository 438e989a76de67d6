# mypy: disable-error-code="no-untyped-call, attr-defined"
"""How numba compiles functions that are only ever part of others: it makes no machine code of them.

By itself it makes some of each, and optimises each anew wherever it is taken in: two fifths of the time to a
first update.
"""

from __future__ import annotations

from typing import Any

import numba

_TRIED = ((0, 61), (0, 68))  # versions of numba, first and last


def make_pipeline(is_optimised: bool) -> Any:
    """The compiler of such functions, or None in a version of numba that this was not tried with: it leans on
    numba's inside, which others may have changed. They compile longer, to the same numbers.

    Args:
        is_optimised: by itself already, and not only with its callers.
    """
    if not _TRIED[0] <= numba.version_info[:2] <= _TRIED[1]:
        return None
    from numba import _dynfunc
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.compiler_machinery import register_pass
    from numba.core.typed_passes import NativeLowering

    class Part(JITCodeLibrary):
        """A function's code as its callers take it in."""

        def _optimize_final_module(self) -> None:
            if is_optimised:
                super()._optimize_final_module()

        def _finalize_final_module(self) -> None:
            self._finalized = True

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(NativeLowering):
        _name = f"part_lowering_{is_optimised}"

        def run_pass(self, state: Any) -> bool:
            state.library = Part(state.targetctx.codegen(), state.func_id.func_qualname)
            state.flags.no_compile = True
            super().run_pass(state)
            found = state.cr.fndesc
            name, address = found.qualname.rpartition(".")[2], 0  # callers know it by an object of Python's
            stand_in = _dynfunc.make_function(found.lookup_module(), name, "", address, state.cr.env, ())
            state.targetctx.insert_user_function(stand_in, found, [state.library])
            state["cr"] = state.cr._replace(cfunc=stand_in)
            return True

    class Pipeline(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            steps = DefaultPassBuilder.define_nopython_pipeline(self.state)
            steps.passes = [(Lowering if one is NativeLowering else one, why) for one, why in steps.passes]
            steps.finalize()
            return [steps]

    return Pipeline
