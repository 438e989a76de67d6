"""Supermasks as Zhou et al. make them: a mask under which untrained weights score far above chance.

Learned (the default): each weight has a score s and is kept with probability sigmoid(s). A mask is drawn at
every update, the gradient flows as if the mask were the probability, and SGD with rate 100 and momentum 0.9
trains s. By criterion (`pruning.criterion` other than `large_final`, such as `large_final_same_sign`): one
dense training, then the weights that the criterion ranks first, as in one-shot pruning.

The paper lets a learned mask take the density it likes. Here the mean probability of each layer is held at
the density asked for, by a shift of its scores before each update, and at the end each layer keeps its
highest ones.

Reference: Zhou et al. 2019 (arXiv 1905.01067).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nirvana.pruning import one_shot
from nirvana.pruning.methods import SupermaskOptions
from nirvana.pruning.ranking import keep_layerwise, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import by_name
from nirvana.torch.methods.score_learning import (
    Tensors,
    learn,
    score_recipe,
    uniform_counts,
    validation_accuracy,
)

_NEWTON_STEPS = 2  # an update moves the mean little, so two reach it
_LARGEST_PROBABILITY = 1 - 1e-6


def find(search: MaskSearch) -> MaskResult:
    """Return the learned mask or, by another criterion than `large_final`, the mask after one training.

    Measured: `untrained_validation_accuracy` of the mask on the initial values and, where it was learned,
    `sampled_validation_accuracy`, the mean of 10 masks drawn with the learned probabilities.
    """
    if search.recipe.pruning.criterion != "large_final":
        masks = one_shot.find(search).masks
        return MaskResult(masks, {"untrained_validation_accuracy": validation_accuracy(search, masks)})
    counts, samples = uniform_counts(search), search.options_as(SupermaskOptions).samples
    with deterministic(search.seed):
        scores = _learn(search, counts)
        sampled = sum(validation_accuracy(search, _draw(scores)) for _ in range(samples)) / samples
    masks = keep_layerwise(by_name(scores, scores.values()), whole_masks(search.shapes), counts)
    measured = {
        "untrained_validation_accuracy": validation_accuracy(search, masks),
        "sampled_validation_accuracy": sampled,
    }
    return MaskResult(masks, measured)


def bernoulli(scores: Tensor) -> Tensor:
    """Return a mask drawn with probabilities sigmoid(scores), whose gradient is that of the probabilities."""
    probability = torch.sigmoid(scores)
    return torch.bernoulli(probability.detach()) + probability - probability.detach()


@torch.no_grad()
def hold(scores: Tensor, density: float) -> None:
    """Shift the scores so that their mean probability is `density`, or nears it where that is far."""
    for _ in range(_NEWTON_STEPS):
        probability = torch.sigmoid(scores)
        slope = (probability * (1 - probability)).mean().clamp(min=1e-6)
        scores.sub_(((probability.mean() - density) / slope).clamp(-1, 1))


def _learn(search: MaskSearch, counts: dict[str, int]) -> Tensors:
    densities = {
        name: min(_LARGEST_PROBABILITY, counts[name] / math.prod(shape))
        for name, shape in search.shapes.items()
    }
    scores = {
        name: torch.full(shape, math.log(densities[name] / (1 - densities[name]))).requires_grad_()
        for name, shape in search.shapes.items()
    }

    rate = search.options_as(SupermaskOptions).learning_rate

    def mask_of(name: str, score: Tensor) -> Tensor:
        hold(score, densities[name])
        return bernoulli(score)

    learn(search, scores, mask_of, score_recipe(search.recipe, rate, 0.0, "constant"))
    return scores


def _draw(scores: Tensors) -> Tensors:
    return {name: torch.bernoulli(torch.sigmoid(score.detach())) for name, score in scores.items()}
