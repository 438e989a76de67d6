"""Stacked replicates in torch: the loop's backend, on a CPU or in CUDA graphs.

Shape suffixes: U updates, R replicates, B batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nirvana.errors import Invalid, Unavailable
from nirvana.format.initial import Index
from nirvana.torch import dense
from nirvana.torch.dense import augment, make_optimizer
from nirvana.torch.evaluate import deterministic
from nirvana.torch.masked import multiply
from nirvana.torch.stacked.network import Stacked, StackedNetwork, find_unstackable, stack_masks
from nirvana.training import loop
from nirvana.training.events import SILENT, Reporter
from nirvana.training.loop import Flags, Floats
from nirvana.training.schedule import check_start
from nirvana.training.spec import TrainResult, TrainSpec, Values, as_floats

DEVICES = ("cpu", "cuda")
_EVALUATED_AT_ONCE = 5000  # examples times replicates
_WARM_UPDATES = 3  # before a capture, as torch asks
Gradients = Callable[[Tensor, int], Tensor]


def train_replicates(
    specs: Sequence[TrainSpec],
    reporter: Reporter = SILENT,
    *,
    device: str = "cpu",
    keep_weights: bool = False,
) -> list[TrainResult]:
    """Train each spec as the dense engine does, all in one batch: engine `stacked`.

    What does not stack (`find_unstackable`, starts at different steps) is trained one by one on the CPU,
    engine `dense`. Each result's seconds are its share of the whole. The weights of a replicate that failed
    are those at the next look at the losses, up to 100 updates later.

    Args:
        specs: architecture, data, recipe and teacher are the same in all.
        device: `cpu`, or `cuda`: data and parameters there, an update's forward and backward in a CUDA graph
            where torch can capture it.
        reporter: hears `nirvana.training.events.point_event`s with `replicate`, the spec's place.

    Raises:
        Invalid: no specs, an unknown device, distillation without a teacher.
        Unavailable: no CUDA device here.
        InvalidRecipe, Cancelled: as `nirvana.training.loop.train`.
    """
    _check(specs, device)
    reporters = [reporter.within(replicate=place) for place in range(len(specs))]
    if find_unstackable(specs[0].architecture) or len({spec.initial.start_step for spec in specs}) > 1:
        pairs = zip(specs, reporters, strict=True)
        return [dense.train(spec, one, keep_weights=keep_weights) for spec, one in pairs]
    with deterministic(specs[0].initial.order_seed & dense.MASK_64):
        if device == "cuda":  # some of its ops (pooling's gradients) have no deterministic way: a warning
            torch.use_deterministic_algorithms(True, warn_only=True)
        where = torch.device(device)
        return loop.train(
            lambda: StackedReplicates(specs, where), specs, reporters, keep_weights=keep_weights
        )


def _check(specs: Sequence[TrainSpec], device: str) -> None:
    if not specs:
        raise Invalid("there are no replicates to train, expected at least one start")
    if device not in DEVICES:
        raise Invalid(f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    dense.check_spec(specs[0])
    for spec in specs:
        check_start(spec.recipe, spec.initial.start_step)
    if device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("device is 'cuda', but torch finds no CUDA device here")


class StackedReplicates:
    """Several trainings of one network as one: the loop's backend. Use it inside `deterministic(seed)`.

    Args:
        captures: whether to look for a CUDA graph on such a device.
    """

    engine = "stacked"

    def __init__(self, specs: Sequence[TrainSpec], device: torch.device, *, captures: bool = True) -> None:
        first, data = specs[0], as_floats(specs[0].data)
        dense.check_spec(first)
        if device.type == "cuda":  # deterministic products ask for this, before the device's first one
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.architecture, self.recipe, self.device = first.architecture, first.recipe, device
        self.order_seeds = [spec.initial.order_seed for spec in specs]
        self.network = StackedNetwork(first.architecture, [spec.initial.values for spec in specs], device)
        masks = stack_masks([spec.initial.masks for spec in specs], self.network)
        self.weights, self.masks = [self.network.tensors[name] for name in masks], list(masks.values())
        self._apply_masks()
        self.optimizer = make_optimizer(self.recipe, self.network.parameters)
        self.splits = {
            "train": (self._put(data.train_x), self._put(data.train_y)),
            "validation": (self._put(data.validation_x), self._put(data.validation_y)),
            "test": (self._put(data.test_x), self._put(data.test_y)),
        }
        if first.sealed:
            self.splits["sealed"] = (self._put(first.sealed.x), self._put(first.sealed.y))
        self.teacher = None if first.teacher is None else self._put(first.teacher)
        can_capture = device.type == "cuda" and not self.recipe.augmentation  # which draws anew at each step
        self._gradients = capture(self) if can_capture and captures else self.backward

    def update(self, first: int, order_URB: Index, rates_U: Floats, reporter: Reporter) -> Floats:
        """See `nirvana.training.loop.Backend.update`; a replicate that has failed goes on with the others."""
        losses = list[Tensor]()
        index_UN = self._put(order_URB.reshape(len(order_URB), -1))
        for number, (index, rate) in enumerate(zip(index_UN, rates_U.tolist(), strict=True), first):
            reporter.check_stop("at training step {} of {}", number, self.recipe.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._gradients(index, number))
            self.optimizer.step()
            self._apply_masks()
        stacked: Floats = torch.stack(losses).double().cpu().numpy()
        return stacked

    def evaluate(self, split: str, state: Stacked | None = None) -> tuple[Floats, Floats]:
        """See `nirvana.training.loop.Backend.evaluate`."""
        if state is None:
            self._check_masks()
        x, y = self.splits[split]
        count = len(self.order_seeds)
        size = max(1, _EVALUATED_AT_ONCE // count)
        losses, right = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.int64)
        for part_x, part_y in zip(torch.split(x, size), torch.split(y, size), strict=True):
            logits = self.network.evaluate(state or self.network.tensors, part_x).flatten(0, 1)
            target = part_y.expand(count, -1).flatten()
            loss = F.cross_entropy(logits, target, reduction="none")
            losses += loss.view(count, -1).sum(1).double().cpu()
            right += (logits.argmax(1) == target).view(count, -1).sum(1).cpu()
        return (losses / len(y)).numpy(), (right / len(y)).numpy()

    @torch.no_grad()
    def snapshot(self, best: Stacked | None, better_R: Flags) -> Stacked:
        """See `nirvana.training.loop.Backend.snapshot`."""
        if best is None:
            return self.network.copies()
        better = torch.from_numpy(better_R).to(self.device)
        for name, tensor in self.network.tensors.items():
            best[name][better] = tensor[better]
        return best

    def values(self, replicate: int = 0) -> Values:
        """See `nirvana.training.loop.Backend.values`."""
        return self.network.read(replicate)

    def backward(self, index_N: Tensor, number: int) -> Tensor:
        """Return the losses, (R,), of update `number` on training examples (R * B,), with their gradients."""
        x = self.splits["train"][0].index_select(0, index_N)
        count = len(self.order_seeds)
        if self.recipe.augmentation:
            parts = zip(x.chunk(count), self.order_seeds, strict=True)
            x = torch.cat([augment(part, self.recipe.augmentation, seed, number) for part, seed in parts])
        logits = self.network.train(x.view(count, -1, *x.shape[1:]))
        losses = self._losses(logits.flatten(0, 1), index_N)
        self.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _losses(self, logits: Tensor, index: Tensor) -> Tensor:
        """As `nirvana.torch.dense.training_losses` and the L1 penalty, one for each replicate."""
        count = len(self.order_seeds)
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

    def _check_masks(self) -> None:
        """Assert that pruned weights are 0, or not finite any more, as all weights of a failed replicate."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            revived = (weight.detach() * mask != weight.detach()) & weight.detach().isfinite()
            assert not revived.any(), "a pruned weight is not 0"


def capture(backend: StackedReplicates) -> Gradients:
    """Return `backend.backward` as a CUDA graph of a static index: one launch in place of some sixty; or
    itself where torch cannot capture it.

    The optimiser is not in it: its fused kernels are a launch or two, and it keeps its plain learning rate.
    Parameters are not changed here, and running statistics are put back.
    """
    size = len(backend.order_seeds) * backend.recipe.batch_size
    static = torch.zeros(size, dtype=torch.int64, device=backend.device)
    before = backend.network.copies()
    try:
        return _record(backend, static)
    except RuntimeError:  # an op that needs the host in between
        return backend.backward
    finally:
        with torch.no_grad():
            for name in backend.architecture.buffers:
                backend.network.tensors[name].copy_(before[name])


def _record(backend: StackedReplicates, static: Tensor) -> Gradients:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPDATES):
            backend.backward(static, 0)
    torch.cuda.current_stream().wait_stream(side)
    backend.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = backend.backward(static, 0)

    def replay(index: Tensor, number: int) -> Tensor:
        static.copy_(index)
        graph.replay()
        return losses.clone()

    return replay
