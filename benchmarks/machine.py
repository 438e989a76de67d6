"""The machine that measures: what it is, and one core of it to run on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.measuring import row, table
from nirvana.training.cost import environment

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_VECTORS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_bf16", "asimd", "sve")


def cores() -> frozenset[int]:
    """The cores that this process may use now."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


ALL_CORES = cores()  # before any of this suite's bindings
LAST_CORE = frozenset({max(ALL_CORES)})  # the first has most of the system's own work


@contextmanager
def pinned(to: Set[int]) -> Iterator[None]:
    """Every thread of this process, those that are there already too, on these cores alone (Linux)."""
    before = cores()
    _place(to)
    try:
        yield
    finally:
        _place(before)


def _place(to: Set[int]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), to)


def cache_bytes() -> dict[str, int]:
    """Bytes of the first core's data caches by level: {"L1": 32768, ...}; empty where nothing says so."""
    found = {}
    for place in sorted(_CACHES.glob("index*")):
        if (place / "type").read_text().strip() != "Instruction":
            size = (place / "size").read_text().strip()
            unit = _UNITS.get(size[-1], 1)
            found[f"L{(place / 'level').read_text().strip()}"] = int(size.rstrip("KMG")) * unit
    return found


def describe(seeds: str) -> str:
    """Machine, versions, date and command, as a table."""
    lines = [table(["what", "value"])]
    lines += [row([name, value]) for name, value in _facts(seeds).items()]
    return "\n".join(lines)


def _facts(seeds: str) -> dict[str, str]:
    known = environment()
    versions = {name: known[name] for name in ("nirvana", "python", "numpy", "torch")}
    caches = ", ".join(f"{level} {size // 1024:,} KiB" for level, size in cache_bytes().items())
    numba = f"numba {metadata.version('numba')}, llvmlite {metadata.version('llvmlite')}"
    return {
        "processor": f"{known['cpu']}{_family()}",
        "cores": f"{len(ALL_CORES)}; one core: number {max(LAST_CORE)}, to which all threads are bound",
        "vector instructions": " ".join(_vectors()) or "unknown",
        "data caches": caches or "unknown",
        "platform": str(known["platform"]),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()) + f", {numba}",
        "threads": f"torch 1, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}",
        "load before the run": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "seeds": seeds,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": " ".join(["python", *sys.orig_argv[1:]]),
    }


def _listing() -> dict[str, str]:
    """The first core's entry in /proc/cpuinfo."""
    place = Path("/proc/cpuinfo")
    lines = place.read_text().split("\n\n")[0].splitlines() if place.exists() else []
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _family() -> str:
    found = _listing()
    return f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""


def _vectors() -> list[str]:
    found = _listing()
    flags = (found.get("flags") or found.get("Features") or "").split()
    return [flag for flag in _VECTORS if flag in flags]
