"""Learning-rate rewinding: train, prune globally, keep the trained weights, go back in the schedule, retrain.

What comes out is a pruned model rather than a ticket: its values are trained ones, its rewind step says after
how many updates, and its recipe's start step where the schedule begins again.

Reference: Renda, Frankle & Carbin 2020 (arXiv 2003.02389): 20 % of the remaining weights a round, all layers
    ranked together; the schedule from step T - t on (here `pruning.rewind_step`, 0 by default: t = T).
"""

from __future__ import annotations

from dataclasses import replace

from nirvana.recipe import Recipe


def retraining(recipe: Recipe) -> Recipe:
    """The recipe of every level after the first."""
    return replace(recipe, start_step=recipe.pruning.rewind_step)
