"""Methods that prune once and need no torch: after one training, and at initialisation without data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nirvana.networks.ops import Shape
from nirvana.pruning.imp import masks_at_density, score
from nirvana.pruning.methods import RegularisedOptions
from nirvana.pruning.ranking import (
    Masks,
    counts_near,
    keep_global,
    keep_layerwise,
    uniform_shares,
    whole_masks,
)
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.training.spec import Values


def find(search: MaskSearch) -> MaskResult:
    """Keep the largest trained weights, layer by layer or globally as the recipe says.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635), one-shot pruning.
    """
    return MaskResult(_largest(search, search.train_dense().weights))


def find_regularised(search: MaskSearch) -> MaskResult:
    """Keep the largest weights after a training with a penalty on the sum of |w|, by the recipe's scope and
    rates.

    The penalty is the recipe's `l1`, or else the option's, whose default was measured on LeNet-300-100: see
    docs/methods.md. The latter is for the search alone: the ticket trains by its recipe.

    Raises:
        TrainingFailed: a loss was not finite; names the method and the step.
        Invalid, InvalidTicket: the density cannot be reached, or a layer would lose its last weight.
        Cancelled: the reporter said so.

    Reference: Han et al. 2015 (arXiv 1506.02626), section 3.1; they prefer L1 where nothing is retrained.
    """
    penalty = search.recipe.l1 or search.options_as(RegularisedOptions).penalty
    spec = replace(search.dense_spec, recipe=replace(search.recipe, l1=penalty))
    trained = search.train_dense(spec)
    _, _, loss, accuracy = trained.curve[-1]
    measured = {"l1": penalty, "dense_validation_accuracy": accuracy, "dense_validation_loss": loss}
    return MaskResult(_largest(search, trained.weights), measured)


def _largest(search: MaskSearch, weights: Values | None) -> Masks:
    assert weights is not None
    prunable, pruning = search.ticket.prunable, search.recipe.pruning
    return masks_at_density(weights, {}, prunable, pruning, search.density, search.values, search.seed)


def find_random(search: MaskSearch) -> MaskResult:
    """Draw positions at random, the same density in every layer: the control that a ticket has to beat.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635), appendix (random sparse networks).
    """
    return _draw_masks(search, uniform_shares(search.shapes, search.keep))


def find_erk(search: MaskSearch) -> MaskResult:
    """Draw positions at random in layers that are the denser the fewer weights they have.

    Reference: Mocanu et al. 2018 (arXiv 1707.04780) for linear layers; Evci et al. 2020 (arXiv 1911.11134)
    with the kernel's sizes in the sum.
    """
    return _draw_masks(search, erk_shares(search.shapes, search.keep))


def find_largest(search: MaskSearch) -> MaskResult:
    """Keep the largest |initial values| of all layers together.

    Layers with smaller values go first, so at low densities wide layers collapse.

    Reference: Frankle et al. 2021 (arXiv 2009.08576).
    """
    sizes = {name: np.abs(search.values[name]) for name in search.shapes}
    return MaskResult(keep_global(sizes, whole_masks(search.shapes), search.keep))


def erk_shares(shapes: Mapping[str, Shape], keep: int) -> dict[str, float]:
    """Return weights a layer when its density is proportional to sum(shape) / prod(shape), `keep` in all.

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


def _draw_masks(search: MaskSearch, shares: Mapping[str, float]) -> MaskResult:
    """Draw masks with about `shares[name]` weights a layer, `search.keep` in all.

    The positions are those of the largest words of the criterion `random`, not of the verification's random
    arm, whose masks would otherwise be this one's where the seeds are equal.
    """
    words = score("random", {name: search.values[name] for name in search.shapes}, None, search.seed)
    return MaskResult(keep_layerwise(words, whole_masks(search.shapes), counts_near(shares, search.keep)))
