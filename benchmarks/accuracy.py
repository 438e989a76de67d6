"""Accuracy: the same trainings on both engines, and the differences that other rounding makes."""

from __future__ import annotations

import math
from dataclasses import replace

from benchmarks.effort import Effort
from benchmarks.measuring import row, table
from benchmarks.subjects import SEED, Masks, layer_counts, lenet
from nirvana import lab, sparse, tasks
from nirvana.format.initial import default_laws, draw_all, random_mask
from nirvana.format.masks import density
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from nirvana.training.recipe import Recipe
from nirvana.training.spec import TrainResult
from nirvana.verification.statistics import mean, paired_difference, variance

ALPHA = 0.025  # on each side: a 95 % interval
SMALL_STEPS = 100  # of conv-2 on digits


def main(effort: Effort) -> None:
    """Print paired differences with their intervals."""
    n = effort.accuracy_seeds
    print(
        f"Seed j (0 to {n - 1}) gives initial values and the order of the data to both engines; differences "
        f"are paired, sparse - dense, in percentage points, with 95 % intervals (Student's t, n = {n}).\n"
    )
    print(
        table(
            [
                *("task", "network", "density %", "updates", "when", "dense %, mean (sd)"),
                *("sparse %, mean (sd)", "sparse - dense pp", "95 % interval", "holds 0"),
            ]
        )
    )
    subject = lenet()
    if subject.pixels == "MNIST":
        recipe = replace(subject.recipe, steps=effort.accuracy_steps)
        _print_case("mnist", subject.architecture, subject.masks(0.036), subject.data, recipe, n)
    for name, share in (("lenet-300-100", 0.1), ("conv-2", 0.1)):
        task = tasks.get("digits")
        architecture = zoo.build(name, task.input_shape, task.classes)
        recipe = task.default_recipe(name)
        if name == "conv-2":
            steps = min(SMALL_STEPS, effort.accuracy_steps)
            recipe = replace(recipe, steps=steps, learning_rate=1e-3)
        masks = _random_masks(architecture, recipe, share)
        _print_case("digits", architecture, masks, tasks.load(task), recipe, n)


def _random_masks(architecture: Architecture, recipe: Recipe, share: float) -> Masks:
    kept = layer_counts(architecture, recipe.pruning, share)
    return {
        name: random_mask(architecture.parameters[name], count, SEED, tensor)
        for tensor, (name, count) in enumerate(kept.items())
    }


def _print_case(
    task: str, architecture: Architecture, masks: Masks, data: TaskData, recipe: Recipe, n: int
) -> None:
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    place = [task, architecture.name, f"{100 * density(masks, shapes):.1f}", recipe.steps]
    if reason := sparse.find_unsupported(architecture, recipe, masks):
        print(row([*place, "not supported", reason, *[""] * 4]))
        return
    results: dict[str, list[TrainResult]] = {"dense": [], "sparse": []}
    for seed in range(n):
        values = draw_all(architecture, default_laws(architecture, recipe.initial_law), seed)
        for engine, found in results.items():
            found.append(lab.train(architecture, values, masks, data, recipe, seed, engine=engine))
    for when in ("final", "early_stop"):
        dense, ours = (
            [100 * float(getattr(result, f"{when}_test_accuracy")) for result in results[engine]]
            for engine in ("dense", "sparse")
        )
        print(row([*place, when.replace("_", " "), *_compare(dense, ours)]), flush=True)


def _compare(dense: list[float], ours: list[float]) -> list[str]:
    found = paired_difference(ours, dense, ALPHA)
    sides = [f"{mean(side):.2f} ({math.sqrt(variance(side)):.2f})" for side in (dense, ours)]
    interval = f"{found.lower:+.3f} to {found.upper:+.3f}"
    return [*sides, f"{found.mean:+.3f}", interval, "yes" if found.lower <= 0 <= found.upper else "no"]
