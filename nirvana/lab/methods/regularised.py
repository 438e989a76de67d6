"""Regularised training: a penalty on the sum of |w| while the dense network trains, then prune at once.

The penalty is the recipe's `l1`, or else 3e-4, which was measured on LeNet-300-100: see docs/methods.md. The
default is for the search alone: the ticket trains by its recipe, with a penalty only if the recipe says so.

Reference: Han et al. 2015 (arXiv 1506.02626), section 3.1; they prefer L1 where nothing is retrained.
"""

from __future__ import annotations

from dataclasses import replace

from nirvana.lab.methods.imp import masks_at_density
from nirvana.lab.methods.search import Found, Search

PENALTY = 3e-4


def find(search: Search) -> Found:
    """The masks of the largest weights after a training with an L1 penalty, by the recipe's scope and rates.

    Raises:
        TrainingFailed: a loss was not finite; names the method and the step.
        Invalid, InvalidTicket: the density cannot be reached, or a layer would lose its last weight.
        Cancelled: `should_stop` said so.
    """
    recipe = replace(search.recipe, l1=search.recipe.l1 or PENALTY)
    trained = search.train_dense(recipe)
    assert trained.weights is not None
    prunable, pruning = search.ticket.prunable, recipe.pruning
    masks = masks_at_density(
        trained.weights, {}, prunable, pruning, search.density, search.values, search.seed
    )
    _, _, loss, accuracy = trained.curve[-1]
    return Found(
        masks, {"l1": recipe.l1, "dense_validation_accuracy": accuracy, "dense_validation_loss": loss}
    )
