"""Train once, prune to the density at once, rewind.

Reference: Frankle & Carbin 2019 (arXiv 1803.03635), one-shot pruning.
"""

from __future__ import annotations

from nirvana.lab.methods.imp import masks_at_density
from nirvana.lab.methods.search import Found, Search


def find(search: Search) -> Found:
    """The masks of the largest trained weights, layer by layer or globally as the recipe says."""
    weights = search.train_dense().weights
    assert weights is not None
    prunable, pruning = search.ticket.prunable, search.recipe.pruning
    return Found(masks_at_density(weights, {}, prunable, pruning, search.density, search.values, search.seed))
