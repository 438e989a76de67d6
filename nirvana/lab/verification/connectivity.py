"""Linear mode connectivity: do two trainings of one ticket end in the same valley?

Reference: Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis" (arXiv
1912.05671): train twice in two data orders; the error along the straight line between the two ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nirvana.cost import Cost, sum_costs
from nirvana.errors import Cancelled, Invalid, TrainingFailed
from nirvana.lab.engines import train
from nirvana.lab.environment import deterministic
from nirvana.lab.evaluate import evaluate
from nirvana.lab.modules import Network, build_module, load_values, tensors_of
from nirvana.lab.verification.arms import ORDER_SEED, arm_teacher
from nirvana.lab.verification.fitting import check_fit
from nirvana.ops import BATCH_NORM_MOMENTUM
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop

STABLE_BELOW = 0.02  # Frankle et al. 2020, section 3
PAIRS = ((0, 1), (1, 2), (2, 0))  # three trainings, three pairs
_STATISTICS_EXAMPLES, _STATISTICS_BATCH = 2000, 500  # of the training data, for running statistics
Values = Mapping[str, NDArray[np.float32]]


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
        """JSON-able."""
        return asdict(self)


def barrier(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe | None = None,
    pairs: Sequence[tuple[int, int]] = PAIRS,
    points: int = 30,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
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
        InvalidArchitecture, InvalidRecipe, Cancelled: as `run_arm`.
    """
    if not pairs or any(one == other for one, other in pairs):
        raise Invalid(f"pairs is {list(pairs)}, expected at least one pair of different replicates")
    if points < 3:
        raise Invalid(f"points is {points}, expected at least 3: both ends and one between them")
    recipe = recipe or Recipe.from_dict(dict(ticket.recipe))
    check_fit(ticket, data, recipe)
    orders = sorted({order for pair in pairs for order in pair})
    ends, costs = dict[int, Values](), list[Cost]()
    for order in orders:
        ends[order], cost = _end(ticket, data, recipe, order, should_stop)
        costs.append(cost)
        if progress:
            said = f"stability: training {len(costs)} of {len(orders)}"
            progress({"kind": "stability", "done": len(costs), "total": len(orders), "message": said})
    lines = [_line(ticket, data, ends[one], ends[other], points, should_stop) for one, other in pairs]
    return _summary(ticket, pairs, lines, [ends[order] for order in orders], costs)


def _end(
    ticket: Ticket, data: TaskData, recipe: Recipe, order: int, should_stop: ShouldStop | None
) -> tuple[Values, Cost]:
    result = train(
        ticket.architecture,
        ticket.initial_values(),
        ticket.masks,
        data,
        recipe,
        ORDER_SEED + order,
        start_step=recipe.first_step(ticket.start.rewind_step),
        should_stop=should_stop,
        keep_weights=True,
        teacher=arm_teacher(ticket, data, recipe, should_stop),
    )
    if result.failed or result.weights is None:
        raise TrainingFailed(f"the loss was not finite at step {result.failed_step}, replicate {order}")
    return result.weights, result.cost


def _line(
    ticket: Ticket, data: TaskData, one: Values, other: Values, points: int, should_stop: ShouldStop | None
) -> list[float]:
    """Test errors at evenly spaced points of (1 - a) x one + a x other."""
    network, errors = build_module(ticket.architecture), []
    for a in np.linspace(0, 1, points):
        if should_stop and should_stop():
            raise Cancelled("cancelled while the line between two trainings was measured")
        between = {name: ((1 - a) * one[name] + a * other[name]).astype(np.float32) for name in one}
        with deterministic(0):
            load_values(network, between)
            _recompute_statistics(network, data)
            errors.append(1 - evaluate(network, data.test_x, data.test_y)[1])
    return errors


@torch.no_grad()
def _recompute_statistics(network: Network, data: TaskData) -> None:
    """Running statistics of the weights as they are: the mean of those of several training batches."""
    tensors = tensors_of(network)
    buffers = {name: tensors[name] for name in network.architecture.buffers}
    if not buffers:
        return
    gathered = {name: torch.zeros_like(buffer) for name, buffer in buffers.items()}
    fixed = {name: buffer.clone() for name, buffer in buffers.items()}
    network.train()
    last = min(len(data.train_x), _STATISTICS_EXAMPLES) - 1  # a batch of one example has no variance
    starts = range(0, last, _STATISTICS_BATCH)
    for start in starts:
        for name, buffer in buffers.items():
            buffer.copy_(fixed[name])
        network(torch.from_numpy(data.train_x[start : start + _STATISTICS_BATCH]))
        for name, buffer in buffers.items():  # what the update b <- (1 - m) b + m x says of the batch's x
            batch = (buffer - (1 - BATCH_NORM_MOMENTUM) * fixed[name]) / BATCH_NORM_MOMENTUM
            gathered[name] += batch / len(starts)
    for name, buffer in buffers.items():
        buffer.copy_(gathered[name])


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
