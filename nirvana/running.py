"""Trains tickets and asks networks on this machine, with torch or without.

One function, `choose_engine`, says which engine does it; torch is imported only where it says `dense`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nirvana import sparse, tasks
from nirvana.architecture import Architecture
from nirvana.environment import count_threads
from nirvana.errors import Invalid, Unavailable
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.tasks import ByteData, TaskData
from nirvana.trained import Weights
from nirvana.training import Progress, ShouldStop, TrainResult

if TYPE_CHECKING:
    from nirvana.ticket import Ticket

ENGINES = ("auto", "dense", "sparse")


@dataclass(frozen=True)
class Choice:
    """Which engine: `dense` (torch) or `sparse`; and what kept `auto` from taking sparse, where it could not
    do it at all."""

    engine: str
    reason: str | None = None


def choose_engine(
    engine: str,
    architecture: Architecture,
    masks: Mapping[str, Mask],
    recipe: Recipe | None,
    threads: int | None = 1,
) -> Choice:
    """The engine that trains this here; `auto` takes sparse where it can and pays or there is no torch.

    Args:
        recipe: None: the engine that answers; sparse wherever it can, for it starts at once.
        threads: that the sparse engine may put to an update; None is NIRVANA_THREADS, or else one for each
            core. Torch has one.

    Raises:
        Invalid: no such engine, or `sparse` was asked for and cannot do this: names the op or the field.
        Unavailable: what it takes is not installed here; names the extras that bring it.
    """
    check_engine(engine)
    has_torch = find_spec("torch") is not None
    reason = None if engine == "dense" else sparse.find_unsupported(architecture, recipe, masks)
    if engine == "sparse" and reason is not None and find_spec("numba") is not None:
        raise Invalid(f"the sparse engine cannot do this: {reason}")
    if engine == "sparse" and reason is not None:
        raise Unavailable(reason)
    if engine == "dense" or reason is not None:
        if not has_torch:
            raise Unavailable(_without_torch(reason))
        return Choice("dense", reason)
    if engine == "sparse" or not has_torch or recipe is None:
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


def train_ticket(
    ticket: Ticket,
    order_seed: int = 0,
    *,
    data: TaskData | ByteData | None = None,
    engine: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train a ticket by its own recipe, on the engine that `choose_engine` takes; the result names it.

    Args:
        order_seed: of the data's order, and of a dense training's augmentation and dropout.
        data: None: the ticket's task's, as bytes where the sparse engine trains.
        threads: at most, for the sparse engine; None is NIRVANA_THREADS, or else one for each core.
        progress: called with `nirvana.training.point_event`, and with downloads.
        should_stop: asked before every update.
        keep_weights: whether the result has the weights after the last step.

    Raises:
        Invalid, Unavailable: as `choose_engine`. NotFound, DataMissing, DataDamaged: as `nirvana.tasks.load`.
        InvalidRecipe: no step would be left. Cancelled: `should_stop` said so.
    """
    recipe = Recipe.from_dict(dict(ticket.recipe))
    choice = choose_engine(engine, ticket.architecture, ticket.masks, recipe, threads)
    if choice.engine == "dense":
        from nirvana.lab import train_ticket as train_in_the_lab

        floats = _as_floats(data) if data is not None else tasks.load(ticket.task, progress)
        return train_in_the_lab(
            *(ticket, floats, order_seed),
            engine="dense",
            progress=progress,
            should_stop=should_stop,
            keep_weights=keep_weights,
        )
    if data is None:
        data = tasks.load_bytes(ticket.task, progress)
    if data is None:
        data = tasks.load(ticket.task, progress)
    most = count_threads(threads)
    return sparse.train(
        *(ticket.architecture, ticket.initial_values(), ticket.masks, data, recipe, order_seed),
        start_step=recipe.first_step(ticket.start.rewind_step),
        threads=sparse.count_useful_threads(ticket.architecture, ticket.masks, recipe, most),
        progress=progress,
        should_stop=should_stop,
        keep_weights=keep_weights,
    )


def _as_floats(data: TaskData | ByteData) -> TaskData:
    if isinstance(data, TaskData):
        return data
    a, c, e = (x * data.scale - data.shift for x in (data.train_x, data.validation_x, data.test_x))
    return TaskData(a, data.train_y, c, data.validation_y, e, data.test_y)


def predict_logits(weights: Weights, x: NDArray[np.float32], *, engine: str = "auto") -> NDArray[np.float32]:
    """Logits, shape (n, classes), of standardised examples x, shape (n, *architecture.input).

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
    from nirvana.lab import build_module, load_values
    from nirvana.lab.evaluate import predict

    network = build_module(weights.architecture)
    load_values(network, weights.values)
    return predict(network, x).numpy()
