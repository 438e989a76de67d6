"""Fine-tuning: train, prune globally, keep the trained weights, retrain at the last learning rate.

As with learning-rate rewinding a pruned model comes out. It is retrained for as many steps as a full training
has from `pruning.rewind_step` on.

Reference: Renda, Frankle & Carbin 2020 (arXiv 2003.02389); Han et al. 2015 (arXiv 1506.02626).
"""

from __future__ import annotations

from dataclasses import replace

from nirvana.recipe import Recipe
from nirvana.training import learning_rate


def retraining(recipe: Recipe) -> Recipe:
    """The recipe of every level after the first: the last learning rate throughout."""
    last = learning_rate(recipe, recipe.steps - 1)
    start = recipe.pruning.rewind_step
    constant = {"kind": "constant"}
    return replace(recipe, learning_rate=last, schedule=constant, warmup_steps=0, start_step=start)
