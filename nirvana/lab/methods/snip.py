"""SNIP: keep the weights whose removal would change the loss most, by one batch at the start.

Reference: Lee, Ajanthan & Torr 2019 (arXiv 1810.02340).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nirvana.lab.environment import deterministic
from nirvana.lab.methods.at_init import by_name, start_network, training_examples
from nirvana.lab.methods.ranking import Scores, keep_global, whole_masks
from nirvana.lab.methods.search import Found, Search
from nirvana.lab.modules import Network
from nirvana.training import batch_indices

LEAST_EXAMPLES = 100


def find(search: Search) -> Found:
    """The highest sensitivities over all layers, by the first batch of the seed's order: as many examples as
    the recipe's batches have, or 100 if those are smaller (or all there are)."""
    n = len(search.data.train_y)
    batch = next(batch_indices(search.seed, n, min(n, max(LEAST_EXAMPLES, search.recipe.batch_size)), 0))
    with deterministic(search.seed):
        network = start_network(search.ticket.architecture, search.values)
        scores = sensitivities(network, *training_examples(search.data, batch), search.ticket.prunable)
    return Found(keep_global(scores, whole_masks(search.shapes), search.keep))


def sensitivities(network: Network, x: Tensor, y: Tensor, names: Sequence[str]) -> Scores:
    """|w x dL/dw| of each named parameter, L the mean cross-entropy of the batch.

    This is |dL/dm| at a mask m of ones; the paper divides by the sum over all, which changes no order.

    Args:
        x: shape (n, *input). y: shape (n,), classes.
    """
    weights = [network.get_parameter(name) for name in names]
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return by_name(names, ((w * g).abs() for w, g in zip(weights, gradients, strict=True)))
