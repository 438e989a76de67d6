"""The one training loop. Read from top to bottom it is the experiment.

A backend does the arithmetic of one training, or of several replicates of one network side by side: torch
(`nirvana.torch.dense`), torch with stacked replicates (`nirvana.torch.stacked`) or the kernels of
`nirvana.sparse`. The loop decides what each update sees, when the validation data are looked at, which
weights are the early stop's, what counts as a failure, and when the test data are read: once, at the end.

Shape suffixes: U updates, R replicates, B batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nirvana.format.initial import Index
from nirvana.training.cost import Cost, peak_memory_bytes, training_flops
from nirvana.training.events import SECONDS_BETWEEN_POINTS, Point, Reporter, point_event
from nirvana.training.recipe import learning_rate
from nirvana.training.schedule import batch_indices, check_start
from nirvana.training.spec import TestAccuracies, TrainResult, TrainSpec, Values

UPDATES_AT_ONCE = 100  # whose order is laid out together; compiled code cannot be interrupted between them
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
State = TypeVar("State")


class Backend(Protocol[State]):
    """The arithmetic of R trainings of one network, which start together.

    Attributes:
        engine: `dense`, `sparse` or `stacked`.
    """

    engine: str

    def update(self, first: int, order_URB: Index, rates_U: Floats, reporter: Reporter) -> Floats:
        """Make updates number `first` and on, and stop after the first one that leaves no finite loss at all.

        Args:
            order_URB: indices of training examples. rates_U: learning rates.
            reporter: its `check_stop` is asked before every update.

        Returns:
            losses, float64, (updates made, R).

        Raises:
            Cancelled: the reporter said so.
        """

    def evaluate(self, split: str, state: State | None = None) -> tuple[Floats, Floats]:
        """Return mean cross-entropies, (R,), and accuracies, (R,), on a split.

        Args:
            split: train, validation, test or sealed.
            state: what to evaluate; None is the state as it is now, whose pruned weights are checked.
        """

    def snapshot(self, best: State | None, better_R: Flags) -> State:
        """Return `best` with the state as it is now of those replicates; None has none yet."""

    def values(self, replicate: int = 0) -> Values:
        """Return copies of a replicate's parameters and running statistics as they are now."""


class Loop(Generic[State]):
    """Trainings on their way.

    Args:
        backend: of these trainings.
        specs: one a replicate; architecture, data, recipe, teacher and start step are the same in all.
        reporters: one a replicate; the first one's wish to stop counts.

    Attributes:
        step: updates made, counted from initialisation.
        failed_steps: of each replicate, the update at which its loss was not finite, or None.
        curves: of each replicate.
    """

    def __init__(
        self, backend: Backend[State], specs: Sequence[TrainSpec], reporters: Sequence[Reporter]
    ) -> None:
        self.backend, self.specs, self.reporters = backend, specs, reporters
        self.recipe, self.step = specs[0].recipe, specs[0].initial.start_step
        self.first_step, n = self.step, len(specs[0].data.train_y)
        seeds = [spec.initial.order_seed for spec in specs]
        self._batches = [batch_indices(seed, n, self.recipe.batch_size, self.step) for seed in seeds]
        self.failed_steps: list[int | None] = [None] * len(specs)
        self.curves = [list[Point]() for _ in specs]
        self._losses = list[Floats]()  # since the last evaluation
        everyone = np.ones(len(specs), bool)
        self._start, self._best = backend.snapshot(None, everyone), backend.snapshot(None, everyone)
        self._best_points = [(self.step, math.inf)] * len(specs)  # (step, validation loss)

    @property
    def alive(self) -> list[int]:
        """The replicates that have not failed."""
        return [place for place, step in enumerate(self.failed_steps) if step is None]

    def run(self) -> None:
        """Train to the last step, with an evaluation every `evaluate_every` updates and before the first."""
        steps, every, reported = self.recipe.steps, self.recipe.evaluate_every, 0.0
        self.evaluate()
        while self.step < steps and self.alive:
            self.update_until(min(steps, (self.step // every + 1) * every))
            self.evaluate()
            now = time.monotonic()
            if now - reported > SECONDS_BETWEEN_POINTS or self.step == steps:
                reported = now
                self._report()

    def update_until(self, step: int) -> None:
        """Make updates up to number `step`, or until every replicate has failed."""
        while self.step < step and self.alive:
            numbers = range(self.step, min(self.step + UPDATES_AT_ONCE, step))
            orders = [np.stack([next(batch) for _ in numbers]) for batch in self._batches]
            order_URB = np.stack(orders, axis=1)
            rates_U = np.array([learning_rate(self.recipe, number) for number in numbers], np.float64)
            losses_UR = self.backend.update(self.step, order_URB, rates_U, self.reporters[0])
            self._keep_losses(losses_UR)

    def evaluate(self) -> None:
        """Look at the validation data; the least loss so far is the early stop's."""
        if not self.alive:
            return
        losses_R, accuracies_R = (part.tolist() for part in self.backend.evaluate("validation"))
        train_losses_R = self._mean_losses()
        better_R = np.zeros(len(self.specs), bool)
        for place in self.alive:
            if not math.isfinite(losses_R[place]):
                self.failed_steps[place] = self.step
                continue
            point = (self.step, train_losses_R[place], losses_R[place], accuracies_R[place])
            self.curves[place].append(point)
            if losses_R[place] < self._best_points[place][1]:
                self._best_points[place], better_R[place] = (self.step, losses_R[place]), True
        if better_R.any():
            self._best = self.backend.snapshot(self._best, better_R)

    def read_test(self, split: str = "test") -> list[TestAccuracies]:
        """Return each replicate's accuracies on `test` or `sealed`."""
        chance = 1 / self.specs[0].architecture.output_shape[-1]
        untrained_R = self._test(split, self._start)
        if not self.alive:
            return [TestAccuracies(untrained, chance, chance) for untrained in untrained_R]
        final_R = self._test(split, None)
        ends_best = all(self._best_points[place][0] == self.step for place in self.alive)
        early_R = final_R if ends_best else self._test(split, self._best)
        measured = zip(untrained_R, early_R, final_R, self.failed_steps, strict=True)
        return [
            TestAccuracies(a, *((b, c) if failed is None else (chance, chance)))
            for a, b, c, failed in measured
        ]

    def result(
        self,
        place: int,
        tests: TestAccuracies,
        sealed: TestAccuracies | None,
        seconds: float,
        *,
        keep_weights: bool = False,
    ) -> TrainResult:
        """Return what the replicate at `place` measured.

        Args:
            tests, sealed: its entries of `read_test`. seconds: its share of the whole.
        """
        failed_step, (best_step, best_loss) = self.failed_steps[place], self._best_points[place]
        failed, spec = failed_step is not None, self.specs[place]
        updates = (self.step if failed_step is None else failed_step) - self.first_step
        images = updates * self.recipe.batch_size
        flops = training_flops(spec.architecture, spec.initial.masks, images)
        return TrainResult(
            early_stop_step=self.recipe.steps if failed else best_step,
            early_stop_test_accuracy=tests.early_stop,
            final_test_accuracy=tests.final,
            untrained_test_accuracy=tests.untrained,
            early_stop_validation_loss=None if failed else best_loss,
            curve=self.curves[place],
            cost=Cost(seconds, images, *flops, peak_memory_bytes()),
            engine=self.backend.engine,
            failed=failed,
            failed_step=failed_step,
            weights=self.backend.values(place) if keep_weights else None,
            sealed=sealed,
        )

    def _keep_losses(self, losses_UR: Floats) -> None:
        """Count the updates that were made, and note who failed at which."""
        for place in self.alive:
            broken = np.flatnonzero(~np.isfinite(losses_UR[:, place]))
            if len(broken):
                self.failed_steps[place] = self.step + int(broken[0])
        ends = [step for step in self.failed_steps if step is not None]
        self.step = self.step + len(losses_UR) if self.alive else max(ends)
        self._losses.append(losses_UR)

    def _mean_losses(self) -> list[float | None]:
        """Return each replicate's mean training loss since the last evaluation."""
        losses_UR = np.concatenate(self._losses) if self._losses else np.zeros((0, len(self.specs)))
        self._losses.clear()
        return [math.fsum(column) / len(column) if len(column) else None for column in losses_UR.T.tolist()]

    def _test(self, split: str, state: State | None) -> list[float]:
        accuracies: list[float] = self.backend.evaluate(split, state)[1].tolist()
        return accuracies

    def _report(self) -> None:
        for place in self.alive:
            if self.curves[place]:
                event = point_event(self.curves[place][-1], self.first_step, self.recipe.steps)
                self.reporters[place].report(event)


def train(
    make_backend: Callable[[], Backend[State]],
    specs: Sequence[TrainSpec],
    reporters: Sequence[Reporter],
    *,
    keep_weights: bool = False,
) -> list[TrainResult]:
    """Train from the start step to the recipe's last step, and measure.

    Args:
        make_backend: makes the backend of these specs; its time counts.

    Raises:
        InvalidRecipe: no step would be left. Cancelled: a reporter said so.
    """
    for spec in specs:
        check_start(spec.recipe, spec.initial.start_step)
    started = time.perf_counter()
    loop = Loop(make_backend(), specs, reporters)
    loop.run()
    tests = loop.read_test()
    sealed = loop.read_test("sealed") if specs[0].sealed else [None] * len(specs)
    seconds = (time.perf_counter() - started) / len(specs)
    return [
        loop.result(place, *read, seconds, keep_weights=keep_weights)
        for place, read in enumerate(zip(tests, sealed, strict=True))
    ]
