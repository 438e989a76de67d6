"""`python -m benchmarks.signs`: what a ticket's signs tell, and what a mask that moves does, on digits.

Honest tickets of IMP, several seeds and densities; beside each its controls, the signs arm, RigL and SET.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from nirvana import lab, tasks
from nirvana.training.cost import environment
from nirvana.training.recipe import Recipe
from nirvana.verification.arms import ArmConfig
from nirvana.verification.dynamic import KINDS, run_dynamic
from nirvana.verification.running import run_arms
from nirvana.verification.statistics import mean, paired_difference

TASK, ARCHITECTURE = "digits", "lenet-300-100"
DENSITIES, SEEDS, REPLICATES = (0.10, 0.05, 0.02), range(10), 5
ARMS = ("dense", "ticket", "reinit", "signs", "shuffle", "random")


def main() -> int:
    """Print the tables."""
    where = ", ".join(f"{name} {value}" for name, value in environment().items())
    print(
        f"{TASK}, {ARCHITECTURE}, IMP, seeds {SEEDS[0]} to {SEEDS[-1]}, n = {REPLICATES} replicates of each; "
        "means in % on the sealed rows. *T - signs*, *T - RigL*: paired over all replicates, with one-sided "
        f"95 % bounds, in percentage points.\n\nMachine and versions: {where}.\n"
    )
    heads = ("density %", "D", "T", "R", "signs", "S", "U", "RigL", "SET", "T - signs", "T - RigL")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for density in DENSITIES:
        found = dict[str, list[float]]()
        for name, values in (one for seed in SEEDS for one in measure(seed, density)):
            found.setdefault(name, []).extend(values)
        means = [f"{100 * mean(found[name]):.2f}" for name in (*ARMS, *KINDS)]
        gaps = [_gap(found["ticket"], found[name]) for name in ("signs", "rigl")]
        print(f"| {100 * density:g} | {' | '.join([*means, *gaps])} |", flush=True)
    return 0


def measure(seed: int, density: float) -> Iterator[tuple[str, list[float]]]:
    """Yield each arm's accuracies, of one ticket."""
    ticket = lab.find(TASK, ARCHITECTURE, "imp", density=density, seed=seed).tickets[-1]
    recipe, data = Recipe.from_dict(dict(ticket.recipe)), tasks.load(TASK)
    config = ArmConfig(ticket, "ticket", data, recipe, sealed=tasks.load_sealed(TASK))
    seeds = range(REPLICATES)
    arms = run_arms(config, ARMS, seeds, threads=1)
    yield from ((name, arm.accuracies) for name, arm in arms.items())
    for kind in KINDS:
        yield kind, run_dynamic(config, kind, seeds, arms["ticket"].accuracies)["accuracies"]


def _gap(x: list[float], y: list[float]) -> str:
    found = paired_difference(x, y)
    return f"{100 * found.mean:+.2f} [{100 * found.lower:+.2f}, {100 * found.upper:+.2f}]"


if __name__ == "__main__":
    sys.exit(main())
