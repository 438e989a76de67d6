"""One training on the kept weights alone; what it reads, when it stops and what it tells are those of
`nirvana.lab.train`, and so are its numbers but for rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.cost import Cost, peak_memory_bytes, training_flops
from nirvana.errors import Cancelled, Invalid, Unavailable
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.sparse.building import build
from nirvana.sparse.choice import find_unsupported
from nirvana.sparse.layout import Floats, Integers
from nirvana.sparse.memory import (
    choose_tile,
    copy_state,
    make_examples,
    make_rule,
    make_space,
    make_state,
    read_splits,
)
from nirvana.sparse.program import State
from nirvana.sparse.threads import Threads, make_shares
from nirvana.training import (
    SECONDS_BETWEEN_EVENTS,
    Point,
    Progress,
    ShouldStop,
    TrainResult,
    Values,
    batch_indices,
    check_start,
    learning_rate,
    point_event,
)

if TYPE_CHECKING:
    from nirvana.tasks import ByteData, TaskData

MOST_AT_ONCE = 100  # updates in one call of compiled code, which Ctrl-C cannot interrupt
Rates = NDArray[np.float64]


def train(
    architecture: Architecture,
    values: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    data: TaskData | ByteData,
    recipe: Recipe,
    order_seed: int,
    *,
    start_step: int = 0,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
    threads: int = 1,
) -> TrainResult:
    """Train masked values from `start_step` to the recipe's last step.

    Arguments and result are those of `nirvana.lab.train.train`.

    Args:
        threads: that work on each update: the numbers are the same on any number. More than one pays where
            an update takes a millisecond or more, and where each has a core of its own.

    Raises:
        InvalidRecipe: no step would be left.
        Unavailable: the sparse engine cannot do this; names the op, the field or the missing package.
        Cancelled: `should_stop` said so.
    """
    check_start(recipe, start_step)
    if unsupported := find_unsupported(architecture, recipe, masks):
        raise Unavailable(f"the sparse engine: {unsupported}")
    started = time.perf_counter()
    run = Run(architecture, values, masks, data, recipe, order_seed, start_step, threads)
    if progress and not is_loaded():
        said = "loading the kernels, which are compiled when they are first used on a machine"
        progress({"kind": "kernels", "done": 0, "total": recipe.steps - start_step, "message": said})
    run.go(progress, should_stop)
    untrained, early, final = run.read_test()
    images = (run.step - start_step) * recipe.batch_size
    flops = training_flops(architecture, masks, images)
    return TrainResult(
        early_stop_step=recipe.steps if run.failed else run.best.step,
        early_stop_test_accuracy=early,
        final_test_accuracy=final,
        untrained_test_accuracy=untrained,
        early_stop_validation_loss=None if run.failed else run.best.loss,
        curve=run.curve,
        cost=Cost(time.perf_counter() - started, images, *flops, peak_memory_bytes()),
        engine="sparse",
        failed=run.failed,
        failed_step=run.step if run.failed else None,
        weights=run.values() if keep_weights else None,
    )


def is_loaded() -> bool:
    """Whether this process has compiled code for updates already."""
    from nirvana.sparse.kernels import visit

    found: Any = visit
    return bool(found.signatures)


@dataclass
class _Best:
    step: int
    loss: float
    state: State


class Run:
    """A training on its way. Arguments as in `train`.

    Attributes:
        step: updates made, counted from initialisation.
        failed: a loss was not finite.
    """

    def __init__(
        self,
        architecture: Architecture,
        values: Mapping[str, Floats],
        masks: Mapping[str, Mask],
        data: TaskData | ByteData,
        recipe: Recipe,
        order_seed: int,
        start_step: int = 0,
        threads: int = 1,
    ) -> None:
        self.recipe, self.first_step = recipe, start_step
        self.program = build(architecture, masks)
        self.splits = read_splits(data, self.program)
        self.lanes, self.pixels = choose_tile(self.program, recipe.batch_size)
        self.threads = Threads(threads)
        self.space = make_space(self.program, self.lanes, recipe.batch_size, threads)
        self.state = make_state(self.program, values)
        self.rule = make_rule(recipe)
        self.batches = batch_indices(order_seed, len(data.train_y), recipe.batch_size, start_step)
        self.step, self.failed, self.losses = start_step, False, list[float]()
        self.start, self.curve = copy_state(self.state), list[Point]()
        self.best = _Best(start_step, math.inf, self.start)

    def values(self) -> Values:
        """Whole tensors as they are now, 0 where pruned."""
        return self.program.unpack(self.state.parameters, self.state.running)

    def go(self, progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Train to the last step, with a look at the validation data every `evaluate_every` updates."""
        steps, every, told = self.recipe.steps, self.recipe.evaluate_every, 0.0
        self._evaluate()
        while self.step < steps and not self.failed:
            self.update_until(min(steps, (self.step // every + 1) * every), should_stop)
            if not self.failed:
                self._evaluate()
            now = time.monotonic()
            if progress and self.curve and (now - told > SECONDS_BETWEEN_EVENTS or self.step == steps):
                told = now
                progress(point_event(self.curve[-1], self.first_step, steps))

    def update_until(self, step: int, should_stop: ShouldStop | None = None) -> None:
        """Updates up to number `step`, or to the first loss that is not finite; one at a time where somebody
        may stop it."""
        while self.step < step and not self.failed:
            numbers = range(self.step, min(self.step + MOST_AT_ONCE, step))
            order = np.stack([next(self.batches) for _ in numbers])
            rates = np.array([learning_rate(self.recipe, number) for number in numbers], np.float64)
            if should_stop:
                self._update_one_by_one(order, rates, should_stop)
            else:
                self._update(order, rates)

    def read_test(self) -> tuple[float, float, float]:
        """Test accuracy untrained, at the early stop and at the end; chance where the training failed."""
        untrained = self._measure("test", self.start)[1]
        if self.failed:
            chance = 1 / self.program.layout.last.channels
            return untrained, chance, chance
        final = self._measure("test", self.state)[1]
        is_end = self.best.step == self.step
        return untrained, final if is_end else self._measure("test", self.best.state)[1], final

    def _update_one_by_one(self, order: Integers, rates: Rates, should_stop: ShouldStop) -> None:
        for i in range(len(order)):
            if should_stop():
                raise Cancelled(f"cancelled at training step {self.step} of {self.recipe.steps}")
            self._update(order[i : i + 1], rates[i : i + 1])
            if self.failed:
                return

    def _update(self, order: Integers, rates: Rates) -> None:
        """One update for each row of `order`, shape (updates, batch)."""
        losses, hits = np.zeros(len(order)), np.zeros(len(order), np.int64)
        made = self._visit("train", order, rates, self.state, losses, hits)
        self.step += made
        self.failed = made < len(order)
        self.losses.extend(losses[:made].tolist())

    def _evaluate(self) -> None:
        loss, accuracy = self._measure("validation", self.state)
        if not math.isfinite(loss):
            self.failed = True
            return
        train_loss = math.fsum(self.losses) / len(self.losses) if self.losses else None
        self.curve.append((self.step, train_loss, loss, accuracy))
        self.losses.clear()
        if loss < self.best.loss:
            self.best = _Best(self.step, loss, copy_state(self.state))

    def _measure(self, split: str, state: State) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on a split."""
        n = len(self.splits[split].labels)
        loss, hits = np.zeros(1), np.zeros(1, np.int64)
        self._visit(split, np.arange(n)[None], np.zeros(0), state, loss, hits)
        return float(loss[0]), int(hits[0]) / n

    def _visit(
        self, split: str, order: Integers, rates: Rates, state: State, losses: Rates, hits: Integers
    ) -> int:
        """`visit` on all threads; it alone knows what its arguments are."""
        from nirvana.sparse.kernels import visit

        made: int = self.threads.run(
            visit,
            *(self.splits[split], order, rates, self.step - self.first_step),
            *(self.program.feed, self.program.network, state, self.space, self.rule, losses, hits),
            tail=(self.lanes, self.pixels),
        )
        return made


def predict_logits(
    architecture: Architecture,
    values: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    x: NDArray[np.float32],
) -> Floats:
    """Logits, float32 (n, classes), of examples x, (n, *input), by the kept weights alone.

    Args:
        values: whole tensors by parameter, and running statistics.

    Raises:
        Unavailable: the sparse engine cannot do this; names the op or the missing package.
        Invalid: another number of features than the network reads.
    """
    if unsupported := find_unsupported(architecture, None, masks):
        raise Unavailable(f"the sparse engine: {unsupported}")
    from nirvana.sparse.kernels import predict

    program = build(architecture, masks)
    if math.prod(x.shape[1:]) != program.layout.input.end:
        expected = f"(n, {', '.join(str(size) for size in architecture.input)})"
        raise Invalid(f"x has shape {x.shape}, expected {expected}")
    found = np.zeros((len(x), program.layout.last.channels), np.float32)
    if len(x):
        lanes, pixels = choose_tile(program, len(x))
        space, state = make_space(program, lanes, min(len(x), MOST_AT_ONCE)), make_state(program, values)
        examples = make_examples(x, np.zeros(len(x), np.int64))
        arguments = (examples, program.feed, program.network, state, space, found)
        predict(*arguments, make_shares(1)[0], lanes, pixels)
    return found
