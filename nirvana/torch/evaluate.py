"""Measuring networks on examples that they were not trained on, under settings by which one seed gives one
result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import BATCH_NORM_MOMENTUM
from nirvana.torch.modules import Network, build_module, load_values, tensors_of
from nirvana.training.cost import THREADS
from nirvana.training.events import Reporter
from nirvana.training.spec import Arrays, TaskData

_EVALUATION_BATCH = 1000


@contextmanager
def deterministic(seed: int, threads: int = THREADS) -> Iterator[None]:
    """Hold deterministic algorithms, a thread count, subnormals flushed to 0 (they slow late training down),
    and torch's own generator (dropout) seeded. Everything is put back at the end.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), _is_flushing()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            torch.set_num_threads(before[1])
            torch.set_flush_denormal(before[2])


def _is_flushing() -> bool:
    """Return whether this thread turns subnormal results into 0; torch can set it and not say it."""
    return bool(np.float64(1e-308) * np.float64(0.5) == 0)


@torch.no_grad()
def predict(network: torch.nn.Module, x: NDArray[np.float32]) -> Tensor:
    """Return logits in evaluation mode, shape (n, classes), of x, shape (n, *input)."""
    network.eval()
    starts = range(0, len(x), _EVALUATION_BATCH)
    return torch.cat([network(torch.from_numpy(x[start : start + _EVALUATION_BATCH])) for start in starts])


def evaluate(network: torch.nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy in evaluation mode.

    Args:
        x: shape (n, *input). y: shape (n,), classes.
    """
    logits, target = predict(network, x), torch.from_numpy(y)
    loss = F.cross_entropy(logits, target, reduction="sum").item()
    return loss / len(y), int((logits.argmax(1) == target).sum()) / len(y)


def predict_logits(
    architecture: Architecture, values: Mapping[str, NDArray[np.float32]], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return logits, shape (n, classes), of x, shape (n, *input), by a network of these values."""
    network = build_module(architecture)
    load_values(network, values)
    logits: NDArray[np.float32] = predict(network, x).numpy()
    return logits


_STATISTICS_EXAMPLES, _STATISTICS_BATCH = 2000, 500  # of the training data, for running statistics


def line_errors(
    architecture: Architecture, data: TaskData, ends: tuple[Arrays, Arrays], points: int, reporter: Reporter
) -> list[float]:
    """Return test errors at evenly spaced points of (1 - a) x one end + a x the other, ends included.

    Running statistics at the points are computed anew on the first 2,000 training examples.

    Raises:
        Cancelled: the reporter said so.
    """
    network, errors, (one, other) = build_module(architecture), [], ends
    for a in np.linspace(0, 1, points):
        reporter.check_stop("while the line between two trainings was measured")
        between = {name: ((1 - a) * one[name] + a * other[name]).astype(np.float32) for name in one}
        with deterministic(0):
            load_values(network, between)
            _recompute_statistics(network, data)
            errors.append(1 - evaluate(network, data.test_x, data.test_y)[1])
    return errors


@torch.no_grad()
def _recompute_statistics(network: Network, data: TaskData) -> None:
    """Set running statistics for the weights as they are: the mean of those of several training batches."""
    tensors = tensors_of(network)
    buffers = {name: tensors[name] for name in network.architecture.buffers}
    if not buffers:
        return
    gathered = {name: torch.zeros_like(buffer) for name, buffer in buffers.items()}
    fixed = {name: buffer.clone() for name, buffer in buffers.items()}
    network.train()
    last = min(len(data.train_x), _STATISTICS_EXAMPLES) - 1  # a batch of one example has no variance
    starts = range(0, last, _STATISTICS_BATCH)
    for start in starts:
        for name, buffer in buffers.items():
            buffer.copy_(fixed[name])
        network(torch.from_numpy(data.train_x[start : start + _STATISTICS_BATCH]))
        for name, buffer in buffers.items():  # what the update b <- (1 - m) b + m x says of the batch's x
            batch = (buffer - (1 - BATCH_NORM_MOMENTUM) * fixed[name]) / BATCH_NORM_MOMENTUM
            gathered[name] += batch / len(starts)
    for name, buffer in buffers.items():
        buffer.copy_(gathered[name])
