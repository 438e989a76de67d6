"""The arms of a verification: the mask and the values that each replicate trains.

| arm | mask | values |
|---|---|---|
| ticket | the ticket's | the ticket's |
| reinit | the ticket's | drawn anew from the ticket's laws (stream REINIT, seed j) |
| rescaled | the ticket's | those of reinit, divided by sqrt(layer density) in masked layers |
| shuffle | the ticket's, permuted within each layer (seed j) | the ticket's values before any mask |
| random | as many weights in all, spread evenly over the layers, chosen at random (seed j) | the same |
| magnitude | the largest of the ticket's values before any mask, as many as the ticket's | the same |
| signs | the ticket's | those of reinit, each kept weight with the sign of the ticket's value |
| dense | all kept | drawn by the ticket's laws (stream REINIT, seed j of a pool) |
| reference | all kept | drawn by the reference recipe's law (stream REINIT, seed j of a pool) |

Replicate j trains on data order `ORDER_SEED` + j in every arm, so differences are paired, and never on the
order of the search (whose seed is the submitter's). The last two arms are the baselines: their runs are of
pools with seeds of their own, which every ticket of the network, the task and the recipe shares. They train
from step 0 whatever the ticket does; where ticket and reference recipe train alike the two are one pool.

After rewinding to step k the re-initialised values are trained densely for k steps first (order j), so every
control goes on from step k, but for the magnitude arm where the ticket does not hold its pruned weights'
values. What a stored ticket that keeps survivors only leaves out: magnitude starts from the ticket's seed
where it names one and else from a fresh draw (stream REINIT, seed j, then unpaired), at step 0; shuffle moves
the surviving values along with their positions; random starts from the reinit arm's values.

Where the recipe has a `start_step`, the ticket is a pruned model: trained values that go on from that step.
Its reinit and rescaled arms are plain draws that start at that step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nirvana import tasks
from nirvana.engines import advance, with_teacher
from nirvana.format import initial
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.pruning.ranking import counts_near, uniform_shares
from nirvana.training.events import SILENT, Reporter
from nirvana.training.keys import arrays_sha256, data_sha256, run_key, training_fields
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Arrays, InitialState, SealedRows, TaskData, TrainSpec, Values
from nirvana.verification.protocol import BASELINES, REFERENCE

ORDER_SEED = 0x56455249 << 16  # "VERI": no search uses it by chance, and JSON holds it exactly
Masks = dict[str, Mask]


@dataclass(frozen=True)
class ArmConfig:
    """The settings that all replicates of an arm share.

    Attributes:
        reporter: may stop what is trained beforehand; nobody hears of that.
        reference: the recipe of the reference arm; None is that of the ticket's task.
        sealed: rows that decide in place of the test set.
    """

    ticket: Ticket
    arm: str
    data: TaskData
    recipe: Recipe
    reporter: Reporter = SILENT
    reference: Recipe | None = None
    sealed: SealedRows | None = None

    def of(self, arm: str) -> ArmConfig:
        """Return the configuration of another arm."""
        if arm != REFERENCE:
            return replace(self, arm=arm)
        task = self.ticket.task
        recipe = self.reference or tasks.get(task).reference_recipe(self.ticket.architecture)
        return replace(self, arm=arm, recipe=recipe)

    @property
    def is_paired(self) -> bool:
        """True where the arm shares the ticket's initial values or masks, not only its data order."""
        if self.arm in BASELINES:
            return False
        whole = self.ticket.stores_whole_tensors or self.ticket.start.seed is not None
        return self.arm != "magnitude" or whole

    @property
    def data_sha256(self) -> str:
        """Hex sha256 of all that is trained and tested on."""
        data = data_sha256(self.data)
        return run_key({"data": data, "sealed": arrays_sha256(self.sealed)}) if self.sealed else data

    @property
    def dense_steps(self) -> int:
        """Updates that a replicate takes densely before its training proper."""
        arm, ticket = self.arm, self.ticket
        draws_anew = arm in _REDRAWN or (arm == "random" and not ticket.stores_whole_tensors)
        return ticket.start.rewind_step if draws_anew and self.recipe.start_step is None else 0


def baseline_sha256(
    arm: str, architecture: Architecture, laws: Mapping[str, str], recipe: Recipe, task: str, exam: str
) -> str:
    """Return the hex sha256 of all that a pool of dense runs is of, whoever's ticket is compared with it.

    Args:
        arm: one of BASELINES. laws: the ticket's. recipe: the arm's.
        exam: its key. Where the recipe distils, the teacher is the ticket's own, and so is the pool.
    """
    fields = {
        "architecture": architecture.digest,
        "laws": dict(_baseline_laws(arm, architecture, laws, recipe)),
        "recipe": training_fields(recipe),
        "task": task,
    }
    return run_key(fields | {"exam": exam} if recipe.distillation else fields)


def _baseline_laws(
    arm: str, architecture: Architecture, laws: Mapping[str, str], recipe: Recipe
) -> Mapping[str, str]:
    return laws if arm != REFERENCE else initial.default_laws(architecture, recipe.initial_law)


def train_spec(config: ArmConfig, start: InitialState) -> TrainSpec:
    """Return the training of a replicate, with the teacher that every arm of the ticket has where the recipe
    distils; it is trained here, once a process.

    Raises:
        TrainingFailed, Cancelled: of the teacher's training.
    """
    spec = TrainSpec(config.ticket.architecture, start, config.data, config.recipe, sealed=config.sealed)
    if not config.recipe.distillation:
        return spec
    return with_teacher(spec, *teacher_start(config.ticket), config.reporter)


def initial_state(config: ArmConfig, seed: int) -> InitialState:
    """Return where replicate `seed` starts. New values of a rewound ticket are trained to step k here.

    Raises:
        TrainingFailed, Cancelled: of that training.
    """
    values, step = arm_values(config, seed)
    return InitialState(values, arm_masks(config.ticket, config.arm, seed), ORDER_SEED + seed, step)


def arm_masks(ticket: Ticket, arm: str, seed: int) -> Masks:
    """Return the masks of one replicate of an arm."""
    if arm in BASELINES:
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
    """Return masks of the ticket's number of weights, spread evenly over the layers: each has the ticket's
    density, but for rounding (largest fractions first) and at least one weight."""
    shapes, tensors = ticket.prunable_shapes, _positions(ticket)
    counts = counts_near(uniform_shares(shapes, ticket.prunable_kept), ticket.prunable_kept)
    return {
        name: initial.random_mask(shape, counts[name], seed, tensors[name]) for name, shape in shapes.items()
    }


def magnitude_masks(ticket: Ticket, values: Arrays) -> Masks:
    """Return masks of the largest |values| over all layers, as many as the ticket keeps; each layer keeps its
    largest at least. Ties go to the earlier layer, then to the lower flat index.

    Reference: magnitude pruning at initialisation, Frankle et al. 2021 (arXiv 2009.08576).
    """
    shapes = ticket.prunable_shapes
    sizes = [np.abs(values[name]).ravel() for name in shapes]
    starts = np.cumsum([0, *(len(part) for part in sizes)])
    flat = np.concatenate(sizes)
    flat[[start + int(part.argmax()) for start, part in zip(starts[:-1], sizes, strict=True)]] = np.inf
    kept = np.zeros(len(flat), bool)
    kept[np.argsort(-flat, kind="stable")[: max(ticket.prunable_kept, len(shapes))]] = True
    parts = np.split(kept, starts[1:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def arm_values(config: ArmConfig, seed: int) -> tuple[Arrays, int]:
    """Return the values that a replicate starts from, and its first step."""
    ticket, arm = config.ticket, config.arm
    if arm in BASELINES:
        laws = _baseline_laws(arm, ticket.architecture, ticket.start.laws, config.recipe)
        return initial.draw_all(ticket.architecture, laws, seed, initial.REINIT), 0
    first = config.recipe.first_step(ticket.start.rewind_step)
    whole = ticket.dense_initial_values()
    if arm == "ticket":
        return ticket.initial_values(), first
    if arm in _REDRAWN or (arm == "random" and whole is None):
        values = _reinit(config, seed)
        return _REDRAWN.get(arm, _as_drawn)(ticket, values), first
    if whole is not None:
        return whole, first
    if arm == "shuffle":
        return _moved(ticket, seed), first
    return _fresh(ticket, seed), 0


def teacher_start(ticket: Ticket) -> tuple[Arrays, int]:
    """Return the values that the ticket's teacher starts from, and the update at which they were taken: those
    of its seed, or else its values before any mask, or else a draw."""
    whole = ticket.dense_initial_values()
    if ticket.start.seed is None and whole is not None:
        return whole, ticket.start.rewind_step
    return _fresh(ticket, 0), 0


def _reinit(config: ArmConfig, seed: int) -> Values:
    """Draw new values; of a rewound ticket they are trained densely to step k."""
    ticket, steps = config.ticket, config.dense_steps
    values = initial.draw_all(ticket.architecture, ticket.start.laws, seed, initial.REINIT)
    if not steps:
        return values
    spec = train_spec(config, InitialState(values, {}, ORDER_SEED + seed))
    return advance(spec, steps, config.reporter.silent)[0]


def _rescaled(ticket: Ticket, values: Values) -> Values:
    """Scale masked layers as their density asks: a unit's inputs then vary as those of a dense one.

    Reference: initialisation by the sparse fan-in, Evci et al. 2022 (arXiv 2010.03533).
    """
    scaled = dict(values)
    for name, mask in ticket.masks.items():
        scaled[name] = (values[name] / np.sqrt(mask.mean())).astype(np.float32)
    return scaled


def _as_drawn(ticket: Ticket, values: Values) -> Values:
    return values


def _signed(ticket: Ticket, values: Values) -> Values:
    """Give each kept weight the sign of the ticket's value: is that all that a ticket's values tell?

    Reference: Zhou et al. 2019 (arXiv 1905.01067); Gadhikar & Burkholz 2024 (arXiv 2402.19262).
    """
    own = ticket.initial_values()
    return values | {name: np.copysign(values[name], own[name]) for name in ticket.masks}


_REDRAWN: dict[str, Callable[[Ticket, Values], Values]] = {
    "reinit": _as_drawn,
    "rescaled": _rescaled,
    "signs": _signed,
}


def _moved(ticket: Ticket, seed: int) -> Values:
    """Return surviving values, permuted as the shuffle arm's masks are."""
    tensors, values = _positions(ticket), ticket.initial_values()
    for name in ticket.masks:
        order = initial.epoch_order(seed, tensors[name], values[name].size)
        values[name] = values[name].ravel()[order].reshape(values[name].shape)
    return values


def _fresh(ticket: Ticket, seed: int) -> Values:
    start = ticket.start
    if start.seed is not None:
        return ticket.values_of_seed()
    return initial.draw_all(ticket.architecture, start.laws, seed, initial.REINIT)


def _positions(ticket: Ticket) -> dict[str, int]:
    return {name: position for position, name in enumerate(ticket.architecture.parameters)}
