"""What the methods that score untrained weights share: the network at its start, and training examples.

They work in float64: rounding then hardly ever decides which weight stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nirvana.architecture import Architecture
from nirvana.initial import Index, epoch_order
from nirvana.lab.modules import Network, build_module, load_values
from nirvana.tasks import TaskData


def start_network(architecture: Architecture, values: Mapping[str, NDArray[np.float32]]) -> Network:
    """The network with these values, in float64, in training mode: batch norm takes its batch's.

    Dropout then draws from torch's generator: use it inside `deterministic(seed)`.
    """
    network = build_module(architecture)
    load_values(network, values)
    return network.double()


def training_examples(data: TaskData, index: Index) -> tuple[Tensor, Tensor]:
    """Inputs (n, *input) in float64, and classes (n,), of these training examples."""
    return torch.from_numpy(data.train_x[index]).double(), torch.from_numpy(data.train_y[index])


def examples_of_each_class(classes: NDArray[np.int64], n: int, seed: int) -> list[Index]:
    """For each class the first n of its examples in the order of the seed's first epoch, or all it has."""
    order = epoch_order(seed, 0, len(classes))
    return [order[classes[order] == number][:n] for number in np.unique(classes)]


def by_name(names: Iterable[str], tensors: Iterable[Tensor]) -> dict[str, NDArray[np.floating[Any]]]:
    """Arrays by parameter."""
    return {name: tensor.detach().numpy() for name, tensor in zip(names, tensors, strict=True)}
