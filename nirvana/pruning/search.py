"""The search for one mask: what a method that is not iterative gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from nirvana.engines import has_torch, train, with_teacher
from nirvana.errors import TrainingFailed
from nirvana.format.ticket import Ticket
from nirvana.networks.ops import Shape
from nirvana.pruning.methods import Options
from nirvana.pruning.ranking import Masks, kept_at
from nirvana.training.events import SILENT, Reporter
from nirvana.training.recipe import Recipe
from nirvana.training.spec import InitialState, TaskData, TrainResult, TrainSpec, Values

T = TypeVar("T")


@dataclass(frozen=True)
class MaskSearch:
    """A dense start, the data and a density to reach.

    Attributes:
        ticket: of level 0: nothing pruned; its architecture, prunable parameters and initial values.
        seed: of the data's order and of every draw.
        density: share of prunable weights to keep, in (0, 1).
        options: of the method.
    """

    ticket: Ticket
    data: TaskData
    recipe: Recipe
    seed: int
    density: float
    reporter: Reporter = SILENT
    options: Options = field(default_factory=dict)

    @cached_property
    def values(self) -> Values:
        """Initial values by parameter, whole tensors: not to be written to."""
        return self.ticket.initial_values()

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each prunable parameter."""
        return self.ticket.prunable_shapes

    @property
    def keep(self) -> int:
        """Prunable weights to keep in all."""
        return kept_at(self.density, self.ticket.prunable_total)

    @property
    def first_step(self) -> int:
        """The update at which a training of these values starts."""
        return self.recipe.first_step(self.ticket.start.rewind_step)

    def options_as(self, kind: type[T]) -> T:
        """Return the method's options as its dataclass, defaults filled in."""
        return kind(**self.options)

    @cached_property
    def dense_spec(self) -> TrainSpec:
        """The dense training from the initial values, with its teacher where the recipe distils."""
        initial = InitialState(self.values, {}, self.seed, self.first_step)
        spec = TrainSpec(self.ticket.architecture, initial, self.data, self.recipe)
        if not self.recipe.distillation:
            return spec
        whole = self.ticket.dense_initial_values()
        assert whole is not None
        return with_teacher(spec, whole, 0, self.reporter)

    def train_dense(self, spec: TrainSpec | None = None) -> TrainResult:
        """Train once densely, by default from `dense_spec`, and keep the last weights.

        It is the dense engine that trains, wherever it is installed: a search's masks are the same whatever
        engine its tickets are trained on.

        Raises:
            TrainingFailed: a loss was not finite; names the method and the step.
            Unavailable: torch is not installed, and the sparse engine cannot do this.
            Cancelled: the reporter said so.
        """
        engine = "dense" if has_torch() else "auto"
        result = train(spec or self.dense_spec, self.reporter, engine=engine, keep_weights=True)
        if result.failed:
            raise self.failure(result.failed_step)
        return result

    def failure(self, step: int | None) -> TrainingFailed:
        """Return the error of a training whose loss left the finite numbers."""
        method = self.ticket.provenance.get("method", "the search")
        return TrainingFailed(f"{method}: the loss was not finite at step {step}", level=0, step=step)

    def report(self, done: int, total: int, message: str) -> None:
        """Report how far the search is."""
        self.reporter.report({"kind": "search", "done": done, "total": total, "message": message})


@dataclass(frozen=True)
class MaskResult:
    """A method's masks: one for each prunable parameter, in all `search.keep` weights unless it says so.

    Attributes:
        measured: what the method measured on its way, JSON-able, for the report.
    """

    masks: Masks
    measured: Mapping[str, Any] = field(default_factory=dict)
