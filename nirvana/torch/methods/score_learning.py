"""Learning scores of untrained weights: the loop that `supermask` and `edge_popup` share.

The weights are frozen at the start and the scores are trained; a rule turns scores into masks and lets a
gradient back to them. The network is in evaluation mode throughout (no dropout, batch norm by its stored
statistics), so what is learned is what is measured when a ticket's untrained accuracy is read.

While scores are learned, kept weights are multiplied by 1 / sqrt(density), where that changes no prediction:
a layer's outputs then vary as the dense layer's do, without which gradients are lost at low densities. The
ticket's weights are not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from nirvana.networks.ops import find_refusal, ops_with
from nirvana.pruning.ranking import counts_near, uniform_shares
from nirvana.pruning.search import MaskSearch
from nirvana.torch.dense import make_optimizer
from nirvana.torch.evaluate import evaluate
from nirvana.torch.modules import Network, build_module, load_values, tensors_of
from nirvana.training.recipe import Recipe, learning_rate
from nirvana.training.schedule import batch_indices

LEAST_STEPS = 1000
TELL_EVERY = 25
Tensors = dict[str, Tensor]
MaskOf = Callable[[str, Tensor], Tensor]


def score_recipe(recipe: Recipe, rate: float, weight_decay: float, schedule: str) -> Recipe:
    """SGD with momentum 0.9, for as many steps as the recipe has, or 1,000 if those are more."""
    return replace(
        recipe,
        optimizer="sgd",
        learning_rate=rate,
        momentum=0.9,
        nesterov=False,
        weight_decay=weight_decay,
        schedule={"kind": schedule},
        warmup_steps=0,
        steps=max(LEAST_STEPS, recipe.steps),
    )


def uniform_counts(search: MaskSearch) -> dict[str, int]:
    """Weights to keep in each layer: the same density everywhere but for rounding."""
    return counts_near(uniform_shares(search.shapes, search.keep), search.keep)


def learn(search: MaskSearch, scores: Tensors, mask_of: MaskOf, recipe: Recipe) -> None:
    """Train `scores` in place on the training data, in the seed's order.

    Args:
        scores: by prunable parameter, leaves of its shape.
        mask_of: (parameter, its scores) -> mask, differentiable.
        recipe: from `score_recipe`.

    Raises:
        TrainingFailed: a loss was not finite. Cancelled: the reporter said so.
    """
    network = frozen_network(search)
    scaled = {name: tensors_of(network)[name] * scale_of(search) for name in scores}
    x, y = torch.from_numpy(search.data.train_x), torch.from_numpy(search.data.train_y)
    batches = batch_indices(search.seed, len(y), recipe.batch_size, 0)
    optimizer = make_optimizer(recipe, scores.values())  # type: ignore[arg-type]
    for step in range(recipe.steps):
        search.reporter.check_stop("at step {} of {}", step, recipe.steps)
        index = torch.from_numpy(next(batches))
        weights = {name: scaled[name] * mask_of(name, score) for name, score in scores.items()}
        loss = F.cross_entropy(functional_call(network, weights, (x[index],)), y[index])
        _step(optimizer, loss, learning_rate(recipe, step))
        if not math.isfinite(loss.item()):
            raise search.failure(step)
        if (step + 1) % TELL_EVERY == 0:
            search.report(step + 1, recipe.steps, f"scores, step {step + 1}: loss {loss.item():.4f}")


def scale_of(search: MaskSearch) -> float:
    """Return 1 / sqrt(density) where a layer's scale only scales the logits, else 1."""
    return 1.0 if unscalable_reason(search) else 1 / math.sqrt(search.density)


def unscalable_reason(search: MaskSearch) -> str | None:
    """Name what keeps a layer's scale from only scaling the logits: an op that is not homogeneous (beside a
    residual sum's other branch a scale would change predictions), or a bias or running mean; else None."""
    for name, array in search.values.items():
        if name.endswith(("bias", "running_mean")) and array.any():
            return f"{name} is not zero"
    homogeneous = ops_with(lambda op: op.homogeneous)
    return find_refusal(search.ticket.architecture.nodes, homogeneous, "is not among the homogeneous ops")


def frozen_network(search: MaskSearch) -> Network:
    """The network at its start, in evaluation mode, without gradients."""
    network = build_module(search.ticket.architecture)
    load_values(network, search.values)
    return network.eval().requires_grad_(False)


def validation_accuracy(search: MaskSearch, masks: Mapping[str, Tensor | NDArray[Any]]) -> float:
    """Of the untrained weights under these masks."""
    network = frozen_network(search)
    for name, mask in masks.items():
        tensors_of(network)[name].mul_(torch.as_tensor(mask))
    return evaluate(network, search.data.validation_x, search.data.validation_y)[1]


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
