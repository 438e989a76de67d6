"""Shares and ratios with intervals, and how a verification's error is spent over its looks.

Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22; the
percentile bootstrap, Efron 1979, Annals of Statistics 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nirvana.errors import Invalid
from nirvana.initial import words
from nirvana.lab.verification.statistics import mean
from nirvana.protocol import LOOKS

RESAMPLES = 2000
_STREAM = 0x424F4F54  # "BOOT"
_NORMAL_975 = 1.959963984540054
_SPENT = {1: (0.05,), 2: (0.03, 0.02), 3: (0.02, 0.015, 0.015)}


@dataclass(frozen=True)
class Look:
    """One look at the replicates so far: n of them, at this nominal one-sided level."""

    n: int
    alpha: float


def plan_looks(replicates: int, max_replicates: int | None = None) -> list[Look]:
    """The looks of a verification: after n, 2n and 4n replicates, none past the cap, and one at the cap.

    The nominal levels sum to 0.05, so by the union bound no statement of a verification is wrong with a
    higher probability, whatever stops it and however the looks depend on each other.

    Raises:
        Invalid: no replicates, or a cap below them or above four times as many.
    """
    cap = replicates if max_replicates is None else max_replicates
    if replicates < 1:
        raise Invalid(f"replicates is {replicates}, expected at least 1")
    if not replicates <= cap <= LOOKS[-1] * replicates:
        raise Invalid(
            f"max_replicates is {cap}, expected {replicates} to {LOOKS[-1] * replicates}: "
            f"replicates to {LOOKS[-1]} times as many"
        )
    sizes = sorted({min(factor * replicates, cap) for factor in LOOKS})
    return [Look(n, alpha) for n, alpha in zip(sizes, _SPENT[len(sizes)], strict=True)]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: 4 of 5 gives (0.3755, 0.9638)."""
    share, z2 = successes / n, _NORMAL_975**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_975 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """mean(x) / mean(y) and its 95 % bootstrap interval, x_j and y_j drawn together.

    2,000 resamples from a counter-based stream: the same numbers for the same values. A mean of y below one
    (step) counts as one.
    """
    n = len(x)
    drawn = words(0, n, _STREAM, np.arange(RESAMPLES * n)).astype(np.uint64)
    index = ((drawn * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(RESAMPLES, n)
    top, bottom = np.asarray(x, np.float64), np.asarray(y, np.float64)
    ratios = top[index].mean(1) / np.maximum(bottom[index].mean(1), 1.0)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return mean(x) / max(mean(y), 1.0), float(low), float(high)
