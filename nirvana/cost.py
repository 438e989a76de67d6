"""What a training costs: floating-point operations in theory, seconds and memory as measured."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nirvana.architecture import Architecture
from nirvana.masks import Mask

FORWARD_AND_BACKWARD = 3  # a backward pass costs two forward ones: by the inputs and by the weights


@dataclass(frozen=True)
class Cost:
    """The cost of one training or of several.

    Attributes:
        seconds: wall time, evaluations included.
        images: training examples seen (one counts as often as it is seen).
        flops_dense: forward and backward FLOPs of those examples when every weight is computed.
        flops_sparse: the same when only kept weights are (nonzero multiply-adds x 2 x 3): theory.
        peak_memory_bytes: the process's largest resident size so far.
    """

    seconds: float = 0.0
    images: int = 0
    flops_dense: int = 0
    flops_sparse: int = 0
    peak_memory_bytes: int = 0

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def training_flops(architecture: Architecture, masks: Mapping[str, Mask], images: int) -> tuple[int, int]:
    """Dense and theoretical sparse FLOPs of training on `images` examples.

    Reference: LeNet-300-100 for 10,000 steps of 60: 0.958 TFLOP (SCIENCE 4.8).
    """
    kept = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    each = FORWARD_AND_BACKWARD * images
    return architecture.flops() * each, architecture.flops(kept) * each


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Totals; the peak is the largest."""
    listed = list(costs)
    return Cost(
        math.fsum(cost.seconds for cost in listed),
        sum(cost.images for cost in listed),
        sum(cost.flops_dense for cost in listed),
        sum(cost.flops_sparse for cost in listed),
        max((cost.peak_memory_bytes for cost in listed), default=0),
    )


def peak_memory_bytes() -> int:
    """The largest resident size that this process has had.

    Linux counts it in VmHWM; `ru_maxrss` has what the parent process had before this one began, too.
    """
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
