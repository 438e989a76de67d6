"""Gradual magnitude pruning: during one training, a little every few steps, first fast and then slowly.

Nothing is pruned before 10 % of the training's steps; then, every 1 % of them, the smallest weights of those
left go, until at about 75 % the density is reached; the rest of the training lets the others settle. What
comes out is the mask: the ticket restarts from the values that the training started from.

Layerwise, each layer follows the schedule to the count that the recipe's rates give it at that density;
globally, all layers together do.

Reference: Zhu & Gupta 2017 (arXiv 1710.01878), equation 1; they prune every 100 to 1,000 steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nirvana.format.masks import Mask
from nirvana.pruning.imp import score
from nirvana.pruning.methods import GradualOptions
from nirvana.pruning.ranking import Masks, Scores, counts_at, keep_global, keep_layerwise, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import DrivenTraining
from nirvana.training.recipe import Pruning


def find(search: MaskSearch) -> MaskResult:
    """The masks after the last pruning of one training.

    Raises:
        TrainingFailed: a loss was not finite; names the method and the step.
        Invalid, InvalidTicket: the density cannot be reached, or a layer would lose its last weight.
        Cancelled: the reporter said so.
    """
    options, steps = search.options_as(GradualOptions), search.recipe.steps
    masks, rounds = whole_masks(search.shapes), list(schedule(search.first_step, steps, options))
    with deterministic(search.seed):
        training = DrivenTraining(search)
        for number, (step, progress) in enumerate(rounds, 1):
            training.update_until(step)
            masks = prune(_scores(search, training), masks, search.recipe.pruning, search.keep, progress)
            training.backend.set_masks(masks)
            search.report(number, len(rounds), f"step {step}: {_kept(masks)} weights left")
        training.update_until(steps)
        (loss,), (accuracy,) = (part.tolist() for part in training.backend.evaluate("validation"))
    return MaskResult(masks, _measured(rounds, loss, accuracy))


def schedule(
    first: int,
    steps: int,
    options: GradualOptions = GradualOptions(),  # noqa: B008
) -> Iterator[tuple[int, float]]:
    """Plan when to prune, and how far each pruning goes.

    Args:
        first: the training's first step. steps: one past its last one; > first.

    Yields:
        (step, share of the final sparsity reached): after that many updates, 1 - (1 - i / n)^3 of it at the
        i-th of n prunings.
    """
    length = steps - first
    begin, every = first + round(options.begin * length), max(1, round(options.every * length))
    n = max(1, round((options.end - options.begin) * length) // every)
    for i in range(1, n + 1):
        yield min(steps, begin + i * every), 1 - (1 - i / n) ** 3


def prune(scores: Scores, masks: Mapping[str, Mask], pruning: Pruning, keep: int, progress: float) -> Masks:
    """The masks at a share `progress` in [0, 1] of the way from everything to `keep` weights in all: of n
    weights (of each layer, or of all) n - round_half_even(progress x (n - those kept in the end)) are kept.

    Args:
        masks: so far; only their survivors compete.

    Raises:
        Invalid, InvalidTicket: as in `nirvana.pruning.ranking.keep_global` and `counts_at`.
    """
    sizes = {name: mask.size for name, mask in masks.items()}
    if pruning.scope == "global":
        return keep_global(scores, masks, _left(sum(sizes.values()), keep, progress))
    output = list(sizes)[-1]
    rates = {name: pruning.layer_rate(name, is_output=name == output) for name in sizes}
    finals = counts_at(sizes, rates, keep)
    counts = {name: _left(n, finals[name], progress) for name, n in sizes.items()}
    return keep_layerwise(scores, masks, counts)


def _left(n: int, final: int, progress: float) -> int:
    return n - round(progress * (n - final))


def _scores(search: MaskSearch, training: DrivenTraining) -> Scores:
    values, criterion = training.backend.values(), search.recipe.pruning.criterion
    return score(criterion, {name: values[name] for name in search.shapes}, search.values, search.seed)


def _kept(masks: Masks) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in masks.values())


def _measured(rounds: list[tuple[int, float]], loss: float, accuracy: float) -> dict[str, Any]:
    return {
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "prunings": len(rounds),
        "first_pruning_step": rounds[0][0],
        "last_pruning_step": rounds[-1][0],
    }
