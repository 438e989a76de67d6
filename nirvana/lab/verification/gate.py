"""Gate 0: what can be said against a ticket without training it.

That names, shapes, counts and digests are right was checked when the file was read. Here: do the initial
values of a stored ticket at step 0 follow the laws that it declares, or are they trained weights? And how
many of the kept weights lie on a path from input to output?
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from nirvana.initial import CONSTANT_LAWS, fans
from nirvana.lab.modules import build_module, tensors_of
from nirvana.ticket import Ticket

LAW_ALPHA = 1e-6  # for each tensor: an honest ticket of a hundred tensors fails once in ten thousand
_PATH_OPS = {"linear", "conv1d", "conv2d", "batch_norm", "relu", "flatten", "add", "dropout"} | {
    "max_pool",
    "avg_pool",
    "global_avg_pool",
}


def find_invalid(ticket: Ticket) -> str | None:
    """Why gate 0 refuses the ticket; None where it does not.

    Only stored values at step 0 can fail: seeded ones are drawn from their laws by the reader.
    """
    start = ticket.start
    if start.kind == "seeded" or start.rewind_step or not ticket.stores_whole_tensors:
        return None
    whole = ticket.dense_initial_values()
    assert whole is not None
    for name, values in whole.items():
        p = law_p_value(values, start.laws[name])
        if p < LAW_ALPHA:
            return (
                f"the initial values of {name} do not follow {start.laws[name]} (p = {p:.1g}): "
                "trained weights, or another law"
            )
    return None


def find_untestable(ticket: Ticket) -> str | None:
    """Why the law test cannot be made; None where it can (or where values after step 0 need none)."""
    if ticket.stores_whole_tensors or ticket.start.rewind_step:
        return None
    return "its pruned weights' initial values are not stored, so nobody can tell them from trained ones"


def law_p_value(values: NDArray[np.float32], law: str) -> float:
    """p of values under their law: Kolmogorov-Smirnov for continuous ones, exact for constants."""
    from scipy.stats import binomtest, kstest

    flat = values.ravel().astype(np.float64)
    if law in CONSTANT_LAWS:
        return float(np.all(flat == CONSTANT_LAWS[law]))
    fan_in, fan_out = fans(values.shape)
    if law == "kaiming_signed_constant":
        size = math.sqrt(2 / fan_in)
        if not np.allclose(np.abs(flat), size, rtol=1e-6):
            return 0.0
        return float(binomtest(int((flat > 0).sum()), flat.size).pvalue)
    fan = {"kaiming": fan_in, "glorot": fan_in + fan_out, "torch": 6 * fan_in}[law.split("_")[0]]
    if law.endswith("_normal"):
        return float(kstest(flat, "norm", args=(0, math.sqrt(2 / fan))).pvalue)
    bound = math.sqrt(6 / fan)
    return float(kstest(flat, "uniform", args=(-bound, 2 * bound)).pvalue)


def effective_density(ticket: Ticket) -> float | None:
    """Share of prunable weights that are kept and lie on a path from input to output.

    Path products from ones as values and inputs, differentiated by the weights, as SynFlow scores them; None
    for architectures with attention, layer norms or other layers for which paths say little.

    Reference: Tanaka et al. 2020 (arXiv 2006.05467).
    """
    if any(node["op"] not in _PATH_OPS for node in ticket.architecture.nodes):
        return None
    network = build_module(ticket.architecture).double().eval()
    tensors = tensors_of(network)
    with torch.no_grad():
        for name, tensor in tensors.items():
            is_shift = name.endswith(("bias", "running_mean"))
            mask = torch.from_numpy(ticket.mask(name)) if name in ticket.masks else torch.ones_like(tensor)
            tensor.copy_(torch.zeros_like(tensor) if is_shift else mask)
    outputs = network(torch.ones((1, *ticket.architecture.input), dtype=torch.float64))
    outputs.sum().backward()
    alive = 0
    for name in ticket.prunable:
        gradient = tensors[name].grad
        if gradient is not None:
            alive += int(((gradient > 0) & (tensors[name] > 0)).sum())
    return alive / ticket.total
