"""A random mask whose layers are the denser the fewer weights they have: Erdos-Renyi-kernel densities.

Reference: Mocanu et al. 2018 (arXiv 1707.04780) for linear layers; Evci et al. 2020 (arXiv 1911.11134) with
    the kernel's sizes in the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nirvana.lab.methods.random_mask import draw_masks
from nirvana.lab.methods.search import Found, Search


def find(search: Search) -> Found:
    """Positions drawn at random in each layer."""
    return draw_masks(search, erk_shares(search.shapes, search.keep))


def erk_shares(shapes: Mapping[str, tuple[int, ...]], keep: int) -> dict[str, float]:
    """Weights a layer when its density is proportional to sum(shape) / prod(shape), `keep` in all.

    So a layer's weights are proportional to sum(shape). Layers that would hold more than they have are kept
    whole, and the others share what is left, until none holds more.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    whole: set[str] = set()
    while True:
        left = keep - sum(sizes[name] for name in whole)
        per_unit = left / max(1, sum(sum(shape) for name, shape in shapes.items() if name not in whole))
        shares = {
            name: float(sizes[name]) if name in whole else per_unit * sum(shape)
            for name, shape in shapes.items()
        }
        over = {name for name, share in shares.items() if share > sizes[name]}
        if not over:
            return shares
        whole |= over
