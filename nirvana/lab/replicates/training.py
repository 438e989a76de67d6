"""Training replicates together, or one by one where they do not stack."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.errors import Invalid, Unavailable
from nirvana.lab.environment import deterministic
from nirvana.lab.replicates.network import find_unstackable, is_chain
from nirvana.lab.replicates.run import Run, Start
from nirvana.lab.train import train
from nirvana.recipe import Recipe
from nirvana.training import Progress, ShouldStop, TrainResult, check_start

if TYPE_CHECKING:
    import numpy as np

    from nirvana.tasks import TaskData

DEVICES = ("cpu", "cuda")
_MASK_64 = 2**64 - 1
_MOST_WORK = 8_000_000  # weights x batch: see `stacking_pays`


def train_replicates(
    architecture: Architecture,
    starts: Sequence[Start],
    data: TaskData,
    recipe: Recipe,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
    teacher: NDArray[np.float32] | None = None,
) -> list[TrainResult]:
    """Train each start as `nirvana.lab.train.train` does, all in one batch: engine `stacked`.

    What does not stack (`find_unstackable`, starts at different steps) is trained one by one on the CPU,
    engine `dense`. Each result's seconds are its share of the whole. The weights of a replicate that failed
    are those at the next look at the losses, up to 100 updates later.

    Args:
        device: `cpu`, or `cuda`: data and parameters there, an update's forward and backward in a CUDA graph
            where torch can capture it.
        progress: called with `nirvana.training.point_event` and `replicate`, the start's place.
        teacher: as `train`, the same for all.

    Raises:
        Invalid: no starts, an unknown device, distillation without a teacher.
        Unavailable: no CUDA device here.
        InvalidRecipe, Cancelled: as `train`.
    """
    _check(starts, recipe, device, teacher)
    if find_unstackable(architecture) or len({start.start_step for start in starts}) > 1:
        return [
            train(
                architecture,
                start.values,
                start.masks,
                data,
                recipe,
                start.order_seed,
                start_step=start.start_step,
                progress=_named(progress, place),
                should_stop=should_stop,
                keep_weights=keep_weights,
                teacher=teacher,
            )
            for place, start in enumerate(starts)
        ]
    started = time.perf_counter()
    with deterministic(starts[0].order_seed & _MASK_64):
        if device == "cuda":  # some of its ops (pooling's gradients) have no deterministic way: a warning
            torch.use_deterministic_algorithms(True, warn_only=True)
        run = Run(architecture, starts, data, recipe, torch.device(device), teacher)
        run.go(progress, should_stop)
        tests = run.read_test()
    seconds = (time.perf_counter() - started) / len(starts)
    return [run.result(place, tests[place], seconds, keep_weights) for place in range(len(starts))]


def stacking_pays(architecture: Architecture, recipe: Recipe, replicates: int) -> bool:
    """Whether replicates train a quarter or more faster together than one after another, on one core.

    They do where torch's calls take longer than its arithmetic: chains of linear layers with at most
    8,000,000 weights x batch. Time one by one / time together of whole trainings, 5 replicates, Adam, medians
    of 5 pairs (AMD EPYC, AVX2, one thread, torch 2.13; `benchmarks/replicates.py` measures anew):

    | network | inputs | batch | weights x batch | ratio |
    |---|---|---|---|---|
    | 100 | 64 | 60 | 0.4 million | 2.42 |
    | LeNet-300-100 | 64 | 16 | 0.8 | 2.08 |
    | LeNet-300-100 | 64 | 60 | 3.0 | 1.60 (masks of 10 %: 1.65; SGD: 1.57) |
    | LeNet-300-100 | 144 | 60 | 4.5 | 1.38 |
    | 100 | 784 | 60 | 4.8 | 1.52 |
    | LeNet-300-100 | 64 | 128 | 6.4 | 1.33 |
    | LeNet-300-100 | 256 | 60 | 6.5 | 1.29 |
    | LeNet-300-100 | 400 | 60 | 9.1 | 1.11 |
    | LeNet-300-100 | 784 | 60 | 16 | 1.02 (masks: 1.04; SGD: 1.11; 10 replicates: 1.12) |
    | LeNet-300-100 | 784 | 128 | 34 | 1.09 |
    | lenet-5 | 784 | 60 | | 0.77 |

    Convolutions lose (conv-2 0.56, resnet-20 0.80 on 32 x 32 pixels): torch stacks them as grouped ones.
    """
    shapes = (architecture.parameters[name] for name in architecture.prunable)
    weights = sum(math.prod(shape) for shape in shapes)
    return replicates > 1 and is_chain(architecture) and weights * recipe.batch_size <= _MOST_WORK


def _check(starts: Sequence[Start], recipe: Recipe, device: str, teacher: NDArray[np.float32] | None) -> None:
    if not starts:
        raise Invalid("there are no replicates to train, expected at least one start")
    if device not in DEVICES:
        raise Invalid(f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    if recipe.distillation and teacher is None:
        raise Invalid("the recipe distils, expected a teacher's logits of the training examples")
    for start in starts:
        check_start(recipe, start.start_step)
    if device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("device is 'cuda', but torch finds no CUDA device here")


def _named(progress: Progress | None, place: int) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | {"replicate": place})
