"""The loss, compiled: softmax, cross-entropy and its gradient, and how many examples are right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import WIDTH, Floats, Integers, Tile
from nirvana.sparse.vectors import float_of_bits


@compiled
def exponential(x: Any) -> Any:
    """exp(x) of x <= 0 to 2 units in the last place; below -87 it is exp(-87). A loop of these becomes vector
    instructions, which one of math.exp does not.

    2^n exp(r) with |r| <= ln(2) / 2, exp(r) by its Taylor series, ln(2) in two parts.
    """
    low = np.float32(-87.0)
    x = low if x < low else x
    known = x if x >= low else low  # a NaN has no whole part
    n = np.floor(known * np.float32(1.44269504) + np.float32(0.5))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for inverse in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * r + np.float32(inverse)
    return series * float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@compiled
def softmax(logits: Floats, weights: Floats, rows: Floats, classes: int, lanes: Tile) -> None:
    """Each lane's exp(logit - its largest) into `weights`; that largest and their sum into `rows`."""
    step = WIDTH * len(lanes)
    top, total = rows[:step], rows[step : 2 * step]
    for j in range(step):
        top[j], total[j] = logits[j], np.float32(0)
    for i in range(1, classes):
        for j in range(step):
            logit = logits[i * step + j]
            top[j] = logit if logit > top[j] else top[j]
    for i in range(classes):
        for j in range(step):
            weight = exponential(logits[i * step + j] - top[j])
            weights[i * step + j] = weight
            total[j] += weight


@compiled
def loss(
    logits: Floats, deltas: Floats, rows: Floats, labels: Integers, count: int, batch: int, lanes: Tile
) -> float:
    """The sum of a tile's cross-entropies; the gradients of their mean over the batch into `deltas`.

    Args:
        logits, deltas: (classes x lanes,). rows: room for three rows of lanes.
        labels: of the tile's first `count` lanes; the other lanes get gradients of 0.
    """
    step = WIDTH * len(lanes)
    classes = len(logits) // step
    softmax(logits, deltas, rows, classes, lanes)
    top, total, scale = rows[:step], rows[step : 2 * step], rows[2 * step :]
    found = 0.0
    for j in range(count):
        found += math.log(total[j]) + top[j] - logits[labels[j] * step + j]
    for j in range(step):
        scale[j] = np.float32(1) / (total[j] * np.float32(batch)) if j < count else np.float32(0)
    for i in range(classes):
        for j in range(step):
            deltas[i * step + j] *= scale[j]
    for j in range(count):
        deltas[labels[j] * step + j] -= np.float32(1) / np.float32(batch)
    return found


@compiled
def count_hits(logits: Floats, labels: Integers, count: int, lanes: Tile) -> int:
    """How many of the first `count` lanes have their first largest logit at their label."""
    step = WIDTH * len(lanes)
    right = 0
    for j in range(count):
        best = 0
        for i in range(1, len(logits) // step):
            if logits[i * step + j] > logits[best * step + j]:
                best = i
        right += best == labels[j]
    return right
