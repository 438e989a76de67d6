"""Task: a data set with its split, metric and margin (the word is OpenML's)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import InvalidArchitecture, JsonObject, NotFound
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks.recipes import default_recipe
from nirvana.training.recipe import Recipe
from nirvana.training.spec import ByteData as ByteData
from nirvana.training.spec import TaskData as TaskData

Array = NDArray[Any]  # of the type that a file holds
Normalisation = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]

PARTS = ("train", "validation", "test")

_CHUNK = 1024  # examples standardised at a time in float64


@dataclass(frozen=True)
class Seal:
    """Test rows of a task that are stored apart and read by the judge alone.

    Attributes:
        rows: how many.
        sha256: of their raw bytes, images and labels (of a task of your own: of its sealed.npz), so that it
            can be seen that they do not change.
        is_public: the same rows can be had elsewhere, so that the seal proves nothing about a mask.
    """

    rows: int
    sha256: str
    is_public: bool = False


@dataclass(frozen=True)
class Task:
    """A data set with its split, its metric and its margin: what a ticket is good for.

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
            of their data.npz); None where it was never measured. Sealed rows have a digest of their own.
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
    seal: Seal | None = None
    homes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_sealed(self) -> bool:
        """True where verdicts are measured on rows that nobody outside can have searched a mask on."""
        return self.seal is not None and not self.seal.is_public

    def default_recipe(self, architecture: str) -> Recipe:
        """Return the recipe by which the zoo's `architecture` is trained and pruned here by default."""
        return default_recipe(architecture, self.input_shape, self.classes, self.sizes["train"])

    def reference_recipe(self, architecture: Architecture) -> Recipe:
        """Return the recipe of the registry's own dense baseline of a network: version 1 of them are the
        default ones. A name counts only where the zoo builds that very network by it, for it is its
        sender's choice."""
        name = architecture.name
        try:
            is_named = zoo.build(name, self.input_shape, self.classes).digest == architecture.digest
        except (NotFound, InvalidArchitecture):
            is_named = False
        return self.default_recipe(name if is_named else "")

    def normalise(self, raw: Array) -> NDArray[np.float32]:
        """Standardise raw values, (examples, ...), as (examples, *input_shape) float32.

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
        """Return what standardises bytes, x = byte * scale - shift: float32, each of input_shape."""
        scale, shift = (np.broadcast_to(part, self.input_shape).copy() for part in self._scale_and_shift())
        return scale, shift

    def _scale_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean, sd = self._mean_and_sd()
        return (1 / (self.pixel_max * sd)).astype(np.float32), (mean / sd).astype(np.float32)

    def _mean_and_sd(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return float64, (channels, 1, ...) or (1, 1, ...), to broadcast against an example."""
        column = (-1, *[1] * (len(self.input_shape) - 1))
        mean, sd = (np.asarray(part, np.float64).reshape(column) for part in self.normalisation)
        return mean, sd


def task_to_json(task: Task) -> JsonObject:
    """Return the task's fields, JSON-able; `task_from_json` reads them."""
    fields = dataclasses.asdict(task)
    del fields["homes"]
    return fields if task.seal else {name: value for name, value in fields.items() if name != "seal"}


def task_from_json(fields: JsonObject) -> Task:
    """Return the task of `task_to_json`'s fields.

    Raises:
        ValueError, TypeError, KeyError: they are not a task's.
    """
    mean, sd = fields["normalisation"]
    pair = (tuple(mean), tuple(sd)) if isinstance(mean, list) else (float(mean), float(sd))
    task = Task(
        **fields
        | {
            "input_shape": tuple(int(size) for size in fields["input_shape"]),
            "class_names": tuple(str(name) for name in fields["class_names"]),
            "sizes": {part: int(fields["sizes"][part]) for part in PARTS},
            "normalisation": pair,
            "homes": (),
            "seal": Seal(**fields["seal"]) if fields.get("seal") else None,
        }
    )
    entries = {np.shape(part) for part in pair}
    if entries not in ({()}, {task.input_shape[:1]}) or not all(np.all(np.isfinite(part)) for part in pair):
        raise ValueError("its normalisation does not fit its input shape")
    if len(task.class_names) != task.classes:
        raise ValueError("its class names do not fit its classes")
    if not 0 < task.margin <= 0.5 or not isinstance(task.data_sha256, str | None):
        raise ValueError("its margin or digest is none")
    return task
