"""A look for leaks: was a mask searched on the test labels?

The ticket and the dense network train on a random half of the training data, another one for each replicate.
An honest search has seen the labels of the other half, and none of the test set's: beside the dense network
the ticket does better on the former. One that leaked has seen both. It is reported and decides nothing:
`python -m benchmarks.leaks` measures how often it is right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nirvana.format.initial import epoch_order
from nirvana.training.events import SILENT, Reporter
from nirvana.training.spec import SealedRows, TaskData
from nirvana.verification.arms import ArmConfig
from nirvana.verification.running import run_arms
from nirvana.verification.statistics import mean

_STREAM = 0x4C45414B  # "LEAK"


def look_for_leaks(config: ArmConfig, seeds: range, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Train a ticket and the dense network on halves of the training data, and compare them on the other
    halves and on the test set.

    Args:
        seeds: of the replicates, each with its half.

    Returns:
        JSON-able: `on_other_half` and `on_test`, ticket - dense in accuracy, and `excess`, the second less
        the first: below 0 as a rule; above, a leak is likely.

    Raises:
        InvalidRecipe, Cancelled: as `run_arms`.
    """
    pairs = [_train_on_half(config, seed, reporter) for seed in seeds]
    on_other_half, on_test = (mean([pair[side] for pair in pairs]) for side in (0, 1))
    gaps = {"on_other_half": on_other_half, "on_test": on_test, "excess": on_test - on_other_half}
    return gaps | {"replicates": len(seeds)}


def _train_on_half(config: ArmConfig, seed: int, reporter: Reporter) -> tuple[float, float]:
    """Return ticket - dense on the other half and on the test set, trained on the half of a seed."""
    data, order = config.data, epoch_order(seed, _STREAM, len(config.data.train_y))
    learned, other = order[: len(order) // 2], order[len(order) // 2 :]
    half: TaskData = data._replace(train_x=data.train_x[learned], train_y=data.train_y[learned])
    held = SealedRows(data.train_x[other], data.train_y[other])
    halved = replace(config, data=half, sealed=held)
    arms = run_arms(halved, ("ticket", "dense"), range(seed, seed + 1), reporter)
    t, d = arms["ticket"], arms["dense"]
    return t.accuracies[0] - d.accuracies[0], t.test_accuracies[0] - d.test_accuracies[0]
