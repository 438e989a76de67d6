"""Does a weight matrix have structure that values drawn one by one would not have?

Training adds directions: the largest singular value of trained weights exceeds that of values drawn
independently, even where every value was moved, ranks kept, so that their distribution is the law's again.
For independent entries of variance s^2 the largest singular value squared / s^2, centred and scaled, follows
the Tracy-Widom law of order 1, whatever their law.

Reference: Johnstone 2001, "On the distribution of the largest eigenvalue in principal components analysis",
Annals of Statistics 29 (centring and scaling); outlying singular values as the mark of training, Martin &
Mahoney 2021 (arXiv 1810.01075).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SPECTRUM_LIMIT = 7.0  # honest draws pass it with a probability below 1e-6 (docs/verification.md)
MOST_ROWS, MOST_COLUMNS = 1024, 4096  # of a larger matrix its first ones: seconds, not minutes
LEAST_SIDE = 4  # a narrower matrix has no spectrum to speak of


def spectrum_score(values: NDArray[np.float32]) -> float | None:
    """The largest singular value in Tracy-Widom units: about -1.2 with an sd of 1.3 for independent values.

    Args:
        values: a weight (out, in, *receptive field), read as a matrix (out, in x field).

    Returns:
        None where the matrix is too narrow or constant to say.
    """
    matrix = values.reshape(len(values), -1)[:MOST_ROWS, :MOST_COLUMNS].astype(np.float64)
    if min(matrix.shape) < LEAST_SIDE or np.ptp(matrix) == 0:
        return None
    return float(spectrum_scores(matrix[None])[0])


def spectrum_scores(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores of several matrices of one shape, (n, rows, columns); shape (n,)."""
    rows, columns = matrices.shape[1:]
    turned = matrices.transpose(0, 2, 1)
    gram = matrices @ turned if rows <= columns else turned @ matrices
    largest = np.linalg.eigvalsh(gram)[:, -1] / np.mean(matrices**2, axis=(1, 2))
    long, short = math.sqrt(max(rows, columns) - 1), math.sqrt(min(rows, columns))
    scale = (long + short) * math.cbrt(1 / long + 1 / short)
    scores: NDArray[np.float64] = (largest - (long + short) ** 2) / scale
    return scores
