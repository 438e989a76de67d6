"""`python -m benchmarks.attestation`: do two engines find the same ticket, and what may an attestation grant?

A search that is run again gives the same bits on the same engine and instructions, and others elsewhere. This
prints how far the masks of one seed then overlap, beyond what chance gives, beside what a mask that was
searched on the test labels has in common with the honest one of the same seed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.verdict_rates.adversaries import imp_on, join_parts
from nirvana import lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.tasks.task import PARTS
from nirvana.training.cost import environment
from nirvana.training.recipe import Recipe
from nirvana.verification.duplicates import compare

TASK, ARCHITECTURE = "digits", "lenet-300-100"
SEEDS, DENSITIES = range(10), (0.51, 0.21, 0.10, 0.05, 0.03)
ENGINES = ("sparse", "dense")


def main() -> int:
    """Print the table."""
    where = ", ".join(f"{name} {value}" for name, value in environment().items())
    print(
        f"{TASK}, {ARCHITECTURE}, IMP, seeds {SEEDS[0]} to {SEEDS[-1]}. Overlap (J - c) / (1 - c), J "
        "Jaccard's and c by chance: least, mean and most over seeds. *Engines*: one seed by the sparse and "
        "by the dense engine, whose sums differ in their last bits. *Leaked*: the same seed, values and "
        f"steps, searched on validation and test labels too.\n\nMachine and versions: {where}.\n"
    )
    print("| density % | same digest by two engines | engines | leaked |\n|---|---|---|---|")
    searches = [_search(seed) for seed in SEEDS]
    for place, density in enumerate(DENSITIES):
        pairs = [(one["sparse"][place], one["dense"][place]) for one in searches]
        same = sum(a.digest == b.digest for a, b in pairs)
        engines = [_overlap(a, b) for a, b in pairs]
        leaks = [_overlap(one["sparse"][place], one["leaked"][place]) for one in searches]
        cells = [f"{100 * density:g}", f"{same} of {len(pairs)}", _spread(engines), _spread(leaks)]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


def _search(seed: int) -> dict[str, list[Ticket]]:
    """Return the tickets of one seed at every density: by each engine, and with a leak."""
    found = {engine: [_find(seed, density, engine) for density in DENSITIES] for engine in ENGINES}
    data = tasks.load(TASK)
    steps = Recipe.from_dict(dict(found["sparse"][0].recipe)).steps
    everything = join_parts(data, PARTS)
    return found | {"leaked": [imp_on(everything, seed, density, steps) for density in DENSITIES]}


def _find(seed: int, density: float, engine: str) -> Ticket:
    return lab.find(TASK, ARCHITECTURE, "imp", density=density, seed=seed, engine=engine).tickets[-1]


def _overlap(one: Ticket, other: Ticket) -> float:
    return compare(one, "other", other).beyond_chance


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f}, {sum(values) / len(values):.3f}, {max(values):.3f}"


if __name__ == "__main__":
    sys.exit(main())
