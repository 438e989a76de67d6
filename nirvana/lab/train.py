"""The one training loop.

The data lie in memory as tensors and every batch is one `index_select`, in the order that `nirvana.training`
says. `train` runs it from start to end; a method that prunes on the way (gradual magnitude, Early-Bird)
drives a `Run` itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.architecture import Architecture
from nirvana.cost import Cost, peak_memory_bytes, training_flops
from nirvana.errors import Cancelled, Invalid, InvalidRecipe, Problem
from nirvana.lab.augmentation import augment
from nirvana.lab.environment import deterministic
from nirvana.lab.evaluate import evaluate
from nirvana.lab.masked import multiply
from nirvana.lab.modules import Network, build_module, load_values, read_values, tensors_of
from nirvana.lab.optimizers import make_optimizer
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.training import (
    SECONDS_BETWEEN_EVENTS,
    Point,
    Progress,
    ShouldStop,
    TrainResult,
    Values,
    batch_indices,
    check_start,
    learning_rate,
    point_event,
)

if TYPE_CHECKING:
    from nirvana.tasks import TaskData

_MASK_64 = 2**64 - 1
Arrays = Mapping[str, NDArray[np.float32]]


def train(
    architecture: Architecture,
    values: Arrays,
    masks: Mapping[str, Mask],
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    *,
    start_step: int = 0,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
    teacher: NDArray[np.float32] | None = None,
    held: Arrays | None = None,
) -> TrainResult:
    """Train masked values from `start_step` to the recipe's last step.

    Selection looks at the validation data only; the test data are read once, at the end, with the weights of
    the early stop, of the last step and of the start.

    Args:
        values: full tensors by parameter (and running statistics, where there are any).
        masks: by parameter; those without one are kept whole.
        order_seed: of the data's order, of augmentation and of dropout.
        progress: called with `nirvana.training.point_event`.
        should_stop: asked before every update.
        teacher: logits of the training examples, shape (n, classes), for a recipe with `distillation`.
        held: what pruned elements are held at instead of 0, for the mask-0 action `freeze`.

    Raises:
        InvalidRecipe: no step would be left. Invalid: distillation without a teacher.
        Cancelled: `should_stop` said so.
    """
    check_start(recipe, start_step)
    started = time.perf_counter()
    with deterministic(order_seed & _MASK_64):
        run = Run(
            architecture, values, masks, data, recipe, order_seed, start_step, teacher=teacher, held=held
        )
        run.go(recipe.steps, progress, should_stop)
        untrained, early, final = run.read_test()
    images = (run.step - start_step) * recipe.batch_size
    flops = training_flops(architecture, masks, images)
    best = run.best
    return TrainResult(
        early_stop_step=recipe.steps if run.failed else best.step,
        early_stop_test_accuracy=early,
        final_test_accuracy=final,
        untrained_test_accuracy=untrained,
        early_stop_validation_loss=None if run.failed else best.loss,
        curve=run.curve,
        cost=Cost(time.perf_counter() - started, images, *flops, peak_memory_bytes()),
        failed=run.failed,
        failed_step=run.step if run.failed else None,
        weights=run.values() if keep_weights else None,
    )


def advance(
    architecture: Architecture,
    values: Arrays,
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    steps: int,
    *,
    should_stop: ShouldStop | None = None,
    teacher: NDArray[np.float32] | None = None,
) -> tuple[Values, bool]:
    """Dense values after the recipe's first `steps` updates (theta_k), running statistics included, and
    whether every loss was finite. Neither validation nor test data are read.

    Reference: rewinding, Frankle et al. 2020 (arXiv 1912.05671).
    """
    with deterministic(order_seed & _MASK_64):
        run = Run(architecture, values, {}, data, recipe, order_seed, 0, teacher=teacher)
        run.update_until(steps, should_stop)
    return run.values(), not run.failed


@dataclass
class _Best:
    step: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


class Run:
    """A training on its way: network, optimiser, place in the order of batches, and the best point so far.

    Use it inside `deterministic(seed)`. Arguments as in `train`.

    Attributes:
        step: updates made, counted from initialisation.
        failed: a loss was not finite.
        network: in training.
    """

    def __init__(
        self,
        architecture: Architecture,
        values: Arrays,
        masks: Mapping[str, Mask],
        data: TaskData,
        recipe: Recipe,
        order_seed: int,
        start_step: int = 0,
        *,
        teacher: NDArray[np.float32] | None = None,
        held: Arrays | None = None,
    ) -> None:
        if recipe.distillation and teacher is None:
            raise Invalid("the recipe distils, expected a teacher's logits of the training examples")
        if recipe.augmentation and len(architecture.input) != 3:
            detail = f"augmentation needs images, but the input has shape {list(architecture.input)}"
            raise InvalidRecipe(detail, errors=[Problem("/augmentation", "does-not-fit", detail)])
        self.network, self.recipe, self.data = build_module(architecture), recipe, data
        load_values(self.network, values)
        self.set_masks(masks, held)
        self.optimizer = make_optimizer(recipe, self.network.parameters())
        self.x, self.y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
        self.teacher = None if teacher is None else torch.from_numpy(teacher)
        self.order_seed = order_seed
        self.batches = batch_indices(order_seed, len(self.y), recipe.batch_size, start_step)
        self.step, self.failed, self.loss_sum, self.loss_count = start_step, False, 0.0, 0
        self.best, self.curve = _Best(), list[Point]()
        self.start = _copies(self.network)

    def set_masks(self, masks: Mapping[str, Mask], held: Arrays | None = None) -> None:
        """Take these masks from now on: pruned weights become 0, or what `held` says."""
        tensors = tensors_of(self.network)
        self.weights = [tensors[name] for name in masks]
        self.masks = [torch.from_numpy(mask.astype(np.float32)) for mask in masks.values()]
        self.held = [torch.from_numpy(held[name] * ~mask) for name, mask in masks.items()] if held else []
        self._apply_masks()

    def values(self) -> Values:
        """Copies of the parameters and running statistics as they are now."""
        return read_values(self.network)

    def go(self, steps: int, progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Train up to step `steps`, with a look at the validation data every `evaluate_every` updates."""
        first, every, told = self.step, self.recipe.evaluate_every, 0.0
        self._evaluate()
        while self.step < steps and not self.failed:
            self.update_until(min(steps, (self.step // every + 1) * every), should_stop)
            if not self.failed:
                self._evaluate()
            now = time.monotonic()
            if progress and self.curve and (now - told > SECONDS_BETWEEN_EVENTS or self.step == steps):
                told = now
                progress(point_event(self.curve[-1], first, steps))

    def update_until(self, step: int, should_stop: ShouldStop | None = None) -> None:
        """Updates up to number `step`, or to the first loss that is not finite."""
        self.network.train()
        while self.step < step:
            if should_stop and should_stop():
                raise Cancelled(f"cancelled at training step {self.step} of {self.recipe.steps}")
            loss = self._update(torch.from_numpy(next(self.batches)))
            if not math.isfinite(loss):
                self.failed = True
                return
            self.step += 1
            self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1

    def read_test(self) -> tuple[float, float, float]:
        """Test accuracy untrained, at the early stop and at the end; chance where the training failed."""
        untrained = self._test_accuracy(self.start)
        if self.failed:
            chance = 1 / self.network.architecture.output_shape[-1]
            return untrained, chance, chance
        final = self._test_accuracy(None)
        is_end = self.best.step == self.step
        return untrained, final if is_end else self._test_accuracy(self.best.weights), final

    def _update(self, index: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        x = self.x.index_select(0, index)
        if self.recipe.augmentation:
            x = augment(x, self.recipe.augmentation, self.order_seed, self.step)
        loss = self._loss(self.network(x), index)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._apply_masks()
        return loss.item()

    def _loss(self, logits: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy, and what the recipe adds.

        Reference: distillation, Hinton, Vinyals & Dean 2015 (arXiv 1503.02531): soft targets at temperature
        T, their gradients scaled by T^2.
        """
        loss = F.cross_entropy(logits, self.y.index_select(0, index))
        if self.recipe.distillation:
            assert self.teacher is not None
            temperature, weight = (self.recipe.distillation[name] for name in ("temperature", "weight"))
            taught = F.softmax(self.teacher.index_select(0, index) / temperature, dim=1)
            soft = F.cross_entropy(logits / temperature, taught) * temperature**2
            loss = (1 - weight) * loss + weight * soft
        if self.recipe.l1:
            weights = [p for p in self.network.parameters() if p.dim() > 1]
            loss = loss + self.recipe.l1 * torch.stack([w.abs().sum() for w in weights]).sum()
        return loss

    @torch.no_grad()
    def _apply_masks(self) -> None:
        if self.weights:
            multiply(self.weights, self.masks)
        if self.held:
            torch._foreach_add_(self.weights, self.held)

    def _evaluate(self) -> None:
        loss, accuracy = evaluate(self.network, self.data.validation_x, self.data.validation_y)
        if not math.isfinite(loss):
            self.failed = True
            return
        if not self.held:
            for weight, mask in zip(self.weights, self.masks, strict=True):
                assert not weight.detach()[mask == 0].any(), "a pruned weight is not 0"
        train_loss = self.loss_sum / self.loss_count if self.loss_count else None
        self.curve.append((self.step, train_loss, loss, accuracy))
        self.loss_sum, self.loss_count = 0.0, 0
        if loss < self.best.loss:
            self.best = _Best(self.step, loss, _copies(self.network))

    def _test_accuracy(self, weights: dict[str, Tensor] | None) -> float:
        """Of these weights, or of the network as it is; the network's own weights come back afterwards."""
        now = _copies(self.network)
        _copy(weights or now, self.network)
        accuracy = evaluate(self.network, self.data.test_x, self.data.test_y)[1]
        _copy(now, self.network)
        return accuracy


def _copies(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors_of(network).items()}


def _copy(weights: Mapping[str, Tensor], network: Network) -> None:
    tensors = tensors_of(network)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensors[name].copy_(tensor)
