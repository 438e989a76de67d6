"""Stacked trainings on their way.

Shape suffixes: R replicates, B batch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.architecture import Architecture
from nirvana.cost import Cost, peak_memory_bytes, training_flops
from nirvana.errors import Cancelled, InvalidRecipe, Problem
from nirvana.lab.augmentation import augment
from nirvana.lab.masked import multiply
from nirvana.lab.optimizers import make_optimizer
from nirvana.lab.replicates.capture import capture
from nirvana.lab.replicates.network import Stacked, StackedNetwork, stack_masks
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.training import (
    SECONDS_BETWEEN_EVENTS,
    Point,
    Progress,
    ShouldStop,
    TrainResult,
    batch_indices,
    learning_rate,
    point_event,
)

if TYPE_CHECKING:
    from nirvana.tasks import TaskData

_MOST_AT_ONCE = 100  # updates whose order is laid out, and whose losses are read, together
_EVALUATED_AT_ONCE = 5000  # examples times replicates


class Start(NamedTuple):
    """What a replicate trains from: arguments of `nirvana.lab.train.train`."""

    values: Mapping[str, NDArray[np.float32]]
    masks: Mapping[str, Mask]
    order_seed: int
    start_step: int = 0


class Run:
    """Stacked trainings on their way. Use it inside `deterministic(seed)`.

    Args:
        captures: whether to look for a CUDA graph on such a device.

    Attributes:
        step: updates made, counted from initialisation.
        failed_steps: of each replicate, the update at which its loss was not finite, or None.
    """

    def __init__(
        self,
        architecture: Architecture,
        starts: Sequence[Start],
        data: TaskData,
        recipe: Recipe,
        device: torch.device,
        teacher: NDArray[np.float32] | None = None,
        *,
        captures: bool = True,
    ) -> None:
        if recipe.augmentation and len(architecture.input) != 3:
            detail = f"augmentation needs images, but the input has shape {list(architecture.input)}"
            raise InvalidRecipe(detail, errors=[Problem("/augmentation", "does-not-fit", detail)])
        if device.type == "cuda":  # deterministic products ask for this, before the device's first one
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.architecture, self.starts, self.recipe, self.device = architecture, starts, recipe, device
        self.network = StackedNetwork(architecture, [start.values for start in starts], device)
        masks = stack_masks([start.masks for start in starts], self.network)
        self.weights, self.masks = [self.network.tensors[name] for name in masks], list(masks.values())
        self._apply_masks()
        self.optimizer = make_optimizer(recipe, self.network.parameters)
        self.splits = {
            "train": (self._put(data.train_x), self._put(data.train_y)),
            "validation": (self._put(data.validation_x), self._put(data.validation_y)),
            "test": (self._put(data.test_x), self._put(data.test_y)),
        }
        self.teacher = None if teacher is None else self._put(teacher)
        self.first_step = self.step = starts[0].start_step
        n, size = len(data.train_y), recipe.batch_size
        self.batches = [batch_indices(start.order_seed, n, size, self.step) for start in starts]
        self.failed_steps: list[int | None] = [None] * len(starts)
        self.losses = list[NDArray[np.float64]]()  # since the last look, each (updates, R)
        self.start, self.best = self.network.copies(), self.network.copies()
        self.best_points: list[tuple[int, float]] = [(self.step, math.inf)] * len(starts)
        self.curves = [list[Point]() for _ in starts]
        can_capture = device.type == "cuda" and not recipe.augmentation  # which draws anew at each step
        self._gradients = capture(self) if can_capture and captures else self.backward

    @property
    def alive(self) -> list[int]:
        """Places of the replicates that have not failed."""
        return [place for place, step in enumerate(self.failed_steps) if step is None]

    def go(self, progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Train to the last step, with a look at the validation data every `evaluate_every` updates."""
        steps, every, told = self.recipe.steps, self.recipe.evaluate_every, 0.0
        self._evaluate()
        while self.step < steps and self.alive:
            self.update_until(min(steps, (self.step // every + 1) * every), should_stop)
            self._evaluate()
            now = time.monotonic()
            if progress and (now - told > SECONDS_BETWEEN_EVENTS or self.step == steps):
                told = now
                for place in self.alive:
                    event = point_event(self.curves[place][-1], self.first_step, steps)
                    progress(event | {"replicate": place})

    def update_until(self, step: int, should_stop: ShouldStop | None = None) -> None:
        """Updates up to number `step`, or until every replicate has failed."""
        while self.step < step and self.alive:
            first = self.step
            numbers = range(first, min(first + _MOST_AT_ONCE, step))
            order = np.stack([np.concatenate([next(batch) for batch in self.batches]) for _ in numbers])
            losses = []
            for index in self._put(order):
                if should_stop and should_stop():
                    raise Cancelled(f"cancelled at training step {self.step} of {self.recipe.steps}")
                losses.append(self._update(index))
                self.step += 1
            self._note(torch.stack(losses).double().cpu().numpy(), first)

    def backward(self, index: Tensor) -> Tensor:
        """Losses, shape (R,), of the training examples at index, (R * B,), and their gradients."""
        x = self.splits["train"][0].index_select(0, index)
        if self.recipe.augmentation:
            parts = zip(x.chunk(len(self.starts)), self.starts, strict=True)
            x = torch.cat([augment(a, self.recipe.augmentation, b.order_seed, self.step) for a, b in parts])
        logits = self.network.train(x.view(len(self.starts), -1, *x.shape[1:]))
        losses = self._losses(logits.flatten(0, 1), index)
        self.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def read_test(self) -> list[tuple[float, float, float]]:
        """Of each replicate, test accuracy untrained, at the early stop and at the end; chance where its
        training failed."""
        chance = 1 / self.architecture.output_shape[-1]
        untrained, early, final = (
            self._measure("test", tensors)[1] for tensors in (self.start, self.best, self.network.tensors)
        )
        measured = zip(untrained, early, final, self.failed_steps, strict=True)
        return [(a, b, c) if failed is None else (a, chance, chance) for a, b, c, failed in measured]

    def result(
        self, place: int, tests: tuple[float, float, float], seconds: float, keep_weights: bool
    ) -> TrainResult:
        """What the replicate at `place` measured.

        Args:
            tests: its entry of `read_test`. seconds: its share of the whole.
        """
        failed_step, best = self.failed_steps[place], self.best_points[place]
        failed = failed_step is not None
        updates = (self.step if failed_step is None else failed_step) - self.first_step
        images = updates * self.recipe.batch_size
        flops = training_flops(self.architecture, self.starts[place].masks, images)
        return TrainResult(
            early_stop_step=self.recipe.steps if failed else best[0],
            early_stop_test_accuracy=tests[1],
            final_test_accuracy=tests[2],
            untrained_test_accuracy=tests[0],
            early_stop_validation_loss=None if failed else best[1],
            curve=self.curves[place],
            cost=Cost(seconds, images, *flops, peak_memory_bytes()),
            engine="stacked",
            failed=failed,
            failed_step=failed_step,
            weights=self.network.read(place) if keep_weights else None,
        )

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _update(self, index: Tensor) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        losses = self._gradients(index)
        self.optimizer.step()
        self._apply_masks()
        return losses

    def _losses(self, logits: Tensor, index: Tensor) -> Tensor:
        """As `nirvana.lab.train.Run`'s loss, one for each replicate."""
        count = len(self.starts)
        target = self.splits["train"][1].index_select(0, index)
        losses = F.cross_entropy(logits, target, reduction="none").view(count, -1).mean(1)
        if self.recipe.distillation:
            assert self.teacher is not None
            temperature, weight = (self.recipe.distillation[name] for name in ("temperature", "weight"))
            taught = F.softmax(self.teacher.index_select(0, index) / temperature, dim=1)
            soft = F.cross_entropy(logits / temperature, taught, reduction="none").view(count, -1).mean(1)
            losses = (1 - weight) * losses + weight * soft * temperature**2
        if self.recipe.l1:
            sizes = [p.abs().flatten(1).sum(1) for p in self.network.parameters if p.dim() > 2]
            losses = losses + self.recipe.l1 * torch.stack(sizes).sum(0)
        return losses

    @torch.no_grad()
    def _apply_masks(self) -> None:
        if self.weights:
            multiply(self.weights, self.masks)

    def _note(self, losses: NDArray[np.float64], first: int) -> None:
        """Remember losses of updates from number `first` on, shape (updates, R), and who failed."""
        self.losses.append(losses)
        for place in self.alive:
            broken = np.flatnonzero(~np.isfinite(losses[:, place]))
            if len(broken):
                self.failed_steps[place] = first + int(broken[0])

    def _evaluate(self) -> None:
        losses, accuracies = self._measure("validation", self.network.tensors)
        trained = np.concatenate(self.losses).mean(0) if self.losses else None
        self.losses.clear()
        better = [False] * len(self.starts)
        for place in self.alive:
            if not math.isfinite(losses[place]):
                self.failed_steps[place] = self.step
                continue
            train_loss = None if trained is None else float(trained[place])
            self.curves[place].append((self.step, train_loss, losses[place], accuracies[place]))
            if losses[place] < self.best_points[place][1]:
                self.best_points[place], better[place] = (self.step, losses[place]), True
        self._check_masks()
        self._keep(torch.tensor(better, device=self.device))

    def _check_masks(self) -> None:
        for weight, mask in zip(self.weights, self.masks, strict=True):
            is_other = (weight.detach() * mask != weight.detach()).flatten(1).any(1)
            assert not is_other[self.alive].any(), "a pruned weight is not 0"

    @torch.no_grad()
    def _keep(self, better: Tensor) -> None:
        """Take the tensors of those replicates, (R,), as their best."""
        if better.any():
            for name, tensor in self.network.tensors.items():
                self.best[name][better] = tensor[better]

    def _measure(self, split: str, tensors: Stacked) -> tuple[list[float], list[float]]:
        """Of each replicate, mean cross-entropy and accuracy on a split."""
        x, y = self.splits[split]
        count = len(self.starts)
        size = max(1, _EVALUATED_AT_ONCE // count)
        losses, right = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.int64)
        for part_x, part_y in zip(torch.split(x, size), torch.split(y, size), strict=True):
            logits = self.network.evaluate(tensors, part_x).flatten(0, 1)
            target = part_y.expand(count, -1).flatten()
            loss = F.cross_entropy(logits, target, reduction="none")
            losses += loss.view(count, -1).sum(1).double().cpu()
            right += (logits.argmax(1) == target).view(count, -1).sum(1).cpu()
        return (losses / len(y)).tolist(), (right / len(y)).tolist()
