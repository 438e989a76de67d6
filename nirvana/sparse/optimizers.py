"""Optimisers, compiled, as PyTorch has them."""

from __future__ import annotations

import math

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import Floats
from nirvana.sparse.program import OptimizerParams, State
from nirvana.sparse.threads import ThreadContext, partition


@compiled
def optimizer_step(
    state: State, params: OptimizerParams, rate: float, updates: int, thread: ThreadContext
) -> None:
    """Make update number `updates` (the first is 1) of this thread's parameters, and zero their gradients.

    Works on slices, for a loop that starts at 0 becomes vector instructions, while one that starts anywhere
    checks at every step for a negative index.
    """
    begin, end = partition(thread, len(state.parameters))
    parameters, gradients = state.parameters[begin:end], state.gradients[begin:end]
    first, second = state.first_moment[begin:end], state.second_moment[begin:end]
    if params.is_adam:
        adam_step(parameters, gradients, first, second, params, rate, updates)
    else:
        sgd_step(parameters, gradients, first, params, rate)
    if len(state.mask):
        mask = state.mask[begin:end]
        for k in range(len(parameters)):
            parameters[k] *= mask[k]


@compiled
def sgd_step(
    parameters: Floats, gradients: Floats, velocity: Floats, params: OptimizerParams, rate: float
) -> None:
    """SGD with momentum, as PyTorch has it: weight decay is part of what the momentum averages.

    Reference: Sutskever et al. 2013 (ICML) for Nesterov's form.
    """
    momentum, decay, step = np.float32(params.momentum), np.float32(params.weight_decay), np.float32(rate)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        velocity[k] = momentum * velocity[k] + gradient
        parameters[k] -= step * (gradient + momentum * velocity[k] if params.is_nesterov else velocity[k])
        gradients[k] = np.float32(0)


@compiled
def adam_step(
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    params: OptimizerParams,
    rate: float,
    updates: int,
) -> None:
    """Adam, and AdamW where `params.decoupled_decay` is not 0.

    Reference: Kingma & Ba 2015 (arXiv 1412.6980); Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    beta1_rest, beta2 = np.float32(1 - params.momentum), np.float32(params.beta2)
    beta2_rest, decay = np.float32(1 - params.beta2), np.float32(params.weight_decay)
    epsilon = np.float32(params.epsilon)
    step = np.float32(rate / (1 - params.momentum**updates))
    correction = np.float32(math.sqrt(1 - params.beta2**updates))
    keep = np.float32(1 - rate * params.decoupled_decay)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        first[k] += (gradient - first[k]) * beta1_rest
        second[k] = beta2 * second[k] + beta2_rest * gradient * gradient
        parameters[k] = keep * parameters[k] - step * first[k] / (np.sqrt(second[k]) / correction + epsilon)
        gradients[k] = np.float32(0)
