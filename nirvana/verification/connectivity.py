"""Linear mode connectivity: whether two trainings of one ticket end in the same valley.

Reference: Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis" (arXiv
1912.05671): train twice in two data orders; the error along the straight line between the two ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nirvana import lazy
from nirvana.engines import train
from nirvana.errors import Invalid, TrainingFailed
from nirvana.format.ticket import Ticket
from nirvana.training.cost import Cost, sum_costs
from nirvana.training.events import SILENT, Reporter
from nirvana.training.recipe import Recipe
from nirvana.training.spec import TaskData, Values
from nirvana.verification.arms import ArmConfig, initial_state, train_spec
from nirvana.verification.gate import check_fit

STABLE_BELOW = 0.02  # Frankle et al. 2020, section 3
PAIRS = ((0, 1), (1, 2), (2, 0))  # three trainings, three pairs


@dataclass(frozen=True)
class Barrier:
    """The error barrier of a ticket.

    Attributes:
        barriers: of each pair of data orders: the largest test error along the line less the mean of the
            errors at its two ends, a fraction.
        mean: of `barriers`. stable: it is below 0.02.
        errors: of each pair, test errors at the points, from one end to the other.
        distances: L2 distance of each training's end from where it started, over all parameters.
        statistics: what was done with running statistics: `recomputed` or `none`.
    """

    pairs: list[list[int]]
    barriers: list[float]
    mean: float
    stable: bool
    errors: list[list[float]]
    distances: list[float]
    statistics: str
    cost: Cost

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return asdict(self)


def barrier(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe | None = None,
    pairs: Sequence[tuple[int, int]] = PAIRS,
    points: int = 30,
    reporter: Reporter = SILENT,
) -> Barrier:
    """Train the ticket in the data orders of `pairs` and measure the error between their ends.

    Running statistics at the points, ends included, are computed anew on the first 2,000 training examples;
    all averages are over data orders of the ticket's one start, where the paper also averages over starts.

    Args:
        pairs: replicates j whose orders (`ORDER_SEED` + j) are compared; each is trained once.
        points: on each line, its ends included.

    Raises:
        Invalid: no pairs, a pair of one order with itself, or fewer than 3 points.
        TrainingFailed: a loss was not finite.
        Unavailable: torch, which measures the lines, is not installed.
        InvalidArchitecture, InvalidRecipe, Cancelled: as `run_arms`.
    """
    if not pairs or any(one == other for one, other in pairs):
        raise Invalid(f"pairs is {list(pairs)}, expected at least one pair of different replicates")
    if points < 3:
        raise Invalid(f"points is {points}, expected at least 3: both ends and one between them")
    lazy.require("torch")  # before anything is trained
    recipe = recipe or Recipe.from_dict(dict(ticket.recipe))
    check_fit(ticket, data, recipe)
    config = ArmConfig(ticket, "ticket", data, recipe, reporter.silent)
    orders = sorted({order for pair in pairs for order in pair})
    ends, costs = dict[int, Values](), list[Cost]()
    for order in orders:
        ends[order], cost = _train_end(config, order)
        costs.append(cost)
        message = f"stability: training {len(costs)} of {len(orders)}"
        reporter.report({"kind": "stability", "done": len(costs), "total": len(orders), "message": message})
    lines = [
        lazy.line_errors(ticket.architecture, data, (ends[one], ends[other]), points, reporter)
        for one, other in pairs
    ]
    return _summary(ticket, pairs, lines, [ends[order] for order in orders], costs)


def _train_end(config: ArmConfig, order: int) -> tuple[Values, Cost]:
    spec = train_spec(config, initial_state(config, order))
    result = train(spec, config.reporter, keep_weights=True)
    if result.failed or result.weights is None:
        raise TrainingFailed(f"the loss was not finite at step {result.failed_step}, replicate {order}")
    return result.weights, result.cost


def _summary(
    ticket: Ticket,
    pairs: Sequence[tuple[int, int]],
    lines: list[list[float]],
    ends: list[Values],
    costs: list[Cost],
) -> Barrier:
    heights = [max(line) - (line[0] + line[-1]) / 2 for line in lines]
    mean, start = math.fsum(heights) / len(heights), ticket.initial_values()
    distances = [
        math.sqrt(math.fsum(float(np.sum((end[n].astype(np.float64) - start[n]) ** 2)) for n in start))
        for end in ends
    ]
    statistics = "recomputed" if ticket.architecture.buffers else "none"
    stable, listed = mean < STABLE_BELOW, [list(pair) for pair in pairs]
    return Barrier(listed, heights, mean, stable, lines, distances, statistics, sum_costs(costs))
