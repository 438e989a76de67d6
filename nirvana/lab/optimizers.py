"""A recipe's optimiser."""

from __future__ import annotations

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
