"""Iterative magnitude pruning as anybody writes it: `torch.nn.utils.prune`, a DataLoader, Adam."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from nirvana.tasks import TaskData
from nirvana.training.recipe import Recipe

EVALUATION_BATCH = 1000
Loader = DataLoader[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Level:
    """One round: share of weights kept, and test accuracy at the least validation loss; fractions."""

    density: float
    test_accuracy: float


def plain_imp(network: nn.Sequential, data: TaskData, recipe: Recipe, levels: int) -> list[Level]:
    """Train, prune each layer by its rate, rewind to the initial values; `levels` + 1 trainings.

    The same steps, batch size, rates and evaluation points as the recipe's.

    Args:
        network: with its initial values, which are changed.

    Reference: Frankle & Carbin 2019 (arXiv 1803.03635).
    """
    torch.manual_seed(0)
    train = _loader(data.train_x, data.train_y, recipe.batch_size, shuffle=True)
    validation = _loader(data.validation_x, data.validation_y, EVALUATION_BATCH)
    test = _loader(data.test_x, data.test_y, EVALUATION_BATCH)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    for layer in layers:
        prune.identity(layer, "weight")  # type: ignore[no-untyped-call]
    initial = {name: value.clone() for name, value in network.named_parameters()}
    found = []
    for level in range(levels + 1):
        best = _train(network, train, validation, recipe)
        trained = copy.deepcopy(network.state_dict())
        network.load_state_dict(best)
        found.append(Level(_density(layers), _evaluate(network, test)[1]))
        network.load_state_dict(trained)
        if level < levels:
            _prune(layers, recipe)
            _rewind(network, initial)
    return found


def _loader(x: object, y: object, batch: int, *, shuffle: bool = False) -> Loader:
    dataset = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    return DataLoader(dataset, batch, shuffle=shuffle, num_workers=0, drop_last=shuffle)


def _endless(loader: Loader) -> Iterator[tuple[Tensor, ...]]:
    while True:
        yield from loader


def _train(network: nn.Module, train: Loader, validation: Loader, recipe: Recipe) -> dict[str, Tensor]:
    """Train to the end; the state at the least validation loss."""
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate)
    least, best = _evaluate(network, validation)[0], copy.deepcopy(network.state_dict())
    batches, running = _endless(train), 0.0
    for step in range(1, recipe.steps + 1):
        x, y = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        running += loss.item()
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            validation_loss = _evaluate(network, validation)[0]
            if validation_loss < least:
                least, best = validation_loss, copy.deepcopy(network.state_dict())
    return best


@torch.no_grad()
def _evaluate(network: nn.Module, loader: Loader) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    network.eval()
    loss, right, n = 0.0, 0, 0
    for x, y in loader:
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        right += int((logits.argmax(1) == y).sum())
        n += len(y)
    network.train()
    return loss / n, right / n


def _prune(layers: list[nn.Linear], recipe: Recipe) -> None:
    """Each layer loses its rate of the weights that it has left."""
    for layer in layers:
        rate = recipe.pruning.layer_rate("", is_output=layer is layers[-1])
        left = int(layer.get_buffer("weight_mask").sum())
        prune.l1_unstructured(layer, "weight", round(rate * left))  # type: ignore[no-untyped-call]


@torch.no_grad()
def _rewind(network: nn.Module, initial: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        parameter.copy_(initial[name])


def _density(layers: list[nn.Linear]) -> float:
    masks = [layer.get_buffer("weight_mask") for layer in layers]
    return float(sum(mask.sum() for mask in masks)) / sum(mask.numel() for mask in masks)
