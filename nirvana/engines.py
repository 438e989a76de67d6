"""The choice of an engine: torch (`dense`), or `nirvana.sparse`, whose cost follows the kept weights.

One function, `choose_engine`, says which; torch is imported only where it says `dense`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from nirvana import lazy, sparse, tasks
from nirvana.environment import count_threads
from nirvana.errors import Invalid, Unavailable
from nirvana.format.initial import draw_all
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, Node
from nirvana.training.events import SILENT, OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe
from nirvana.training.spec import (
    Arrays,
    ByteData,
    InitialState,
    TaskData,
    TrainResult,
    TrainSpec,
    Values,
)
from nirvana.weights import Weights

ENGINES = ("auto", "dense", "sparse")
_MOST_WORK = 8_000_000  # weights x batch: see `stacking_pays`


@dataclass(frozen=True)
class Choice:
    """An engine, `dense` (torch) or `sparse`; and what kept `auto` from taking sparse, where it could not do
    it at all."""

    engine: str
    reason: str | None = None


def choose_engine(
    engine: str,
    architecture: Architecture,
    masks: Mapping[str, Mask],
    recipe: Recipe | None,
    threads: int | None = 1,
) -> Choice:
    """Choose the engine that trains this here; `auto` takes sparse where it can and pays, or without torch.

    Args:
        recipe: None: the engine that answers; sparse wherever it can, for it starts at once.
        threads: that the sparse engine may put to an update; None is NIRVANA_THREADS, or else one for each
            core. Torch has one.

    Raises:
        Invalid: no such engine, or `sparse` was asked for and cannot do this: names the op or the field.
        Unavailable: what it takes is not installed here; names the extras that bring it.
    """
    check_engine(engine)
    reason = None if engine == "dense" else sparse.find_unsupported(architecture, recipe, masks)
    if engine == "sparse" and reason is not None and find_spec("numba") is not None:
        raise Invalid(f"the sparse engine cannot do this: {reason}")
    if engine == "sparse" and reason is not None:
        raise Unavailable(reason)
    if engine == "dense" or reason is not None:
        if not has_torch():
            raise Unavailable(_without_torch(reason))
        return Choice("dense", reason)
    if engine == "sparse" or not has_torch() or recipe is None:
        return Choice("sparse")
    if sparse.pays(architecture, masks, recipe, count_threads(threads)):
        return Choice("sparse")
    return Choice("dense")


def check_engine(engine: str) -> None:
    """Refuse an engine that is not there.

    Raises:
        Invalid: naming those that are.
    """
    if engine not in ENGINES:
        raise Invalid(f"engine is {engine!r}, expected one of {', '.join(ENGINES)}")


def has_torch() -> bool:
    """Return whether torch is installed here."""
    return find_spec("torch") is not None


def _without_torch(reason: str | None) -> str:
    way = "pip install 'nirvana-tickets[lab]'"
    if reason is None:
        return f"torch is not installed here: {way}"
    if find_spec("numba") is None:
        return (
            f"neither numba nor torch is installed here: pip install 'nirvana-tickets[sparse]' "
            f"(fully connected and convolutional networks), or {way} (every network)"
        )
    return f"the sparse engine cannot do this ({reason}), and torch is not installed here: {way}"


def train(
    spec: TrainSpec,
    reporter: Reporter = SILENT,
    *,
    engine: str = "auto",
    threads: int | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train on the engine asked for; `auto` takes the one that measured faster. The result names its engine.

    Args:
        reporter: hears the events of `nirvana.training.events.point_event`.
        threads: at most, for the sparse engine; None is NIRVANA_THREADS, or else one for each core.
        keep_weights: whether the result has the weights after the last step.

    Raises:
        Invalid, Unavailable: as `choose_engine`; distillation without a teacher.
        InvalidRecipe: no step would be left, or augmentation of what is no image.
        Cancelled: the reporter said so.
    """
    if engine == "auto" and (spec.teacher is not None or spec.frozen_values is not None):
        engine = "dense"
    masks, recipe = spec.initial.masks, spec.recipe
    if choose_engine(engine, spec.architecture, masks, recipe, threads).engine == "dense":
        return lazy.train_dense(spec, reporter, keep_weights=keep_weights)
    useful = sparse.count_useful_threads(spec.architecture, masks, recipe, count_threads(threads))
    return sparse.train(spec, reporter, keep_weights=keep_weights, threads=useful)


def train_ticket(
    ticket: Ticket,
    order_seed: int = 0,
    *,
    data: TaskData | ByteData | None = None,
    engine: str = "auto",
    threads: int | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train a ticket by its own recipe, on the engine that `choose_engine` takes; the result names it.

    Args:
        order_seed: of the data's order, and of a dense training's augmentation and dropout.
        data: None: the ticket's task's, as bytes where the sparse engine trains.
        threads: at most, for the sparse engine; None is NIRVANA_THREADS, or else one for each core.
        progress: called with `nirvana.training.events.point_event`, and with downloads.
        should_stop: asked before every update.
        keep_weights: whether the result has the weights after the last step.

    Raises:
        Invalid, Unavailable: as `choose_engine`. NotFound, DataMissing, DataDamaged: as `nirvana.tasks.load`.
        InvalidRecipe: no step would be left. Cancelled: `should_stop` said so.
    """
    recipe, reporter = Recipe.from_dict(dict(ticket.recipe)), Reporter(progress, should_stop)
    engine = choose_engine(engine, ticket.architecture, ticket.masks, recipe, threads).engine
    if data is None and engine == "sparse":
        data = tasks.load_bytes(ticket.task, progress)
    if data is None:
        data = tasks.load(ticket.task, progress)
    spec = ticket_spec(ticket, data, order_seed, reporter)
    return train(spec, reporter, engine=engine, threads=threads, keep_weights=keep_weights)


def ticket_spec(
    ticket: Ticket, data: TaskData | ByteData, order_seed: int, reporter: Reporter = SILENT
) -> TrainSpec:
    """Return the training of a ticket by its own recipe, from the step and with the teacher that it says.

    Raises:
        TrainingFailed, Cancelled, Unavailable: of the teacher's training, which is made here.
    """
    recipe, whole = Recipe.from_dict(dict(ticket.recipe)), ticket.dense_initial_values()
    first = recipe.first_step(ticket.start.rewind_step)
    initial = InitialState(ticket.initial_values(), ticket.masks, order_seed, first)
    spec = TrainSpec(ticket.architecture, initial, data, recipe)
    if recipe.distillation:
        values = draw_all(ticket.architecture, ticket.start.laws, order_seed) if whole is None else whole
        spec = with_teacher(spec, values, 0, reporter)
    if recipe.pruning.mask_0_action == "freeze":
        spec = replace(spec, frozen_values=whole)
    return spec


def with_teacher(
    spec: TrainSpec, values: Arrays, start_step: int = 0, reporter: Reporter = SILENT
) -> TrainSpec:
    """Return a spec whose recipe distils with the outputs of its teacher, which is trained here.

    Args:
        values: what the teacher starts from, whole. start_step: the update at which they were taken.
    """
    dense_start = replace(spec, initial=InitialState(values, {}, spec.initial.order_seed, start_step))
    return replace(spec, teacher=lazy.teacher_logits(dense_start, reporter))


def advance(spec: TrainSpec, steps: int, reporter: Reporter = SILENT) -> tuple[Values, bool]:
    """Return the values after the recipe's first `steps` updates (theta_k), running statistics included, and
    whether every loss was finite: by torch, or by the sparse engine where torch is not installed.

    Raises:
        Unavailable: torch is not installed, and the sparse engine cannot do this.
        Cancelled: the reporter said so.
    """
    if has_torch():
        return lazy.advance(spec, steps, reporter)
    choose_engine("auto", spec.architecture, spec.initial.masks, spec.recipe)  # refuses what it cannot do
    return sparse.advance(spec, steps, reporter)


def train_replicates(
    specs: Sequence[TrainSpec],
    reporter: Reporter = SILENT,
    *,
    device: str = "cpu",
    keep_weights: bool = False,
) -> list[TrainResult]:
    """Train replicates of one network in one batch; see `nirvana.torch.stacked.train_replicates`."""
    return lazy.train_replicates(specs, reporter, device=device, keep_weights=keep_weights)


def stacking_pays(architecture: Architecture, recipe: Recipe, replicates: int) -> bool:
    """Return whether replicates train a quarter or more faster together than one after another, on one core.

    They do where torch's calls take longer than its arithmetic: chains of linear layers with at most
    8,000,000 weights x batch. Time one by one / time together of whole trainings, 5 replicates, Adam, medians
    of 5 pairs (AMD EPYC, AVX2, one thread, torch 2.13; `benchmarks/replicates.py` measures anew):

    | network | inputs | batch | weights x batch | ratio |
    |---|---|---|---|---|
    | 100 | 64 | 60 | 0.4 million | 2.42 |
    | LeNet-300-100 | 64 | 16 | 0.8 | 2.08 |
    | LeNet-300-100 | 64 | 60 | 3.0 | 1.60 (masks of 10 %: 1.65; SGD: 1.57) |
    | LeNet-300-100 | 144 | 60 | 4.5 | 1.38 |
    | 100 | 784 | 60 | 4.8 | 1.52 |
    | LeNet-300-100 | 64 | 128 | 6.4 | 1.33 |
    | LeNet-300-100 | 256 | 60 | 6.5 | 1.29 |
    | LeNet-300-100 | 400 | 60 | 9.1 | 1.11 |
    | LeNet-300-100 | 784 | 60 | 16 | 1.02 (masks: 1.04; SGD: 1.11; 10 replicates: 1.12) |
    | LeNet-300-100 | 784 | 128 | 34 | 1.09 |
    | lenet-5 | 784 | 60 | | 0.77 |

    Convolutions lose (conv-2 0.56, resnet-20 0.80 on 32 x 32 pixels): torch stacks them as grouped ones.
    """
    shapes = (architecture.parameters[name] for name in architecture.prunable)
    weights = sum(math.prod(shape) for shape in shapes)
    return replicates > 1 and is_chain(architecture) and weights * recipe.batch_size <= _MOST_WORK


def is_chain(architecture: Architecture) -> bool:
    """Return whether the network is linear layers on rows of features, one after another, and functions of
    each number between them."""
    return all("inputs" not in node and _is_link(architecture, node) for node in architecture.nodes)


def _is_link(architecture: Architecture, node: Node) -> bool:
    op, is_row = OPS[node["op"]], len(architecture.shapes[node["name"]]) == 1
    return op.stacks and (op.elementwise or (is_row and (op.flattens or op.unit_axis == -1)))


def predict_logits(weights: Weights, x: NDArray[np.float32], *, engine: str = "auto") -> NDArray[np.float32]:
    """Return logits, shape (n, classes), of standardised examples x, shape (n, *architecture.input).

    Raises:
        Invalid: x has another shape, no example, or a value that is not finite.
        Invalid, Unavailable: as `choose_engine`.
    """
    shape = weights.architecture.input
    if x.shape != (len(x), *shape) or not len(x):
        raise Invalid(f"x has the shape {list(x.shape)}, expected (n, {', '.join(map(str, shape))}), n >= 1")
    if not np.isfinite(x).all():
        raise Invalid(f"example {int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(1)))} is not finite")
    if choose_engine(engine, weights.architecture, weights.masks, None).engine == "sparse":
        return sparse.predict_logits(weights.architecture, weights.values, weights.masks, x)
    return lazy.predict_dense(weights.architecture, weights.values, x)
