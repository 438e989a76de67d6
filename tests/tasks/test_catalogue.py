"""What the tasks say of themselves, and their default recipes."""

from __future__ import annotations

import pytest

from nirvana import tasks
from nirvana.errors import NotFound
from nirvana.recipe import Recipe


def test_an_unknown_task_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFound, match="'mnits' is unknown, expected one of digits, mnist"):
        tasks.get("mnits")


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_states_its_margin_with_a_reason_and_its_split(name: str) -> None:
    task = tasks.get(name)
    assert 0 < task.margin <= 0.01
    assert task.margin_reason
    assert "test" in task.split
    assert len(task.class_names) == task.classes
    assert set(task.sizes) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", tasks.names())
@pytest.mark.parametrize("architecture", ["mlp-32", "lenet-300-100", "lenet-5", "conv-2", "resnet-20", "own"])
def test_every_default_recipe_is_a_valid_recipe(name: str, architecture: str) -> None:
    recipe = tasks.get(name).default_recipe(architecture)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_lenet_on_mnist_is_trained_as_in_the_calibration() -> None:
    recipe = tasks.get("mnist").default_recipe("lenet-300-100")
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch_size, recipe.steps) == (
        "adam",
        1.2e-3,
        60,
        10_000,
    )
    assert (recipe.evaluate_every, recipe.initial_law) == (100, "glorot_normal")
    assert (recipe.pruning.scope, recipe.pruning.rate, recipe.pruning.output_rate) == ("layerwise", 0.2, 0.1)


def test_convolutions_of_conv_nets_are_cut_more_slowly_than_their_linear_layers() -> None:
    rates = tasks.get("mnist").default_recipe("conv-6").pruning.layer_rates
    assert len(rates) == 6
    assert set(rates.values()) == {0.15}
    assert set(tasks.get("mnist").default_recipe("conv-2").pruning.layer_rates.values()) == {0.1}
