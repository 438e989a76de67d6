"""One training on the kept weights alone; what it reads, when it stops and what it tells are those of
`nirvana.lab.train`, and so are its numbers but for rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.cost import Cost, peak_memory_bytes, training_flops
from nirvana.errors import Cancelled, Invalid, Unavailable
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.sparse.choice import find_unsupported
from nirvana.sparse.network import (
    WIDTH,
    Floats,
    Integers,
    Layer,
    Rule,
    State,
    build_graph,
    choose_lanes,
    find_windows,
    make_space,
    pack,
    read_layers,
    unpack,
)
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

MOST_AT_ONCE = 100  # updates in one call of compiled code, which Ctrl-C cannot interrupt
Rates = NDArray[np.float64]


def train(
    architecture: Architecture,
    values: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    data: TaskData,
    recipe: Recipe,
    order_seed: int,
    *,
    start_step: int = 0,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    keep_weights: bool = False,
) -> TrainResult:
    """Train masked values from `start_step` to the recipe's last step, on one thread.

    Arguments and result are those of `nirvana.lab.train.train`.

    Raises:
        InvalidRecipe: no step would be left.
        Unavailable: the sparse engine cannot do this; names the op, the field or the missing package.
        Cancelled: `should_stop` said so.
    """
    check_start(recipe, start_step)
    if unsupported := find_unsupported(architecture, recipe, masks):
        raise Unavailable(f"the sparse engine: {unsupported}")
    started = time.perf_counter()
    run = Run(architecture, values, masks, data, recipe, order_seed, start_step)
    run.go(progress, should_stop)
    untrained, early, final = run.read_test()
    images = (run.step - start_step) * recipe.batch_size
    flops = training_flops(architecture, masks, images)
    return TrainResult(
        early_stop_step=recipe.steps if run.failed else run.best.step,
        early_stop_test_accuracy=early,
        final_test_accuracy=final,
        untrained_test_accuracy=untrained,
        early_stop_validation_loss=None if run.failed else run.best.loss,
        curve=run.curve,
        cost=Cost(time.perf_counter() - started, images, *flops, peak_memory_bytes()),
        engine="sparse",
        failed=run.failed,
        failed_step=run.step if run.failed else None,
        weights=run.values() if keep_weights else None,
    )


@dataclass
class _Best:
    step: int
    loss: float
    parameters: Floats


class Run:
    """A training on its way. Arguments as in `train`.

    Attributes:
        step: updates made, counted from initialisation.
        failed: a loss was not finite.
    """

    def __init__(
        self,
        architecture: Architecture,
        values: Mapping[str, Floats],
        masks: Mapping[str, Mask],
        data: TaskData,
        recipe: Recipe,
        order_seed: int,
        start_step: int = 0,
    ) -> None:
        self.recipe, self.first_step = recipe, start_step
        self.layers = read_layers(architecture, masks)
        self.splits = read_splits(data, self.layers)
        self.windows = find_windows(self.layers[0])
        self.graph = build_graph(self.layers, self.windows)
        lanes = choose_lanes(recipe.batch_size)
        self.lanes = (0,) * (lanes // WIDTH)
        self.space = make_space(len(self.windows) * WIDTH, self.layers, lanes)
        parameters = pack(self.layers, values)
        self.state = State(parameters, *(np.zeros_like(parameters) for _ in range(3)))
        self.rule = make_rule(recipe)
        self.batches = batch_indices(order_seed, len(data.train_y), recipe.batch_size, start_step)
        self.step, self.failed, self.losses = start_step, False, list[float]()
        self.start, self.curve = parameters.copy(), list[Point]()
        self.best = _Best(start_step, math.inf, self.start)

    def values(self) -> Values:
        """Whole tensors as they are now, 0 where pruned."""
        return unpack(self.layers, self.state.parameters)

    def go(self, progress: Progress | None, should_stop: ShouldStop | None) -> None:
        """Train to the last step, with a look at the validation data every `evaluate_every` updates."""
        steps, every, told = self.recipe.steps, self.recipe.evaluate_every, 0.0
        self._evaluate()
        while self.step < steps and not self.failed:
            self.update_until(min(steps, (self.step // every + 1) * every), should_stop)
            if not self.failed:
                self._evaluate()
            now = time.monotonic()
            if progress and self.curve and (now - told > SECONDS_BETWEEN_EVENTS or self.step == steps):
                told = now
                progress(point_event(self.curve[-1], self.first_step, steps))

    def update_until(self, step: int, should_stop: ShouldStop | None = None) -> None:
        """Updates up to number `step`, or to the first loss that is not finite; one at a time where somebody
        may stop it."""
        while self.step < step and not self.failed:
            numbers = range(self.step, min(self.step + MOST_AT_ONCE, step))
            order = np.stack([next(self.batches) for _ in numbers])
            rates = np.array([learning_rate(self.recipe, number) for number in numbers])
            if should_stop:
                self._update_one_by_one(order, rates, should_stop)
            else:
                self._update(order, rates)

    def read_test(self) -> tuple[float, float, float]:
        """Test accuracy untrained, at the early stop and at the end; chance where the training failed."""
        chance = 1 / len(self.layers[-1].kept)
        final = chance if self.failed else self._measure("test", self.state.parameters)[1]
        early = chance if self.failed else self._measure("test", self.best.parameters)[1]
        return self._measure("test", self.start)[1], early, final

    def _update_one_by_one(self, order: Integers, rates: Rates, should_stop: ShouldStop) -> None:
        for i in range(len(order)):
            if should_stop():
                raise Cancelled(f"cancelled at training step {self.step} of {self.recipe.steps}")
            self._update(order[i : i + 1], rates[i : i + 1])
            if self.failed:
                return

    def _update(self, order: Integers, rates: Rates) -> None:
        """One update for each row of `order`, shape (updates, batch)."""
        from nirvana.sparse.kernels import update

        losses = np.zeros(len(order))
        made = update(
            *self.splits["train"],
            order,
            rates,
            self.step - self.first_step,
            self.windows,
            self.graph,
            self.state,
            self.space,
            self.rule,
            losses,
            self.lanes,
        )
        self.step += made
        self.failed = made < len(order)
        self.losses.extend(losses[:made].tolist())

    def _evaluate(self) -> None:
        loss, accuracy = self._measure("validation", self.state.parameters)
        if not math.isfinite(loss):
            self.failed = True
            return
        train_loss = math.fsum(self.losses) / len(self.losses) if self.losses else None
        self.curve.append((self.step, train_loss, loss, accuracy))
        self.losses.clear()
        if loss < self.best.loss:
            self.best = _Best(self.step, loss, self.state.parameters.copy())

    def _measure(self, split: str, parameters: Floats) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on a split."""
        from nirvana.sparse.kernels import measure

        x, y = self.splits[split]
        loss, right = measure(x, y, self.windows, self.graph, parameters, self.space, self.lanes)
        return loss / len(y), right / len(y)


def read_splits(data: TaskData, layers: list[Layer]) -> dict[str, tuple[Floats, Integers]]:
    """Examples as rows of features, and labels, of each split: checked, for compiled code checks nothing.

    Raises:
        Invalid: another number of features than the first layer reads, no label for each example, or a
            label that is no class.
    """
    features, classes = layers[0].kept.shape[1], len(layers[-1].kept)
    splits = {
        "train": (data.train_x, data.train_y),
        "validation": (data.validation_x, data.validation_y),
        "test": (data.test_x, data.test_y),
    }
    for name, (x, y) in splits.items():
        if x.shape != (len(y), *x.shape[1:]) or math.prod(x.shape[1:]) != features or not len(y):
            raise Invalid(f"{name} has x {x.shape} and y {y.shape}, expected {features} features each")
        if y.min() < 0 or y.max() >= classes:
            raise Invalid(f"{name} has labels {y.min()} to {y.max()}, expected 0 to {classes - 1}")
    return {name: (as_rows(x), np.require(y, np.int64, ["C", "A", "W"])) for name, (x, y) in splits.items()}


def as_rows(x: Floats) -> Floats:
    """Examples as rows of at least 16 features, those that are missing 0; x itself where that is possible."""
    rows = np.require(x.reshape(len(x), -1), np.float32, ["C", "A", "W"])
    missing = WIDTH - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing > 0 else rows


def make_rule(recipe: Recipe) -> Rule:
    """The recipe's optimiser."""
    is_adam, decay = recipe.optimizer != "sgd", float(recipe.weight_decay)
    is_decoupled = recipe.optimizer == "adamw"
    return Rule(
        is_adam,
        recipe.nesterov,
        float(recipe.beta1 if is_adam else recipe.momentum),
        float(recipe.beta2),
        float(recipe.epsilon),
        0.0 if is_decoupled else decay,
        decay if is_decoupled else 0.0,
    )
