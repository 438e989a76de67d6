"""Clocks, pairs and spreads: how every number of docs/performance.md is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
SHARED = 0.95  # a measurement with less processor time than this share of its wall time had company


@dataclass(frozen=True)
class Timing:
    """Seconds of some work: by the clock on the wall, and of the processor (all threads)."""

    wall: float
    processor: float

    def each(self, pieces: int) -> Timing:
        """Seconds of one of `pieces` equal pieces."""
        return Timing(self.wall / pieces, self.processor / pieces)


class Trainee(Protocol):
    """A training on its way: `advance` makes that many updates."""

    def advance(self, steps: int) -> None: ...


def timed(work: Callable[[], T]) -> tuple[T, Timing]:
    """What one call returns, and how long it takes."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, Timing(time.perf_counter() - wall, time.process_time() - processor)


def clock(work: Callable[[], object]) -> Timing:
    """How long one call takes."""
    return timed(work)[1]


def race(
    ours: Trainee, peers: Mapping[str, Trainee], pairs: int, slice_seconds: float
) -> dict[str, tuple[list[Timing], list[Timing]]]:
    """Seconds of an update of each peer and of ours, in turn: peer, ours, next peer, ours, and again.

    Args:
        slice_seconds: the least length of one measurement; it has one update at least.

    Returns:
        by peer: its measurements and ours, pair by pair.
    """
    steps = {name: _slice_steps(peer, slice_seconds) for name, peer in peers.items()}
    our_steps = _slice_steps(ours, slice_seconds)
    found: dict[str, tuple[list[Timing], list[Timing]]] = {name: ([], []) for name in peers}
    for _ in range(pairs):
        for name, peer in peers.items():
            found[name][0].append(time_steps(peer, steps[name]))
            found[name][1].append(time_steps(ours, our_steps))
    return found


def time_steps(trainee: Trainee, steps: int) -> Timing:
    """Seconds of one update, the mean of `steps`."""
    return clock(lambda: trainee.advance(steps)).each(steps)


def measure_step(trainee: Trainee, times: int, slice_seconds: float) -> float:
    """The median of some measurements of an update's processor time, seconds."""
    steps = _slice_steps(trainee, slice_seconds)
    return statistics.median(time_steps(trainee, steps).processor for _ in range(times))


def _slice_steps(trainee: Trainee, slice_seconds: float) -> int:
    """How many updates a measurement has; two are made before, so that nothing is compiled in it."""
    trainee.advance(2)
    each = max(time_steps(trainee, 1).wall, 1e-6)
    return max(1, round(slice_seconds / each))


def spread(values: Iterable[float], form: str = ".1f") -> str:
    """Median, least and most."""
    listed = list(values)
    return f"{statistics.median(listed):{form}} ({min(listed):{form}} to {max(listed):{form}})"


def ratios(peer: Sequence[Timing], ours: Sequence[Timing], form: str = ".2f") -> str:
    """How many times faster ours is, pair by pair; the ratio of processor seconds too where they differ."""
    pairs = list(zip(peer, ours, strict=True))
    text = spread((theirs.wall / mine.wall for theirs, mine in pairs), form)
    if any(one.processor < SHARED * one.wall for pair in pairs for one in pair):
        by_processor = (theirs.processor / mine.processor for theirs, mine in pairs)
        text += f"; by processor time {statistics.median(by_processor):{form}}"
    return text


def rates(timings: Iterable[Timing], samples: int) -> str:
    """Thousands of samples a second, where each timing is of `samples` samples."""
    found = [samples / timing.wall / 1000 for timing in timings]
    return spread(found, ".1f" if min(found) >= 10 else ".3f")


def table(heads: Sequence[str]) -> str:
    """The first two lines of a table."""
    return row(heads) + "\n" + row(["---"] * len(heads)).replace(" ", "")


def row(cells: Iterable[object]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"
