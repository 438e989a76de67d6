"""GraSP: keep the weights that the flow of gradients needs, at the start.

Reference: Wang, Zhang & Grosse 2020 (arXiv 2002.07376).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nirvana.pruning.methods import GraspOptions
from nirvana.pruning.ranking import Scores, keep_global, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import by_name, examples_of_each_class, start_network, training_examples
from nirvana.torch.modules import Network

Batch = tuple[Tensor, Tensor]


def find(search: MaskSearch) -> MaskResult:
    """Keep the highest `flow_scores` over all layers, by 10 training examples of each class."""
    options = search.options_as(GraspOptions)
    of_each = examples_of_each_class(search.data.train_y, options.examples_per_class, search.seed)
    halves = [np.concatenate([part[start::2] for part in of_each]) for start in (0, 1)]
    batches = [training_examples(search.data, half) for half in halves if len(half)]
    with deterministic(search.seed):
        network = start_network(search.ticket.architecture, search.values)
        scores = flow_scores(network, batches, search.ticket.prunable, options.temperature)
    return MaskResult(keep_global(scores, whole_masks(search.shapes), search.keep))


def flow_scores(
    network: Network, batches: Sequence[Batch], names: Sequence[str], temperature: float = 200.0
) -> Scores:
    """Return w x (H g) of each named parameter: the highest stay.

    The paper's score is S = -w x (H g), and the weights of the largest S go: removing them costs the norm of
    the gradient least, or raises it. g is the gradient of the cross-entropy of the logits / 200, H its second
    derivative with respect to the named parameters; both are summed over the batches, which keeps memory
    small and scales every score alike.

    Args:
        batches: (x, y) each, x of shape (n, *input), y of shape (n,), classes.
    """
    weights = [network.get_parameter(name) for name in names]
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        first = [_gradients(_loss(network, *batch, temperature), weights) for batch in batches]
        gradients = [torch.stack(parts).sum(0) for parts in zip(*first, strict=True)]
        products = [torch.zeros_like(weight) for weight in weights]
        for batch in batches:
            again = _gradients(_loss(network, *batch, temperature), weights, create_graph=True)
            slope = torch.stack([(g * a).sum() for g, a in zip(gradients, again, strict=True)]).sum()
            torch._foreach_add_(products, _gradients(slope, weights))
    return by_name(names, (w * product for w, product in zip(weights, products, strict=True)))


def _gradients(of: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False) -> tuple[Tensor, ...]:
    """Return the gradients of `of`; zeros where it does not depend on a weight."""
    return torch.autograd.grad(of, weights, create_graph=create_graph, materialize_grads=True)


def _loss(network: Network, x: Tensor, y: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(network(x) / temperature, y)
