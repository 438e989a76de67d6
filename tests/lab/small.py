"""Small real things for the lab's tests."""

from __future__ import annotations

import numpy as np

from nirvana import tasks, zoo
from nirvana.architecture import Architecture
from nirvana.initial import default_laws, draw_all
from nirvana.recipe import Pruning, Recipe
from nirvana.tasks import TaskData
from nirvana.training import Values

SMALL = Recipe(
    optimizer="sgd",
    learning_rate=0.1,
    batch_size=32,
    steps=30,
    momentum=0.9,
    weight_decay=1e-3,
    evaluate_every=10,
    pruning=Pruning(rate=0.5, output_rate=0.25),
)


def digits() -> TaskData:
    """The embedded task's arrays."""
    return tasks.load("digits")


def network(name: str = "mlp-16") -> Architecture:
    return zoo.build(name, (1, 8, 8), 10)


def values_of(architecture: Architecture, seed: int = 0) -> Values:
    return draw_all(architecture, default_laws(architecture), seed)


def few(data: TaskData, n: int = 40) -> TaskData:
    """The first n examples of each split."""
    return TaskData(*(np.ascontiguousarray(array[:n]) for array in data))  # type: ignore[arg-type]
