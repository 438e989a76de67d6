"""Whole verifications drawn from pools of trainings.

Every arm of every ticket was trained for each of POOL data orders. A drawn verification takes a random order
of them, and looks at the first 5, then 10, then all 20, as the protocol says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nirvana.initial import words
from nirvana.lab import ArmResult
from nirvana.lab.verification.evaluation import find_verdict
from nirvana.lab.verification.gate import Gate
from nirvana.lab.verification.rates import Look
from nirvana.protocol import OPEN_VERDICTS
from nirvana.ticket import Ticket

POOL = 20
_STREAM = 0x44524157  # "DRAW"
_LISTS = ("seeds", "accuracies", "final_accuracies", "untrained_accuracies", "early_stop_steps", "failed")


@dataclass(frozen=True)
class Drawn:
    """The end of one drawn verification."""

    verdict: str
    replicates: int


def draws(
    ticket: Ticket,
    gate: Gate,
    arms: Mapping[str, ArmResult],
    margin: float,
    looks: Sequence[Look],
    count: int,
) -> Iterator[Drawn]:
    """`count` verifications of one ticket."""
    for number in range(count):
        order = np.argsort(words(number, 0, _STREAM, np.arange(POOL)), kind="stable").tolist()
        yield draw(ticket, gate, arms, margin, looks, order)


def draw(
    ticket: Ticket,
    gate: Gate,
    arms: Mapping[str, ArmResult],
    margin: float,
    looks: Sequence[Look],
    order: Sequence[int],
) -> Drawn:
    """One verification that takes the replicates in this order."""
    if gate.invalid is not None:
        return Drawn("INVALID", 0)
    for look in looks:
        chosen = sorted(order[: look.n])
        some = {name: _part(arm, chosen) for name, arm in arms.items()}
        verdict = find_verdict(ticket, gate, some, margin, look.alpha)[0]
        if verdict not in OPEN_VERDICTS:
            break
    return Drawn(verdict, look.n)


def share(found: Mapping[Any, Counter[str]], verdict: str) -> float:
    """Of all drawn verifications, the share that ended with `verdict`."""
    return sum(counts[verdict] for counts in found.values()) / sum(sum(c.values()) for c in found.values())


def _part(arm: ArmResult, places: Sequence[int]) -> ArmResult:
    chosen: dict[str, Any] = {name: [getattr(arm, name)[place] for place in places] for name in _LISTS}
    return replace(arm, **chosen)
