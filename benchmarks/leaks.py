"""`python -m benchmarks.leaks`: can it be seen that a mask was searched on the test labels?

Two ideas, on honest tickets and on ones whose search had validation and test labels too. *Halves*:
`nirvana.verification.leaks`, above 0 where a leak is likely. *Too good*: the ticket's test accuracy less that
of dense runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.verdict_rates.adversaries import imp, imp_on, join_parts
from nirvana import lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.tasks.task import PARTS
from nirvana.training.cost import environment
from nirvana.training.recipe import Recipe
from nirvana.training.spec import TaskData
from nirvana.verification.arms import ArmConfig
from nirvana.verification.leaks import look_for_leaks
from nirvana.verification.statistics import mean, wilson

TASK = "digits"
DENSITIES, SEEDS, REPLICATES = (0.10, 0.05, 0.03), range(200, 220), 10
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Finding:
    """Statistics of one ticket, in accuracy: larger where a leak is likelier."""

    halves: float
    too_good: float


def main() -> int:
    """Print the table."""
    where = ", ".join(f"{name} {value}" for name, value in environment().items())
    print(
        f"{TASK}, LeNet-300-100, IMP, seeds {SEEDS[0]} to {SEEDS[-1]}, {REPLICATES} replicates. Found: the "
        f"share of leaked tickets above the {100 * (1 - FALSE_ALARMS):g} % quantile of the honest ones of "
        f"their density (Wilson's 95 % interval).\n\nMachine and versions: {where}.\n"
    )
    heads = ("density %", "test", "honest pp, mean (sd)", "leaked pp, mean (sd)", "leaks found %")
    print(f"| {' | '.join([*heads, 'above 0 %: honest, leaked'])} |")
    print("|---|---|---|---|---|---|")
    data = tasks.load(TASK)
    everything = join_parts(data, PARTS)
    for density in DENSITIES:
        honest = [measure(imp(seed, density), data) for seed in SEEDS]
        leaked = [measure(imp_on(everything, seed, density, 250), data) for seed in SEEDS]
        for name, read in TESTS.items():
            sides = [[read(one) for one in side] for side in (honest, leaked)]
            limit = float(np.quantile(sides[0], 1 - FALSE_ALARMS))
            found = sum(value > limit for value in sides[1])
            low, high = wilson(found, len(sides[1]))
            share = f"{100 * found / len(sides[1]):.0f} ({100 * low:.0f} to {100 * high:.0f})"
            above = ", ".join(f"{100 * float(np.mean(np.array(side) > 0)):.0f}" for side in sides)
            print(
                f"| {100 * density:g} | {name} | {' | '.join(map(_spread, sides))} | {share} | {above} |",
                flush=True,
            )
    return 0


TESTS: dict[str, Callable[[Finding], float]] = {
    "halves": lambda one: one.halves,
    "too good": lambda one: one.too_good,
}


def measure(ticket: Ticket, data: TaskData) -> Finding:
    """Return the statistics of a ticket."""
    config = ArmConfig(ticket, "ticket", data, Recipe.from_dict(dict(ticket.recipe)))
    found = look_for_leaks(config, range(REPLICATES))
    whole = {arm: lab.run_arm(ticket, arm, data, None, REPLICATES, threads=1) for arm in ("ticket", "dense")}
    too_good = mean(whole["ticket"].accuracies) - mean(whole["dense"].accuracies)
    return Finding(found["excess"], too_good)


def _spread(values: Sequence[float]) -> str:
    return f"{100 * mean(values):+.2f} ({100 * float(np.std(values, ddof=1)):.2f})"


if __name__ == "__main__":
    sys.exit(main())
