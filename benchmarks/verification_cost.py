"""A standard verification of a 7 % ticket, without the registry's pool of dense runs, which other tickets
share: `run_arms` beside its 35 trainings, one by one, in torch."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from benchmarks.effort import Effort
from benchmarks.goals import Goal, median_ratio
from benchmarks.machine import ALL_CORES, LAST_CORE, pinned
from benchmarks.measuring import Timing, clock, ratios, row, spread, table
from benchmarks.subjects import SEED, Subject, lenet
from nirvana import engines, tasks
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.tasks import TaskData
from nirvana.training.recipe import Recipe
from nirvana.verification.arms import ArmConfig, initial_state, train_spec
from nirvana.verification.protocol import ARMS, BASELINES
from nirvana.verification.running import run_arms

DENSITY = 0.07
REPLICATES = 5
OWN = tuple(arm for arm in ARMS if arm not in BASELINES)
FULL_STEPS = 10_000


def main(effort: Effort) -> list[Goal]:
    """Print seconds and ratios, on one core and on all."""
    subject = lenet()
    if subject.pixels != "MNIST":
        print(f"not measured: {subject.pixels}, expected MNIST under NIRVANA_DATA")
        return []
    print(
        f"MNIST, LeNet-300-100 at {100 * DENSITY:g} % (largest weights after a brief training), "
        f"n = {REPLICATES} replicates of {len(OWN)} arms (not the pool), no run from a cache. Torch: each "
        "training by itself on the dense engine, one core. Ours: `run_arms` on one core, and on "
        f"all {len(ALL_CORES)} of this machine. Validation every 100 updates.\n"
    )
    print(
        table(
            [
                *("updates a training", "n", "torch, one by one, s", "ours, one core, s", "ratio"),
                *("ours, all cores, s", "ratio"),
            ]
        )
    )
    goals = _print_pairs(subject, effort.verification_steps, effort.pairs)
    if effort.has_full_length:
        goals += _print_pairs(subject, FULL_STEPS, 1)
    return goals


def _print_pairs(subject: Subject, steps: int, pairs: int) -> list[Goal]:
    ticket = make_ticket(subject, steps)
    one_by_one, alone, all_cores = list[Timing](), list[Timing](), list[Timing]()
    for _ in range(pairs):
        one_by_one.append(clock(lambda: train_one_by_one(ticket, subject.data)))
        alone.append(_verify(ticket, LAST_CORE))
        all_cores.append(_verify(ticket, ALL_CORES))
    sides = [spread(timing.wall for timing in side) for side in (one_by_one, alone, all_cores)]
    cells = [sides[0], sides[1], ratios(one_by_one, alone), sides[2], ratios(one_by_one, all_cores)]
    print(row([steps, pairs, *cells]), flush=True)
    what = f"a verification at {100 * DENSITY:g} %, {steps} updates a training, against one-by-one torch"
    return [
        Goal(f"{what}, one core", 5, median_ratio(one_by_one, alone)),
        Goal(f"{what}, all cores", 5, median_ratio(one_by_one, all_cores)),
    ]


def make_ticket(subject: Subject, steps: int) -> Ticket:
    """A ticket on its seed's initial values, whose recipe has that many steps."""
    recipe = replace(subject.recipe, steps=steps)
    return Ticket.create(
        subject.architecture,
        subject.masks(DENSITY),
        laws=default_laws(subject.architecture, recipe.initial_law),
        seed=SEED,
        task="mnist",
        recipe=recipe.to_dict(),
        provenance={"method": "imp", "level": 1},
    )


def train_one_by_one(ticket: Ticket, data: TaskData) -> list[float]:
    """Final test accuracies of every replicate of every arm, each trained by itself in torch."""
    recipe, accuracies = Recipe.from_dict(dict(ticket.recipe)), list[float]()
    for arm in OWN:
        config = ArmConfig(ticket, arm, data, recipe)
        for seed in range(REPLICATES):
            trained = engines.train(train_spec(config, initial_state(config, seed)), engine="dense")
            accuracies.append(trained.final_test_accuracy)
    return accuracies


def _verify(ticket: Ticket, on: Set[int]) -> Timing:
    config = ArmConfig(ticket, "ticket", tasks.load(ticket.task), Recipe.from_dict(dict(ticket.recipe)))
    with pinned(on):
        return clock(lambda: run_arms(config, OWN, range(REPLICATES), threads=len(on)))
