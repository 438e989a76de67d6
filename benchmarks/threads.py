"""Threads at one update: the sparse engine on all cores beside itself on one; the numbers are the same."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.effort import Effort
from benchmarks.machine import ALL_CORES, pinned
from benchmarks.measuring import race, ratios, row, spread, table
from benchmarks.subjects import Subject, convolutional, lenet
from benchmarks.throughput import SparseTrainee
from nirvana import sparse

BATCH = 60
SETTINGS: tuple[tuple[Callable[[], Subject], float], ...] = (
    (lenet, 0.036),
    (lenet, 1.0),
    (lambda: convolutional("lenet-5"), 0.1),
    (lambda: convolutional("conv-2"), 0.1),
    (lambda: convolutional("resnet-20"), 0.1),
)


def main(effort: Effort) -> None:
    """Print one table."""
    threads = len(ALL_CORES)
    print(f"Batch {BATCH}, n = {effort.pairs} pairs: milliseconds of an update, wall time, {threads} threads")
    print("beside one. `used`: how many `nirvana train` would put to it.\n")
    print(table(["network", "density %", "one thread", f"{threads} threads", "ratio", "used"]))
    for make, density in SETTINGS[:1] if effort.is_quick else SETTINGS:
        subject = make()
        masks = subject.masks(density)
        with pinned(ALL_CORES):
            many = SparseTrainee(subject, masks, BATCH, threads)
            one = SparseTrainee(subject, masks, BATCH)
            alone, shared = race(many, {"one": one}, effort.pairs, effort.slice_seconds)["one"]
        used = sparse.count_useful_threads(subject.architecture, masks, subject.with_batch(BATCH), threads)
        times = [spread((1000 * timing.wall for timing in side), ".2f") for side in (alone, shared)]
        print(row([subject.name, f"{100 * density:g}", *times, ratios(alone, shared), used]), flush=True)
