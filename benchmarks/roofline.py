"""A roofline of the sparse engine's update: what it must do, and what this core can do.

The model, of a batch of B examples of N pixels, a network of P parameters and K kept weights (K1 of them in
the first layer), which take M multiply-adds an example (M1; M is K where no layer is a convolution):

    operations   2 B M forward, 2 B M for the weights' gradients, 2 B (M - M1) for the inputs'; 12 P for Adam
    activations  4 B (2 M + M - M1) bytes: each multiply-add reads its activation, forward and again for the
                 weight's gradient, and its row's gradient backwards; no two weights share a read (in a
                 dense layer, where six do, an update may take less than this bound)
    weights      (4 + 4) K forward, (8 + 4) K for their gradients, (4 + 8) (K - K1) backwards, once a batch
    optimiser    32 P: weight, gradient and two moments, read and written
    batch        4 B N read from memory

An update cannot be faster than its operations at the peak of multiply-adds, nor than its bytes of activations
from the first cache (the second, where a tile's activations are larger than the first), nor than its batch
from memory: the data are larger than every cache. Batch norm, pooling and sums are not in the model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.effort import Effort
from benchmarks.measuring import clock, measure_step, row, table
from benchmarks.peaks import peak_gflops, read_gigabytes, triad_gigabytes
from benchmarks.subjects import Masks, Subject, convolutional, lenet
from benchmarks.throughput import SparseTrainee
from nirvana import sparse
from nirvana.format.masks import kept_count

DENSITIES = (1.0, 0.5, 0.35, 0.17, 0.07, 0.036, 0.01)
CONVOLUTIONAL = {"conv-2": (1.0, 0.17, 0.05), "resnet-20": (1.0, 0.17, 0.05)}
SPLIT = (0.17, 0.036)  # densities whose update is taken apart
BATCH = 60
WINDOW = 16  # pixels that are gathered together
BLOCK = 64  # examples by which batches grow when an update is taken apart
TIMES = 5
_HEADS = [
    *("network", "density %", "MFLOP", "activations, MB", "all bytes, MB", "measured us", "GFLOP/s"),
    *("activations, GB/s", "bound: operations, us", "bound: L1, us", "bound: L2, us"),
    *("bound: batch from memory, us", "reached, of the bound by operations %", "by L1 %", "by L2 %"),
]
_APART = f"""
An update of LeNet-300-100 taken apart, microseconds for {BLOCK} examples, by difference. Updates of batches
of {BLOCK}, {2 * BLOCK} and {3 * BLOCK} lie on a line, whose constant is what happens once an update. The
gather is the slope of a network that keeps one weight in each {WINDOW} pixels that are read, so loss and
biases are in it. Forward is an evaluation of the test data less one by that network; backward is the rest of
the slope.
"""


@dataclass(frozen=True)
class Work:
    """What an update must do: operations, and bytes by what they are of."""

    operations: float
    activations: float
    weights: float
    optimiser: float
    batch: float

    @property
    def bytes(self) -> float:
        return self.activations + self.weights + self.optimiser + self.batch


def model(subject: Subject, masks: Masks, batch: int) -> Work:
    """The formulas above."""
    architecture = subject.architecture
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    kept = {name: kept_count(masks, {name: shape}) for name, shape in shapes.items()}
    used = {name: architecture.uses[name] * count for name, count in kept.items()}
    first, total = architecture.prunable[0], sum(kept.values())
    parameters = total + architecture.parameter_count - architecture.prunable_total
    products = 3 * sum(used.values()) - used[first]
    return Work(
        operations=2 * batch * products + 12 * parameters,
        activations=4 * batch * products,
        weights=8 * total + 12 * total + 12 * (total - kept[first]),
        optimiser=32 * parameters,
        batch=4 * batch * math.prod(architecture.input),
    )


def main(effort: Effort) -> None:
    """Print the machine's peaks, the roofline by density, and where an update's time goes."""
    print(f"```text\n{(__doc__ or '').strip()}\n```\n")
    gflops, read = peak_gflops(), read_gigabytes()
    _print_peaks(gflops, read)
    subject, times = lenet(), 2 if effort.is_quick else TIMES
    print(
        f"\nBatch {BATCH}, one core; microseconds of processor time, medians of {times}. Masks as in the "
        "table of updates.\n"
    )
    print(table(_HEADS))
    densities = DENSITIES[::3] if effort.is_quick else DENSITIES
    _print_densities(subject, densities, gflops, read, times, effort)
    for name, some in CONVOLUTIONAL.items() if not effort.is_quick else ():
        _print_densities(convolutional(name), some, gflops, read, times, effort)
    print(_APART)
    _print_parts(subject, times, effort)


def _print_peaks(gflops: dict[str, float], read: dict[str, float]) -> None:
    triad = triad_gigabytes()
    print(table(["peak of one core", "value"]))
    print(row(["float32 multiply-adds in registers, GFLOP/s", f"{gflops['registers']:.0f}"]))
    print(row(["torch.mm of 1024 x 1024, one thread, GFLOP/s", f"{gflops['sgemm']:.0f}"]))
    for level, rate in read.items():
        print(
            row([f"{level}: read, and triad (12 bytes an element), GB/s", f"{rate:.0f}, {triad[level]:.0f}"])
        )


def _print_densities(
    subject: Subject,
    densities: Sequence[float],
    gflops: dict[str, float],
    read: dict[str, float],
    times: int,
    effort: Effort,
) -> None:
    for density in densities:
        masks = subject.masks(density)
        if sparse.find_unsupported(subject.architecture, subject.with_batch(BATCH), masks):
            print(row([subject.name, f"{100 * density:g}", *["not supported"] * (len(_HEADS) - 2)]))
            continue
        seconds = measure_step(SparseTrainee(subject, masks, BATCH), times, effort.slice_seconds)
        place = [subject.name, f"{100 * density:g}"]
        print(row(place + _place(model(subject, masks, BATCH), seconds, gflops, read)), flush=True)


def _place(work: Work, seconds: float, gflops: dict[str, float], read: dict[str, float]) -> list[str]:
    """What an update must do, what it took, and its bounds: the cells after network and density."""
    bounds = [
        work.operations / (gflops["registers"] * 1e9),
        *(work.activations / (read[level] * 1e9) for level in ("L1", "L2")),
        work.batch / (read["DRAM"] * 1e9),
    ]
    return [
        f"{work.operations / 1e6:,.2f}",
        f"{work.activations / 1e6:,.2f}",
        f"{work.bytes / 1e6:,.2f}",
        f"{seconds * 1e6:,.0f}",
        f"{work.operations / seconds / 1e9:.1f}",
        f"{work.activations / seconds / 1e9:.0f}",
        *(f"{bound * 1e6:,.0f}" for bound in bounds),
        *(f"{100 * bound / seconds:.0f}" for bound in bounds[:3]),
    ]


def _print_parts(subject: Subject, times: int, effort: Effort) -> None:
    print(
        table(
            [
                *("density %", "once an update (optimiser, call)", "gather, loss, biases", "forward"),
                *("backward", "sum", f"measured, batch {BLOCK}"),
            ]
        )
    )
    for density in SPLIT:
        masks = subject.masks(density)
        once, slope, measured = _line(subject, masks, times, effort)
        emptied = _emptied(masks)
        gather = _line(subject, emptied, times, effort)[1]
        forward = _evaluation(subject, masks, times) - _evaluation(subject, emptied, times)
        parts = [once, gather, forward, slope - gather - forward, once + slope, measured]
        print(row([f"{100 * density:g}", *(f"{part * 1e6:.0f}" for part in parts)]), flush=True)


def _line(subject: Subject, masks: Masks, times: int, effort: Effort) -> tuple[float, float, float]:
    """Seconds: the constant and the slope (for BLOCK examples) of an update by batch, and one of BLOCK."""
    seconds = [
        measure_step(SparseTrainee(subject, masks, blocks * BLOCK), times, effort.slice_seconds)
        for blocks in (1, 2, 3)
    ]
    slope, constant = np.polyfit([1, 2, 3], seconds, 1)
    return float(constant), float(slope), seconds[0]


def _emptied(masks: Masks) -> Masks:
    """Masks that read the same pixels and hardly multiply: one weight of each 16 columns that the first layer
    reads, and one of each other layer."""
    emptied = {name: np.zeros_like(mask) for name, mask in masks.items()}
    first, *others = masks
    columns = np.flatnonzero(masks[first].any(0))
    emptied[first][0, columns[np.unique(columns // WINDOW, return_index=True)[1]]] = True
    for name in others:
        emptied[name].flat[0] = True
    return emptied


def _evaluation(subject: Subject, masks: Masks, times: int) -> float:
    """Seconds to evaluate BLOCK examples of the test data."""
    data, n = subject.data, len(subject.data.test_y) // BLOCK * BLOCK
    data = data._replace(test_x=data.test_x[:n], test_y=data.test_y[:n])
    backend = SparseTrainee(replace(subject, data=data), masks, BLOCK).loop.backend
    backend.evaluate("test")
    seconds = [clock(lambda: backend.evaluate("test")).processor for _ in range(times)]
    return statistics.median(seconds) / n * BLOCK
