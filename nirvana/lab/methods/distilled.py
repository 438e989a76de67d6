"""IMP with a teacher: at every level the network also learns the outputs of the dense one.

The teacher is the dense network from the same initial values, trained by the recipe without distillation.

Reference: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import replace

from nirvana.recipe import Recipe

TEMPERATURE = 4.0
WEIGHT = 0.5


def with_teacher(recipe: Recipe) -> Recipe:
    """The recipe with distillation: its own, or temperature 4 and half of the loss."""
    if recipe.distillation:
        return recipe
    return replace(recipe, distillation={"temperature": TEMPERATURE, "weight": WEIGHT})
