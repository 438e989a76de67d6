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

from nirvana.errors import Cancelled
from nirvana.lab.evaluate import evaluate
from nirvana.lab.methods.ranking import counts_near, uniform_shares
from nirvana.lab.methods.search import Search
from nirvana.lab.modules import Network, build_module, load_values, tensors_of
from nirvana.lab.optimizers import make_optimizer
from nirvana.recipe import Recipe
from nirvana.training import batch_indices, learning_rate

LEAST_STEPS = 1000
TELL_EVERY = 25
NOT_HOMOGENEOUS = {"add", "gelu", "tanh", "self_attention"}
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


def uniform_counts(search: Search) -> dict[str, int]:
    """Weights to keep in each layer: the same density everywhere but for rounding."""
    return counts_near(uniform_shares(search.shapes, search.keep), search.keep)


def learn(search: Search, scores: Tensors, mask_of: MaskOf, recipe: Recipe) -> None:
    """Train `scores` in place on the training data, in the seed's order.

    Args:
        scores: by prunable parameter, leaves of its shape.
        mask_of: (parameter, its scores) -> mask, differentiable.
        recipe: from `score_recipe`.

    Raises:
        TrainingFailed: a loss was not finite. Cancelled: `should_stop` said so.
    """
    network = frozen_network(search)
    scaled = {name: tensors_of(network)[name] * scale_of(search) for name in scores}
    x, y = torch.from_numpy(search.data.train_x), torch.from_numpy(search.data.train_y)
    batches = batch_indices(search.seed, len(y), recipe.batch_size, 0)
    optimizer = make_optimizer(recipe, scores.values())  # type: ignore[arg-type]
    for step in range(recipe.steps):
        if search.should_stop and search.should_stop():
            raise Cancelled(f"cancelled at step {step} of {recipe.steps}")
        index = torch.from_numpy(next(batches))
        weights = {name: scaled[name] * mask_of(name, score) for name, score in scores.items()}
        loss = F.cross_entropy(functional_call(network, weights, (x[index],)), y[index])
        _step(optimizer, loss, learning_rate(recipe, step))
        if not math.isfinite(loss.item()):
            raise search.failure(step)
        if (step + 1) % TELL_EVERY == 0:
            search.tell(step + 1, recipe.steps, f"scores, step {step + 1}: loss {loss.item():.4f}")


def scale_of(search: Search) -> float:
    """1 / sqrt(density) where a layer's scale only scales the logits: in a chain of layers with ReLU whose
    biases and running means are zero. Else 1: beside a residual sum's other branch it would change them."""
    ops = {node["op"] for node in search.ticket.architecture.nodes}
    shifts = [array for name, array in search.values.items() if name.endswith(("bias", "running_mean"))]
    is_homogeneous = not ops & NOT_HOMOGENEOUS and not any(array.any() for array in shifts)
    return 1 / math.sqrt(search.density) if is_homogeneous else 1.0


def frozen_network(search: Search) -> Network:
    """The network at its start, in evaluation mode, without gradients."""
    network = build_module(search.ticket.architecture)
    load_values(network, search.values)
    return network.eval().requires_grad_(False)


def validation_accuracy(search: Search, masks: Mapping[str, Tensor | NDArray[Any]]) -> float:
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
