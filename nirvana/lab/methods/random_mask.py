"""A random mask with the same density in every layer: the control that a ticket has to beat.

Reference: Frankle & Carbin 2019 (arXiv 1803.03635), appendix (random sparse networks).
"""

from __future__ import annotations

from collections.abc import Mapping

from nirvana.lab.methods.imp import score
from nirvana.lab.methods.ranking import counts_near, keep_layerwise, uniform_shares, whole_masks
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
