"""What a method that finds one mask is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import TrainingFailed
from nirvana.lab.distillation import teacher_logits
from nirvana.lab.methods.ranking import Masks, kept_at
from nirvana.lab.train import Run, train
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop, TrainResult, Values, check_start


@dataclass(frozen=True)
class Search:
    """A dense start, the data and a density to reach.

    Attributes:
        ticket: of level 0: nothing pruned; its architecture, prunable parameters and initial values.
        seed: of the data's order and of every draw.
        density: share of prunable weights to keep, in (0, 1).
    """

    ticket: Ticket
    data: TaskData
    recipe: Recipe
    seed: int
    density: float
    progress: Progress | None = None
    should_stop: ShouldStop | None = None

    @cached_property
    def values(self) -> Values:
        """Initial values by parameter, whole tensors: not to be written to."""
        return self.ticket.initial_values()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each prunable parameter."""
        return self.ticket.prunable_shapes

    @property
    def keep(self) -> int:
        """Prunable weights to keep in all."""
        return kept_at(self.density, self.ticket.total)

    @property
    def first_step(self) -> int:
        """The update at which a training of these values starts."""
        return self.recipe.first_step(self.ticket.start.rewind_step)

    @cached_property
    def teacher(self) -> NDArray[np.float32] | None:
        """Logits of the training examples by the dense teacher, where the recipe distils."""
        if not self.recipe.distillation:
            return None
        whole = self.ticket.dense_initial_values()
        assert whole is not None
        architecture, stop = self.ticket.architecture, self.should_stop
        return teacher_logits(architecture, whole, self.data, self.recipe, should_stop=stop)

    def train_dense(self, recipe: Recipe | None = None) -> TrainResult:
        """One dense training from the initial values, its last weights kept.

        Raises:
            TrainingFailed: a loss was not finite; names the method and the step.
            Cancelled: `should_stop` said so.
        """
        result = train(
            self.ticket.architecture,
            self.values,
            {},
            self.data,
            recipe or self.recipe,
            self.seed,
            start_step=self.first_step,
            progress=self.progress,
            should_stop=self.should_stop,
            keep_weights=True,
            teacher=self.teacher,
        )
        if result.failed:
            raise self.failure(result.failed_step)
        return result

    def start_dense(self) -> Run:
        """A dense training at its first step, to be driven with `update` inside `deterministic(seed)`.

        Raises:
            InvalidRecipe: no step would be left.
        """
        check_start(self.recipe, self.first_step)
        architecture, seed, first = self.ticket.architecture, self.seed, self.first_step
        return Run(architecture, self.values, {}, self.data, self.recipe, seed, first, teacher=self.teacher)

    def update(self, run: Run, step: int) -> None:
        """Updates up to number `step`.

        Raises:
            TrainingFailed, Cancelled: as in `train_dense`; also where a weight is no finite number any more.
        """
        run.update_until(step, self.should_stop)
        if run.failed or not all(bool(p.isfinite().all()) for p in run.network.parameters()):
            raise self.failure(run.step)

    def failure(self, step: int | None) -> TrainingFailed:
        """The error of a training whose loss left the finite numbers."""
        method = self.ticket.provenance.get("method", "the search")
        return TrainingFailed(f"{method}: the loss was not finite at step {step}", level=0, step=step)

    def tell(self, done: int, total: int, message: str) -> None:
        """Tell `progress` how far the search is."""
        if self.progress:
            self.progress({"kind": "search", "done": done, "total": total, "message": message})


@dataclass(frozen=True)
class Found:
    """A method's masks: one for each prunable parameter, in all `search.keep` weights unless it says so.

    Attributes:
        measured: what the method measured on its way, JSON-able, for the report.
    """

    masks: Masks
    measured: Mapping[str, Any] = field(default_factory=dict)
