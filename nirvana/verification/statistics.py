"""The statistics of a verification: t intervals and tests, paired and Welch's, Holm's correction, shares and
ratios with intervals.

Student's t from scipy.special (scipy.stats takes a second to import); tests hold them against scipy.stats.
Where a difference has no variance at all, its interval is its mean and its test is certain: no NaN, no
warning. Sums are exact (`math.fsum`), so the order of replicates does not matter.

Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22; the
percentile bootstrap, Efron 1979, Annals of Statistics 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.format.initial import words

ALPHA = 0.05  # one-sided
RESAMPLES = 2000
_STREAM = 0x424F4F54  # "BOOT"
_NORMAL_975 = 1.959963984540054
_NOISE = 1e-12  # accuracies that differ by less differ by rounding alone


@dataclass(frozen=True)
class Difference:
    """The mean difference X - Y of two arms, with one-sided 95 % bounds: a 90 % interval.

    Attributes:
        mean, lower, upper: in accuracy (a fraction), or in steps.
        p_greater: p of "X is not greater than Y"; p_less: of "X is not less".
        degrees: of freedom; infinite where nothing varies.
        method: `paired` or `welch`.
    """

    mean: float
    lower: float
    upper: float
    p_greater: float
    p_less: float
    degrees: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able: infinite becomes null."""
        members = asdict(self)
        return {name: None if value == math.inf else value for name, value in members.items()}


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Return the sample variance (n - 1); 0 for one value."""
    centre = mean(values)
    spread = math.fsum((value - centre) ** 2 for value in values)
    return spread / (len(values) - 1) if len(values) > 1 else 0.0


def paired_difference(x: Sequence[float], y: Sequence[float], alpha: float = ALPHA) -> Difference:
    """Return Student's t on x_j - y_j; needs n >= 2."""
    differences = [a - b for a, b in zip(x, y, strict=True)]
    error = math.sqrt(variance(differences) / len(differences))
    return _student(mean(differences), error, len(differences) - 1, alpha, "paired")


def welch_difference(x: Sequence[float], y: Sequence[float], alpha: float = ALPHA) -> Difference:
    """Return Welch's t on mean(x) - mean(y); needs two values on each side.

    Reference: Welch 1947, "The generalization of Student's problem", Biometrika 34.
    """
    of_x, of_y = variance(x) / len(x), variance(y) / len(y)
    square = of_x**2 / (len(x) - 1) + of_y**2 / (len(y) - 1)
    degrees = (of_x + of_y) ** 2 / square if square else math.inf
    return _student(mean(x) - mean(y), math.sqrt(of_x + of_y), degrees, alpha, "welch")


def difference(x: Sequence[float], y: Sequence[float], *, paired: bool, alpha: float = ALPHA) -> Difference:
    """Compare: paired where the replicates share their data order and start, Welch's otherwise."""
    return (paired_difference if paired else welch_difference)(x, y, alpha)


def _student(centre: float, error: float, degrees: float, alpha: float, method: str) -> Difference:
    from scipy.special import stdtr, stdtrit  # not at the top: half a second that trainings need not pay

    if error < _NOISE:
        p_greater = 1.0 if centre <= _NOISE else 0.0
        p_less = 1.0 if centre >= -_NOISE else 0.0
        return Difference(centre, centre, centre, p_greater, p_less, math.inf, method)
    width = float(stdtrit(degrees, 1 - alpha)) * error
    p_less = float(stdtr(degrees, centre / error))
    p_greater = float(stdtr(degrees, -centre / error))
    return Difference(centre, centre - width, centre + width, p_greater, p_less, degrees, method)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p values: compare them with alpha as they are.

    Reference: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: (p_values[key], key))):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share: 4 of 5 gives (0.3755, 0.9638)."""
    share, z2 = successes / n, _NORMAL_975**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_975 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return mean(x) / mean(y) and its 95 % bootstrap interval, x and y drawn apart.

    2,000 resamples from a counter-based stream: the same numbers for the same values. A mean of y below one
    (step) counts as one.
    """
    top, bottom = _resampled_means(x, 0), _resampled_means(y, 1)
    ratios = top / np.maximum(bottom, 1.0)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return mean(x) / max(mean(y), 1.0), float(low), float(high)


def _resampled_means(values: Sequence[float], side: int) -> NDArray[np.float64]:
    """Return means of RESAMPLES draws with replacement; each side has a stream of its own."""
    n = len(values)
    drawn = words(side, n, _STREAM, np.arange(RESAMPLES * n)).astype(np.uint64)
    index = ((drawn * np.uint64(n)) >> np.uint64(32)).astype(np.int64).reshape(RESAMPLES, n)
    means: NDArray[np.float64] = np.asarray(values, np.float64)[index].mean(1)
    return means
