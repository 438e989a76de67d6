"""SynFlow: keep the weights on strong paths through the network, in 100 rounds, without any data.

Reference: Tanaka et al. 2020 (arXiv 2006.05467).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nirvana.errors import Invalid
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, Node, ops_with
from nirvana.pruning.methods import SynflowOptions
from nirvana.pruning.ranking import Scores, keep_global, kept_at, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import by_name, start_network
from nirvana.torch.modules import Network, tensors_of


def find(search: MaskSearch) -> MaskResult:
    """After round e of 100, density^(e / 100) of the weights are left, the highest scores over all layers.

    Raises:
        Invalid: an operation through which no paths can be followed, or scores beyond float64.
        Cancelled: the reporter said so.
    """
    masks, shapes = whole_masks(search.shapes), search.shapes
    rounds = search.options_as(SynflowOptions).rounds
    with deterministic(search.seed):
        network = absolute_network(search.ticket.architecture, search.values)
        for number in range(1, rounds + 1):
            search.reporter.check_stop("at SynFlow round {} of {}", number, rounds)
            keep = kept_at(search.density ** (number / rounds), search.ticket.prunable_total)
            masks = keep_global(path_scores(network, list(shapes)), masks, keep)
            _apply(network, masks)
            search.report(number, rounds, f"SynFlow round {number}: {keep} weights left")
    return MaskResult(masks)


def absolute_network(architecture: Architecture, values: Any) -> Network:
    """The network of the parameters' absolute values in evaluation mode, batch norm with mean 0 and variance
    1, activations as the identity: for inputs of ones it is linear in each layer's weights.

    Raises:
        Invalid: names the first node whose operation breaks that.
    """
    nodes = map(_on_paths, architecture.nodes)
    network = start_network(Architecture.make(architecture.name, architecture.input, nodes), values).eval()
    with torch.no_grad():
        for name, tensor in tensors_of(network).items():
            if name in architecture.buffers:
                tensor.fill_(1.0 if name.endswith("running_var") else 0.0)
            else:
                tensor.abs_()
    return network


def _on_paths(node: Node) -> Node:
    """The node, or a ReLU in its place, which is the identity on positive values."""
    op = OPS[node["op"]]
    if op.on_paths:
        return node
    if op.identity_on_paths:
        return {name: node[name] for name in ("name", "inputs") if name in node} | {"op": "relu"}
    expected = ", ".join(ops_with(lambda op: op.on_paths or op.identity_on_paths))
    raise Invalid(
        f"synflow: {node['name']} is {node['op']}, expected operations that positive paths cross: {expected}"
    )


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
