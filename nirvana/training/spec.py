"""A training as data: network, data, recipe and initial state; and the measurements that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.training.cost import Cost
from nirvana.training.events import Point
from nirvana.training.recipe import Recipe

Values = dict[str, NDArray[np.float32]]
Arrays = Mapping[str, NDArray[np.float32]]


class TaskData(NamedTuple):
    """A task's arrays in memory, ready to train on.

    `*_x` is float32, (examples, *input_shape), normalised; `*_y` is int64, (examples,), the class's index.
    Validation is held out of the published training set. The test set is read once, at the step that the
    validation loss chose.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    validation_x: NDArray[np.float32]
    validation_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


class SealedRows(NamedTuple):
    """Examples of a task that only the judge reads: no search and no training sees them.

    `x` is float32, (examples, *input_shape), normalised; `y` is int64, (examples,), the class's index.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]


class ByteData(NamedTuple):
    """A task's arrays as they were published: a quarter of TaskData's memory.

    `*_x` is uint8, (examples, *input_shape); `*_y` is int64, (examples,), the class's index. What TaskData
    has is x * scale - shift, float32, both operations rounded: the same bits.

    Attributes:
        scale: float32, input_shape. shift: float32, input_shape.
    """

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    validation_x: NDArray[np.uint8]
    validation_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def as_floats(data: TaskData | ByteData) -> TaskData:
    """Return the data standardised; what is so already is returned as it is."""
    if isinstance(data, TaskData):
        return data
    train, validation, test = (
        x * data.scale - data.shift for x in (data.train_x, data.validation_x, data.test_x)
    )
    return TaskData(train, data.train_y, validation, data.validation_y, test, data.test_y)


class InitialState(NamedTuple):
    """The start of one training.

    Attributes:
        values: full tensors by parameter (and running statistics, where there are any).
        masks: by parameter; those without one are kept whole.
        order_seed: of the data's order, of augmentation and of dropout.
        start_step: the update at which the training starts, for order, schedule and warm-up.
    """

    values: Arrays
    masks: Mapping[str, Mask]
    order_seed: int
    start_step: int = 0


@dataclass(frozen=True)
class TrainSpec:
    """A training, whole: everything that its result follows from, but for the engine.

    Attributes:
        data: of the task; bytes for the sparse engine alone.
        teacher: logits of the training examples, shape (n, classes), for a recipe with `distillation`.
        frozen_values: what pruned elements are held at instead of 0, for the mask-0 action `freeze`.
        sealed: rows that are read once as well, when the test set is.
    """

    architecture: Architecture
    initial: InitialState
    data: TaskData | ByteData
    recipe: Recipe
    teacher: NDArray[np.float32] | None = None
    frozen_values: Arrays | None = None
    sealed: SealedRows | None = None

    def rows(self, split: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return x and y of train, validation, test or sealed, as they are."""
        if split == "sealed" and self.sealed:
            return self.sealed
        return getattr(self.data, f"{split}_x"), getattr(self.data, f"{split}_y")


class TestAccuracies(NamedTuple):
    """Accuracies of one training on rows that it never saw; chance where it failed, but for `untrained`."""

    untrained: float
    early_stop: float
    final: float


@dataclass(frozen=True)
class TrainResult:
    """The measurements of one training. Accuracies are in [0, 1]; steps count from initialisation, so after
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
        sealed: accuracies on the sealed rows, where there were any.
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
    sealed: TestAccuracies | None = None

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
