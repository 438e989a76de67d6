"""Where a number was measured, and the settings under which one seed gives one result."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

THREADS = 1  # sums are rounded in another order on another number of threads


@contextmanager
def deterministic(seed: int, threads: int = THREADS) -> Iterator[None]:
    """Deterministic algorithms, a thread count, subnormals flushed to 0 (they slow late training down), and
    torch's own generator (dropout) seeded. Everything is put back at the end.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), _is_flushing()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            torch.set_num_threads(before[1])
            torch.set_flush_denormal(before[2])


def _is_flushing() -> bool:
    """Whether this thread turns subnormal results into 0; torch can set it and not say it."""
    return bool(np.float64(1e-308) * np.float64(0.5) == 0)


def environment(threads: int = THREADS) -> dict[str, Any]:
    """Versions, platform, processor and thread count: what goes with every published number."""
    return {
        "nirvana": _version("nirvana-tickets"),
        "torch": torch.__version__,
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
