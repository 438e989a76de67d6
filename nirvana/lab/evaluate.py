"""How a network is measured on examples that it was not trained on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_EVALUATION_BATCH = 1000


@torch.no_grad()
def predict(network: torch.nn.Module, x: NDArray[np.float32]) -> Tensor:
    """Logits in evaluation mode, shape (n, classes), of x, shape (n, *input)."""
    network.eval()
    starts = range(0, len(x), _EVALUATION_BATCH)
    return torch.cat([network(torch.from_numpy(x[start : start + _EVALUATION_BATCH])) for start in starts])


def evaluate(network: torch.nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode.

    Args:
        x: shape (n, *input). y: shape (n,), classes.
    """
    logits, target = predict(network, x), torch.from_numpy(y)
    loss = F.cross_entropy(logits, target, reduction="sum").item()
    return loss / len(y), int((logits.argmax(1) == target).sum()) / len(y)
