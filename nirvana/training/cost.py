"""The cost of a training: floating-point operations in theory, seconds and memory as measured, and where."""

from __future__ import annotations

import contextlib
import math
import platform
import resource
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.training.recipe import Recipe

Environment = dict[str, str | int]
THREADS = 1  # sums are rounded in another order on another number of threads
TEST_READS = 3  # of a training: untrained, at the early stop, at the end
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


def most_flops(architecture: Architecture, recipe: Recipe, sizes: Mapping[str, int]) -> int:
    """Return the floating-point operations of one training at most: every weight counted, with the looks at
    validation and test data, and a teacher's training where the recipe distils.

    Args:
        sizes: number of examples in "validation" and "test".
    """
    looks = 1 + math.ceil(recipe.steps / recipe.evaluate_every)
    images = FORWARD_AND_BACKWARD * recipe.steps * recipe.batch_size
    images += looks * sizes["validation"] + TEST_READS * sizes["test"]
    return architecture.flops() * images * (2 if recipe.distillation else 1)


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


def environment(threads: int = THREADS) -> Environment:
    """Return versions, platform, processor and thread count: what goes with every published number."""
    return {
        "nirvana": _version("nirvana-tickets"),
        "torch": _version("torch"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": threads,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
