"""Iterative magnitude pruning in 16 levels: `lab.find` beside the same search in plain PyTorch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

from torch import nn

from benchmarks.effort import Effort
from benchmarks.goals import Goal, median_ratio
from benchmarks.measuring import Timing, ratios, row, spread, table, timed
from benchmarks.plain_imp import Level, plain_imp
from benchmarks.plain_networks import build_plain, load_plain
from nirvana import lab, tasks
from nirvana.errors import DataMissing
from nirvana.format.initial import default_laws, draw_all
from nirvana.lab import FindReport
from nirvana.networks import zoo
from nirvana.tasks import TaskData
from nirvana.training.recipe import Recipe

LEVELS = 15  # after the dense one: 0.8^15 = 3.5 %
FULL_STEPS = 10_000
ARCHITECTURE = "lenet-300-100"


def main(effort: Effort) -> list[Goal]:
    """Print seconds, ratio and accuracies."""
    try:
        data = tasks.load("mnist")
    except DataMissing as error:
        print(f"not measured: {error}")
        return []
    recipe = tasks.get("mnist").default_recipe(ARCHITECTURE)
    print(
        f"MNIST, LeNet-300-100, {LEVELS + 1} levels, batch {recipe.batch_size}, validation every "
        f"{recipe.evaluate_every} updates, one core. Plain: `torch.nn.utils.prune`, Adam, a DataLoader over "
        "a TensorDataset, as in `benchmarks/plain_imp.py`. Ours: `lab.find`, engine auto. Seeds: the "
        "pair's number.\n"
    )
    print(
        table(
            [
                *("updates a level", "n", "plain, s", "ours, s", "plain / ours", "last density %"),
                *("plain, last level, test %", "ours, last level, test %", "our engines by level"),
            ]
        )
    )
    goals = [_print_pairs(data, replace(recipe, steps=effort.imp_steps), effort.pairs)]
    if effort.has_full_length:
        goals.append(_print_pairs(data, replace(recipe, steps=FULL_STEPS), 1))
    return goals


def _print_pairs(data: TaskData, recipe: Recipe, pairs: int) -> Goal:
    plain, ours = list[tuple[list[Level], Timing]](), list[tuple[FindReport, Timing]]()
    for seed in range(pairs):
        plain.append(timed(partial(plain_imp, _plain_network(seed), data, recipe, LEVELS)))
        ours.append(timed(partial(_find, recipe, seed)))
    print(_row(recipe, plain, ours), flush=True)
    ratio = median_ratio([timing for _, timing in plain], [timing for _, timing in ours])
    return Goal(
        f"IMP of {LEVELS + 1} levels, {recipe.steps} updates a level, against plain PyTorch", 4, ratio
    )


def _plain_network(seed: int) -> nn.Sequential:
    """With the same initial values as our search of that seed."""
    architecture = zoo.build(ARCHITECTURE, (1, 28, 28), 10)
    network = build_plain(architecture)
    load_plain(network, draw_all(architecture, default_laws(architecture), seed))
    assert isinstance(network, nn.Sequential)
    return network


def _find(recipe: Recipe, seed: int) -> FindReport:
    return lab.find("mnist", ARCHITECTURE, levels=LEVELS, seed=seed, recipe=recipe)


def _row(
    recipe: Recipe, plain: list[tuple[list[Level], Timing]], ours: list[tuple[FindReport, Timing]]
) -> str:
    theirs, mine = [timing for _, timing in plain], [timing for _, timing in ours]
    last_plain, last_ours = [levels[-1] for levels, _ in plain], [report.levels[-1] for report, _ in ours]
    engines = [level["engine"] for level in ours[0][0].levels]
    runs = ", ".join(f"{len(list(group))} {name}" for name, group in itertools.groupby(engines))
    return row(
        [
            recipe.steps,
            len(plain),
            spread(timing.wall for timing in theirs),
            spread(timing.wall for timing in mine),
            ratios(theirs, mine),
            f"{100 * last_plain[0].density:.2f} and {100 * last_ours[0]['density']:.2f}",
            spread((100 * level.test_accuracy for level in last_plain), ".2f"),
            spread((100 * level["early_stop_test_accuracy"] for level in last_ours), ".2f"),
            runs,
        ]
    )
