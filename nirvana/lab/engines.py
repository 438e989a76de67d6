"""Which engine trains what: torch (`dense`), or `nirvana.sparse`, whose cost follows the kept weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nirvana import sparse
from nirvana.architecture import Architecture
from nirvana.environment import count_threads
from nirvana.lab.train import train as train_dense
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.running import choose_engine
from nirvana.training import TrainResult

if TYPE_CHECKING:
    from nirvana.lab.train import Arrays
    from nirvana.tasks import TaskData

_DENSE_ONLY = ("teacher", "held")


def train(
    architecture: Architecture,
    values: Arrays,
    masks: Mapping[str, Mask],
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    *,
    engine: str = "auto",
    threads: int | None = None,
    **options: Any,
) -> TrainResult:
    """Train on the engine asked for; `auto` takes the one that measured faster. Arguments as in
    `nirvana.lab.train.train`; the result names its engine.

    Args:
        threads: at most, for the sparse engine; None is NIRVANA_THREADS, or else one for each core.

    Raises:
        Invalid: no such engine, or the sparse one cannot do this: the op, the field or the package is named.
        InvalidRecipe, Cancelled: as `nirvana.lab.train.train`.
    """
    given = {name: option for name, option in options.items() if option is not None}
    if engine == "auto" and given.keys() & set(_DENSE_ONLY):
        engine = "dense"
    chosen = choose(engine, architecture, masks, recipe, threads)
    arguments = (architecture, values, masks, data, recipe, order_seed)
    if chosen == "dense":
        return train_dense(*arguments, **given)
    useful = sparse.count_useful_threads(architecture, masks, recipe, count_threads(threads))
    return sparse.train(*arguments, threads=useful, **given)


def choose(
    engine: str,
    architecture: Architecture,
    masks: Mapping[str, Mask],
    recipe: Recipe,
    threads: int | None = 1,
) -> str:
    """`dense` or `sparse`. Arguments as in `choose_engine`.

    Raises:
        Invalid: as `train`.
    """
    return choose_engine(engine, architecture, masks, recipe, threads).engine
