"""The one training loop.

The data lie in memory as tensors and every batch is one `index_select`. Batches: the epochs' orders (Philox,
seed `order_seed`, see `nirvana.initial.epoch_order`) are laid end to end and cut into batches, so every batch
is full, a batch may straddle two epochs, and no example is left out. Update number s takes the examples from
s x batch_size on, so a training that starts at step k goes on where one of k steps ended: order, schedule and
warm-up alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.architecture import Architecture
from nirvana.errors import Cancelled
from nirvana.lab.batches import batches, evaluate
from nirvana.lab.cost import Cost, peak_memory_bytes, training_flops
from nirvana.lab.environment import deterministic
from nirvana.lab.masked import multiply
from nirvana.lab.modules import Network, build_module, load_values, read_values, tensors_of
from nirvana.lab.optimizers import learning_rate, make_optimizer
from nirvana.masks import Mask
from nirvana.recipe import Recipe

if TYPE_CHECKING:
    from nirvana.tasks import TaskData

Values = dict[str, NDArray[np.float32]]
Progress = Callable[[dict[str, Any]], None]
Point = tuple[int, float | None, float, float]  # step, training loss, validation loss, validation accuracy

_SECONDS_BETWEEN_EVENTS = 0.05
_MASK_64 = 2**64 - 1


@dataclass(frozen=True)
class TrainResult:
    """What one training measured. Accuracies are in [0, 1]; steps count from initialisation, so after
    rewinding to k they run from k to the recipe's `steps`.

    Attributes:
        early_stop_step: the first step at which the validation loss was least.
        early_stop_test_accuracy: test accuracy of the weights at that step.
        final_test_accuracy: ... after the last step.
        untrained_test_accuracy: ... of the masked values before training.
        curve: (step, mean training loss since the point before, validation loss, validation accuracy).
        failed: a loss was not finite; the test accuracies are then chance, the curve ends before it.
        failed_step: the update at which that was seen.
        weights: trained parameters and running statistics, if they were asked for.
    """

    early_stop_step: int
    early_stop_test_accuracy: float
    final_test_accuracy: float
    untrained_test_accuracy: float
    early_stop_validation_loss: float | None
    curve: list[Point]
    cost: Cost
    engine: str = "dense"
    failed: bool = False
    failed_step: int | None = None
    weights: Values | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        return self.cost.seconds

    @property
    def early_stop_validation_accuracy(self) -> float | None:
        """Validation accuracy at the early stop: chooses among tickets without test data; None if failed."""
        return next((accuracy for step, _, _, accuracy in self.curve if step == self.early_stop_step), None)

    @property
    def flops_dense(self) -> int:
        return self.cost.flops_dense

    @property
    def flops_sparse(self) -> int:
        return self.cost.flops_sparse


def train(
    architecture: Architecture,
    values: Mapping[str, NDArray[np.float32]],
    masks: Mapping[str, Mask],
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    *,
    start_step: int = 0,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train masked values from `start_step` to the recipe's last step.

    Selection looks at the validation data only; the test data are read once, at the end, with the weights of
    the early stop, of the last step and of the start.

    Args:
        values: full tensors by parameter (and running statistics, where there are any).
        masks: by parameter; those without one are kept whole.
        order_seed: of the data's order, and of dropout.
        progress: called with {"kind": "point", "done", "total", "message", "step", "train_loss",
            "validation_loss", "validation_accuracy"}.
        should_stop: asked before every update.

    Raises:
        Cancelled: `should_stop` said so.
    """
    started = time.perf_counter()
    with deterministic(order_seed & _MASK_64):
        run = _Run(architecture, values, masks, data, recipe, order_seed, start_step)
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
        weights=read_values(run.network) if keep_weights else None,
    )


def advance(
    architecture: Architecture,
    values: Mapping[str, NDArray[np.float32]],
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    steps: int,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Values, bool]:
    """Dense values after the recipe's first `steps` updates (theta_k), running statistics included, and
    whether every loss was finite. Neither validation nor test data are read.

    Reference: rewinding, Frankle et al. 2020 (arXiv 1912.05671).
    """
    with deterministic(order_seed & _MASK_64):
        run = _Run(architecture, values, {}, data, recipe, order_seed, 0)
        run.update_until(steps, should_stop)
    return read_values(run.network), not run.failed


@dataclass
class _Best:
    step: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


class _Run:
    """A training on its way: network, optimiser, place in the order of batches, and the best point so far."""

    def __init__(
        self,
        architecture: Architecture,
        values: Mapping[str, NDArray[np.float32]],
        masks: Mapping[str, Mask],
        data: TaskData,
        recipe: Recipe,
        order_seed: int,
        start_step: int,
    ) -> None:
        self.network, self.recipe, self.data = build_module(architecture), recipe, data
        load_values(self.network, values)
        tensors = tensors_of(self.network)
        self.weights = [tensors[name] for name in masks]
        self.masks = [torch.from_numpy(mask.astype(np.float32)) for mask in masks.values()]
        self._apply_masks()
        self.optimizer = make_optimizer(recipe, self.network.parameters())
        self.x, self.y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
        self.batches = batches(order_seed, len(self.y), recipe.batch_size, start_step)
        self.step, self.failed, self.loss_sum, self.loss_count = start_step, False, 0.0, 0
        self.best, self.curve = _Best(), list[Point]()
        self.start = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def go(self, steps: int, progress: Progress | None, should_stop: Callable[[], bool] | None) -> None:
        """Train to the end, with a look at the validation data every `evaluate_every` updates."""
        first, every, told = self.step, self.recipe.evaluate_every, 0.0
        self._evaluate()
        while self.step < steps and not self.failed:
            self.update_until(min(steps, (self.step // every + 1) * every), should_stop)
            if not self.failed:
                self._evaluate()
            now = time.monotonic()
            if progress and self.curve and (now - told > _SECONDS_BETWEEN_EVENTS or self.step == steps):
                told = now
                progress(_event(self.curve[-1], first, steps))

    def update_until(self, step: int, should_stop: Callable[[], bool] | None) -> None:
        """Updates up to number `step`, or to the first loss that is not finite."""
        self.network.train()
        while self.step < step:
            if should_stop and should_stop():
                raise Cancelled(f"cancelled at training step {self.step} of {self.recipe.steps}")
            loss = self._update(next(self.batches))
            if not math.isfinite(loss):
                self.failed = True
                return
            self.step += 1
            self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1

    def read_test(self) -> tuple[float, float, float]:
        """Test accuracy untrained, at the early stop and at the end; chance where the training failed."""
        chance = 1 / self.network.architecture.output_shape[-1]
        final = chance if self.failed else self._test_accuracy(None)
        early = chance if self.failed else self._test_accuracy(self.best.weights)
        untrained = self._test_accuracy(self.start)
        return untrained, early, final

    def _update(self, index: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        logits = self.network(self.x.index_select(0, index))
        loss = F.cross_entropy(logits, self.y.index_select(0, index))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._apply_masks()
        return loss.item()

    @torch.no_grad()
    def _apply_masks(self) -> None:
        if self.weights:
            multiply(self.weights, self.masks)

    def _evaluate(self) -> None:
        loss, accuracy = evaluate(self.network, self.data.validation_x, self.data.validation_y)
        if not math.isfinite(loss):
            self.failed = True
            return
        for weight, mask in zip(self.weights, self.masks, strict=True):
            assert not weight.detach()[mask == 0].any(), "a pruned weight is not 0"
        train_loss = self.loss_sum / self.loss_count if self.loss_count else None
        self.curve.append((self.step, train_loss, loss, accuracy))
        self.loss_sum, self.loss_count = 0.0, 0
        if loss < self.best.loss:
            weights = {name: tensor.detach().clone() for name, tensor in tensors_of(self.network).items()}
            self.best = _Best(self.step, loss, weights)

    def _test_accuracy(self, weights: dict[str, Tensor] | None) -> float:
        """Of these weights, or of the network as it is; the network's own weights come back afterwards."""
        now = {name: tensor.detach().clone() for name, tensor in tensors_of(self.network).items()}
        _copy(weights or now, self.network)
        accuracy = evaluate(self.network, self.data.test_x, self.data.test_y)[1]
        _copy(now, self.network)
        return accuracy


def _copy(weights: Mapping[str, Tensor], network: Network) -> None:
    tensors = tensors_of(network)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensors[name].copy_(tensor)


def _event(point: Point, first: int, steps: int) -> dict[str, Any]:
    step, train_loss, loss, accuracy = point
    return {
        "kind": "point",
        "done": step - first,
        "total": steps - first,
        "message": f"step {step}: validation loss {loss:.4f}, accuracy {accuracy:.4f}",
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
    }
