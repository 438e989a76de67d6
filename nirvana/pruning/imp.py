"""Iterative magnitude pruning: which weights stay after a training.

A round at rate p keeps n_remaining - round_half_even(p x n_remaining) weights, of each layer or of all
together (`pruning.scope`), by the rule of `ranking`; rate 0 changes nothing. A density is reached the same
way: every layer goes on at its own rate for as many rounds, a whole number or not, as leave exactly
round_half_even(density x total) weights in all. So one shot to a density keeps uniform layer densities where
the rates are equal, and the output layer denser where its rate is lower, as a row of rounds would.

Reference: Frankle & Carbin 2019 (arXiv 1803.03635); global ranking and rewinding as in Frankle et al. 2020
    (arXiv 1912.05671); the other criteria, Zhou et al. 2019 (arXiv 1905.01067).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nirvana.format.initial import words
from nirvana.format.masks import Mask
from nirvana.pruning.ranking import Masks, Scores, counts_at, keep_global, keep_layerwise, kept_at
from nirvana.training.recipe import Pruning

Weights = Mapping[str, NDArray[np.float32]]
_STREAM = 0x43524954  # "CRIT"


def next_masks(
    weights: Weights,
    masks: Mapping[str, Mask],
    prunable: Sequence[str],
    pruning: Pruning,
    initial: Weights | None = None,
    seed: int = 0,
) -> Masks:
    """One round of pruning.

    Args:
        weights: trained values by parameter.
        masks: so far; a prunable parameter without one is whole.
        prunable: parameters that may lose weights, in the architecture's order; the last is the output layer.
        initial: values before training, for the criteria that look at them.
        seed: of the criterion `random`.

    Returns:
        a mask for each prunable parameter, each a subset of the one before.

    Raises:
        Invalid: a weight is not a number.
        InvalidTicket: a layer would lose its last weight (`layer-collapse`).
    """
    current = _whole(weights, masks, prunable)
    scores = score(pruning.criterion, {name: weights[name] for name in prunable}, initial, seed)
    if pruning.scope == "global":
        total = sum(_count(mask) for mask in current.values())
        return keep_global(scores, current, total - round(pruning.rate * total))
    counts = {}
    for name, mask in current.items():
        rate = pruning.layer_rate(name, is_output=name == prunable[-1])
        counts[name] = _count(mask) - round(rate * _count(mask))
    return keep_layerwise(scores, current, counts)


def masks_at_density(
    weights: Weights,
    masks: Mapping[str, Mask],
    prunable: Sequence[str],
    pruning: Pruning,
    density: float,
    initial: Weights | None = None,
    seed: int = 0,
) -> Masks:
    """Prune at once so that exactly round_half_even(density x total) weights are kept.

    Raises:
        Invalid: a weight is not a number, or the density cannot be reached: above the one at hand, or below
            what layers with rate 0 hold.
        InvalidTicket: a layer would lose its last weight.
    """
    current = _whole(weights, masks, prunable)
    scores = score(pruning.criterion, {name: weights[name] for name in prunable}, initial, seed)
    keep = kept_at(density, sum(mask.size for mask in current.values()))
    if pruning.scope == "global":
        return keep_global(scores, current, keep)
    rates = {name: pruning.layer_rate(name, is_output=name == prunable[-1]) for name in current}
    counts = counts_at({name: _count(mask) for name, mask in current.items()}, rates, keep)
    return keep_layerwise(scores, current, counts)


def score(criterion: str, weights: Weights, initial: Weights | None, seed: int) -> Scores:
    """Return the scores that weights are ranked by; `Pruning.criterion` says what each name means.

    Args:
        initial: needed by the criteria that compare with values before training.
    """
    if criterion == "random":
        return {
            name: words(seed, place, _STREAM, np.arange(w.size)).reshape(w.shape).astype(np.float64)
            for place, (name, w) in enumerate(weights.items())
        }
    before = initial if initial is not None else {name: np.zeros_like(w) for name, w in weights.items()}
    return {name: _CRITERIA[criterion](w, before[name]) for name, w in weights.items()}


_CRITERIA = {
    "large_final": lambda w, w0: np.abs(w),
    "magnitude_increase": lambda w, w0: np.abs(w) - np.abs(w0),
    "movement": lambda w, w0: np.abs(w - w0),
    "small_final": lambda w, w0: -np.abs(w),
    "large_init": lambda w, w0: np.abs(w0),
    "large_final_same_sign": lambda w, w0: np.maximum(0, w * np.sign(w0)),
}


def _whole(weights: Weights, masks: Mapping[str, Mask], prunable: Sequence[str]) -> Masks:
    return {name: masks.get(name, np.ones(weights[name].shape, bool)) for name in prunable}


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
