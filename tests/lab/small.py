"""Small real things for the lab's tests, and trainings in one call each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import lazy, sparse, tasks
from nirvana.format.initial import default_laws, draw_all
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import METHODS, Options
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.tasks import TaskData
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Pruning, Recipe
from nirvana.training.spec import Arrays, ByteData, InitialState, TrainResult, TrainSpec, Values

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


def spec_of(
    architecture: Architecture,
    values: Arrays,
    masks: Mapping[str, Mask],
    data: TaskData | ByteData,
    recipe: Recipe,
    order_seed: int = 0,
    *,
    start_step: int = 0,
    teacher: NDArray[np.float32] | None = None,
) -> TrainSpec:
    """A training, said in one line."""
    return TrainSpec(architecture, InitialState(values, masks, order_seed, start_step), data, recipe, teacher)


def train_dense(
    *training: Any,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
    **fields: Any,
) -> TrainResult:
    """Train in torch; arguments as in `spec_of`."""
    reporter = Reporter(progress, should_stop)
    return lazy.train_dense(spec_of(*training, **fields), reporter, keep_weights=keep_weights)


def train_sparse(
    *training: Any,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
    threads: int = 1,
    **fields: Any,
) -> TrainResult:
    """Train on the sparse engine; arguments as in `spec_of`."""
    spec, reporter = spec_of(*training, **fields), Reporter(progress, should_stop)
    return sparse.train(spec, reporter, keep_weights=keep_weights, threads=threads)


def finder(method: str) -> Callable[[MaskSearch], MaskResult]:
    """The function that looks for the mask of a method that is not iterative."""
    function: Callable[[MaskSearch], MaskResult] = lazy.load_function(METHODS[method].code)
    return function


def search_from(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe,
    seed: int,
    density: float,
    *,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    options: Options | None = None,
) -> MaskSearch:
    """A search for a mask that reports and stops as these say."""
    reporter = Reporter(progress, should_stop)
    return MaskSearch(ticket, data, recipe, seed, density, reporter, options or {})
