"""Optimisers, compiled, as PyTorch has them."""

from __future__ import annotations

import math

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import Floats
from nirvana.sparse.program import Rule, State
from nirvana.sparse.sharing import part
from nirvana.sparse.threads import Share


@compiled
def descend(state: State, rule: Rule, rate: float, updates: int, share: Share) -> None:
    """Update number `updates` (the first is 1) of this thread's parameters; their gradients are 0 afterwards.

    Parts of arrays, for a loop that starts at 0 becomes vector instructions, while one that starts anywhere
    asks at every step whether its index is negative.
    """
    begin, end = part(share, len(state.parameters))
    parameters, gradients = state.parameters[begin:end], state.gradients[begin:end]
    first, second = state.first[begin:end], state.second[begin:end]
    if rule.is_adam:
        adam(parameters, gradients, first, second, rule, rate, updates)
    else:
        sgd(parameters, gradients, first, rule, rate)
    if len(state.kept):
        kept = state.kept[begin:end]
        for k in range(len(parameters)):
            parameters[k] *= kept[k]


@compiled
def sgd(parameters: Floats, gradients: Floats, velocity: Floats, rule: Rule, rate: float) -> None:
    """SGD with momentum, as PyTorch has it: the decay is part of what the momentum gathers.

    Reference: Sutskever et al. 2013 (ICML) for Nesterov's form.
    """
    momentum, decay, step = np.float32(rule.momentum), np.float32(rule.decay), np.float32(rate)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        velocity[k] = momentum * velocity[k] + gradient
        parameters[k] -= step * (gradient + momentum * velocity[k] if rule.is_nesterov else velocity[k])
        gradients[k] = np.float32(0)


@compiled
def adam(
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    rule: Rule,
    rate: float,
    updates: int,
) -> None:
    """Adam, and AdamW where `rule.shrinkage` is not 0.

    Reference: Kingma & Ba 2015 (arXiv 1412.6980); Loshchilov & Hutter 2019 (arXiv 1711.05101).
    """
    beta1, beta2 = np.float32(1 - rule.momentum), np.float32(rule.beta2)
    rest2, decay, epsilon = np.float32(1 - rule.beta2), np.float32(rule.decay), np.float32(rule.epsilon)
    step = np.float32(rate / (1 - rule.momentum**updates))
    correction = np.float32(math.sqrt(1 - rule.beta2**updates))
    keep = np.float32(1 - rate * rule.shrinkage)
    for k in range(len(parameters)):
        gradient = gradients[k] + decay * parameters[k]
        first[k] += (gradient - first[k]) * beta1
        second[k] = beta2 * second[k] + rest2 * gradient * gradient
        parameters[k] = keep * parameters[k] - step * first[k] / (np.sqrt(second[k]) / correction + epsilon)
        gradients[k] = np.float32(0)
