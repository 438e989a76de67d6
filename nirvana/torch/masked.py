"""Masks that hold: a network whose pruned weights are exactly 0 for anybody who reads them.

How, and why so. Microseconds that each way adds to an update (one thread, Adam, batch 60, LeNet-300-100; a
plain network takes about 1,100 with 784 inputs and 380 with 64):

| way | 784 | 64 | what it leaves open |
|---|---|---|---|
| `weight * mask` in each forward (parametrisation) | 100-260 | 35 | readers see revived weights |
| hook on the gradient | 0-110 | 10-35 | optimisers that mix elements or add noise revive |
| hook after the optimiser's step | 0-130 | 10-20 | loops without optimiser; norms count pruned weights |
| the last two together (this file) | 30-150 | 20-35 | nothing known |

So: a hook on each masked parameter multiplies its gradient by the mask, hence gradient norms, momenta and
every elementwise update see zeros; and one process-wide hook after any `torch.optim` step zeroes the rest.
Masks are buffers that `state_dict` does not hold; they survive `deepcopy`, `to(device)` and `torch.compile`,
and loading a dense `state_dict` masks it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.torch.modules import Network, load_values

if TYPE_CHECKING:
    from nirvana.format.ticket import Ticket

_alive: weakref.WeakSet[MaskedNetwork] = weakref.WeakSet()
_installed = False


class MaskedNetwork(Network):
    """A network with masks; make one with `to_torch`.

    Args:
        architecture: the graph.
        masks: parameter name -> mask; parameters without one are kept whole.
    """

    def __init__(self, architecture: Architecture, masks: Mapping[str, Mask]) -> None:
        super().__init__(architecture)
        self._masked = list(masks)
        for position, mask in enumerate(masks.values()):
            self.register_buffer(
                f"_mask_{position}", torch.from_numpy(mask.astype(np.float32)), persistent=False
            )
        self._attach()

    def mask(self, name: str) -> Tensor:
        """The float mask (0 or 1) of a masked parameter."""
        mask = self.get_buffer(f"_mask_{self._masked.index(name)}")
        assert isinstance(mask, Tensor)
        return mask

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every pruned weight to 0."""
        for name in self._masked:
            self.get_parameter(name).masked_fill_(self.mask(name) == 0, 0.0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called for each copy: hooks on parameters are not copied with them."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._load_state_dict_post_hooks.clear()
        self._attach()

    def _attach(self) -> None:
        me = weakref.ref(self)
        for name in self._masked:
            parameter: Any = self.get_parameter(name)
            parameter.register_post_accumulate_grad_hook(_gradient_hook(me, name))
        self.register_load_state_dict_post_hook(_mask_loaded)  # type: ignore[no-untyped-call]
        _alive.add(self)
        _install()


def _gradient_hook(network: weakref.ref[MaskedNetwork], name: str) -> Any:
    def hook(parameter: Tensor) -> None:
        owner = network()
        if owner is not None and parameter.grad is not None:
            parameter.grad.mul_(owner.mask(name))

    return hook


def _mask_loaded(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, MaskedNetwork)
    module.apply_masks()


def _install() -> None:
    global _installed
    if not _installed:
        register_optimizer_step_post_hook(_after_step)
        _installed = True


def _after_step(optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
    """After any optimiser's step: zero the pruned weights of the masked networks that it trains."""
    if not _alive:
        return
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for network in list(_alive):
        names = [name for name in network._masked if id(network.get_parameter(name)) in trained]
        if names:
            with torch.no_grad():
                multiply([network.get_parameter(name) for name in names], [network.mask(n) for n in names])


def multiply(tensors: Sequence[Tensor], factors: Sequence[Tensor]) -> None:
    """Multiply each tensor with its factor in place, in one call."""
    torch._foreach_mul_(list(tensors), list(factors))


def to_torch(ticket: Ticket) -> MaskedNetwork:
    """The ticket as a module, ready to train: rewound values, masks that hold under any optimiser.

    `state_dict` has the architecture's plain parameter names.

    Raises:
        InvalidTicket: the initial values' digests differ.
    """
    masks = {name: ticket.mask(name) for name in ticket.masks}
    network = MaskedNetwork(ticket.architecture, masks)
    load_values(network, ticket.initial_values())
    network.apply_masks()
    return network
