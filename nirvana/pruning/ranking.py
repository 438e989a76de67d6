"""The registry's pruning rule: which weights stay, given a score for each. Pure functions.

The rule: the weights that stay are the first by (score descending, layer order, flat index ascending), so
counts are exact and ties deterministic. Only the survivors of the masks so far compete. NaN is refused, and a
layer never loses its last weight silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidTicket, Problem
from nirvana.format.masks import Mask

Scores = Mapping[str, NDArray[np.floating[Any]]]
Masks = dict[str, Mask]
_BISECTIONS = 200


def whole_masks(shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """Masks that keep everything."""
    return {name: np.ones(shape, bool) for name, shape in shapes.items()}


def kept_at(density: float, total: int) -> int:
    """Weights that a density keeps of `total`: round_half_even(density x total)."""
    return round(density * total)


def keep_global(scores: Scores, masks: Mapping[str, Mask], keep: int) -> Masks:
    """The `keep` highest scores over all layers of `masks` together.

    Raises:
        Invalid: a score is not a number, or fewer than `keep` weights are left.
        InvalidTicket: a layer would lose its last weight (`layer-collapse`, named).
    """
    names = list(masks)
    return dict(zip(names, _highest(scores, [masks[name] for name in names], keep, names), strict=True))


def keep_layerwise(scores: Scores, masks: Mapping[str, Mask], counts: Mapping[str, int]) -> Masks:
    """The `counts[name]` highest scores of each layer.

    Raises:
        Invalid, InvalidTicket: as in `keep_global`.
    """
    return {name: _highest(scores, [mask], counts[name], [name])[0] for name, mask in masks.items()}


def counts_at(remaining: Mapping[str, int], rates: Mapping[str, float], keep: int) -> dict[str, int]:
    """Weights that each layer keeps so that `keep` are kept in all: remaining x (1 - rate)^t for one t >= 0,
    rounded down, and the missing ones given to the largest fractions (ties: to the earlier layer).

    Raises:
        Invalid: no t does it.
    """
    total = sum(remaining.values())
    fixed = sum(n for name, n in remaining.items() if rates[name] == 0)
    if not fixed < keep <= total and keep != total:
        detail = f"cannot keep {keep} weights: {total} are left and layers with rate 0 hold {fixed}"
        raise Invalid(detail + ", expected a density between them")
    if keep == total:
        return dict(remaining)
    return apportion(_shares(remaining, rates, _rounds(remaining, rates, keep)), keep)


def apportion(shares: Mapping[str, float], keep: int) -> dict[str, int]:
    """Whole numbers near `shares` that sum to `keep`: rounded down, the missing ones given to the largest
    fractions (ties: to the earlier layer). The shares sum to `keep`, but for rounding."""
    counts = {name: math.floor(share) for name, share in shares.items()}
    by_fraction = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in by_fraction[: keep - sum(counts.values())]:
        counts[name] += 1
    return counts


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


def _shares(remaining: Mapping[str, int], rates: Mapping[str, float], rounds: float) -> dict[str, float]:
    return {name: n * (1 - rates[name]) ** rounds for name, n in remaining.items()}


def _rounds(remaining: Mapping[str, int], rates: Mapping[str, float], keep: int) -> float:
    """The t with sum of remaining x (1 - rate)^t = keep, from above: the floors then never sum to more."""
    low, high = 0.0, 1.0
    while sum(_shares(remaining, rates, high).values()) > keep:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if sum(_shares(remaining, rates, middle).values()) > keep:
            low = middle
        else:
            high = middle
    return high


def _highest(scores: Scores, masks: Sequence[Mask], keep: int, names: Sequence[str]) -> list[Mask]:
    """Masks of the `keep` highest scores among the kept elements of these layers together."""
    for name in names:
        if np.isnan(scores[name]).any():
            raise Invalid(f"{name} holds NaN, expected numbers: a failed training cannot be pruned")
    flat = np.concatenate([mask.ravel() for mask in masks])
    survivors = np.flatnonzero(flat)
    if keep > len(survivors):
        raise Invalid(f"cannot keep {keep} weights of {', '.join(names)}: {len(survivors)} are left")
    ranked = np.concatenate([scores[name].ravel() for name in names])[survivors]
    chosen = np.zeros(flat.size, bool)
    chosen[survivors[np.argsort(-ranked, kind="stable")[:keep]]] = True
    parts = np.split(chosen, np.cumsum([mask.size for mask in masks])[:-1])
    kept = [part.reshape(mask.shape) for part, mask in zip(parts, masks, strict=True)]
    for name, mask in zip(names, kept, strict=True):
        _refuse_collapse(name, mask)
    return kept


def _refuse_collapse(name: str, mask: Mask) -> None:
    if not mask.any():
        detail = (
            f"{name} would keep no weight, expected at least 1: prune less, or give the layer a lower rate"
        )
        raise InvalidTicket(detail, errors=[Problem(f"/masks/{name}/kept", "layer-collapse", detail)])
