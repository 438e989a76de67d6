"""Pruned weights are exactly 0 for anybody who reads them, whatever trains them."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nirvana.lab import MaskedNetwork, to_torch
from nirvana.torch.masked import _alive
from tests.factories import make_ticket

Optimisers = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Noisy(torch.optim.Optimizer):
    """An optimiser that mixes elements and adds noise: gradients of 0 do not keep a weight at 0."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter) * 0.01)


OPTIMISERS: dict[str, Optimisers] = {
    "sgd with momentum and weight decay": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam with weight decay": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "fused adam": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1),
    "noise": Noisy,
}


def loss_of(network: nn.Module, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 1, 8, 8, generator=generator)
    return F.cross_entropy(network(x), torch.randint(0, 10, (16,), generator=generator))


def pruned_values(network: nn.Module, masked: MaskedNetwork) -> Tensor:
    return torch.cat([network.get_parameter(n)[masked.mask(n) == 0].detach() for n in masked._masked])


def train_and_watch(network: MaskedNetwork, optimiser: torch.optim.Optimizer, steps: int = 4) -> None:
    for step in range(steps):
        optimiser.zero_grad()
        loss_of(network, step).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        assert not pruned_values(network, network).any(), f"revived at step {step}"


@pytest.mark.parametrize("name", OPTIMISERS)
def test_pruned_weights_are_exactly_0_after_every_step_of(name: str) -> None:
    network = to_torch(make_ticket())
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    train_and_watch(network, OPTIMISERS[name](network.parameters()))
    assert any(not torch.equal(before[n], p) for n, p in network.named_parameters())


@settings(max_examples=15, deadline=None)
@given(
    density=st.floats(0.02, 0.9),
    momentum=st.floats(0, 0.95),
    decay=st.floats(0, 1),
    rate=st.floats(1e-4, 0.5),
    seed=st.integers(0, 1000),
)
def test_pruned_weights_stay_0_under_any_momentum_and_weight_decay(
    density: float, momentum: float, decay: float, rate: float, seed: int
) -> None:
    network = to_torch(make_ticket(density=density, seed=seed))
    optimiser = torch.optim.SGD(network.parameters(), rate, momentum=momentum, weight_decay=decay)
    train_and_watch(network, optimiser)


def test_pruned_weights_stay_0_in_a_loop_without_an_optimiser() -> None:
    network = to_torch(make_ticket())
    for _ in range(3):
        network.zero_grad()
        loss_of(network).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.1)
    assert not pruned_values(network, network).any()


def test_gradient_norms_count_kept_weights_only() -> None:
    network = to_torch(make_ticket())
    loss_of(network).backward()  # type: ignore[no-untyped-call]
    for name in network._masked:
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[network.mask(name) == 0].any()


def test_a_deep_copy_trains_alone_and_keeps_its_masks() -> None:
    network = to_torch(make_ticket())
    twin = copy.deepcopy(network)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    train_and_watch(twin, Noisy(twin.parameters()))
    loss_of(twin).backward()  # type: ignore[no-untyped-call]
    gradient = twin.get_parameter("fc1.weight").grad
    assert gradient is not None
    assert not gradient[twin.mask("fc1.weight") == 0].any()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_state_dict_has_the_plain_names_and_loading_a_dense_one_masks_it() -> None:
    ticket = make_ticket()
    network = to_torch(ticket)
    assert set(network.state_dict()) == set(ticket.architecture.parameters)
    dense = {name: torch.ones(shape) for name, shape in ticket.architecture.parameters.items()}
    network.load_state_dict(dense)
    assert not pruned_values(network, network).any()
    assert int(network.get_parameter("fc1.weight").sum()) == int(ticket.mask("fc1.weight").sum())


def test_moving_to_a_device_or_dtype_moves_the_masks() -> None:
    network = to_torch(make_ticket()).to(torch.float64)
    assert network.mask("fc1.weight").dtype == torch.float64
    optimiser = Noisy(network.parameters())
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    network(x).sum().backward()
    optimiser.step()
    assert not pruned_values(network, network).any()
    assert network.to("meta").mask("fc1.weight").device.type == "meta"


def test_a_compiled_network_trains_and_keeps_its_masks() -> None:
    network = to_torch(make_ticket())
    compiled: Any = torch.compile(network, backend="aot_eager", fullgraph=True)
    plain = loss_of(network).item()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        optimiser.zero_grad()
        loss = loss_of(compiled, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            assert loss.item() == pytest.approx(plain, rel=1e-6)
        optimiser.step()
        assert not pruned_values(network, network).any()


@pytest.mark.parametrize("stored", [False, True])
def test_the_module_starts_at_the_tickets_values_byte_for_byte(stored: bool) -> None:
    ticket = make_ticket(stored=stored)
    network = to_torch(ticket)
    for name, values in ticket.initial_values().items():
        found = network.get_parameter(name).detach().numpy()
        assert found.tobytes() == (values + np.float32(0)).tobytes()


def test_a_network_that_is_gone_costs_other_optimisers_nothing() -> None:
    network = to_torch(make_ticket())
    assert network in _alive
    del network
    gc.collect()
    assert len(_alive) == 0
