"""Whole verifications drawn from pools of trainings.

Every arm of every ticket was trained for each of POOL data orders. A drawn verification takes a random order
of them, and looks at the first 5, then 10, then all 20, as the protocol says; of the baselines' runs, whose
recipe is the reference, in another random order at the first 8, then 16, then all 20.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nirvana.format.initial import words
from nirvana.format.ticket import Ticket
from nirvana.lab import ArmResult
from nirvana.verification.evaluation import find_verdict
from nirvana.verification.gate import GateReport
from nirvana.verification.protocol import BASELINES, OPEN_VERDICTS, Look, pool_size

POOL = 20
_STREAM = 0x44524157  # "DRAW"
_LISTS = (
    *("seeds", "accuracies", "final_accuracies", "untrained_accuracies", "early_stop_steps", "failed"),
    *("test_accuracies", "untrained_test_accuracies", "validation_losses"),
)


@dataclass(frozen=True)
class Drawn:
    """The end of one drawn verification."""

    verdict: str
    replicates: int


def draws(
    ticket: Ticket,
    gate: GateReport,
    arms: Mapping[str, ArmResult],
    margin: float,
    looks: Sequence[Look],
    count: int,
) -> Iterator[Drawn]:
    """`count` verifications of one ticket."""
    for number in range(count):
        order, runs = (
            np.argsort(words(number, side, _STREAM, np.arange(POOL)), kind="stable").tolist()
            for side in (0, 1)
        )
        yield draw(ticket, gate, arms, margin, looks, order, runs)


def draw(
    ticket: Ticket,
    gate: GateReport,
    arms: Mapping[str, ArmResult],
    margin: float,
    looks: Sequence[Look],
    order: Sequence[int],
    runs: Sequence[int],
) -> Drawn:
    """One verification that takes the replicates in this order, and the baselines' runs in that."""
    if gate.invalid is not None:
        return Drawn("INVALID", 0)
    for number, look in enumerate(looks):
        chosen, pool = sorted(order[: look.n]), sorted(runs[: pool_size(0, number, 1)])
        some = {name: _part(arm, pool if name in BASELINES else chosen) for name, arm in arms.items()}
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
