"""SynFlow: keep the weights on strong paths through the network, in 100 rounds, without any data.

Reference: Tanaka et al. 2020 (arXiv 2006.05467).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nirvana.architecture import Architecture
from nirvana.errors import Cancelled, Invalid
from nirvana.lab.environment import deterministic
from nirvana.lab.methods.at_init import by_name, start_network
from nirvana.lab.methods.ranking import Scores, keep_global, kept_at, whole_masks
from nirvana.lab.methods.search import Found, Search
from nirvana.lab.modules import Network, tensors_of

ROUNDS = 100
LINEAR = ("gelu", "tanh")  # taken as the identity, which ReLU is on positive values
SENSELESS = ("layer_norm", "self_attention", "embedding")


def find(search: Search) -> Found:
    """After round e of 100, density^(e / 100) of the weights are left, the highest scores over all layers.

    Raises:
        Invalid: an operation through which no paths can be followed, or scores beyond float64.
        Cancelled: `should_stop` said so.
    """
    masks, shapes = whole_masks(search.shapes), search.shapes
    with deterministic(search.seed):
        network = absolute_network(search.ticket.architecture, search.values)
        for number in range(1, ROUNDS + 1):
            if search.should_stop and search.should_stop():
                raise Cancelled(f"cancelled at SynFlow round {number} of {ROUNDS}")
            keep = kept_at(search.density ** (number / ROUNDS), search.ticket.total)
            masks = keep_global(path_scores(network, list(shapes)), masks, keep)
            _apply(network, masks)
            search.tell(number, ROUNDS, f"SynFlow round {number}: {keep} weights left")
    return Found(masks)


def absolute_network(architecture: Architecture, values: Any) -> Network:
    """The network of the parameters' absolute values in evaluation mode, batch norm with mean 0 and variance
    1, activations as the identity: for inputs of ones it is linear in each layer's weights.

    Raises:
        Invalid: names the first node whose operation breaks that.
    """
    for node in architecture.nodes:
        if node["op"] in SENSELESS:
            detail = f"synflow: {node['name']} is {node['op']}, expected operations that positive paths cross"
            raise Invalid(f"{detail}: not {', '.join(SENSELESS)}")
    nodes = [{**node, "op": "relu"} if node["op"] in LINEAR else dict(node) for node in architecture.nodes]
    network = start_network(Architecture.make(architecture.name, architecture.input, nodes), values).eval()
    with torch.no_grad():
        for name, tensor in tensors_of(network).items():
            if name in architecture.buffers:
                tensor.fill_(1.0 if name.endswith("running_var") else 0.0)
            else:
                tensor.abs_()
    return network


def path_scores(network: Network, names: Sequence[str]) -> Scores:
    """dR/dw x w of each named parameter, R the sum of the outputs for an input of ones: the strength of all
    paths through that weight. Without biases each layer's scores sum to R.

    Args:
        network: from `absolute_network`.

    Raises:
        Invalid: R is 0 or not finite.
    """
    weights = [network.get_parameter(name) for name in names]
    strength = network(torch.ones(1, *network.architecture.input, dtype=torch.float64)).sum()
    if not 0 < strength.item() < math.inf:
        raise Invalid(f"synflow: the paths' strength is {strength.item()}, expected a finite number above 0")
    gradients = torch.autograd.grad(strength, weights, materialize_grads=True)
    return by_name(names, (w * g for w, g in zip(weights, gradients, strict=True)))


@torch.no_grad()
def _apply(network: Network, masks: Any) -> None:
    for name, mask in masks.items():
        network.get_parameter(name).mul_(torch.from_numpy(mask))
