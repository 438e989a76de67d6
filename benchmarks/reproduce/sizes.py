"""How much of the literature's budget a reproduction spends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ARCHITECTURE = "lenet-300-100"
LEVELS = (0, 3, 7, 12, 15)  # 100, 51, 21, 7 and 3.6 % of LeNet-300-100's weights on 28x28 pixels
METHOD_DENSITY = 0.10
METHOD_TASK = "mnist"
TRANSFER_LEVEL = 12


@dataclass(frozen=True)
class Size:
    """One size of the whole reproduction.

    Attributes:
        seeds: task -> seeds of initial values (one search each).
        replicates: data orders an arm of each ticket.
        baseline_runs: dense trainings that all tickets of a task share.
        method_replicates, transfer_replicates: the same for the tables of methods and of transfer.
        transfer_tasks: between which tickets are moved.
        recipe: fields that differ from the task's default recipe.
        drops: steps at which the learning rate falls to a tenth, in the table of retraining.
    """

    name: str
    seeds: dict[str, tuple[int, ...]]
    replicates: int
    baseline_runs: int
    method_replicates: int
    transfer_replicates: int
    transfer_tasks: tuple[str, ...] = ("mnist", "fashion-mnist", "kmnist-partial")
    recipe: dict[str, Any] = field(default_factory=dict)
    drops: tuple[int, ...] = (5_000, 7_500)
    levels: tuple[int, ...] = LEVELS
    method_task: str = METHOD_TASK
    transfer_level: int = TRANSFER_LEVEL


DEFAULT = Size(
    "default: a fifth of the paper's steps",
    {"mnist": (0, 1, 2), "fashion-mnist": (0,)},
    replicates=5,
    baseline_runs=20,
    method_replicates=3,
    transfer_replicates=3,
    recipe={"steps": 10_000, "evaluate_every": 100, "initial_law": "glorot_normal"},
)
FULL = Size(
    "full: the paper's 50,000 steps and 5 inits",
    {"mnist": (0, 1, 2, 3, 4), "fashion-mnist": (0, 1, 2, 3, 4)},
    replicates=10,
    baseline_runs=20,
    method_replicates=5,
    transfer_replicates=5,
    recipe={"steps": 50_000, "evaluate_every": 100, "initial_law": "glorot_normal"},
    drops=(25_000, 37_500),
)
TINY = Size(  # of the code and not of the science: what the tests run
    "tiny: digits, a test of this program",
    {"digits": (0,)},
    replicates=2,
    baseline_runs=3,
    method_replicates=2,
    transfer_replicates=2,
    transfer_tasks=("digits",),
    recipe={"steps": 20, "evaluate_every": 10},
    drops=(10, 15),
    levels=(0, 1, 2),
    method_task="digits",
    transfer_level=2,
)
SIZES = {"default": DEFAULT, "full": FULL, "tiny": TINY}
