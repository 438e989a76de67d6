"""Replicates of one network as one: each parameter of all of them is one tensor, replicate by replicate.

Shape suffixes: R replicates, B batch, F features read, U units (features written), K classes. Ops with the
trait `stacks` may be stacked; dropout is not one, for each replicate draws from its own stream there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nirvana.engines import is_chain
from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import find_refusal, ops_with
from nirvana.torch.modules import FORWARD, NO_TENSORS, build_module, tensors_of
from nirvana.training.spec import Values

Stacked = dict[str, Tensor]


def find_unstackable(architecture: Architecture) -> str | None:
    """Name what keeps replicates of this network from being trained as one; None where nothing does."""
    stacking = ops_with(lambda op: op.stacks)
    return find_refusal(architecture.nodes, stacking, "is not among the ops that stack")


class StackedNetwork:
    """A network that reads its parameters from stacks.

    Attributes:
        tensors: parameters, which take gradients, and running statistics by the architecture's names, shape
            (R, *one replicate's shape). parameters: the same, in the architecture's order.
    """

    def __init__(
        self,
        architecture: Architecture,
        values: Sequence[Mapping[str, NDArray[np.float32]]],
        device: torch.device,
    ) -> None:
        self.architecture, self.device = architecture, device
        self._plain = build_module(architecture).to(device)
        self._is_chain = is_chain(architecture)
        self._in_training = vmap(self._forward, randomness="error")
        self._in_evaluation = vmap(self._forward, in_dims=(0, None), randomness="error")
        stacks = {name: self._stack(name, values).to(device) for name in tensors_of(self._plain)}
        parameters = {name: nn.Parameter(stacks[name]) for name in architecture.parameters}
        self.parameters = list(parameters.values())
        self.tensors: Stacked = {**stacks, **parameters}

    def train(self, x_RBF: Tensor) -> Tensor:
        """Logits in training mode, shape (R, B, K), of each replicate's own batch, (R, B, *input)."""
        self._plain.train()
        if self._is_chain:
            return self._chain(self.tensors, x_RBF)
        logits: Tensor = self._in_training(self.tensors, x_RBF)
        return logits

    @torch.no_grad()
    def evaluate(self, tensors: Stacked, x_BF: Tensor) -> Tensor:
        """Logits in evaluation mode, shape (R, B, K), of one batch for all, (B, *input), by these tensors."""
        self._plain.eval()
        if self._is_chain:
            count = len(next(iter(tensors.values())))
            return self._chain(tensors, x_BF.expand(count, *x_BF.shape))
        logits: Tensor = self._in_evaluation(tensors, x_BF)
        return logits

    def copies(self) -> Stacked:
        """The tensors as they are now."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    def read(self, replicate: int) -> Values:
        """Copies of one replicate's parameters and running statistics."""
        return {name: t.detach()[replicate].cpu().numpy().copy() for name, t in self.tensors.items()}

    def _stack(self, name: str, values: Sequence[Mapping[str, NDArray[np.float32]]]) -> Tensor:
        """One array of each replicate; a running statistic that is not given is as in a new network."""
        default = tensors_of(self._plain)[name].detach().cpu().numpy()
        return torch.from_numpy(np.stack([np.asarray(one.get(name, default), np.float32) for one in values]))

    def _forward(self, tensors: Stacked, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._plain, tensors, (x,))
        return logits

    def _chain(self, tensors: Stacked, x_RBF: Tensor) -> Tensor:
        for node in self.architecture.nodes:
            if node["op"] in CHAIN:
                x_RBF = CHAIN[node["op"]](tensors, node["name"], x_RBF)
            else:  # elementwise
                x_RBF = FORWARD[node["op"]](NO_TENSORS, node, [x_RBF], False)
        return x_RBF


class _Product(torch.autograd.Function):
    """(R, B, F) and weights (R, U, F) -> (R, B, U).

    Why not `torch.baddbmm` alone: its gradient has the last two dimensions swapped in memory, and putting it
    in order made an update of LeNet-300-100 with 784 inputs a third longer (9.4 ms for 7.1).
    """

    @staticmethod
    def forward(context: Any, x_RBF: Tensor, weight_RUF: Tensor) -> Tensor:
        context.save_for_backward(x_RBF, weight_RUF)
        return torch.bmm(x_RBF, weight_RUF.mT)

    @staticmethod
    def backward(context: Any, gradient_RBU: Tensor) -> tuple[Tensor | None, Tensor]:
        x_RBF, weight_RUF = context.saved_tensors
        to_x = torch.bmm(gradient_RBU, weight_RUF) if context.needs_input_grad[0] else None
        return to_x, torch.bmm(gradient_RBU.mT, x_RBF)


def _product(x_RBF: Tensor, weight_RUF: Tensor) -> Tensor:
    product: Tensor = _Product.apply(x_RBF, weight_RUF)  # type: ignore[no-untyped-call]
    return product


def _linear(tensors: Stacked, name: str, x_RBF: Tensor) -> Tensor:
    y_RBU = _product(x_RBF, tensors[f"{name}.weight"])
    return y_RBU + tensors[f"{name}.bias"].unsqueeze(1) if f"{name}.bias" in tensors else y_RBU


CHAIN: dict[str, Callable[[Stacked, str, Tensor], Tensor]] = {  # (tensors, node's name, input) -> output
    "flatten": lambda tensors, name, x: x.flatten(2),
    "linear": _linear,
}


def stack_masks(masks: Sequence[Mapping[str, Mask]], network: StackedNetwork) -> Stacked:
    """Float masks (0 or 1) by name, (R, *shape), of parameters that any replicate masks."""
    names = [name for name in network.architecture.parameters if any(name in one for one in masks)]
    return {
        name: torch.from_numpy(
            np.stack([one.get(name, np.ones(network.architecture.parameters[name])) for one in masks]).astype(
                np.float32
            )
        ).to(network.device)
        for name in names
    }
