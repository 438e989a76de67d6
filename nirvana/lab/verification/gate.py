"""Gate 0: what can be said against a ticket without training it, in seconds.

That names, shapes, counts and digests are right was checked when the file was read, and is looked at again
here for tickets that were put together otherwise. Then: do the initial values of a stored ticket at step 0
follow the laws that it declares, one by one (law) and together (spectrum), or are they trained weights? And
how many of the kept weights lie on a path from input to output?
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nirvana.initial import CONSTANT_LAWS, fans, value_sha256
from nirvana.lab.modules import build_module, tensors_of
from nirvana.lab.verification.duplicates import Overlap, find_duplicates
from nirvana.lab.verification.spectrum import SPECTRUM_LIMIT, spectrum_score
from nirvana.ticket import Ticket

LAW_ALPHA = 1e-6  # for each tensor: an honest ticket of a hundred tensors fails once in ten thousand
_PATH_OPS = {"linear", "conv1d", "conv2d", "batch_norm", "relu", "flatten", "add", "dropout"} | {
    "max_pool",
    "avg_pool",
    "global_avg_pool",
}


@dataclass(frozen=True)
class Gate:
    """What gate 0 found.

    Attributes:
        invalid: why the ticket is refused; None where it is not.
        untestable: why nobody can tell its initial values from trained ones; None where one can.
        law: parameter -> p of its initial values under their law, where they can be tested.
        spectrum: parameter -> largest singular value in Tracy-Widom units, where it can be tested.
        effective_density: share of prunable weights kept and on a path from input to output; None where
            paths say little.
        duplicates: known tickets that are this one, share its masks or nearly do.
    """

    invalid: str | None
    untestable: str | None
    law: dict[str, float]
    spectrum: dict[str, float]
    density: float
    effective_density: float | None
    duplicates: tuple[Overlap, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: an evaluation's `gate`."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"duplicates": [overlap.to_dict() for overlap in self.duplicates]}


def check_gate(ticket: Ticket, known: Iterable[tuple[str, Ticket]] = ()) -> Gate:
    """Look at a ticket without training it.

    Only stored values at step 0 can fail the tests of law and spectrum: seeded ones are drawn from their laws
    by the reader.

    Args:
        known: (name, ticket) of others, to find duplicates among; a duplicate is no reason to refuse.
    """
    broken = find_broken(ticket)
    if broken is not None:
        return Gate(broken, None, {}, {}, math.nan if not ticket.prunable else ticket.density, None)
    law, spectrum = _test_values(ticket)
    effective = effective_density(ticket)
    invalid = _values_reason(ticket, law, spectrum)
    if invalid is None and effective == 0:
        invalid = "no kept weight lies on a path from input to output: the network is cut through"
    duplicates = tuple(find_duplicates(ticket, known))
    return Gate(invalid, find_untestable(ticket), law, spectrum, ticket.density, effective, duplicates)


def find_invalid(ticket: Ticket) -> str | None:
    """Why gate 0 refuses the ticket; None where it does not."""
    return check_gate(ticket).invalid


def find_broken(ticket: Ticket) -> str | None:
    """What does not fit together in the ticket; None where all does."""
    shapes = ticket.architecture.parameters
    for name, mask in ticket.masks.items():
        if name not in shapes:
            return f"there is a mask of {name}, which the architecture does not have"
        if mask.shape != shapes[name]:
            return f"the mask of {name} has shape {list(mask.shape)}, expected {list(shapes[name])}"
        if not mask.any():
            return f"{name} keeps no weight, expected at least 1: the layer has collapsed"
    for name, values in ticket.start.stored.items():
        if not np.isfinite(values).all():
            return f"the initial values of {name} are not all finite"
    for name, values in ticket.initial_values().items():
        if value_sha256(values) != ticket.start.sha256.get(name):
            return f"the initial values of {name} are not those of their sha256"
    return None


def _test_values(ticket: Ticket) -> tuple[dict[str, float], dict[str, float]]:
    start = ticket.start
    if start.kind == "seeded" or start.rewind_step or not ticket.stores_whole_tensors:
        return {}, {}
    whole = ticket.dense_initial_values() or {}
    law = {name: _p_value(ticket, name, values) for name, values in whole.items()}
    weights = {name: spectrum_score(values) for name, values in whole.items() if values.ndim > 1}
    return law, {name: score for name, score in weights.items() if score is not None}


def _values_reason(ticket: Ticket, law: dict[str, float], spectrum: dict[str, float]) -> str | None:
    for name, p in law.items():
        if p < LAW_ALPHA:
            declared = ticket.start.laws[name]
            return (
                f"the initial values of {name} do not follow {declared} (p = {p:.1g}): "
                "trained weights, or another law"
            )
    for name, score in spectrum.items():
        if score > SPECTRUM_LIMIT:
            return (
                f"the initial values of {name} were not drawn one by one: their largest singular value lies "
                f"{score:.1f} Tracy-Widom units over that of independent ones (at most {SPECTRUM_LIMIT:g}): "
                "trained weights"
            )
    return None


def find_untestable(ticket: Ticket) -> str | None:
    """Why the law test cannot be made; None where it can (or where values after step 0 need none)."""
    if ticket.stores_whole_tensors or ticket.start.rewind_step:
        return None
    return "its pruned weights' initial values are not stored, so nobody can tell them from trained ones"


def _p_value(ticket: Ticket, name: str, values: NDArray[np.float32]) -> float:
    """p under the declared law or, for biases and normalisation weights that are not the constant they are
    declared to be, under the draws that other libraries start them from (docs/decisions/0007)."""
    p, weight = law_p_value(values, ticket.start.laws[name]), name.removesuffix("bias") + "weight"
    shape = ticket.architecture.parameters.get(weight, ())
    if p or values.ndim > 1 or not len(shape):
        return p
    if name.endswith("bias") and len(shape) > 1:  # PyTorch's default
        return _uniform_p(values, -1 / math.sqrt(fans(shape)[0]), 1 / math.sqrt(fans(shape)[0]))
    return _uniform_p(values, 0, 1) if name == weight else p  # open_lth's batch norm


def _uniform_p(values: NDArray[np.float32], low: float, high: float) -> float:
    from scipy.stats import kstest

    flat = values.ravel().astype(np.float64)
    return float(kstest(flat, "uniform", args=(low, high - low)).pvalue)


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
    return _uniform_p(values, -bound, bound)


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
