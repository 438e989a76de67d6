"""Replicates together: stacked in one batch beside one by one, and side by side on several threads.

On a machine with a GPU, `python -m benchmarks.replicates` prints its table too: MNIST's shape, random pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.machine import ALL_CORES, pinned
from benchmarks.measuring import Timing, clock, ratios, row, spread, table
from benchmarks.subjects import SEED, synthetic
from nirvana import lab, tasks
from nirvana.engines import stacking_pays, train, train_replicates
from nirvana.format.initial import default_laws, draw_all, random_mask
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from nirvana.torch.evaluate import deterministic
from nirvana.torch.stacked.backend import StackedReplicates
from nirvana.training.events import SILENT
from nirvana.training.loop import Loop
from nirvana.training.recipe import Recipe
from nirvana.training.spec import InitialState, TrainSpec

PAIRS, REPLICATES, BATCH = 5, 5, 60
STACKS = (1, 4, 16, 64)  # on a GPU
GPU_STEPS = 300
TARGET = 4.0  # times a single replicate's step, for 64 of them


def main() -> None:
    """Print the tables."""
    _print_stacked()
    _print_side_by_side()
    if torch.cuda.is_available():
        _print_gpu()
    else:
        print("\nOn a GPU: not measured, there is none here.")


def _print_stacked() -> None:
    print(
        f"Whole trainings of {REPLICATES} replicates in torch, one thread, batch {BATCH}, n = {PAIRS} pairs: "
        "milliseconds of an update of all, one look at the validation data included.\n"
    )
    print(table(["network", "inputs", "optimiser", "density %", "one by one", "stacked", "ratio", "taken"]))
    for name, data, steps in (
        ("lenet-300-100", tasks.load("digits"), 300),
        ("lenet-300-100", synthetic((1, 28, 28)), 100),
        ("lenet-5", synthetic((1, 28, 28)), 5),
    ):
        architecture = zoo.build(name, data.train_x.shape[1:], 10)
        for optimizer in ("adam", "sgd"):
            for share in (1.0, 0.1):
                _compare(architecture, data, _recipe(optimizer, steps), share)


def _recipe(optimizer: str, steps: int) -> Recipe:
    if optimizer == "sgd":
        return Recipe("sgd", 0.05, BATCH, steps, momentum=0.9, evaluate_every=steps)
    return Recipe("adam", 1.2e-3, BATCH, steps, evaluate_every=steps)


def _compare(architecture: Architecture, data: TaskData, recipe: Recipe, share: float) -> None:
    specs = _specs(architecture, data, recipe, REPLICATES, share)

    def one_by_one() -> None:
        for spec in specs:
            train(spec, engine="dense")

    def together() -> None:
        train_replicates(specs)

    alone, stacked = _in_turn(one_by_one, together)
    is_taken = "yes" if stacking_pays(architecture, recipe, REPLICATES) else "no"
    times = [spread((1000 * t.wall / recipe.steps for t in side), ".2f") for side in (alone, stacked)]
    inputs, described = architecture.parameters[architecture.prunable[0]], f"{100 * share:.0f}"
    shape = " x ".join(map(str, architecture.input)) if len(inputs) > 2 else inputs[1]
    print(
        row(
            [architecture.name, shape, recipe.optimizer, described, *times, ratios(alone, stacked), is_taken]
        ),
        flush=True,
    )


def _in_turn(one: Callable[[], None], other: Callable[[], None]) -> tuple[list[Timing], list[Timing]]:
    one()
    other()
    pairs = [(clock(one), clock(other)) for _ in range(PAIRS)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _specs(
    architecture: Architecture, data: TaskData, recipe: Recipe, count: int, share: float
) -> list[TrainSpec]:
    laws = default_laws(architecture)
    starts = (
        InitialState(draw_all(architecture, laws, seed), _masks(architecture, share, seed), seed)
        for seed in range(SEED, SEED + count)
    )
    return [TrainSpec(architecture, start, data, recipe) for start in starts]


def _masks(architecture: Architecture, share: float, seed: int) -> dict[str, Mask]:
    if share == 1:
        return {}
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    return {
        name: random_mask(shape, max(1, round(share * torch.Size(shape).numel())), seed, tensor)
        for tensor, (name, shape) in enumerate(shapes.items())
    }


def _print_side_by_side() -> None:
    """A verification on one thread and on as many as there are cores; the latter is what users get."""
    threads = len(ALL_CORES)
    print(
        f"\nA standard verification of the default recipe's 10 % ticket (digits, LeNet-300-100, seed {SEED}),"
        f" no cache, n = {PAIRS} pairs, seconds of wall time.\n"
    )
    print(table(["threads", "one thread", "that many", "ratio"]))
    ticket = lab.find("digits", "lenet-300-100", density=0.10, seed=SEED).tickets[-1]
    with pinned(ALL_CORES):
        one, many = _in_turn(
            lambda: _verify(ticket, 1),
            lambda: _verify(ticket, threads),
        )
    times = [spread((t.wall for t in side), ".2f") for side in (one, many)]
    walls = spread((a.wall / b.wall for a, b in zip(one, many, strict=True)), ".2f")
    print(row([threads, *times, walls]), flush=True)


def _verify(ticket: Ticket, threads: int) -> None:
    lab.verify(ticket, cache=None, threads=threads)


def _print_gpu() -> None:
    """Seconds of a step of R replicates, launched op by op and as a CUDA graph."""
    data = synthetic((1, 28, 28))
    architecture = zoo.build("lenet-300-100", (1, 28, 28), 10)
    print(
        f"\n{torch.cuda.get_device_name()}, LeNet-300-100, 784 inputs (random pixels), Adam, batch {BATCH}, "
        f"{GPU_STEPS} updates, n = {PAIRS}: milliseconds of an update of all replicates; goal: 64 in at most "
        f"{TARGET:.0f} times one.\n"
    )
    print(table(["replicates", "op by op", "times one", "CUDA graph", "times one"]))
    first: dict[bool, float] = {}
    for count in STACKS:
        cells: list[object] = [count]
        for captures in (False, True):
            seconds = _gpu_seconds(architecture, data, count, captures)
            middle = sorted(seconds)[len(seconds) // 2]
            first.setdefault(captures, middle)
            cells += [spread((1000 * s for s in seconds), ".3f"), f"{middle / first[captures]:.2f}"]
        print(row(cells), flush=True)


def _gpu_seconds(architecture: Architecture, data: TaskData, count: int, captures: bool) -> list[float]:
    specs = _specs(architecture, data, _recipe("adam", 100_000), count, 0.1)
    with deterministic(SEED):
        loop = Loop(
            StackedReplicates(specs, torch.device("cuda"), captures=captures), specs, [SILENT] * count
        )
        loop.update_until(GPU_STEPS)
        return [
            clock(lambda: loop.update_until(loop.step + GPU_STEPS)).wall / GPU_STEPS for _ in range(PAIRS)
        ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
