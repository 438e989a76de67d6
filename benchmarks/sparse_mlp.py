"""Fully connected training: `nirvana.sparse` beside the torch loop of `nirvana.lab.train`, one thread.

LeNet-300-100, batch 60, Adam, on MNIST (random pixels of its shape where it is not at hand) and on digits.
Pairs run in turn, so that a machine which slows down slows both; seconds are the process's own processor
time, which is wall time where nothing else runs. `updates` are updates alone; `training` is a whole call of
`train`: 2,000 updates, 21 looks at the validation data, and the last reads of the test data.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numba
import numpy as np
import torch

from nirvana import lab, sparse, tasks, zoo
from nirvana.architecture import Architecture
from nirvana.errors import DataMissing
from nirvana.initial import default_laws, draw_all, random_mask
from nirvana.lab.environment import deterministic
from nirvana.lab.train import Run as DenseRun
from nirvana.masks import Mask, density
from nirvana.recipe import Recipe
from nirvana.sparse.engine import Run as SparseRun
from nirvana.tasks import TaskData
from nirvana.training import Values

PAIRS = 5
STEPS = 500  # of updates alone; a whole training has 2,000
MNIST_DENSITIES = (1.0, 0.35, 0.17, 0.07, 0.036)
BATCH = 60
RECIPE = Recipe("adam", 1.2e-3, BATCH, 2000, evaluate_every=100)

Masks = Mapping[str, Mask]


def main() -> None:
    """Print one table."""
    torch.set_num_threads(1)
    print(
        f"numba {numba.__version__}, torch {torch.__version__}, numpy {np.__version__}, one thread, ", end=""
    )
    print(f"batch {BATCH}, Adam, n = {PAIRS} pairs: median (min to max) of thousands of samples a second\n")
    print("| inputs | masks | density % | what | sparse | torch | ratio |\n|---|---|---|---|---|---|---|")
    for name, densities in (("mnist", MNIST_DENSITIES), ("digits", (0.1,))):
        data, source = _load(name)
        architecture = zoo.build("lenet-300-100", data.train_x.shape[1:], 10)
        values = draw_all(architecture, default_laws(architecture), 0)
        for kind, masks in _masks(architecture, values, data, densities):
            shapes = {weight: architecture.parameters[weight] for weight in architecture.prunable}
            start = f"| {source} | {kind} | {100 * density(masks, shapes):.1f}"
            for what, pair in (("updates", _updates), ("training", _training)):
                print(
                    f"{start} | {what} | {_compare(*pair(architecture, values, masks, data))} |", flush=True
                )


def _load(name: str) -> tuple[TaskData, str]:
    try:
        return tasks.load(name), name
    except DataMissing:
        random = np.random.default_rng(0)
        task = tasks.get(name)
        sizes = [task.sizes[split] for split in ("train", "validation", "test")]
        pixels = [random.normal(size=(n, *task.input_shape)).astype(np.float32) for n in sizes]
        labels = [random.integers(0, task.classes, n) for n in sizes]
        (a, c, e), (b, d, f) = pixels, labels
        return TaskData(a, b, c, d, e, f), f"random pixels for {name}"


def _masks(
    architecture: Architecture, values: Values, data: TaskData, densities: tuple[float, ...]
) -> list[tuple[str, dict[str, Mask]]]:
    """Masks of each density, drawn at random and by magnitude; the output layer keeps sqrt(density)."""
    found: list[tuple[str, dict[str, Mask]]] = []
    by_magnitude: dict[str, Mask] = {}
    for share in densities:
        kept = {
            name: round(np.prod(architecture.parameters[name]) * share ** (0.5 if last else 1))
            for name in architecture.prunable
            for last in [name == architecture.prunable[-1]]
        }
        drawn = {
            name: random_mask(architecture.parameters[name], count, 0, tensor)
            for tensor, (name, count) in enumerate(kept.items())
        }
        brief = Recipe("adam", 1.2e-3, BATCH, 1000, evaluate_every=1000)
        trained = sparse.train(architecture, values, by_magnitude, data, brief, 0, keep_weights=True).weights
        assert trained is not None
        by_magnitude = {name: _largest(trained[name], count) for name, count in kept.items()}
        found += [("random", drawn), ("magnitude", by_magnitude)] if share < 1 else [("all", drawn)]
    return found


def _largest(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], count: int) -> Mask:
    mask = np.zeros(weight.size, bool)
    mask[np.argsort(-np.abs(weight).ravel(), kind="stable")[:count]] = True
    return mask.reshape(weight.shape)


Pair = tuple[Callable[[], float], Callable[[], float]]


def _updates(architecture: Architecture, values: Values, masks: Masks, data: TaskData) -> Pair:
    """Samples a processor second of STEPS updates: sparse and dense."""

    def sparse_rate() -> float:
        run = SparseRun(architecture, values, masks, data, RECIPE, 0, 0)
        run.update_until(10, None)
        return _rate(lambda: run.update_until(10 + STEPS, None), STEPS)

    def dense_rate() -> float:
        with deterministic(0):
            run = DenseRun(architecture, values, masks, data, RECIPE, 0)
            run.update_until(10)
            return _rate(lambda: run.update_until(10 + STEPS), STEPS)

    return sparse_rate, dense_rate


def _training(architecture: Architecture, values: Values, masks: Masks, data: TaskData) -> Pair:
    """Samples a processor second of whole trainings: sparse and dense."""
    return (
        lambda: _rate(lambda: sparse.train(architecture, values, masks, data, RECIPE, 0), RECIPE.steps),
        lambda: _rate(
            lambda: lab.train(architecture, values, masks, data, RECIPE, 0, engine="dense"), RECIPE.steps
        ),
    )


def _rate(work: Callable[[], object], steps: int) -> float:
    started = time.process_time()
    work()
    return steps * BATCH / (time.process_time() - started)


def _compare(one: Callable[[], float], other: Callable[[], float]) -> str:
    pairs = [(one(), other()) for _ in range(PAIRS)]
    ratios = [sparse_rate / dense_rate for sparse_rate, dense_rate in pairs]
    rates = [_spread([rate / 1000 for rate in side], ".0f") for side in zip(*pairs, strict=True)]
    return f"{rates[0]} | {rates[1]} | {_spread(ratios, '.2f')}"


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
