"""Training on the kept weights alone: the loop's backend, whose numbers are those of the dense engine but
for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Unavailable
from nirvana.format.initial import Index
from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.sparse.building import build
from nirvana.sparse.choice import find_unsupported
from nirvana.sparse.layout import Floats, Integers
from nirvana.sparse.memory import (
    choose_tile,
    copy_state,
    make_examples,
    make_optimizer_params,
    make_state,
    make_workspace,
    read_splits,
)
from nirvana.sparse.program import State
from nirvana.training import loop
from nirvana.training.events import SILENT, Reporter
from nirvana.training.schedule import check_start
from nirvana.training.spec import TrainResult, TrainSpec, Values

Doubles = NDArray[np.float64]


def train(
    spec: TrainSpec, reporter: Reporter = SILENT, *, keep_weights: bool = False, threads: int = 1
) -> TrainResult:
    """Train on the sparse engine; see `nirvana.training.loop.train`.

    Args:
        threads: that work on each update: the numbers are the same on any number. More than one pays where
            an update takes a millisecond or more, and where each has a core of its own.

    Raises:
        InvalidRecipe: no step would be left.
        Unavailable: the sparse engine cannot do this; names the op, the field or the missing package.
        Cancelled: the reporter said so.
    """
    check_start(spec.recipe, spec.initial.start_step)
    _refuse(find_unsupported(spec.architecture, spec.recipe, spec.initial.masks))
    if not is_loaded():
        message = "loading the kernels, which are compiled when they are first used on a machine"
        total = spec.recipe.steps - spec.initial.start_step
        reporter.report({"kind": "kernels", "done": 0, "total": total, "message": message})
    (result,) = loop.train(partial(Sparse, spec, threads), [spec], [reporter], keep_weights=keep_weights)
    return result


def advance(spec: TrainSpec, steps: int, reporter: Reporter = SILENT) -> tuple[Values, bool]:
    """Return the values after the recipe's first `steps` updates, and whether every loss was finite; see
    `nirvana.engines.advance`."""
    _refuse(find_unsupported(spec.architecture, spec.recipe, spec.initial.masks))
    training = loop.Loop(Sparse(spec), [spec], [reporter])
    training.update_until(steps)
    return training.backend.values(), bool(training.alive)


def is_loaded() -> bool:
    """Return whether this process has compiled code for updates already."""
    from nirvana.sparse.kernels import run_batches

    entry_point: Any = run_batches
    return bool(entry_point.signatures)


class Sparse:
    """One training on the kept weights: the loop's backend. Arguments as in `train`."""

    engine = "sparse"

    def __init__(self, spec: TrainSpec, threads: int = 1) -> None:
        from nirvana.sparse.threads import Threads

        architecture, initial, recipe = spec.architecture, spec.initial, spec.recipe
        self.steps, self.first_step = recipe.steps, initial.start_step
        self.program = build(architecture, initial.masks)
        self.splits = read_splits(spec, self.program)
        self.lanes, self.all_ops = choose_tile(self.program, recipe.batch_size)
        self.threads = Threads(threads)
        self.workspace = make_workspace(self.program, self.lanes, recipe.batch_size, threads)
        self.state = make_state(self.program, initial.values)
        self.params = make_optimizer_params(recipe)

    def update(self, first: int, order_URB: Index, rates_U: Doubles, reporter: Reporter) -> Doubles:
        """See `nirvana.training.loop.Backend.update`; one at a time where somebody may stop it."""
        order_UB = order_URB[:, 0]
        if not reporter.should_stop:
            return self._update(first, order_UB, rates_U)
        losses = list[Doubles]()
        for i in range(len(order_UB)):
            reporter.check_stop("at training step {} of {}", first + i, self.steps)
            losses.append(self._update(first + i, order_UB[i : i + 1], rates_U[i : i + 1]))
            if not np.isfinite(losses[-1]).all():
                break
        return np.concatenate(losses)

    def evaluate(self, split: str, state: State | None = None) -> tuple[Doubles, Doubles]:
        """See `nirvana.training.loop.Backend.evaluate`; pruned weights are not there to be checked."""
        n = len(self.splits[split].labels)
        loss, hits = np.zeros(1), np.zeros(1, np.int64)
        self._run_batches(split, 0, np.arange(n)[None], np.zeros(0), state or self.state, loss, hits)
        return loss, hits / n

    def snapshot(self, best: State | None, better_R: NDArray[np.bool_]) -> State:
        """See `nirvana.training.loop.Backend.snapshot`."""
        return copy_state(self.state)

    def values(self, replicate: int = 0) -> Values:
        """Return whole tensors as they are now, 0 where pruned."""
        return self.program.unpack(self.state.parameters, self.state.running)

    def _update(self, first: int, order_UB: Integers, rates_U: Doubles) -> Doubles:
        """Make an update for each row of the order; losses are (made, 1), the last one NaN if not finite."""
        losses, hits = np.zeros(len(order_UB)), np.zeros(len(order_UB), np.int64)
        made = self._run_batches("train", first, order_UB, rates_U, self.state, losses, hits)
        if made < len(order_UB):
            losses = np.append(losses[:made], np.nan)
        return losses[:, None]

    def _run_batches(
        self,
        split: str,
        first: int,
        order: Integers,
        rates: Doubles,
        state: State,
        losses: Doubles,
        hits: Integers,
    ) -> int:
        """Call `run_batches` on all threads; this alone knows its arguments."""
        from nirvana.sparse.kernels import run_batches

        made: int = self.threads.run(
            run_batches,
            *(self.splits[split], order, rates, first - self.first_step),
            *(self.program.input_gather, self.program.network),
            *(state, self.workspace, self.params, losses, hits),
            tail=(self.lanes, self.all_ops),
        )
        return made


def predict_logits(
    architecture: Architecture,
    values: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    x: NDArray[np.float32],
) -> Floats:
    """Return logits, float32 (n, classes), of examples x, (n, *input), by the kept weights alone.

    Args:
        values: whole tensors by parameter, and running statistics.

    Raises:
        Unavailable: the sparse engine cannot do this; names the op or the missing package.
        Invalid: another number of features than the network reads.
    """
    _refuse(find_unsupported(architecture, None, masks))
    from nirvana.sparse.kernels import predict
    from nirvana.sparse.threads import make_thread_contexts

    program = build(architecture, masks)
    if math.prod(x.shape[1:]) != program.layout.input.end:
        expected = f"(n, {', '.join(str(size) for size in architecture.input)})"
        raise Invalid(f"x has shape {x.shape}, expected {expected}")
    logits = np.zeros((len(x), program.layout.logits.channels), np.float32)
    if len(x):
        lanes, all_ops = choose_tile(program, len(x))
        workspace = make_workspace(program, lanes, min(len(x), loop.UPDATES_AT_ONCE))
        state, examples = make_state(program, values), make_examples(x, np.zeros(len(x), np.int64))
        arguments = (examples, program.input_gather, program.network, state, workspace, logits)
        predict(*arguments, make_thread_contexts(1)[0], lanes, all_ops)
    return logits


def _refuse(reason: str | None) -> None:
    if reason:
        raise Unavailable(f"the sparse engine: {reason}")
