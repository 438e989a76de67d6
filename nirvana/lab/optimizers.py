"""A recipe's optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from nirvana.recipe import Recipe


def make_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay falls on every parameter, as in PyTorch.

    Fused kernels: measured on one thread, LeNet-300-100, batch 60, they took 1.05 ms an update against 1.33
    ms (784 inputs) and 0.38 against 0.51 ms (64 inputs) for the foreach and the plain ones.
    """
    betas = (recipe.beta1, recipe.beta2)
    decay = recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, recipe.learning_rate, betas, recipe.epsilon, decay, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, betas, recipe.epsilon, decay, fused=True)
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=decay,
        nesterov=recipe.nesterov,
        fused=True,
    )


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of update number `step` (the first is 0), warm-up included.

    Reference: cosine annealing without restarts, Loshchilov & Hutter 2017 (arXiv 1608.03983).
    """
    rate = recipe.learning_rate
    schedule = recipe.schedule
    if schedule["kind"] == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    elif schedule["kind"] == "step":
        rate *= schedule["factor"] ** sum(step >= at for at in schedule["at"])
    return rate * min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else rate
