"""The loss, compiled: softmax, cross-entropy and its gradient, and the number of correct predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nirvana.sparse.compiling import compiled
from nirvana.sparse.layout import VECTOR_WIDTH, Floats, Integers, StaticSize
from nirvana.sparse.vectors import bitcast_to_float


@compiled
def exponential(x: Any) -> Any:
    """Return exp(x) of x <= 0 to 2 units in the last place; below -87 it is exp(-87). A loop of these becomes
    vector instructions, which one of math.exp does not.

    2^n exp(r) with |r| <= ln(2) / 2, exp(r) by its Taylor series, ln(2) in two parts.
    """
    low = np.float32(-87.0)
    x = low if x < low else x
    finite = x if x >= low else low  # a NaN has no whole part
    n = np.floor(finite * np.float32(1.44269504) + np.float32(0.5))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for inverse in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * r + np.float32(inverse)
    return series * bitcast_to_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@compiled
def softmax_terms(
    logits: Floats, exponentials: Floats, scratch: Floats, classes: int, lanes: StaticSize
) -> None:
    """Compute each lane's exp(logit - largest logit), and into `scratch` that largest logit and their sum."""
    tile_size = VECTOR_WIDTH * len(lanes)
    largest, total = scratch[:tile_size], scratch[tile_size : 2 * tile_size]
    for j in range(tile_size):
        largest[j], total[j] = logits[j], np.float32(0)
    for i in range(1, classes):
        for j in range(tile_size):
            logit = logits[i * tile_size + j]
            largest[j] = logit if logit > largest[j] else largest[j]
    for i in range(classes):
        for j in range(tile_size):
            term = exponential(logits[i * tile_size + j] - largest[j])
            exponentials[i * tile_size + j] = term
            total[j] += term


@compiled
def cross_entropy(
    logits: Floats,
    deltas: Floats,
    scratch: Floats,
    labels: Integers,
    count: int,
    batch: int,
    lanes: StaticSize,
) -> float:
    """Return the sum of a tile's cross-entropies; fill `deltas` with gradients of their mean in the batch.

    Args:
        logits, deltas: (classes x lanes,). scratch: room for three rows of lanes.
        labels: of the tile's first `count` lanes; the other lanes get gradients of 0.
    """
    tile_size = VECTOR_WIDTH * len(lanes)
    classes = len(logits) // tile_size
    softmax_terms(logits, deltas, scratch, classes, lanes)
    largest, total = scratch[:tile_size], scratch[tile_size : 2 * tile_size]
    scale = scratch[2 * tile_size :]
    loss = 0.0
    for j in range(count):
        loss += math.log(total[j]) + largest[j] - logits[labels[j] * tile_size + j]
    for j in range(tile_size):
        scale[j] = np.float32(1) / (total[j] * np.float32(batch)) if j < count else np.float32(0)
    for i in range(classes):
        for j in range(tile_size):
            deltas[i * tile_size + j] *= scale[j]
    for j in range(count):
        deltas[labels[j] * tile_size + j] -= np.float32(1) / np.float32(batch)
    return loss


@compiled
def count_correct(logits: Floats, labels: Integers, count: int, lanes: StaticSize) -> int:
    """Return how many of the first `count` lanes have their first largest logit at their label."""
    tile_size = VECTOR_WIDTH * len(lanes)
    correct = 0
    for j in range(count):
        best = 0
        for i in range(1, len(logits) // tile_size):
            if logits[i * tile_size + j] > logits[best * tile_size + j]:
                best = i
        correct += best == labels[j]
    return correct
