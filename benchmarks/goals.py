"""What the engine was asked to reach, beside what a run measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import Timing, row, table


@dataclass(frozen=True)
class Goal:
    """A ratio to reach.

    Attributes:
        what: of what; least: the ratio asked for; measured: the median of the run's pairs.
    """

    what: str
    least: float
    measured: float


def median_ratio(peer: Sequence[Timing], ours: Sequence[Timing]) -> float:
    """The median over pairs of how many times faster ours is, by the clock on the wall."""
    return statistics.median(theirs.wall / mine.wall for theirs, mine in zip(peer, ours, strict=True))


def print_goals(goals: Sequence[Goal]) -> None:
    """A table: asked for, measured, met."""
    print(table(["goal", "at least", "median measured", "met"]))
    for goal in goals:
        met = "yes" if goal.measured >= goal.least else "no"
        print(row([goal.what, f"{goal.least:g}", f"{goal.measured:.2f}", met]))
