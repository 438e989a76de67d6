"""SNIP: keep the weights whose removal would change the loss most, by one batch at the start.

Reference: Lee, Ajanthan & Torr 2019 (arXiv 1810.02340).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nirvana.pruning.methods import SnipOptions
from nirvana.pruning.ranking import Scores, keep_global, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic
from nirvana.torch.methods import by_name, start_network, training_examples
from nirvana.torch.modules import Network
from nirvana.training.schedule import batch_indices


def find(search: MaskSearch) -> MaskResult:
    """Keep the highest sensitivities over all layers, by the first batch of the seed's order: as many
    examples as the recipe's batches have, or 100 if those are smaller (or all there are)."""
    n, least = len(search.data.train_y), search.options_as(SnipOptions).least_examples
    batch = next(batch_indices(search.seed, n, min(n, max(least, search.recipe.batch_size)), 0))
    with deterministic(search.seed):
        network = start_network(search.ticket.architecture, search.values)
        scores = sensitivities(network, *training_examples(search.data, batch), search.ticket.prunable)
    return MaskResult(keep_global(scores, whole_masks(search.shapes), search.keep))


def sensitivities(network: Network, x: Tensor, y: Tensor, names: Sequence[str]) -> Scores:
    """Return |w x dL/dw| of each named parameter, L the mean cross-entropy of the batch.

    This is |dL/dm| at a mask m of ones; the paper divides by the sum over all, which changes no order.

    Args:
        x: shape (n, *input). y: shape (n,), classes.
    """
    weights = [network.get_parameter(name) for name in names]
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return by_name(names, ((w * g).abs() for w, g in zip(weights, gradients, strict=True)))
