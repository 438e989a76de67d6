"""The calls upwards: what lower rooms take from higher ones, imported when it is called.

This is the one place for them. A room never imports a higher one (docs/architecture.md has the order); where
its public surface promises more than it can do, as `ticket.to_torch()` does, or where torch is one of several
engines, the call goes through here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nirvana.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nirvana.format.ticket import Ticket
    from nirvana.networks.architecture import Architecture
    from nirvana.torch.masked import MaskedNetwork
    from nirvana.training.events import Reporter
    from nirvana.training.recipe import Recipe
    from nirvana.training.spec import Arrays, TaskData, TrainResult, TrainSpec, Values

_EXTRAS = {"scipy": "verify"}  # the smallest extra with it; of everything else `lab`


@contextmanager
def needs_lab() -> Iterator[None]:
    """Turn a failed import of torch or scipy into an error that names the extra.

    Raises:
        Unavailable: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "nirvana":  # a mistake of ours, and no extra brings it
            raise
        extra = _EXTRAS.get(package, "lab")
        detail = f"{error.name} is not installed here: pip install 'nirvana-tickets[{extra}]'"
        raise Unavailable(detail) from None


def require(package: str) -> None:
    """Check that a package of the extras `lab` or `verify` is installed, before work that needs it.

    Raises:
        Unavailable: it is not.
    """
    with needs_lab():
        importlib.import_module(package)


def check_recipe(ticket: Ticket) -> Recipe:
    """See `nirvana.training.schedule.check_recipe`."""
    from nirvana.training.schedule import check_recipe as check

    return check(ticket)


def to_safetensors(ticket: Ticket) -> bytes:
    """See `nirvana.exports.arrays.to_safetensors`."""
    from nirvana.exports.arrays import to_safetensors as write

    return write(ticket)


def to_torch(ticket: Ticket) -> MaskedNetwork:
    """See `nirvana.torch.masked.to_torch`."""
    with needs_lab():
        from nirvana.torch.masked import to_torch as convert
    return convert(ticket)


def train_dense(spec: TrainSpec, reporter: Reporter, *, keep_weights: bool = False) -> TrainResult:
    """See `nirvana.torch.dense.train`. Reports that torch is loaded, which takes seconds the first time."""
    is_first = "torch" not in sys.modules
    with needs_lab():
        from nirvana.torch.dense import train
    if is_first:
        total = spec.recipe.steps - spec.initial.start_step
        reporter.report({"kind": "torch", "done": 0, "total": total, "message": "PyTorch is loaded"})
    return train(spec, reporter, keep_weights=keep_weights)


def advance(spec: TrainSpec, steps: int, reporter: Reporter) -> tuple[Values, bool]:
    """See `nirvana.torch.dense.advance`."""
    with needs_lab():
        from nirvana.torch.dense import advance as advance_dense
    return advance_dense(spec, steps, reporter)


def train_replicates(
    specs: Sequence[TrainSpec], reporter: Reporter, *, device: str = "cpu", keep_weights: bool = False
) -> list[TrainResult]:
    """See `nirvana.torch.stacked.train_replicates`."""
    with needs_lab():
        from nirvana.torch.stacked import train_replicates as train_stacked
    return train_stacked(specs, reporter, device=device, keep_weights=keep_weights)


def teacher_logits(spec: TrainSpec, reporter: Reporter) -> NDArray[np.float32]:
    """See `nirvana.torch.dense.teacher_logits`."""
    with needs_lab():
        from nirvana.torch.dense import teacher_logits as logits
    return logits(spec, reporter)


def predict_dense(architecture: Architecture, values: Arrays, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """See `nirvana.torch.evaluate.predict_logits`."""
    with needs_lab():
        from nirvana.torch.evaluate import predict_logits
    return predict_logits(architecture, values, x)


def line_errors(
    architecture: Architecture, data: TaskData, ends: tuple[Arrays, Arrays], points: int, reporter: Reporter
) -> list[float]:
    """See `nirvana.torch.evaluate.line_errors`."""
    with needs_lab():
        from nirvana.torch.evaluate import line_errors as errors
    return errors(architecture, data, ends, points, reporter)


def load_function(code: str) -> Callable[..., Any]:
    """Return the function at `module:name`, such as a method's `find`.

    Raises:
        Unavailable: torch or scipy is not installed, and the module needs it.
    """
    module, _, name = code.partition(":")
    with needs_lab():
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
