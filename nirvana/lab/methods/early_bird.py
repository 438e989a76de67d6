"""Early-Bird tickets: whole channels and neurons are cut as soon as the choice of them settles.

The network trains with an L1 penalty of 1e-4 on the scales gamma of batch norms. Every epoch (every 20th part
of a training that has fewer than 20) the units are chosen that would stay. When the last five choices differ
from the newest in at most a tenth of the units, it is drawn; training then stops. What comes out restarts
from the values that training started from (in the paper: from these or from the weights at the draw).

A unit's score is |gamma| of the batch norm that follows its layer. Our extension, for layers without one: the
unit's place in its layer by the L2 norm of its incoming weights, 1 the largest (filter norms: Li et al. 2017,
arXiv 1608.08710), so that such layers lose the same share of their units. All layers are ranked together; the
best unit of each stays.

The paper names a share of channels; here the least number of units is cut that leaves at most `search.keep`
weights, by rows and by the columns that read them (`nirvana.lab.methods.units`).

Reference: You et al. 2020 (arXiv 1909.11957); gamma's penalty, Liu et al. 2017 (arXiv 1708.06519).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nirvana.errors import Invalid
from nirvana.lab.environment import deterministic
from nirvana.lab.methods.search import Found, Search
from nirvana.lab.methods.units import Layer, cut, cuttable_layers, weights_left
from nirvana.lab.modules import Network, tensors_of
from nirvana.masks import Mask

PENALTY = 1e-4
LOOKS = 20  # at least, in a whole training
REMEMBERED = 5
DISTANCE = 0.1
Scores = Sequence[NDArray[np.floating[Any]]]


def find(search: Search) -> Found:
    """The masks of the units that stay when the choice settles; those of the end where it never does.

    They keep `search.keep` weights or a little fewer, since units go whole: `measured` has both.

    Raises:
        Invalid: no cut of whole units leaves so few weights; says how many are left at least.
        TrainingFailed: a loss was not finite; names the method and the step.
        Cancelled: `should_stop` said so.
    """
    layers = cuttable_layers(search.ticket.architecture)
    refuse_unreachable(layers, search.shapes, search.keep)
    steps, first = search.recipe.steps, search.first_step
    every = max(1, min(len(search.data.train_y) // search.recipe.batch_size, (steps - first) // LOOKS))
    seen: deque[list[Mask]] = deque(maxlen=REMEMBERED)
    with deterministic(search.seed):
        run = search.start_dense()
        penalise(run.network, layers)
        while run.step < steps and not is_settled(seen):
            search.update(run, min(steps, run.step + every))
            seen.append(choose(layers, score(layers, run.values()), search.shapes, search.keep))
            search.tell(run.step - first, steps - first, f"step {run.step}: {_distance_line(seen)}")
    masks, kept = cut(layers, seen[-1], search.shapes), weights_left(layers, seen[-1], search.shapes)
    return Found(masks, _measured(search, layers, seen, run.step, kept))


def penalise(network: Network, layers: Sequence[Layer]) -> None:
    """Add the L1 penalty's gradient to that of every gamma that scores a unit."""
    tensors = tensors_of(network)
    for layer in layers:
        if layer.norm:
            gamma: Any = tensors[layer.norm]
            gamma.register_hook(_penalty(gamma))


def score(layers: Sequence[Layer], values: Mapping[str, NDArray[np.float32]]) -> Scores:
    """Each layer's scores of its units, shape (units,)."""
    return [np.abs(values[layer.norm]) if layer.norm else _ranks(values[layer.weight]) for layer in layers]


def choose(
    layers: Sequence[Layer], scores: Scores, shapes: Mapping[str, tuple[int, ...]], keep: int
) -> list[Mask]:
    """Which units stay of each layer: the fewest of the lowest scores go that leave at most `keep` weights
    (ties: the earlier layer and unit stay). No layer loses the best of its units."""
    flat = np.concatenate([np.asarray(s, np.float64) for s in scores])
    ends = np.cumsum([layer.units for layer in layers])
    best = {int(end - layer.units + np.argmax(s)) for layer, s, end in zip(layers, scores, ends, strict=True)}
    order = [unit for unit in np.argsort(-flat, kind="stable")[::-1] if int(unit) not in best]

    def without(n: int) -> list[Mask]:
        kept = np.ones(len(flat), bool)
        kept[order[:n]] = False
        return np.split(kept, ends[:-1])

    few, many = 0, len(order)
    while few < many:
        middle = (few + many) // 2
        if weights_left(layers, without(middle), shapes) <= keep:
            many = middle
        else:
            few = middle + 1
    return without(many)


def is_settled(seen: Sequence[Sequence[Mask]]) -> bool:
    """Whether five choices are there and each differs from the newest in at most a tenth of the units."""
    return len(seen) == REMEMBERED and max(distances(seen)) <= DISTANCE


def distances(seen: Sequence[Sequence[Mask]]) -> list[float]:
    """Share of all units in which each older choice differs from the newest, in [0, 1]."""
    flat = [np.concatenate(choice) for choice in seen]
    return [float(np.mean(older != flat[-1])) for older in flat[:-1]]


def refuse_unreachable(layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]], keep: int) -> None:
    """Refuse what no cut can reach.

    Raises:
        Invalid: with one unit in each layer, more than `keep` weights are left.
    """
    least = weights_left(layers, [np.arange(layer.units) == 0 for layer in layers], shapes)
    if least > keep:
        total = weights_left([], [], shapes)
        raise Invalid(
            f"early-bird cannot keep {keep} of {total} weights: with one unit in each of the {len(layers)} "
            f"layers whose units may go, {least} are left; expected a density of at least {least / total:.4f}"
        )


def _ranks(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each unit's place among its layer's, by the norm of its incoming weights, in (0, 1]: 1 is the largest
    (ties: the earlier unit is the larger)."""
    norms = np.square(weight.reshape(len(weight), -1), dtype=np.float64).sum(axis=1)
    ranks = np.empty(len(norms))
    ranks[np.argsort(-norms, kind="stable")] = np.arange(len(norms), 0, -1) / len(norms)
    return ranks


def _penalty(gamma: Tensor) -> Any:
    return lambda gradient: gradient + PENALTY * torch.sign(gamma.detach())


def _distance_line(seen: Sequence[Sequence[Mask]]) -> str:
    found = distances(seen)
    return (
        f"the last choices of units differ by at most {max(found):.3f}" if found else "first choice of units"
    )


def _measured(
    search: Search, layers: Sequence[Layer], seen: Sequence[Sequence[Mask]], step: int, kept: int
) -> dict[str, Any]:
    found = distances(seen)
    return {
        "drawn_step": step,
        "settled": is_settled(seen),
        "distance": max(found) if found else None,
        "density_asked": search.density,
        "density": kept / search.ticket.total,
        "units": {
            layer.weight: {"kept": int(np.count_nonzero(units)), "of": layer.units}
            for layer, units in zip(layers, seen[-1], strict=True)
        },
    }
