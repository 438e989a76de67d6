"""Edge-popup: a mask under which untrained weights score, by the highest of learned scores in each layer.

Every weight has a score s. A forward pass keeps the same share of each layer, the highest |s|; backwards, |s|
has the gradient that the mask would have. Scores start as kaiming_uniform(a = sqrt 5) and are trained by SGD:
rate 0.1 falling to 0 along half a cosine, momentum 0.9, weight decay 5e-4.

Reference: Ramanujan et al. 2020 (arXiv 1911.13299).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from nirvana.format.initial import draw
from nirvana.pruning.methods import EdgePopupOptions
from nirvana.pruning.ranking import keep_layerwise, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods.score_learning import (
    Tensors,
    learn,
    score_recipe,
    uniform_counts,
    validation_accuracy,
)

_STREAM = 0x45444745  # "EDGE"


def find(search: MaskSearch) -> MaskResult:
    """Return the mask of the last scores.

    Measured: its `untrained_validation_accuracy` on the initial values.
    """
    counts = uniform_counts(search)
    scores = _start(search)
    options = search.options_as(EdgePopupOptions)
    recipe = score_recipe(search.recipe, options.learning_rate, options.weight_decay, "cosine")
    with deterministic(search.seed):
        learn(search, scores, lambda name, score: keep_top(score, counts[name]), recipe)
    sizes = {name: score.detach().abs().numpy() for name, score in scores.items()}
    masks = keep_layerwise(sizes, whole_masks(search.shapes), counts)
    return MaskResult(masks, {"untrained_validation_accuracy": validation_accuracy(search, masks)})


def keep_top(scores: Tensor, keep: int) -> Tensor:
    """Return 1 at the `keep` highest |scores| and 0 elsewhere; the gradient passes straight to |scores|."""
    mask: Tensor = _Top.apply(scores.abs(), keep)  # type: ignore[no-untyped-call]
    return mask


class _Top(torch.autograd.Function):
    @staticmethod
    def forward(context: FunctionCtx, sizes: Tensor, keep: int) -> Tensor:
        mask = torch.zeros(sizes.numel())
        mask[sizes.flatten().topk(keep, sorted=False).indices] = 1
        return mask.view(sizes.shape)

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _start(search: MaskSearch) -> Tensors:
    """Draw scores by torch's default law, kaiming_uniform(a = sqrt 5): uniform up to 1 / sqrt(fan_in)."""
    places = {name: place for place, name in enumerate(search.ticket.architecture.parameters)}
    drawn = {
        name: draw("torch_default", shape, search.seed, places[name], _STREAM)
        for name, shape in search.shapes.items()
    }
    return {name: torch.from_numpy(scores).requires_grad_() for name, scores in drawn.items()}
