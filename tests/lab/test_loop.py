"""The loop's protocol, on a backend that computes nothing: what each update sees, and when which data are
read. What real backends measure is in test_train, test_replicates and tests/sparse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nirvana.errors import Cancelled, InvalidRecipe
from nirvana.format.initial import Index
from nirvana.training import loop
from nirvana.training.events import SILENT, Reporter
from nirvana.training.recipe import Recipe, learning_rate
from nirvana.training.schedule import batch_indices
from nirvana.training.spec import InitialState, TrainResult, TrainSpec, Values
from tests.lab.small import SMALL, digits, network, values_of

Floats = NDArray[np.float64]
State = list[int]  # of each replicate, the updates behind it


@dataclass
class Scripted:
    """A backend whose losses are written down beforehand.

    Attributes:
        validation: by step, each replicate's validation loss; 1 elsewhere.
        broken: by replicate, the update from which its training loss is no number.
        calls: what was asked, in order: ("update", first, count) or (split, updates of the state).
    """

    first_step: int = 0
    replicates: int = 1
    validation: Mapping[int, Sequence[float]] = field(default_factory=dict)
    broken: Mapping[int, int] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    orders: list[Index] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    engine: str = "scripted"

    def __post_init__(self) -> None:
        self.step = self.first_step

    def update(self, first: int, order_URB: Index, rates_U: Floats, reporter: Reporter) -> Floats:
        losses = list[list[float]]()
        for order_RB, rate in zip(order_URB, rates_U.tolist(), strict=True):
            reporter.check_stop("at training step {}", self.step)
            self.orders.append(order_RB)
            self.rates.append(rate)
            ends = [self.broken.get(place, math.inf) for place in range(self.replicates)]
            losses.append([math.nan if self.step >= end else float(self.step) for end in ends])
            self.step += 1
            if not np.isfinite(losses[-1]).any():
                break
        self.calls.append(("update", first, len(losses)))
        return np.array(losses)

    def evaluate(self, split: str, state: State | None = None) -> tuple[Floats, Floats]:
        updates = [self.step] * self.replicates if state is None else state
        self.calls.append((split, *updates))
        losses = self.validation.get(self.step, [1.0] * self.replicates)
        return np.array(losses, np.float64), np.array(updates) / 1000

    def snapshot(self, best: State | None, better_R: NDArray[np.bool_]) -> State:
        kept = best or [self.step] * self.replicates
        return [self.step if better else old for better, old in zip(better_R.tolist(), kept, strict=True)]

    def values(self, replicate: int = 0) -> Values:
        return {"updates": np.array([self.step], np.float32)}

    def asked(self, split: str) -> list[tuple[int, ...]]:
        """The states of which a split was read."""
        return [call[1:] for call in self.calls if call[0] == split]


def recipe(**fields: Any) -> Recipe:
    return SMALL.override({"steps": 25, "evaluate_every": 10} | fields)


def run(
    backend: Scripted, how: Recipe, reporters: Sequence[Reporter] = (), *, keep_weights: bool = False
) -> list[TrainResult]:
    architecture, first = network(), backend.first_step
    starts = [InitialState(values_of(architecture), {}, seed, first) for seed in range(backend.replicates)]
    specs = [TrainSpec(architecture, start, digits(), how) for start in starts]
    reporters = reporters or [SILENT] * backend.replicates
    return loop.train(lambda: backend, specs, reporters, keep_weights=keep_weights)


@pytest.mark.parametrize(
    ("first_step", "expected"), [(0, [0, 10, 20, 25]), (3, [3, 10, 20, 25]), (10, [10, 20, 25])]
)
def test_validation_comes_before_the_first_update_at_every_interval_and_at_the_end(
    first_step: int, expected: list[int]
) -> None:
    backend = Scripted(first_step)
    (result,) = run(backend, recipe())
    assert [step for step, *_ in result.curve] == expected
    assert backend.asked("validation") == [(step,) for step in expected]
    assert backend.calls[0] == ("validation", first_step)
    assert result.cost.images == (25 - first_step) * 32


def test_a_points_training_loss_is_the_mean_since_the_point_before() -> None:
    (result,) = run(Scripted(), recipe())
    assert [loss for _, loss, *_ in result.curve] == [None, 4.5, 14.5, 22.0]


def test_each_update_sees_the_batch_and_the_rate_of_its_number() -> None:
    backend = Scripted(first_step=7, replicates=2)
    how = recipe(steps=250, evaluate_every=240, schedule={"kind": "cosine"}, warmup_steps=20)
    run(backend, how)
    expected = [batch_indices(seed, 1000, 32, 7) for seed in (0, 1)]
    for order_RB in backend.orders:
        assert [order.tolist() for order in order_RB] == [next(batches).tolist() for batches in expected]
    assert backend.rates == [learning_rate(how, step) for step in range(7, 250)]
    updates = [(first, count) for first, count in backend.asked("update")]
    assert updates == [(7, 100), (107, 100), (207, 33), (240, 10)], "at most a hundred at once"


def test_the_early_stop_is_the_first_least_validation_loss() -> None:
    backend = Scripted(validation={0: [0.9], 10: [0.5], 20: [0.5], 25: [0.7]})
    (result,) = run(backend, recipe())
    assert (result.early_stop_step, result.early_stop_validation_loss) == (10, 0.5)
    assert result.early_stop_test_accuracy == 0.010, "of the weights at that step"
    assert result.final_test_accuracy == 0.025
    assert result.untrained_test_accuracy == 0
    assert result.early_stop_validation_accuracy == 0.010


def test_each_replicate_has_its_own_early_stop() -> None:
    losses = {0: [0.3, 0.9], 10: [0.5, 0.4], 20: [0.6, 0.5], 25: [0.7, 0.1]}
    one, other = run(Scripted(replicates=2, validation=losses), recipe())
    assert (one.early_stop_step, other.early_stop_step) == (0, 25)
    assert (one.early_stop_test_accuracy, other.early_stop_test_accuracy) == (0.0, 0.025)


def test_the_test_data_are_read_once_after_everything_else() -> None:
    backend = Scripted(validation={10: [0.5]})
    run(backend, recipe())
    assert backend.calls[-3:] == [("test", 0), ("test", 25), ("test", 10)]
    assert len(backend.asked("test")) == 3
    falling = Scripted(validation={25: [0.5]})
    run(falling, recipe())
    assert falling.asked("test") == [(0,), (25,)], "the end is the early stop: no second time"


def test_a_replicate_that_fails_counts_as_chance_and_the_others_go_on() -> None:
    backend = Scripted(replicates=2, broken={1: 14})
    good, failed = run(backend, recipe())
    assert not good.failed
    assert [step for step, *_ in good.curve] == [0, 10, 20, 25]
    assert (failed.failed, failed.failed_step) == (True, 14)
    assert [step for step, *_ in failed.curve] == [0, 10]
    assert failed.early_stop_test_accuracy == failed.final_test_accuracy == 0.1, "one of ten classes"
    assert failed.untrained_test_accuracy == 0
    assert (failed.early_stop_step, failed.early_stop_validation_loss) == (25, None)
    assert (good.cost.images, failed.cost.images) == (25 * 32, 14 * 32)


def test_where_all_have_failed_the_training_ends() -> None:
    backend = Scripted(replicates=2, broken={0: 12, 1: 4})
    results = run(backend, recipe(steps=1000, evaluate_every=500))
    assert [result.failed_step for result in results] == [12, 4]
    assert backend.step == 13, "the update that failed was the last one"
    assert backend.asked("validation") == [(0, 0)]
    assert backend.asked("test") == [(0, 0)], "untrained; nothing that was trained is measured"


def test_a_validation_loss_that_is_no_number_is_a_failure_too() -> None:
    (result,) = run(Scripted(validation={20: [math.inf]}), recipe())
    assert (result.failed, result.failed_step) == (True, 20)
    assert [step for step, *_ in result.curve] == [0, 10]


def test_points_go_to_each_replicates_own_reporter_and_the_last_one_always_does() -> None:
    events = [list[dict[str, Any]](), list[dict[str, Any]]()]
    run(Scripted(replicates=2), recipe(), [Reporter(heard.append) for heard in events])
    for heard in events:
        assert (heard[-1]["step"], heard[-1]["done"], heard[-1]["total"]) == (25, 25, 25)


def test_the_first_reporters_wish_to_stop_is_asked_before_every_update() -> None:
    backend, asked = Scripted(), iter(range(100))
    with pytest.raises(Cancelled, match="step 14"):
        run(backend, recipe(), [Reporter(None, lambda: next(asked) >= 14)])
    assert backend.step == 14
    assert not backend.asked("test")


def test_weights_are_kept_where_they_are_asked_for() -> None:
    assert run(Scripted(), recipe())[0].weights is None
    (result,) = run(Scripted(), recipe(), keep_weights=True)
    assert result.weights is not None
    assert result.weights["updates"].tolist() == [25]
    assert result.engine == "scripted"


def test_a_training_without_a_step_makes_no_backend() -> None:
    with pytest.raises(InvalidRecipe, match="starts at step 25"):
        run(Scripted(first_step=25), recipe())
