"""The arms of a verification: which mask and which values each replicate trains.

| arm | mask | values |
|---|---|---|
| dense | all kept | the ticket's values before any mask |
| ticket | the ticket's | the ticket's |
| reinit | the ticket's | drawn anew from the ticket's laws (stream REINIT, seed j) |
| rescaled | the ticket's | those of reinit, divided by sqrt(layer density) in masked layers |
| shuffle | the ticket's, permuted within each layer (seed j) | the ticket's values before any mask |
| random | as many weights in all, spread evenly over the layers, chosen at random (seed j) | the same |
| magnitude | the largest of the dense arm's values, as many as the ticket's | the dense arm's |

Replicate j trains on data order `ORDER_SEED` + j in every arm, so differences are paired, and never on the
order of the search (whose seed is the submitter's).

After rewinding to step k the re-initialised values are trained densely for k steps first (order j), so every
arm goes on from step k, but for the dense and magnitude arms where the ticket does not hold its pruned
weights' values. What a stored ticket that keeps survivors only leaves out: dense and magnitude start from the
ticket's seed where it names one and else from a fresh draw (stream REINIT, seed j, then unpaired), at step 0;
shuffle moves the surviving values along with their positions; random starts from the reinit arm's values.

Where the recipe has a `start_step`, the ticket is a pruned model: trained values that go on from that step.
Its reinit and rescaled arms are plain draws that start at that step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nirvana import initial
from nirvana.lab.distillation import teacher_logits
from nirvana.lab.methods.ranking import counts_near, uniform_shares
from nirvana.lab.train import advance
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import ShouldStop, Values

ORDER_SEED = 0x56455249 << 16  # "VERI": no search uses it by chance, and JSON holds it exactly
Masks = dict[str, Mask]
Arrays = Mapping[str, NDArray[np.float32]]
_DENSE_STARTS = ("dense", "magnitude")


def arm_masks(ticket: Ticket, arm: str, seed: int) -> Masks:
    """The masks of one replicate of an arm."""
    if arm == "dense":
        return {}
    if arm == "shuffle":
        tensors = _positions(ticket)
        return {name: initial.shuffle_mask(mask, seed, tensors[name]) for name, mask in ticket.masks.items()}
    if arm == "random":
        return random_masks(ticket, seed)
    if arm == "magnitude":
        whole = ticket.dense_initial_values()
        return magnitude_masks(ticket, _fresh(ticket, seed) if whole is None else whole)
    return dict(ticket.masks)


def random_masks(ticket: Ticket, seed: int) -> Masks:
    """The ticket's number of weights, spread evenly over the layers: each has the ticket's density, but for
    rounding (largest fractions first) and at least one weight."""
    shapes, tensors = ticket.prunable_shapes, _positions(ticket)
    counts = counts_near(uniform_shares(shapes, ticket.kept), ticket.kept)
    return {
        name: initial.random_mask(shape, counts[name], seed, tensors[name]) for name, shape in shapes.items()
    }


def magnitude_masks(ticket: Ticket, values: Arrays) -> Masks:
    """The largest |values| over all layers, as many as the ticket keeps; each layer keeps its largest at
    least. Ties go to the earlier layer, then to the lower flat index.

    Reference: magnitude pruning at initialisation, Frankle et al. 2021 (arXiv 2009.08576).
    """
    shapes = ticket.prunable_shapes
    sizes = [np.abs(values[name]).ravel() for name in shapes]
    starts = np.cumsum([0, *(len(part) for part in sizes)])
    flat = np.concatenate(sizes)
    flat[[start + int(part.argmax()) for start, part in zip(starts[:-1], sizes, strict=True)]] = np.inf
    kept = np.zeros(len(flat), bool)
    kept[np.argsort(-flat, kind="stable")[: max(ticket.kept, len(shapes))]] = True
    parts = np.split(kept, starts[1:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def arm_values(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe,
    seed: int,
    should_stop: ShouldStop | None = None,
) -> tuple[Arrays, int]:
    """The values that a replicate starts from, and its first step."""
    first = recipe.first_step(ticket.start.rewind_step)
    whole = ticket.dense_initial_values()
    if arm == "ticket":
        return ticket.initial_values(), first
    if arm in ("reinit", "rescaled") or (arm == "random" and whole is None):
        values = _reinit(ticket, data, recipe, seed, should_stop)
        return _rescaled(ticket, values) if arm == "rescaled" else values, first
    if whole is not None:
        return whole, first
    if arm == "shuffle":
        return _moved(ticket, seed), first
    return _fresh(ticket, seed), 0


def arm_teacher(
    ticket: Ticket, data: TaskData, recipe: Recipe, should_stop: ShouldStop | None = None
) -> NDArray[np.float32] | None:
    """The logits that every arm of the ticket is taught with; None where the recipe has no teacher.

    The teacher starts from the ticket's seed, or else from its values before any mask, or else from a draw.
    """
    if not recipe.distillation:
        return None
    values, first = teacher_start(ticket)
    return teacher_logits(
        ticket.architecture, values, data, recipe, start_step=first, should_stop=should_stop
    )


def teacher_start(ticket: Ticket) -> tuple[Arrays, int]:
    """The values that the ticket's teacher starts from, and the update at which they were taken."""
    whole = ticket.dense_initial_values()
    if ticket.start.seed is None and whole is not None:
        return whole, ticket.start.rewind_step
    return _fresh(ticket, 0), 0


def is_paired(ticket: Ticket, arm: str) -> bool:
    """Whether the arm shares the ticket's initial values or masks, not only its data order."""
    return arm not in _DENSE_STARTS or ticket.stores_whole_tensors or ticket.start.seed is not None


def dense_steps(ticket: Ticket, arm: str, recipe: Recipe) -> int:
    """Updates that a replicate of the arm takes densely before its training proper."""
    draws_anew = arm in ("reinit", "rescaled") or (arm == "random" and not ticket.stores_whole_tensors)
    return ticket.start.rewind_step if draws_anew and recipe.start_step is None else 0


def _reinit(
    ticket: Ticket, data: TaskData, recipe: Recipe, seed: int, should_stop: ShouldStop | None
) -> Values:
    architecture, steps = ticket.architecture, dense_steps(ticket, "reinit", recipe)
    values = initial.draw_all(architecture, ticket.start.laws, seed, initial.REINIT)
    if not steps:
        return values
    teacher = arm_teacher(ticket, data, recipe, should_stop)
    order = ORDER_SEED + seed
    return advance(
        architecture, values, data, recipe, order, steps, should_stop=should_stop, teacher=teacher
    )[0]


def _rescaled(ticket: Ticket, values: Values) -> Values:
    """Masked layers at the scale that their density asks for: a unit's inputs vary as those of a dense one.

    Reference: initialisation by the sparse fan-in, Evci et al. 2022 (arXiv 2010.03533).
    """
    scaled = dict(values)
    for name, mask in ticket.masks.items():
        scaled[name] = (values[name] / np.sqrt(mask.mean())).astype(np.float32)
    return scaled


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


def _positions(ticket: Ticket) -> dict[str, int]:
    return {name: position for position, name in enumerate(ticket.architecture.parameters)}
