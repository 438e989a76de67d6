"""Methods that find masks, one file each. `nirvana.methods` has their names and papers.

Iterative ones (imp and its relatives) prune after each level's training: `nirvana.lab.finding` runs them.
The others are one function here, from a dense start to one set of masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nirvana.lab.methods import (
    amc,
    early_bird,
    edge_popup,
    erk,
    gradual_magnitude,
    grasp,
    magnitude_at_init,
    one_shot,
    random_mask,
    regularised,
    snip,
    supermask,
    synflow,
)
from nirvana.lab.methods.distilled import with_teacher
from nirvana.lab.methods.search import Found, Search
from nirvana.recipe import Recipe

__all__ = ["FINDERS", "Found", "Search", "adapt"]

FINDERS: dict[str, Callable[[Search], Found]] = {
    "one-shot": one_shot.find,
    "random": random_mask.find,
    "erk": erk.find,
    "magnitude-at-init": magnitude_at_init.find,
    "snip": snip.find,
    "grasp": grasp.find,
    "synflow": synflow.find,
    "supermask": supermask.find,
    "edge-popup": edge_popup.find,
    "gradual-magnitude": gradual_magnitude.find,
    "regularised": regularised.find,
    "early-bird": early_bird.find,
    "amc": amc.find,
}


def adapt(recipe: Recipe, method: str) -> Recipe:
    """The recipe as the method has it: Renda's prune globally, `distilled` has a teacher."""
    if method in ("lr-rewinding", "fine-tuning"):
        return replace(recipe, pruning=replace(recipe.pruning, scope="global"))
    return with_teacher(recipe) if method == "distilled" else recipe
