"""A random mask with the same density in every layer: the control that a ticket has to beat.

Reference: Frankle & Carbin 2019 (arXiv 1803.03635), appendix (random sparse networks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from nirvana.errors import InvalidTicket, Problem
from nirvana.lab.methods.imp import score
from nirvana.lab.methods.ranking import apportion, keep_layerwise, whole_masks
from nirvana.lab.methods.search import Found, Search


def find(search: Search) -> Found:
    """Positions drawn at random, each set of them as likely as another."""
    return draw_masks(search, uniform_shares(search.shapes, search.keep))


def draw_masks(search: Search, shares: Mapping[str, float]) -> Found:
    """Random masks with about `shares[name]` weights a layer, `search.keep` in all.

    The positions are those of the largest words of the criterion `random`, not of the verification's random
    arm, whose masks would otherwise be this one's where the seeds are equal.
    """
    words = score("random", {name: search.values[name] for name in search.shapes}, None, search.seed)
    return Found(keep_layerwise(words, whole_masks(search.shapes), counts_near(shares, search.keep)))


def uniform_shares(shapes: Mapping[str, tuple[int, ...]], keep: int) -> dict[str, float]:
    """Weights a layer at the same density in each, `keep` in all but for rounding."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return {name: size * keep / sum(sizes.values()) for name, size in sizes.items()}


def counts_near(shares: Mapping[str, float], keep: int) -> dict[str, int]:
    """`apportion`, but each layer keeps a weight: those without one are given one by the largest layer.

    Args:
        shares: weights a layer, their sum `keep` but for rounding.

    Raises:
        InvalidTicket: fewer weights than layers; names the first layer that goes without.
    """
    names = list(shares)
    if keep < len(names):
        name = names[keep]
        detail = f"{name} would keep no weight: {keep} weights for {len(names)} layers, expected 1 each"
        raise InvalidTicket(detail, errors=[Problem(f"/masks/{name}/kept", "layer-collapse", detail)])
    counts = apportion(shares, keep)
    for name in names:
        if not counts[name]:
            counts[max(names, key=lambda layer: counts[layer])] -= 1
            counts[name] = 1
    return counts
