"""Task: a data set with its split, metric and margin (the word is OpenML's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.recipe import Recipe

Normalisation = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]

_CHUNK = 1024  # examples standardised at a time in float64


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


@dataclass(frozen=True)
class Task:
    """What a ticket is good for.

    Attributes:
        input_shape: shape of one example: (channels, height, width), (channels, length) or (features,).
        metric: what accuracies mean; the share of test examples whose class is right.
        margin: difference in accuracy, a fraction, below which two networks count as equal.
        pixel_max: the raw value that stands for 1.
        normalisation: (mean, sd) of train pixels in [0, 1]: x = (pixel / pixel_max - mean) / sd; either two
            numbers, or two tuples with one for each channel or feature.
        sizes: number of examples in "train", "validation" and "test".
        split: in words, which examples are which.
        data_sha256: sha256 of the raw bytes: train images, train labels, test images, test labels as
            published (digits: images, labels; cifar-10-jpeg: with the images' JPEG bytes; tasks of your own:
            of their data.npz); None where it was never measured.
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
    normalisation: Normalisation
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

    def normalise(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Raw values, (examples, ...), as (examples, *input_shape) float32.

        Bytes are scaled in float32. Others are standardised in float64 and rounded once: a feature may be a
        large number that varies little.
        """
        mean, sd = self._mean_and_sd()
        x = raw.reshape(-1, *self.input_shape)
        if raw.dtype == np.uint8:
            scale, shift = self._scale_and_shift()
            pixels = x.astype(np.float32)
            pixels *= scale
            pixels -= shift
            return pixels
        values = np.empty(x.shape, np.float32)
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            values[part] = (x[part].astype(np.float64) / self.pixel_max - mean) / sd
        return values

    def scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What standardises bytes, x = byte * scale - shift: float32, each of input_shape."""
        scale, shift = (np.broadcast_to(part, self.input_shape).copy() for part in self._scale_and_shift())
        return scale, shift

    def _scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean, sd = self._mean_and_sd()
        return (1 / (self.pixel_max * sd)).astype(np.float32), (mean / sd).astype(np.float32)

    def _mean_and_sd(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64, (channels, 1, ...) or (1, 1, ...): broadcast against an example."""
        column = (-1, *[1] * (len(self.input_shape) - 1))
        mean, sd = (np.asarray(part, np.float64).reshape(column) for part in self.normalisation)
        return mean, sd
