"""Dynamic sparse training: a mask that moves while its network trains, with as many weights in every layer.

Every few updates until three quarters of the training, the smallest kept weights of each layer are dropped
and as many others grown, at 0: RigL grows those with the largest gradients of that update's batch, SET any.

Reference: RigL, Evci et al. 2020 (arXiv 1911.11134); SET, Mocanu et al. 2018 (arXiv 1707.04780).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nirvana.torch.dense import Dense
from nirvana.torch.evaluate import deterministic
from nirvana.training import loop
from nirvana.training.events import SILENT, Reporter
from nirvana.training.spec import TrainResult, TrainSpec

KINDS = ("rigl", "set")
SHARE = 0.3  # of the kept weights that the first move replaces; it falls along a cosine
MOST_EVERY, LEAST_MOVES = 100, 30  # updates between moves: the paper's, or fewer where the recipe is short
LAST_MOVE = 0.75  # of the training


def train(spec: TrainSpec, kind: str, reporter: Reporter = SILENT) -> TrainResult:
    """Train with a mask that moves.

    Args:
        spec: its masks are those of the start. kind: one of KINDS.

    Raises:
        InvalidRecipe, Cancelled: as `nirvana.engines.train`.
    """
    with deterministic(spec.initial.order_seed):
        return loop.train(lambda: Dynamic(spec, kind), [spec], [reporter])[0]


def move_every(steps: int) -> int:
    """Return the updates between two moves of the mask in a training of so many."""
    return max(1, min(MOST_EVERY, int(LAST_MOVE * steps) // LEAST_MOVES))


class Dynamic(Dense):
    """One training in torch whose masks move."""

    def __init__(self, spec: TrainSpec, kind: str) -> None:
        super().__init__(spec)
        self.kind, self.last = kind, int(LAST_MOVE * spec.recipe.steps)
        self.every = move_every(spec.recipe.steps)
        self.generator = torch.Generator().manual_seed(spec.initial.order_seed % 2**63)

    def _step(self, index: Tensor, rate: float, number: int) -> float:
        loss = super()._step(index, rate, number)
        if (number + 1) % self.every == 0 and number + 1 < self.last and math.isfinite(loss):
            self._move(SHARE / 2 * (1 + math.cos(math.pi * (number + 1) / self.last)))
        return loss

    @torch.no_grad()
    def _move(self, share: float) -> None:
        for weight, mask in zip(self.weights, self.masks, strict=True):
            assert weight.grad is not None
            by_gradient = weight.grad.abs()
            scores = by_gradient if self.kind == "rigl" else torch.rand(mask.shape, generator=self.generator)
            moved = move_mask(weight, mask, scores, share)
            grown = (moved > mask).to(mask.dtype)
            mask.copy_(moved)
            for state in self._momenta(weight):
                state.mul_(1 - grown)
        self._apply_masks()

    def _momenta(self, weight: Tensor) -> Iterator[Tensor]:
        """Yield what the optimiser remembers of a weight, element by element."""
        for value in self.optimizer.state[weight].values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                yield value


def move_mask(weight: Tensor, mask: Tensor, scores: Tensor, share: float) -> Tensor:
    """Return a mask without the smallest kept weights, and with as many others of the highest scores.

    Args:
        weight, mask, scores: of one layer, of one shape; the mask is 1 where a weight is kept.
        share: of the kept weights to replace, rounded half to even; at most as many as are pruned.
    """
    kept = mask.flatten() > 0
    count = min(round(share * int(kept.sum())), int((~kept).sum()))
    if not count:
        return mask.clone()
    sizes = weight.detach().abs().flatten().masked_fill(~kept, math.inf)
    dropped = torch.topk(sizes, count, largest=False).indices
    grown = torch.topk(scores.flatten().masked_fill(kept, -math.inf), count).indices
    moved = mask.flatten().clone()
    moved[dropped], moved[grown] = 0.0, 1.0
    return moved.view_as(mask)
