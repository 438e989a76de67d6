"""What every engine shares: the order of batches, the learning rate, and what a training measured.

Batches: the epochs' orders (Philox, seed `order_seed`, see `nirvana.initial.epoch_order`) are laid end to end
and cut into batches, so every batch is full, a batch may straddle two epochs, and no example is left out.
Update number s takes the examples from s x batch_size on, so a training that starts at step k goes on where
one of k steps ended: order, schedule and warm-up alike. No torch here: the sparse engine runs without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.cost import Cost
from nirvana.errors import InvalidRecipe, Problem
from nirvana.initial import Index, epoch_order
from nirvana.recipe import Recipe

Values = dict[str, NDArray[np.float32]]
Progress = Callable[[dict[str, Any]], None]
ShouldStop = Callable[[], bool]
Point = tuple[int, float | None, float, float]  # step, training loss, validation loss, validation accuracy

SECONDS_BETWEEN_EVENTS = 0.05


@dataclass(frozen=True)
class TrainResult:
    """What one training measured. Accuracies are in [0, 1]; steps count from initialisation, so after
    rewinding to k they run from k to the recipe's `steps`.

    Attributes:
        early_stop_step: the first step at which the validation loss was least.
        early_stop_test_accuracy: test accuracy of the weights at that step.
        final_test_accuracy: ... after the last step.
        untrained_test_accuracy: ... of the masked values before training.
        curve: (step, mean training loss since the point before, validation loss, validation accuracy).
        engine: `dense` (torch), `sparse`, or `stacked` (torch, several replicates at once).
        failed: a loss was not finite; the test accuracies are then chance, the curve ends before it.
        failed_step: the update at which that was seen.
        weights: parameters and running statistics after the last step, if they were asked for.
    """

    early_stop_step: int
    early_stop_test_accuracy: float
    final_test_accuracy: float
    untrained_test_accuracy: float
    early_stop_validation_loss: float | None
    curve: list[Point]
    cost: Cost
    engine: str = "dense"
    failed: bool = False
    failed_step: int | None = None
    weights: Values | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        return self.cost.seconds

    @property
    def early_stop_validation_accuracy(self) -> float | None:
        """Validation accuracy at the early stop: chooses among tickets without test data; None if failed."""
        return next((accuracy for step, _, _, accuracy in self.curve if step == self.early_stop_step), None)

    @property
    def flops_dense(self) -> int:
        return self.cost.flops_dense

    @property
    def flops_sparse(self) -> int:
        return self.cost.flops_sparse


def batch_indices(order_seed: int, n: int, batch_size: int, start_step: int) -> Iterator[Index]:
    """Indices of each batch, int64, shape (batch_size,), from update `start_step` on, without an end."""
    epoch, offset = divmod(start_step * batch_size, n)
    order = epoch_order(order_seed, epoch, n)[offset:]
    while True:
        while len(order) < batch_size:
            epoch += 1
            order = np.concatenate([order, epoch_order(order_seed, epoch, n)])
        yield order[:batch_size]
        order = order[batch_size:]


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of update number `step` (the first is 0), warm-up included.

    Reference: cosine annealing without restarts, Loshchilov & Hutter 2017 (arXiv 1608.03983).
    """
    rate = recipe.learning_rate
    schedule = recipe.schedule
    if schedule["kind"] == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    elif schedule["kind"] == "step":
        rate *= schedule["factor"] ** sum(step >= at for at in schedule["at"])
    return rate * min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else rate


def check_start(recipe: Recipe, start_step: int) -> None:
    """Refuse a training that would have no step.

    Raises:
        InvalidRecipe: it starts at or past the recipe's last step.
    """
    if start_step >= recipe.steps:
        detail = f"training starts at step {start_step}, expected less than the recipe's {recipe.steps} steps"
        raise InvalidRecipe(detail, errors=[Problem("/steps", "past-the-end", detail)])


def point_event(point: Point, first: int, steps: int) -> dict[str, Any]:
    """What a training tells its `progress` at a look at the validation data."""
    step, train_loss, loss, accuracy = point
    return {
        "kind": "point",
        "done": step - first,
        "total": steps - first,
        "message": f"step {step}: validation loss {loss:.4f}, accuracy {accuracy:.4f}",
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
    }
