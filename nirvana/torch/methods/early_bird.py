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
weights, by rows and by the columns that read them (`nirvana.torch.methods.units`).

Reference: You et al. 2020 (arXiv 1909.11957); gamma's penalty, Liu et al. 2017 (arXiv 1708.06519).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nirvana.errors import Invalid
from nirvana.format.masks import Mask
from nirvana.pruning.methods import EarlyBirdOptions
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import DrivenTraining
from nirvana.torch.methods.units import Layer, cut, cuttable_layers, weights_left, whole_reasons
from nirvana.torch.modules import Network, tensors_of

Scores = Sequence[NDArray[np.floating]]


def find(search: MaskSearch) -> MaskResult:
    """Return the masks of the units that stay when the choice settles; or those of the end.

    They keep `search.keep` weights or a little fewer, since units go whole: `measured` has both.

    Raises:
        Invalid: no cut of whole units leaves so few weights; names the fewest that are left.
        TrainingFailed: a loss was not finite; names the method and the step.
        Cancelled: the reporter said so.
    """
    layers = cuttable_layers(search.ticket.architecture)
    refuse_unreachable(layers, search.shapes, search.keep, whole_reasons(search.ticket.architecture))
    options = search.options_as(EarlyBirdOptions)
    steps, first = search.recipe.steps, search.first_step
    epoch = len(search.data.train_y) // search.recipe.batch_size
    every = max(1, min(epoch, (steps - first) // options.looks))
    seen: deque[list[Mask]] = deque(maxlen=options.remembered)
    with deterministic(search.seed):
        training = DrivenTraining(search)
        penalise(training.backend.network, layers, options.penalty)
        while training.step < steps and not is_settled(seen, options):
            training.update_until(min(steps, training.step + every))
            seen.append(choose(layers, score(layers, training.backend.values()), search.shapes, search.keep))
            step = training.step
            search.report(step - first, steps - first, f"step {step}: {_distance_line(seen)}")
    masks, kept = cut(layers, seen[-1], search.shapes), weights_left(layers, seen[-1], search.shapes)
    return MaskResult(masks, _measured(search, layers, seen, training.step, kept))


def penalise(network: Network, layers: Sequence[Layer], penalty: float) -> None:
    """Add the L1 penalty's gradient to that of every gamma that scores a unit."""
    tensors = tensors_of(network)
    for layer in layers:
        if layer.norm:
            gamma = tensors[layer.norm]
            gamma.register_hook(_penalty(gamma, penalty))  # type: ignore[no-untyped-call]


def score(layers: Sequence[Layer], values: Mapping[str, NDArray[np.float32]]) -> Scores:
    """Return each layer's scores of its units, shape (units,)."""
    return [np.abs(values[layer.norm]) if layer.norm else _ranks(values[layer.weight]) for layer in layers]


def choose(
    layers: Sequence[Layer], scores: Scores, shapes: Mapping[str, tuple[int, ...]], keep: int
) -> list[Mask]:
    """Choose the units of each layer that stay: the fewest of the lowest scores go that leave at most `keep`
    weights (ties: the earlier layer and unit stay). No layer loses the best of its units."""
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


def is_settled(seen: Sequence[Sequence[Mask]], options: EarlyBirdOptions = EarlyBirdOptions()) -> bool:  # noqa: B008
    """Return whether enough choices are there and each differs from the newest in few enough of the units: by
    default five, and at most a tenth."""
    return len(seen) == options.remembered and max(distances(seen)) <= options.distance


def distances(seen: Sequence[Sequence[Mask]]) -> list[float]:
    """Return the share of all units in which each older choice differs from the newest, in [0, 1]."""
    flat = [np.concatenate(choice) for choice in seen]
    return [float(np.mean(older != flat[-1])) for older in flat[:-1]]


def refuse_unreachable(
    layers: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    keep: int,
    whole: Mapping[str, str] | None = None,
) -> None:
    """Refuse what no cut can reach.

    Args:
        whole: why the other layers stay whole (`whole_reasons`); the message says it of the first.

    Raises:
        Invalid: with one unit in each layer, more than `keep` weights are left.
    """
    least = weights_left(layers, [np.arange(layer.units) == 0 for layer in layers], shapes)
    if least > keep:
        total = weights_left([], [], shapes)
        others = [f"; {name} stays whole, for {reason}" for name, reason in (whole or {}).items()]
        raise Invalid(
            f"early-bird cannot keep {keep} of {total} weights: with one unit in each of the {len(layers)} "
            f"layers whose units may go, {least} are left; expected a density of at least {least / total:.4f}"
            + "".join(others[:1])
        )


def _ranks(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each unit's place among its layer's, by the norm of its incoming weights, in (0, 1]: 1 is the
    largest (ties: the earlier unit is the larger)."""
    norms = np.square(weight.reshape(len(weight), -1), dtype=np.float64).sum(axis=1)
    ranks = np.empty(len(norms))
    ranks[np.argsort(-norms, kind="stable")] = np.arange(len(norms), 0, -1) / len(norms)
    return ranks


def _penalty(gamma: Tensor, penalty: float) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient + penalty * torch.sign(gamma.detach())


def _distance_line(seen: Sequence[Sequence[Mask]]) -> str:
    apart = distances(seen)
    if not apart:
        return "first choice of units"
    return f"the last choices of units differ by at most {max(apart):.3f}"


def _measured(
    search: MaskSearch, layers: Sequence[Layer], seen: Sequence[Sequence[Mask]], step: int, kept: int
) -> dict[str, object]:
    apart = distances(seen)
    return {
        "drawn_step": step,
        "settled": is_settled(seen, search.options_as(EarlyBirdOptions)),
        "distance": max(apart) if apart else None,
        "density_asked": search.density,
        "density": kept / search.ticket.prunable_total,
        "units": {
            layer.weight: {"kept": int(np.count_nonzero(units)), "of": layer.units}
            for layer, units in zip(layers, seen[-1], strict=True)
        },
    }
