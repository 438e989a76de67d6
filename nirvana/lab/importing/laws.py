"""Which laws imported values follow, of those that a ticket can declare; and a word where none fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nirvana.initial import CONSTANT_LAWS
from nirvana.lab.verification.gate import LAW_ALPHA, check_gate, law_p_value
from nirvana.recipe import WEIGHT_LAWS
from nirvana.ticket import Ticket

Values = Mapping[str, NDArray[np.float32]]


def choose_law(values: Values, first: str) -> str:
    """The law of the weights of two dimensions or more, by gate 0's test of each: `first` unless they do not
    follow it; then the likeliest of the laws that they do follow; `first` again where there is none."""
    weights = sorted((array for array in values.values() if array.ndim > 1), key=lambda array: array.size)
    if _follow(weights, first) is not None:
        return first
    fits = {law: p for law in WEIGHT_LAWS if (p := _follow(weights, law)) is not None}
    return max(fits, key=lambda law: fits[law], default=first)


def _follow(weights: Sequence[NDArray[np.float32]], law: str) -> float | None:
    """The sum of log p over the tensors; None where one does not follow the law, the rest not looked at."""
    total = 0.0
    for array in weights:
        p = law_p_value(array, law)
        if p < LAW_ALPHA:
            return None
        total += math.log(p)
    return total


def make_laws(values: Values, weight_law: str) -> dict[str, str]:
    """`weight_law` for each weight; the constant that each bias and normalisation has, by default zeros for
    biases and ones for the others."""
    return {
        name: weight_law if array.ndim > 1 else _constant_law(name, array) for name, array in values.items()
    }


def _constant_law(name: str, array: NDArray[np.float32]) -> str:
    default = "zeros" if name.endswith("bias") else "ones"
    return next((law for law, value in CONSTANT_LAWS.items() if np.all(array == value)), default)


def reset(values: Values) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """The values with biases at 0 and normalisation's weights at 1, and the names of those that changed."""
    laws = make_laws(values, "")
    changed = [n for n, a in values.items() if a.ndim == 1 and not np.all(a == CONSTANT_LAWS[laws[n]])]
    return {
        name: np.full_like(array, CONSTANT_LAWS[laws[name]]) if name in changed else array
        for name, array in values.items()
    }, changed


def warn_of_gate(ticket: Ticket) -> list[str]:
    """What verification's gate 0 has against the ticket: a sentence for the weights that do not follow their
    laws, one for the rest of such values, or gate 0's own."""
    gate = check_gate(ticket)
    wrong = [name for name, p in gate.law.items() if p < LAW_ALPHA]
    weights = [name for name in wrong if len(ticket.architecture.parameters[name]) > 1]
    others = [name for name in wrong if name not in weights]
    found = []
    if weights:
        found.append(
            f"the values of {', '.join(weights)} do not follow {ticket.start.laws[weights[0]]}: trained "
            "weights, or another law; verification takes them for trained ones"
        )
    if others:
        found.append(
            f"the values of {', '.join(others)} are neither the constants (zeros, ones) that a ticket "
            "declares for them nor a library's usual draw, so that verification takes them for trained ones; "
            "reset_biases (--reset-biases) starts them at those constants"
        )
    if gate.invalid:
        found.append(f"verification will answer INVALID: {gate.invalid}")
    return found
