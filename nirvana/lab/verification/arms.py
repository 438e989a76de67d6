"""The arms of a verification: which mask, which values, and one training for each replicate.

| arm | mask | values |
|---|---|---|
| dense | all kept | the ticket's values before any mask |
| ticket | the ticket's | the ticket's |
| reinit | the ticket's | drawn anew from the ticket's laws (stream REINIT, seed j) |
| shuffle | the ticket's, permuted within each layer (seed j) | the ticket's values before any mask |
| random | as many weights in all, spread evenly over the layers, chosen at random (seed j) | the same |

Replicate j trains on data order `ORDER_SEED` + j in every arm, so differences are paired, and never on the
order of the search (whose seed is the submitter's).

After rewinding to step k the re-initialised values are trained densely for k steps first (order j), so every
arm goes on from step k, but for the dense arm where the ticket does not hold its pruned weights' values. What
a stored ticket that keeps survivors only leaves out: dense starts from the ticket's seed where it names one
and else from a fresh draw (stream REINIT, seed j, then unpaired), at step 0; shuffle moves the surviving
values along with their positions; random starts from the reinit arm's values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import initial
from nirvana.cost import Cost, sum_costs
from nirvana.errors import Invalid
from nirvana.lab.environment import environment
from nirvana.lab.train import advance, train
from nirvana.masks import Mask, density
from nirvana.protocol import ARMS
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import Progress, TrainResult, Values

ORDER_SEED = 0x56455249 << 16  # "VERI": no search uses it by chance, and JSON holds it exactly
Masks = dict[str, Mask]


@dataclass(frozen=True)
class ArmResult:
    """What one arm measured, one entry a replicate, in the order of `seeds`.

    Attributes:
        arm: one of `ARMS`.
        seeds: j of each replicate.
        accuracies: test accuracy at the early stop; a failed replicate counts as chance.
        failed: whether the replicate's loss left the finite numbers.
        paired: whether the arm starts from the ticket's own values (for dense: before any mask).
        density: of the arm's masks.
    """

    arm: str
    seeds: list[int]
    accuracies: list[float]
    final_accuracies: list[float]
    untrained_accuracies: list[float]
    early_stop_steps: list[int]
    failed: list[bool]
    paired: bool
    density: float
    cost: Cost
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArmResult:
        return cls(**{**fields, "cost": Cost(**fields["cost"])})


def run_arm(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe | None = None,
    replicates: int = 5,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ArmResult:
    """Train one arm of a verification: replicates 0 to `replicates` - 1.

    Args:
        recipe: None is the ticket's own.
        progress: called with {"kind": "arm" | "point", "done", "total", "message", "arm", "replicate", ...}.

    Raises:
        Invalid: unknown arm, or no replicates.
        Cancelled: `should_stop` said so.
    """
    if arm not in ARMS:
        raise Invalid(f"arm is {arm!r}, expected one of {', '.join(ARMS)}")
    if replicates < 1:
        raise Invalid(f"replicates is {replicates}, expected at least 1")
    recipe = recipe or Recipe.from_dict(dict(ticket.recipe))
    results = []
    for seed in range(replicates):
        place = {"arm": arm, "replicate": seed}
        results.append(_replicate(ticket, arm, data, recipe, seed, _with(progress, place), should_stop))
        if progress:
            message = (
                f"{arm} {seed + 1}/{replicates}: test accuracy {results[-1].early_stop_test_accuracy:.4f}"
            )
            counts = {"kind": "arm", "done": seed + 1, "total": replicates, "message": message}
            progress(counts | place | {"test_accuracy": results[-1].early_stop_test_accuracy})
    return _collect(ticket, arm, results)


def _replicate(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe,
    seed: int,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> TrainResult:
    values, start_step = arm_values(ticket, arm, data, recipe, seed, should_stop)
    return train(
        ticket.architecture,
        values,
        arm_masks(ticket, arm, seed),
        data,
        recipe,
        ORDER_SEED + seed,
        start_step=start_step,
        progress=progress,
        should_stop=should_stop,
    )


def arm_masks(ticket: Ticket, arm: str, seed: int) -> Masks:
    """The masks of one replicate of an arm."""
    if arm == "dense":
        return {}
    if arm == "shuffle":
        tensors = _positions(ticket)
        return {name: initial.shuffle_mask(mask, seed, tensors[name]) for name, mask in ticket.masks.items()}
    if arm == "random":
        return random_masks(ticket, seed)
    return dict(ticket.masks)


def random_masks(ticket: Ticket, seed: int) -> Masks:
    """The ticket's number of weights, spread evenly over the layers: each has the ticket's density, but for
    rounding (largest fractions first) and at least one weight."""
    shapes, tensors = ticket.prunable_shapes, _positions(ticket)
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    exact = {name: size * ticket.density for name, size in sizes.items()}
    counts = {name: max(1, int(share)) for name, share in exact.items()}
    by_fraction = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_fraction[: max(0, ticket.kept - sum(counts.values()))]:
        counts[name] += 1
    return {
        name: initial.random_mask(shape, counts[name], seed, tensors[name]) for name, shape in shapes.items()
    }


def arm_values(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe,
    seed: int,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Mapping[str, NDArray[np.float32]], int]:
    """The values that a replicate starts from, and its first step."""
    rewind_step = ticket.start.rewind_step
    whole = ticket.dense_initial_values()
    if arm == "ticket":
        return ticket.initial_values(), rewind_step
    if arm == "reinit" or (arm == "random" and whole is None):
        return _reinit(ticket, data, recipe, seed, should_stop), rewind_step
    if whole is not None:
        return whole, rewind_step
    if arm == "shuffle":
        return _moved(ticket, seed), rewind_step
    return _fresh(ticket, seed), 0


def _reinit(
    ticket: Ticket, data: TaskData, recipe: Recipe, seed: int, should_stop: Callable[[], bool] | None
) -> Values:
    architecture, rewind_step = ticket.architecture, ticket.start.rewind_step
    values = initial.draw_all(architecture, ticket.start.laws, seed, initial.REINIT)
    if not rewind_step:
        return values
    return advance(
        architecture, values, data, recipe, ORDER_SEED + seed, rewind_step, should_stop=should_stop
    )[0]


def _moved(ticket: Ticket, seed: int) -> Values:
    """Surviving values permuted as the shuffle arm's masks are."""
    tensors, values = _positions(ticket), ticket.initial_values()
    for name in ticket.masks:
        order = initial.epoch_order(seed, tensors[name], values[name].size)
        values[name] = values[name].ravel()[order].reshape(values[name].shape)
    return values


def _fresh(ticket: Ticket, seed: int) -> Values:
    start = ticket.start
    if start.seed is not None:
        return initial.draw_all(ticket.architecture, start.laws, start.seed)
    return initial.draw_all(ticket.architecture, start.laws, seed, initial.REINIT)


def is_paired(ticket: Ticket, arm: str) -> bool:
    """Whether the arm shares the ticket's initial values, not only its data order."""
    return arm != "dense" or ticket.stores_whole_tensors or ticket.start.seed is not None


def _positions(ticket: Ticket) -> dict[str, int]:
    return {name: position for position, name in enumerate(ticket.architecture.parameters)}


def _collect(ticket: Ticket, arm: str, results: list[TrainResult]) -> ArmResult:
    return ArmResult(
        arm=arm,
        seeds=list(range(len(results))),
        accuracies=[result.early_stop_test_accuracy for result in results],
        final_accuracies=[result.final_test_accuracy for result in results],
        untrained_accuracies=[result.untrained_test_accuracy for result in results],
        early_stop_steps=[result.early_stop_step for result in results],
        failed=[result.failed for result in results],
        paired=is_paired(ticket, arm),
        density=density(arm_masks(ticket, arm, 0), ticket.prunable_shapes),
        cost=sum_costs(result.cost for result in results),
        environment=environment(),
    )


def _with(progress: Progress | None, place: dict[str, Any]) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | place)
