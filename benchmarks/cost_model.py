"""Update times of both engines over a grid, and what `nirvana.sparse.pays` makes of them.

`python -m benchmarks.cost_model [--out FILE] [--quick]` writes every point as JSON: to fit a cost model to.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from benchmarks.effort import DEFAULT, QUICK, Effort
from benchmarks.machine import LAST_CORE, describe, pinned
from benchmarks.measuring import measure_step, row, table
from benchmarks.subjects import ENDLESS, SEED, Subject, synthetic
from benchmarks.throughput import DenseTrainee, SparseTrainee
from nirvana import sparse
from nirvana.files import write_atomically
from nirvana.format.initial import default_laws, draw_all
from nirvana.format.masks import kept_count
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.training.recipe import Recipe

NETWORKS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("mlp-16", (1, 8, 8)),
    ("lenet-300-100", (1, 8, 8)),
    ("lenet-300-100", (1, 28, 28)),
    ("mlp-1000-1000", (1, 28, 28)),
    ("lenet-5", (1, 28, 28)),
    ("conv-2", (1, 8, 8)),
    ("conv-2", (3, 16, 16)),
    ("resnet-20", (3, 16, 16)),
)
DENSITIES = (1.0, 0.6, 0.35, 0.17, 0.05)
BATCHES = (16, 60, 128)
OPTIMIZERS = {
    "adam": Recipe("adam", 1e-4, 60, ENDLESS),
    "sgd": Recipe("sgd", 1e-3, 60, ENDLESS, momentum=0.9),
}
TIMES = 3
SLICE_SECONDS = 0.05
TERMS = {
    "dense": ("update", "nodes", "weights", "batch x multiply-adds", "batch x outputs"),
    "sparse": (
        "update",
        "kept",
        "tiled batch x kept multiply-adds",
        "tiled batch x outputs",
        "batch x pixels",
    ),
}


@dataclass(frozen=True)
class Point:
    """One setting, microseconds of processor time of an update (None: not supported), and the choice made.

    Attributes:
        multiply_adds, kept_multiply_adds: of one example's forward pass.
        outputs: values that one example's nodes put out.
    """

    architecture: str
    input: tuple[int, ...]
    density: float
    batch: int
    optimizer: str
    nodes: int
    weights: int
    kept: int
    multiply_adds: int
    kept_multiply_adds: int
    outputs: int
    dense_us: float
    sparse_us: float | None
    pays: bool

    @property
    def lost(self) -> float:
        """How much longer the chosen engine takes than the faster one: 0.1 is a tenth longer."""
        assert self.sparse_us is not None
        chosen = self.sparse_us if self.pays else self.dense_us
        return chosen / min(self.sparse_us, self.dense_us) - 1


def main(effort: Effort) -> None:
    """Measure the grid, print what wrong choices cost, and write the points where NIRVANA_BENCH_OUT says."""
    points = list(measure(effort))
    folder = os.environ.get("NIRVANA_BENCH_OUT")
    if folder:
        write_points(points, Path(folder) / "cost_model.json")
    print_check(points)
    print_fit(points)


def measure(effort: Effort) -> Iterator[Point]:
    """Every point of the grid; a quick run takes its corners."""
    step = 4 if effort.is_quick else 1
    for name, shape in NETWORKS[::3] if effort.is_quick else NETWORKS:
        for optimizer, recipe in OPTIMIZERS.items():
            for batch in BATCHES[1:2] if effort.is_quick else BATCHES:
                for density in DENSITIES[::step]:
                    yield _measure(_subject(name, shape, recipe), optimizer, batch, density)


def _subject(name: str, shape: tuple[int, ...], recipe: Recipe) -> Subject:
    architecture = zoo.build(name, shape, 10)
    values = draw_all(architecture, default_laws(architecture), SEED)
    return Subject(name, architecture, synthetic(shape), values, recipe, "pixels drawn at random")


def _measure(subject: Subject, optimizer: str, batch: int, density: float) -> Point:
    architecture, masks = subject.architecture, subject.masks(density)
    recipe = subject.with_batch(batch)
    kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    is_possible = sparse.find_unsupported(architecture, recipe, masks) is None
    return Point(
        architecture.name,
        architecture.input,
        density,
        batch,
        optimizer,
        len(architecture.nodes),
        architecture.prunable_total,
        kept_count(masks, shapes),
        architecture.flops() // 2,
        architecture.flops(kept) // 2,
        _outputs(architecture),
        _microseconds(DenseTrainee(subject, masks, batch)),
        _microseconds(SparseTrainee(subject, masks, batch)) if is_possible else None,
        is_possible and sparse.pays(architecture, masks, recipe),
    )


def _microseconds(trainee: SparseTrainee | DenseTrainee) -> float:
    return 1e6 * measure_step(trainee, TIMES, SLICE_SECONDS)


def _outputs(architecture: Architecture) -> int:
    return sum(math.prod(shape) for shape in architecture.shapes.values())


def write_points(points: Sequence[Point], path: Path) -> None:
    """JSON: a list of objects with the fields of `Point`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([asdict(point) for point in points], indent=1).encode() + b"\n")


def read_points(path: Path) -> list[Point]:
    """What `write_points` wrote."""
    return [Point(**{**fields, "input": tuple(fields["input"])}) for fields in json.loads(path.read_text())]


def print_check(points: Sequence[Point]) -> None:
    """Where the choice is wrong, and what that costs."""
    there = [point for point in points if point.sparse_us is not None]
    wrong = [point for point in there if point.lost > 0]
    print(f"{len(points)} settings, {len(points) - len(there)} of them not supported by the sparse engine.")
    if not there:
        return
    lost = [100 * point.lost for point in there]
    print(
        f"The choice is wrong in {len(wrong)} of {len(there)}; over all of them the chosen engine takes "
        f"{sum(lost) / len(lost):.2f} % longer than the faster one on average, {max(lost):.1f} % at most.\n"
    )
    heads = [
        "network",
        "input",
        "density %",
        "batch",
        "optimiser",
        "dense us",
        "sparse us",
        "chosen",
        "lost %",
    ]
    print(table(heads))
    for point in sorted(wrong, key=lambda point: -point.lost):
        print(row(_cells(point)))


def _cells(point: Point) -> list[Any]:
    place = [point.architecture, "x".join(map(str, point.input)), f"{100 * point.density:g}", point.batch]
    chosen = "sparse" if point.pays else "dense"
    times = [f"{point.dense_us:.0f}", f"{point.sparse_us:.0f}"]
    return [*place, point.optimizer, *times, chosen, f"{100 * point.lost:.1f}"]


def print_fit(points: Sequence[Point]) -> None:
    """Nanoseconds of each term, fitted to relative errors by least squares without negative terms; and what a
    choice by them would cost."""
    there = [point for point in points if point.sparse_us is not None]
    if len(there) < 2 * len(TERMS["sparse"]):
        print("\ntoo few settings for a fit")
        return
    print()
    print(table(["engine", "optimiser", "nanoseconds a term", "error of a time, median %", "most %"]))
    chosen = list[float]()
    for optimizer in OPTIMIZERS:
        some = [point for point in there if point.optimizer == optimizer]
        expected = {engine: _fit(some, engine, optimizer) for engine in TERMS}
        chosen += [
            (point.sparse_us or 0.0 if ours < theirs else point.dense_us)
            / min(point.sparse_us or math.inf, point.dense_us)
            - 1
            for point, ours, theirs in zip(some, expected["sparse"], expected["dense"], strict=True)
        ]
    print(
        f"\nA choice by these terms takes {100 * sum(chosen) / len(chosen):.2f} % longer than the faster "
        f"engine on average, {100 * max(chosen):.1f} % at most (on the settings that they were fitted to)."
    )


def _fit(points: Sequence[Point], engine: str, optimizer: str) -> list[float]:
    """Fit one engine's terms, print them, and say the expected nanoseconds of each point."""
    design = np.array([_terms(point, engine) for point in points], float)
    measured = np.array([1e3 * getattr(point, f"{engine}_us") for point in points])
    weights, _ = nnls(design / measured[:, None], np.ones(len(points)))
    expected = design @ weights
    errors = 100 * np.abs(expected / measured - 1)
    said = ", ".join(f"{name} {value:.3g}" for name, value in zip(TERMS[engine], weights, strict=True))
    print(row([engine, optimizer, said, f"{np.median(errors):.0f}", f"{errors.max():.0f}"]))
    return [float(value) for value in expected]


def _terms(point: Point, engine: str) -> tuple[float, ...]:
    pixels = math.prod(point.input)
    if engine == "dense":
        by_example = point.multiply_adds, point.outputs
        return 1, point.nodes, point.weights, *(point.batch * term for term in by_example)
    tiled = -(-point.batch // 16) * 16
    by_example = point.kept_multiply_adds, point.outputs
    return 1, point.kept, *(tiled * term for term in by_example), point.batch * pixels


def command(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the points and print the check."""
    parser = argparse.ArgumentParser(prog="benchmarks.cost_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("cost_model.json"), help="the file of points")
    parser.add_argument("--read", action="store_true", help="take the points from the file, measure nothing")
    parser.add_argument("--quick", action="store_const", const=QUICK, default=DEFAULT)
    asked = parser.parse_args(arguments)
    if asked.read:
        points = read_points(asked.out)
    else:
        torch.set_num_threads(1)
        with pinned(LAST_CORE):
            print(describe(str(SEED)) + "\n")
            points = list(measure(asked.quick))
        write_points(points, asked.out)
    print_check(points)
    print_fit(points)
    return 0


if __name__ == "__main__":
    sys.exit(command())
