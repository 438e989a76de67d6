"""Methods that need gradients or a training of their own, one file each; here is what several of them use.

Those that score untrained weights work in float64: rounding then hardly ever decides which weight stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nirvana.format.initial import Index, epoch_order
from nirvana.networks.architecture import Architecture
from nirvana.pruning.search import MaskSearch
from nirvana.tasks import TaskData
from nirvana.torch.dense import Dense, Tensors
from nirvana.torch.modules import Network, build_module, load_values
from nirvana.training.loop import Loop
from nirvana.training.schedule import check_start


def start_network(architecture: Architecture, values: Mapping[str, NDArray[np.float32]]) -> Network:
    """Return the network with these values, in float64, in training mode: batch norm takes its batch's.

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


class DrivenTraining:
    """A search's dense training at its first step; use it inside `deterministic(seed)`.

    Raises:
        InvalidRecipe: no step would be left.
    """

    def __init__(self, search: MaskSearch) -> None:
        check_start(search.recipe, search.first_step)
        self.search, self.backend = search, Dense(search.dense_spec)
        self._loop: Loop[Tensors] = Loop(self.backend, [search.dense_spec], [search.reporter])

    @property
    def step(self) -> int:
        """Updates made, counted from initialisation."""
        return self._loop.step

    def update_until(self, step: int) -> None:
        """Make updates up to number `step`.

        Raises:
            TrainingFailed: a loss or a weight left the finite numbers; names the method and the step.
            Cancelled: the reporter said so.
        """
        self._loop.update_until(step)
        parameters = self.backend.network.parameters()
        if not self._loop.alive or not all(bool(p.isfinite().all()) for p in parameters):
            raise self.search.failure(self.step)
