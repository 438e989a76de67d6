"""Task: a data set with its split, metric and margin (the word is OpenML's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.recipe import Recipe


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


@dataclass(frozen=True)
class Task:
    """What a ticket is good for.

    Attributes:
        input_shape: shape of one example, (channels, height, width).
        metric: what accuracies mean; the share of test examples whose class is right.
        margin: difference in accuracy, a fraction, below which two networks count as equal.
        pixel_max: the raw value that stands for 1.
        normalisation: (mean, sd) of train pixels in [0, 1]: x = (pixel / pixel_max - mean) / sd.
        sizes: number of examples in "train", "validation" and "test".
        split: in words, which examples are which.
        data_sha256: sha256 of the raw bytes: train images, train labels, test images, test labels as
            published (digits: images, labels); None where it was never measured.
    """

    name: str
    title: str
    description: str
    input_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    margin: float
    margin_reason: str
    pixel_max: int
    normalisation: tuple[float, float]
    sizes: Mapping[str, int]
    split: str
    license: str
    source: str
    data_sha256: str | None
    metric: str = "test_accuracy"
    homes: tuple[str, ...] = field(default=(), repr=False)

    def default_recipe(self, architecture: str) -> Recipe:
        """How the zoo's `architecture` is trained and pruned on this task unless somebody says otherwise."""
        from nirvana.tasks.recipes import default_recipe

        return default_recipe(self, architecture)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw pixels, (examples, ...), as (examples, *input_shape) float32."""
        mean, sd = self.normalisation
        scale, shift = np.float32(1 / (self.pixel_max * sd)), np.float32(mean / sd)
        x = pixels.reshape(-1, *self.input_shape).astype(np.float32)
        x *= scale
        x -= shift
        return x
