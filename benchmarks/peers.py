"""What ours is measured against: training a mask in PyTorch, each way as its users write it.

| peer | how a mask is held | optimiser | besides |
|---|---|---|---|
| best | one `_foreach_mul_` in place after each update | fused | subnormals flushed, no `.item()` |
| usual | `weight * mask` in each forward | not fused | `.item()` of each loss |
| prune | `torch.nn.utils.prune.custom_from_mask` | not fused | `.item()` of each loss |
| dense | no mask | fused | subnormals flushed, no `.item()` |
| csr | `torch.sparse` CSR weights of linear layers; others as `usual` | not fused | `.item()` of each loss |

All have their data in memory and take a batch by one index; one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.plain_networks import build_plain, load_plain
from benchmarks.subjects import Masks, Subject
from nirvana.training.recipe import Recipe


class Loop:
    """A plain training loop that goes on from call to call.

    Args:
        network: in training.
        masks: by which `weights` are multiplied after each update.
        is_fast: subnormals flushed, and no loss is read.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        subject: Subject,
        batch: int,
        *,
        is_fast: bool,
        weights: Sequence[Tensor] = (),
        masks: Sequence[Tensor] = (),
    ) -> None:
        self.network, self.optimizer, self.is_fast = network.train(), optimizer, is_fast
        self.x, self.y = torch.from_numpy(subject.data.train_x), torch.from_numpy(subject.data.train_y)
        self.weights, self.masks = list(weights), list(masks)
        self.batches = _batches(len(self.y), batch)
        self.loss_sum = 0.0
        self._apply_masks()

    def advance(self, steps: int) -> None:
        """Make that many updates."""
        torch.set_flush_denormal(self.is_fast)
        try:
            for _ in range(steps):
                self._update(next(self.batches))
        finally:
            torch.set_flush_denormal(False)

    def _update(self, index: Tensor) -> None:
        x, y = self.x.index_select(0, index), self.y.index_select(0, index)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._apply_masks()
        if not self.is_fast:
            self.loss_sum += loss.item()

    @torch.no_grad()
    def _apply_masks(self) -> None:
        if self.masks:
            torch._foreach_mul_(self.weights, self.masks)


def _batches(n: int, batch: int) -> Iterator[Tensor]:
    """Whole batches of one shuffled epoch after another."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(n, generator=generator)
        for start in range(0, n - batch + 1, batch):
            yield order[start : start + batch]


def best(subject: Subject, masks: Masks, batch: int) -> Loop:
    """Masked-dense at its best."""
    network = _network(subject)
    layers, held = _masked(network, subject, masks)
    weights = [_weight(layer) for layer in layers]
    optimizer = _optimizer(subject.recipe, network, is_fused=True)
    return Loop(network, optimizer, subject, batch, is_fast=True, weights=weights, masks=held)


def usual(subject: Subject, masks: Masks, batch: int) -> Loop:
    """`weight * mask` in each forward."""
    network = _network(subject)
    for layer, mask in zip(*_masked(network, subject, masks), strict=True):
        _swap(network, layer, MaskedLinear if isinstance(layer, nn.Linear) else MaskedConv2d, mask)
    return Loop(network, _optimizer(subject.recipe, network), subject, batch, is_fast=False)


def pruned(subject: Subject, masks: Masks, batch: int) -> Loop:
    """`torch.nn.utils.prune`."""
    network = _network(subject)
    for layer, mask in zip(*_masked(network, subject, masks), strict=True):
        prune.custom_from_mask(layer, "weight", mask)  # type: ignore[no-untyped-call]
    return Loop(network, _optimizer(subject.recipe, network), subject, batch, is_fast=False)


def dense(subject: Subject, masks: Masks, batch: int) -> Loop:
    """No mask at all."""
    network = _network(subject)
    return Loop(network, _optimizer(subject.recipe, network, is_fused=True), subject, batch, is_fast=True)


def csr(subject: Subject, masks: Masks, batch: int) -> Loop:
    """CSR weights of linear layers; only their kept values are parameters."""
    network = _network(subject)
    for layer, mask in zip(*_masked(network, subject, masks), strict=True):
        _swap(network, layer, CsrLinear if isinstance(layer, nn.Linear) else MaskedConv2d, mask)
    return Loop(network, _optimizer(subject.recipe, network), subject, batch, is_fast=False)


PEERS: dict[str, Callable[[Subject, Masks, int], Loop]] = {
    "best": best,
    "usual": usual,
    "prune": pruned,
    "dense": dense,
    "csr": csr,
}


class MaskedLinear(nn.Module):
    """A linear layer that multiplies its weight with a mask in each forward."""

    mask: Tensor

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedConv2d(nn.Module):
    """A convolution that multiplies its weight with a mask in each forward."""

    mask: Tensor

    def __init__(self, layer: nn.Conv2d, mask: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.stride, self.padding = layer.stride, layer.padding
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)


class CsrLinear(nn.Module):
    """A linear layer with a CSR weight that is made from its values in each forward: see `csr_failures` for
    what a CSR parameter cannot do."""

    rows: Tensor
    columns: Tensor

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        weight = _to_csr(layer.weight.detach() * mask)
        self.values, self.bias = nn.Parameter(weight.values().clone()), layer.bias
        self.register_buffer("rows", weight.crow_indices())
        self.register_buffer("columns", weight.col_indices())
        self.shape = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    @property
    def weight(self) -> Tensor:
        """CSR, of the values as they are now."""
        parts = self.rows, self.columns, self.values
        return torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)


def _to_csr(weight: Tensor) -> Tensor:
    """The weight as CSR, without torch's warning that this is in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return weight.to_sparse_csr()


def csr_failures() -> dict[str, str]:
    """What training a CSR tensor as a parameter does: what was tried, and what came of it."""
    attempts = {
        "torch.optim.Adam(fused=True)": lambda p: torch.optim.Adam([p], fused=True),
        "torch.optim.Adam()": lambda p: torch.optim.Adam([p]),
        "torch.optim.SGD()": lambda p: torch.optim.SGD([p], 0.1),
        "torch.optim.SGD(momentum=0.9)": lambda p: torch.optim.SGD([p], 0.1, momentum=0.9),
    }
    return {name: _attempt(make) for name, make in attempts.items()}


def _attempt(make: Callable[[Tensor], torch.optim.Optimizer]) -> str:
    parameter = nn.Parameter(_to_csr(torch.eye(16)))
    try:
        torch.sparse.mm(parameter, torch.ones(16, 4)).sum().backward()
        optimizer = make(parameter)
        for _ in range(2):
            optimizer.step()
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        return f"{type(error).__name__}: {str(error).split('. ')[0].splitlines()[0]}"
    return "works"


def _network(subject: Subject) -> nn.Module:
    network = build_plain(subject.architecture)
    load_plain(network, subject.values)
    return network


def _optimizer(recipe: Recipe, network: nn.Module, *, is_fused: bool = False) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), recipe.learning_rate, fused=is_fused or None)
    return torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=is_fused or None,
    )


def _masked(network: nn.Module, subject: Subject, masks: Masks) -> tuple[list[nn.Module], list[Tensor]]:
    """The layers that have a mask, and the masks; those without one are kept whole under a mask of ones."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    held = [
        torch.from_numpy(masks[name]).float() if name in masks else torch.ones_like(_weight(layer))
        for name, layer in zip(subject.architecture.prunable, layers, strict=True)
    ]
    return list(layers), held


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.get_parameter("weight")
    assert isinstance(weight, Tensor)
    return weight


def _swap(
    network: nn.Module, layer: nn.Module, kind: Callable[[Any, Tensor], nn.Module], mask: Tensor
) -> None:
    """Put a layer of another kind, with the same parameters, in a layer's place."""
    path = next(name for name, module in network.named_modules() if module is layer)
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, kind(layer, mask))
