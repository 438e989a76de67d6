"""Magnitude pruning: which weights stay. Pure functions of trained weights and masks.

The rule (SCIENCE section 6): a round at rate p keeps n_remaining - round_half_even(p x n_remaining) weights;
they are the first by (|w| descending, layer order, flat index ascending), so counts are exact and ties
deterministic. Only the survivors of the masks so far compete. NaN is refused; rate 0 changes nothing; a layer
never loses its last weight silently.

A density is reached the same way: every layer goes on at its own rate for as many rounds, a whole number or
not, as leave exactly round_half_even(density x total) weights in all. So one shot to a density keeps uniform
layer densities where the rates are equal, and the output layer denser where its rate is lower, as a row of
rounds would.

Reference: Frankle & Carbin 2019 (arXiv 1803.03635); global ranking as in Frankle et al. 2020 (arXiv
    1912.05671).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidTicket, Problem
from nirvana.masks import Mask
from nirvana.recipe import Pruning

Weights = Mapping[str, NDArray[np.float32]]
Masks = dict[str, Mask]
_BISECTIONS = 200


def next_masks(
    weights: Weights,
    masks: Mapping[str, Mask],
    prunable: Sequence[str],
    pruning: Pruning,
    output_parameter: str,
) -> Masks:
    """One round of pruning.

    Args:
        weights: trained values by parameter.
        masks: so far; a prunable parameter without one is whole.
        prunable: parameters that may lose weights, in the architecture's order.
        output_parameter: the one that `pruning.output_rate` is for: the last prunable layer.

    Returns:
        a mask for each prunable parameter, each a subset of the one before.

    Raises:
        Invalid: a weight is not a number.
        InvalidTicket: a layer would lose its last weight (`layer-collapse`).
    """
    current = _whole(weights, masks, prunable)
    if pruning.scope == "global":
        total = sum(_count(mask) for mask in current.values())
        return _keep_global(weights, current, total - round(pruning.rate * total))
    counts = {}
    for name, mask in current.items():
        rate = pruning.layer_rate(name, is_output=name == output_parameter)
        counts[name] = _count(mask) - round(rate * _count(mask))
    return _keep_layerwise(weights, current, counts)


def masks_at_density(
    weights: Weights,
    masks: Mapping[str, Mask],
    prunable: Sequence[str],
    pruning: Pruning,
    output_parameter: str,
    density: float,
) -> Masks:
    """Prune at once so that exactly round_half_even(density x total) weights are kept.

    Raises:
        Invalid: a weight is not a number, or the density cannot be reached: above the one at hand, or below
            what layers with rate 0 hold.
        InvalidTicket: a layer would lose its last weight.
    """
    current = _whole(weights, masks, prunable)
    keep = kept_at(density, sum(mask.size for mask in current.values()))
    if pruning.scope == "global":
        return _keep_global(weights, current, keep)
    rates = {name: pruning.layer_rate(name, is_output=name == output_parameter) for name in current}
    counts = counts_at({name: _count(mask) for name, mask in current.items()}, rates, keep)
    return _keep_layerwise(weights, current, counts)


def kept_at(density: float, total: int) -> int:
    """Weights that a density keeps of `total`: round_half_even(density x total)."""
    return round(density * total)


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
    exact = _shares(remaining, rates, _rounds(remaining, rates, keep))
    counts = {name: math.floor(share) for name, share in exact.items()}
    by_fraction = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_fraction[: keep - sum(counts.values())]:
        counts[name] += 1
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


def _whole(weights: Weights, masks: Mapping[str, Mask], prunable: Sequence[str]) -> Masks:
    for name in prunable:
        if np.isnan(weights[name]).any():
            raise Invalid(f"{name} holds NaN, expected numbers: a failed training cannot be pruned")
    return {name: masks.get(name, np.ones(weights[name].shape, bool)) for name in prunable}


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _keep_layerwise(weights: Weights, masks: Masks, counts: Mapping[str, int]) -> Masks:
    return {name: _largest([weights[name]], [mask], counts[name], [name])[0] for name, mask in masks.items()}


def _keep_global(weights: Weights, masks: Masks, keep: int) -> Masks:
    names = list(masks)
    found = _largest([weights[name] for name in names], list(masks.values()), keep, names)
    return dict(zip(names, found, strict=True))


def _largest(
    weights: Sequence[NDArray[np.float32]], masks: Sequence[Mask], keep: int, names: Sequence[str]
) -> list[Mask]:
    """Masks of the `keep` largest |w| among the kept elements of all layers together."""
    flat = np.concatenate([mask.ravel() for mask in masks])
    survivors = np.flatnonzero(flat)
    if keep > len(survivors):
        raise Invalid(f"cannot keep {keep} weights of {', '.join(names)}: {len(survivors)} are left")
    sizes = np.abs(np.concatenate([values.ravel() for values in weights])[survivors])
    chosen = np.zeros(flat.size, bool)
    chosen[survivors[np.argsort(-sizes, kind="stable")[:keep]]] = True
    parts = np.split(chosen, np.cumsum([mask.size for mask in masks])[:-1])
    found = [part.reshape(mask.shape) for part, mask in zip(parts, masks, strict=True)]
    for name, mask in zip(names, found, strict=True):
        _refuse_collapse(name, mask)
    return found


def _refuse_collapse(name: str, mask: Mask) -> None:
    if not mask.any():
        detail = (
            f"{name} would keep no weight, expected at least 1: prune less, or give the layer a lower rate"
        )
        raise InvalidTicket(detail, errors=[Problem(f"/masks/{name}/kept", "layer-collapse", detail)])
