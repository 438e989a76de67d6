"""The order in which a training sees its examples, and how a network is measured on others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.initial import epoch_order

_EVALUATION_BATCH = 1000


def batches(order_seed: int, n: int, batch_size: int, start_step: int) -> Iterator[Tensor]:
    """Index tensors, shape (batch_size,), from update `start_step` on, without an end."""
    epoch, offset = divmod(start_step * batch_size, n)
    order = torch.from_numpy(epoch_order(order_seed, epoch, n)[offset:])
    while True:
        while len(order) < batch_size:
            epoch += 1
            order = torch.cat([order, torch.from_numpy(epoch_order(order_seed, epoch, n))])
        yield order[:batch_size]
        order = order[batch_size:]


@torch.no_grad()
def evaluate(network: torch.nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode.

    Args:
        x: shape (n, *input). y: shape (n,), classes.
    """
    network.eval()
    loss, correct = 0.0, 0
    for start in range(0, len(y), _EVALUATION_BATCH):
        logits = network(torch.from_numpy(x[start : start + _EVALUATION_BATCH]))
        target = torch.from_numpy(y[start : start + _EVALUATION_BATCH])
        loss += F.cross_entropy(logits, target, reduction="sum").item()
        correct += int((logits.argmax(1) == target).sum())
    return loss / len(y), correct / len(y)
