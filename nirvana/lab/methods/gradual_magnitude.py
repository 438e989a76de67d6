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

from nirvana.lab.environment import deterministic
from nirvana.lab.evaluate import evaluate
from nirvana.lab.methods.imp import score
from nirvana.lab.methods.ranking import Masks, Scores, counts_at, keep_global, keep_layerwise, whole_masks
from nirvana.lab.methods.search import Found, Search
from nirvana.lab.train import Run
from nirvana.masks import Mask
from nirvana.recipe import Pruning

BEGIN, END, EVERY = 0.10, 0.75, 0.01  # shares of the training's steps


def find(search: Search) -> Found:
    """The masks after the last pruning of one training.

    Raises:
        TrainingFailed: a loss was not finite; names the method and the step.
        Invalid, InvalidTicket: the density cannot be reached, or a layer would lose its last weight.
        Cancelled: `should_stop` said so.
    """
    masks, rounds = whole_masks(search.shapes), list(schedule(search.first_step, search.recipe.steps))
    with deterministic(search.seed):
        run = search.start_dense()
        for number, (step, progress) in enumerate(rounds, 1):
            search.update(run, step)
            masks = prune(_scores(search, run), masks, search.recipe.pruning, search.keep, progress)
            run.set_masks(masks)
            search.tell(number, len(rounds), f"step {step}: {_kept(masks)} weights left")
        search.update(run, search.recipe.steps)
        loss, accuracy = evaluate(run.network, search.data.validation_x, search.data.validation_y)
    return Found(masks, _measured(rounds, loss, accuracy))


def schedule(first: int, steps: int) -> Iterator[tuple[int, float]]:
    """When to prune, and how far each pruning goes.

    Args:
        first: the training's first step. steps: one past its last one; > first.

    Yields:
        (step, share of the final sparsity reached): after that many updates, 1 - (1 - i / n)^3 of it at the
        i-th of n prunings.
    """
    length = steps - first
    begin, every = first + round(BEGIN * length), max(1, round(EVERY * length))
    n = max(1, round((END - BEGIN) * length) // every)
    for i in range(1, n + 1):
        yield begin + i * every, 1 - (1 - i / n) ** 3


def prune(scores: Scores, masks: Mapping[str, Mask], pruning: Pruning, keep: int, progress: float) -> Masks:
    """The masks at a share `progress` in [0, 1] of the way from everything to `keep` weights in all: of n
    weights (of each layer, or of all) n - round_half_even(progress x (n - those kept in the end)) are kept.

    Args:
        masks: so far; only their survivors compete.

    Raises:
        Invalid, InvalidTicket: as in `nirvana.lab.methods.ranking.keep_global` and `counts_at`.
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


def _scores(search: Search, run: Run) -> Scores:
    values, criterion = run.values(), search.recipe.pruning.criterion
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
