"""The statistics of a verification: t intervals and tests, paired and Welch's, and Holm's correction.

Student's t from scipy.special (scipy.stats takes a second to import); tests hold them against scipy.stats.
Where a difference has no variance at all, its interval is its mean and its test is certain: no NaN, no
warning. Sums are exact (`math.fsum`), so the order of replicates does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ALPHA = 0.05  # one-sided
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
        """JSON-able: infinite becomes null."""
        members = asdict(self)
        return {name: None if value == math.inf else value for name, value in members.items()}


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Sample variance (n - 1); 0 for one value."""
    centre = mean(values)
    spread = math.fsum((value - centre) ** 2 for value in values)
    return spread / (len(values) - 1) if len(values) > 1 else 0.0


def paired_difference(x: Sequence[float], y: Sequence[float], alpha: float = ALPHA) -> Difference:
    """Student's t on x_j - y_j; needs n >= 2."""
    differences = [a - b for a, b in zip(x, y, strict=True)]
    error = math.sqrt(variance(differences) / len(differences))
    return _student(mean(differences), error, len(differences) - 1, alpha, "paired")


def welch_difference(x: Sequence[float], y: Sequence[float], alpha: float = ALPHA) -> Difference:
    """Welch's t on mean(x) - mean(y); needs two values on each side.

    Reference: Welch 1947, "The generalization of Student's problem", Biometrika 34.
    """
    of_x, of_y = variance(x) / len(x), variance(y) / len(y)
    square = of_x**2 / (len(x) - 1) + of_y**2 / (len(y) - 1)
    degrees = (of_x + of_y) ** 2 / square if square else math.inf
    return _student(mean(x) - mean(y), math.sqrt(of_x + of_y), degrees, alpha, "welch")


def difference(x: Sequence[float], y: Sequence[float], *, paired: bool, alpha: float = ALPHA) -> Difference:
    """Paired where the replicates share their data order and start, Welch's otherwise."""
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
    """Adjusted p values: compare them with alpha as they are.

    Reference: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: (p_values[key], key))):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}
