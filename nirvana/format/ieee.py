"""Logarithm and cosine with the same bits on every machine.

numpy's own take whatever the processor offers, and the last bit differs between processors and libraries.
These use only +, -, *, / in float64, which IEEE 754 defines exactly, so a seed gives the same normal
values everywhere. Both stay within one unit in the last place.

Reference: the method and the coefficients are those of fdlibm (Sun Microsystems 1993: e_log.c, k_cos.c,
k_sin.c, e_rem_pio2.c).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
_SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
# pi / 2 in three parts of 33 bits and a tail
_HALF_PI_1, _HALF_PI_2 = 1.57079632673412561417e00, 6.07710050630396597660e-11
_HALF_PI_2_TAIL = 2.02226624879595063154e-21
_TWO_OVER_PI = 6.36619772367581382433e-01


def _polynomial(x: Doubles, coefficients: tuple[float, ...]) -> Doubles:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= x
        total += coefficient
    return total


def natural_log(x: Doubles) -> Doubles:
    """Compute ln x for positive, normal, finite x."""
    mantissa, exponent = np.frexp(x)  # x = mantissa 2^exponent, mantissa in [1/2, 1)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    k = (exponent - small).astype(np.float64)
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    rest = z * _polynomial(z, _LOG)
    return k * _LN2_HIGH - ((half_square - (s * (half_square + rest) + k * _LN2_LOW)) - f)


def cosine(x: Doubles) -> Doubles:
    """Compute cos x for x in [0, 2 pi]."""
    quadrant = np.rint(x * _TWO_OVER_PI)
    first = x - quadrant * _HALF_PI_1  # exact
    step = quadrant * _HALF_PI_2
    second = first - step
    tail = quadrant * _HALF_PI_2_TAIL - ((first - second) - step)
    y = second - tail
    y_tail = (second - y) - tail
    turn = quadrant.astype(np.int64) & 3
    even = (turn & 1) == 0
    sign = np.where((turn == 1) | (turn == 2), -1.0, 1.0)
    return sign * np.where(even, _cosine_kernel(y, y_tail), _sine_kernel(y, y_tail))


def _cosine_kernel(y: Doubles, tail: Doubles) -> Doubles:
    """Compute cos(y + tail) for |y| <= pi / 4."""
    z = y * y
    rest = z * z * _polynomial(z, _COS)
    half = 0.5 * z
    whole = 1.0 - half
    return whole + (((1.0 - whole) - half) + (rest - y * tail))


def _sine_kernel(y: Doubles, tail: Doubles) -> Doubles:
    """Compute sin(y + tail) for |y| <= pi / 4."""
    z = y * y
    v = z * y
    rest = _polynomial(z, _SIN[1:])
    return y - ((z * (0.5 * tail - v * rest) - tail) - v * _SIN[0])
