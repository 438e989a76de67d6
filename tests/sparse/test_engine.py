"""The sparse engine does what the torch loop does, step by step, and fails as it does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from nirvana.errors import Cancelled, Invalid, InvalidRecipe, Unavailable
from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from nirvana.training.recipe import Recipe
from nirvana.training.spec import TrainResult, Values
from tests.factories import make_masks
from tests.lab.small import SMALL, digits, few, network, train_dense, train_sparse, values_of

ADAM = {"optimizer": "adam", "learning_rate": 0.003, "momentum": 0.0, "weight_decay": 0.0}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0, "weight_decay": 0.0},
    "sgd with momentum": {"momentum": 0.9, "weight_decay": 0.0},
    "sgd with Nesterov's momentum and decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "sgd with decay": {"momentum": 0.0, "weight_decay": 0.01},
    "adam": ADAM,
    "adam with decay and other constants": {
        **ADAM,
        "weight_decay": 0.01,
        "beta1": 0.8,
        "beta2": 0.95,
        "epsilon": 1e-4,
    },
    "adamw": {**ADAM, "optimizer": "adamw", "weight_decay": 0.1},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": {"kind": "cosine"}},
    "steps": {"schedule": {"kind": "step", "at": [5, 12], "factor": 0.1}},
    "warm-up": {"warmup_steps": 7},
}
Masks = dict[str, Mask]


def recipe(**fields: Any) -> Recipe:
    return dataclasses.replace(SMALL, steps=20, evaluate_every=5, **fields)


def chain(*ops: dict[str, Any], input: tuple[int, ...] = (1, 8, 8)) -> Architecture:
    return Architecture.make("chain", input, [{"name": f"n{i}", **op} for i, op in enumerate(ops)])


def linear(fan_in: int, fan_out: int, **fields: Any) -> dict[str, Any]:
    return {"op": "linear", "in": fan_in, "out": fan_out, **fields}


def check_equal(
    architecture: Architecture,
    masks: Masks,
    plan: Recipe,
    *,
    data: TaskData | None = None,
    values: Values | None = None,
    start_step: int = 0,
) -> TrainResult:
    """Train with both engines and compare curves, accuracies and weights."""
    data = data or digits()
    values = values or values_of(architecture)
    arguments: Any = (architecture, values, masks, data, plan, 3)
    found = train_sparse(*arguments, start_step=start_step, keep_weights=True)
    expected = train_dense(*arguments, start_step=start_step, keep_weights=True)
    assert len(found.curve) == len(expected.curve)
    assert found.curve[0][1] is expected.curve[0][1] is None
    for one, other in zip(found.curve, expected.curve, strict=True):
        assert (one[0], one[3]) == (other[0], other[3])
        assert (one[1] or 0, one[2]) == pytest.approx((other[1] or 0, other[2]), rel=2e-5)
    assert found.early_stop_step == expected.early_stop_step
    for name in ("early_stop_test_accuracy", "final_test_accuracy", "untrained_test_accuracy"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.weights is not None
    assert expected.weights is not None
    assert list(found.weights) == list(expected.weights)
    for name, weight in expected.weights.items():
        assert found.weights[name].dtype == np.float32
        np.testing.assert_allclose(found.weights[name], weight, rtol=1e-4, atol=2e-6, err_msg=name)
    return found


@pytest.mark.parametrize("fields", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimiser_takes_the_steps_that_torch_takes(fields: dict[str, Any]) -> None:
    architecture = network("mlp-32")
    check_equal(architecture, make_masks(architecture, 0.3), recipe(**fields))


@pytest.mark.parametrize("fields", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_is_followed(fields: dict[str, Any]) -> None:
    architecture = network("mlp-32")
    check_equal(architecture, make_masks(architecture, 0.3), recipe(**fields))


@pytest.mark.parametrize("density", [1.0, 0.9, 0.61, 0.3, 0.05, 0.0])
@pytest.mark.parametrize("fields", [{}, ADAM], ids=["sgd", "adam"])
def test_any_density_is_trained_alike(density: float, fields: dict[str, Any]) -> None:
    """Density 0 stands for one kept weight a layer."""
    architecture = network("lenet-300-100")
    check_equal(architecture, make_masks(architecture, density), recipe(**fields))


@pytest.mark.parametrize("batch_size", [1, 15, 33, 60, 64, 65, 150])
def test_any_batch_size_is_trained_alike(batch_size: int) -> None:
    """Less than a tile, one, several, and several with a rest."""
    architecture = network("mlp-32")
    plan = recipe(batch_size=batch_size, momentum=0.0, learning_rate=0.05)
    check_equal(architecture, make_masks(architecture, 0.3), plan)


def test_a_batch_larger_than_the_data_meets_examples_again() -> None:
    architecture = network("mlp-32")
    check_equal(architecture, make_masks(architecture, 0.3), recipe(batch_size=100), data=few(digits()))


def test_empty_rows_and_columns_are_trained_alike() -> None:
    """Units that read nothing, units that nothing reads, and a first and a middle layer without weights."""
    architecture = network("mlp-32-16")
    masks = make_masks(architecture, 0.5)
    masks["fc1.weight"][3:9] = False
    masks["fc1.weight"][:, 10:40] = False
    masks["fc2.weight"][:, 20:] = False
    masks["fc3.weight"][4] = False
    check_equal(architecture, masks, recipe(**ADAM))
    for name in ("fc1.weight", "fc2.weight"):
        check_equal(architecture, masks | {name: np.zeros_like(masks[name])}, recipe())


def test_layers_without_a_mask_are_kept_whole() -> None:
    architecture = network("mlp-32-16")
    masks = make_masks(architecture, 0.1)
    del masks["fc2.weight"]
    check_equal(architecture, masks, recipe())


def test_tanh_and_no_activation_and_no_bias_are_trained_alike() -> None:
    architecture = chain(
        {"op": "flatten"},
        linear(64, 24, bias=False),
        {"op": "tanh"},
        linear(24, 20),
        linear(20, 16, bias=False),
        {"op": "relu"},
        linear(16, 10),
        {"op": "tanh"},
    )
    found = check_equal(architecture, make_masks(architecture, 0.4), recipe(**ADAM))
    assert found.weights is not None
    assert list(found.weights) == list(architecture.parameters)


def test_one_layer_and_few_features_are_trained_alike() -> None:
    """Five features are fewer than a vector holds; 21 are no multiple of one."""
    data = digits()
    for features in (5, 21):
        arrays = [a[:, 0].reshape(len(a), -1)[:, 20 : 20 + features] if a.ndim > 1 else a for a in data]
        architecture = chain(linear(features, 10), input=(features,))
        cut = TaskData(*(np.ascontiguousarray(array) for array in arrays))  # type: ignore[arg-type]
        check_equal(architecture, make_masks(architecture, 0.5), recipe(), data=cut)


def test_a_later_start_goes_on_in_the_order_and_the_schedule() -> None:
    architecture = network("mlp-32")
    plan = recipe(schedule={"kind": "cosine"})
    found = check_equal(architecture, make_masks(architecture), plan, start_step=7)
    assert [step for step, *_ in found.curve] == [7, 10, 15, 20]
    assert found.cost.images == 13 * plan.batch_size


def test_subnormals_are_flushed_and_the_callers_are_not() -> None:
    """Weights of 1e-39 become 0 at the first update, as in the torch loop; without the flush they stay."""
    architecture = network()
    tiny = {name: np.full_like(value, 1e-39) for name, value in values_of(architecture).items()}
    plan = recipe(learning_rate=1e-30, momentum=0.0, weight_decay=0.0)
    found = train_sparse(architecture, tiny, {}, digits(), plan, 0, keep_weights=True)
    assert found.weights is not None
    assert not found.weights["fc1.weight"].any()
    assert np.float64(1e-308) * np.float64(0.5) > 0, "subnormals are still flushed"


def test_one_seed_gives_the_same_bits_and_another_does_not() -> None:
    architecture = network("mlp-32")
    masks = make_masks(architecture)
    runs = [
        train_sparse(
            architecture, values_of(architecture), masks, digits(), recipe(), seed, keep_weights=True
        )
        for seed in (1, 1, 2)
    ]
    bits = [[run.weights[name].tobytes() for name in run.weights] for run in runs if run.weights]
    assert runs[0].curve == runs[1].curve
    assert bits[0] == bits[1] != bits[2]


def test_asking_whether_to_stop_changes_no_bit() -> None:
    architecture = network("mlp-32")
    arguments: Any = (architecture, values_of(architecture), {}, digits(), recipe(), 1)
    whole = train_sparse(*arguments)
    answers = iter([False] * 20)
    assert train_sparse(*arguments, should_stop=lambda: next(answers)).curve == whole.curve
    assert list(answers) == [], "it is asked before every update"


def test_a_ticket_of_digits_learns_as_well_as_with_torch() -> None:
    architecture = network("lenet-300-100")
    plan = Recipe("adam", 1.2e-3, 60, 250, evaluate_every=25)
    arguments: Any = (architecture, values_of(architecture), make_masks(architecture, 0.1), digits(), plan, 0)
    found, expected = train_sparse(*arguments), train_dense(*arguments)
    assert found.early_stop_test_accuracy > 0.9
    assert found.early_stop_test_accuracy == pytest.approx(expected.early_stop_test_accuracy, abs=0.01)
    assert found.engine == "sparse"
    assert found.weights is None
    assert (found.flops_dense, found.flops_sparse) == (expected.flops_dense, expected.flops_sparse)
    assert found.seconds > 0
    assert found.cost.peak_memory_bytes > 10_000_000


@pytest.mark.parametrize("density", [0.5, 0.8])
def test_the_test_data_decide_nothing_and_pruned_weights_are_0(density: float) -> None:
    architecture, data = network("mlp-32"), digits()
    masks, values = make_masks(architecture, density), values_of(architecture)
    odd = data._replace(test_y=np.roll(data.test_y, 1))
    one = train_sparse(architecture, values, masks, data, recipe(), 0, keep_weights=True)
    other = train_sparse(architecture, values, masks, odd, recipe(), 0)
    assert one.curve == other.curve
    assert one.early_stop_test_accuracy != other.early_stop_test_accuracy
    assert one.weights is not None
    for name, mask in masks.items():
        assert not one.weights[name][~mask].any()
        assert (one.weights[name][mask] != values[name][mask]).all()


@pytest.mark.parametrize("fields", [{"learning_rate": 1e30}, {"learning_rate": 1e6, "momentum": 0.9}])
def test_a_loss_that_is_not_finite_is_shown_and_counts_as_chance(fields: dict[str, Any]) -> None:
    architecture = network("mlp-32-16")
    plan = recipe(**fields)
    found = train_sparse(architecture, values_of(architecture), {}, digits(), plan, 0, keep_weights=True)
    expected = train_dense(architecture, values_of(architecture), {}, digits(), plan, 0)
    assert (found.failed, found.failed_step) == (expected.failed, expected.failed_step)
    assert found.failed
    assert found.early_stop_test_accuracy == found.final_test_accuracy == 0.1
    assert found.early_stop_step == 20
    assert found.early_stop_validation_loss is None
    assert found.untrained_test_accuracy == expected.untrained_test_accuracy
    assert found.cost.images == expected.cost.images


def test_a_recipe_of_whole_numbers_runs_the_code_that_is_there() -> None:
    """JSON knows no difference between 1 and 1.0; numba compiles for integers anew."""
    from nirvana.sparse.kernels import run_batches

    architecture, compiled = network("mlp-32"), run_batches
    values: Any = values_of(architecture)
    plain: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.5}
    train_sparse(architecture, values, {}, digits(), recipe(**plain), 0)
    before = list(compiled.signatures)  # type: ignore[attr-defined]
    whole: dict[str, Any] = {"momentum": 0, "weight_decay": 0, "learning_rate": 1}
    train_sparse(architecture, values, {}, digits(), recipe(**whole), 0)
    assert compiled.signatures == before  # type: ignore[attr-defined]


def test_values_of_pruned_weights_are_never_read() -> None:
    architecture = network("mlp-32")
    masks, values = make_masks(architecture, 0.8), values_of(architecture)
    odd = {name: value.copy() for name, value in values.items()}
    odd["fc1.weight"][~masks["fc1.weight"]] = np.nan
    one, other = (train_sparse(architecture, each, masks, digits(), recipe(), 0) for each in (values, odd))
    assert one.curve == other.curve


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_fail_before_the_first_update(value: float) -> None:
    architecture = network()
    values = values_of(architecture)
    values["fc2.bias"][2] = value
    found = train_sparse(architecture, values, {}, digits(), recipe(), 0)
    assert found.failed
    assert found.failed_step == 0
    assert found.curve == []


def test_cancelling_stops_before_the_next_update() -> None:
    architecture, asked = network(), iter(range(100))
    with pytest.raises(Cancelled, match="step 3 of 20"):
        train_sparse(
            architecture,
            values_of(architecture),
            {},
            digits(),
            recipe(),
            0,
            should_stop=lambda: next(asked) >= 3,
        )


def test_progress_ends_with_the_last_point() -> None:
    architecture, events = network(), list[dict[str, Any]]()
    train_sparse(architecture, values_of(architecture), {}, digits(), recipe(), 0, progress=events.append)
    assert events[-1]["kind"] == "point"
    assert (events[-1]["done"], events[-1]["total"], events[-1]["step"]) == (20, 20, 20)


def test_a_training_without_a_step_is_refused() -> None:
    architecture = network()
    with pytest.raises(InvalidRecipe, match="starts at step 20"):
        train_sparse(architecture, values_of(architecture), {}, digits(), recipe(), 0, start_step=20)


def test_what_cannot_be_trained_is_refused_by_name() -> None:
    architecture = chain({"op": "flatten"}, linear(64, 10), {"op": "gelu"})
    with pytest.raises(Unavailable, match=r"sparse engine: gelu \(n2\)"):
        train_sparse(architecture, values_of(architecture), {}, digits(), recipe(), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_y": np.full(1000, 10)}, "train has labels 10 to 10, expected 0 to 9"),
        ({"test_y": np.full(200, -1)}, "test has labels -1 to -1"),
        ({"validation_x": np.zeros((297, 63), np.float32)}, "expected 64 features"),
        ({"train_y": np.zeros(999, np.int64)}, "train has x"),
    ],
)
def test_data_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    architecture = network()
    with pytest.raises(Invalid, match=message):
        train_sparse(architecture, values_of(architecture), {}, digits()._replace(**fields), recipe(), 0)


def test_arrays_that_nobody_may_write_to_are_read() -> None:
    architecture, data = network(), digits()
    arrays = [array.copy() for array in data]
    for array in arrays:
        array.flags.writeable = False
    locked = TaskData(*arrays)  # type: ignore[arg-type]
    arguments: Any = (recipe(), 0)
    found = train_sparse(architecture, values_of(architecture), {}, locked, *arguments)
    assert found.curve == train_sparse(architecture, values_of(architecture), {}, data, *arguments).curve
