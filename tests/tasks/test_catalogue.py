"""What the tasks say of themselves, and their default recipes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Invalid, InvalidRecipe, NotFound
from nirvana.networks import zoo
from nirvana.tasks.recipes import check_batch_size
from nirvana.training.recipe import Recipe
from tests.factories import RECIPE


def test_an_unknown_task_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFound, match="'mnits' is unknown, expected one of digits, mnist"):
        tasks.get("mnits")


@pytest.mark.parametrize("name", tasks.built_in_names())
def test_every_task_states_its_margin_with_a_reason_and_its_split(name: str) -> None:
    task = tasks.get(name)
    assert 0 < task.margin <= 0.01
    assert task.margin_reason
    assert "test" in task.split
    assert len(task.class_names) == task.classes
    assert set(task.sizes) == {"train", "validation", "test"}


@pytest.mark.parametrize("name", tasks.built_in_names())
@pytest.mark.parametrize("architecture", ["mlp-32", "lenet-300-100", "lenet-5", "conv-2", "resnet-20", "own"])
def test_every_default_recipe_is_a_valid_recipe(name: str, architecture: str) -> None:
    recipe = tasks.get(name).default_recipe(architecture)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_an_image_is_standardised_channel_by_channel() -> None:
    task = tasks.get("cifar-10")
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    pixels[1, 2] = 255
    x = task.normalise(pixels)
    assert x.dtype == np.float32
    expected = [-mean / sd for mean, sd in zip(*task.normalisation, strict=True)]
    assert x[0, :, 5, 7] == pytest.approx(expected, rel=1e-6)
    assert x[1, 2, 0, 0] == pytest.approx((1 - 0.4465) / 0.2616, rel=1e-6)


def test_one_mean_and_sd_for_all_pixels_gives_the_bits_it_always_gave() -> None:
    task = tasks.get("mnist")
    pixels = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    mean, sd = 0.1307, 0.3081
    expected = pixels.astype(np.float32) * np.float32(1 / (255 * sd)) - np.float32(mean / sd)
    assert np.array_equal(task.normalise(pixels)[:, 0], expected)


def test_a_large_number_that_varies_little_keeps_its_digits() -> None:
    times = 1.7e9 + np.arange(8, dtype=np.float64)[:, None]
    task = replace(tasks.get("digits"), input_shape=(1,), pixel_max=1, normalisation=(1.7e9, 2.0))
    assert task.normalise(times)[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]


@pytest.mark.parametrize("name", ["cifar-10-jpeg", "kmnist-partial"])
def test_a_copy_or_a_part_says_that_its_numbers_compare_with_no_published_ones(name: str) -> None:
    assert "ot comparable with" in tasks.get(name).description
    assert tasks.get(name).homes == ()


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


@pytest.mark.parametrize("name", tasks.built_in_names())
def test_every_default_recipe_keeps_to_the_rules_on_its_task(name: str) -> None:
    task = tasks.get(name)
    for architecture in [*zoo.names(), "mlp-16"]:
        try:
            graph = zoo.build(architecture, task.input_shape, task.classes)
        except (Invalid, NotFound):
            continue
        recipe = task.default_recipe(architecture)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        check_batch_size(recipe, graph, task.sizes["train"])


def test_a_batch_is_at_most_a_tenth_of_the_training_data_or_the_defaults() -> None:
    graph = zoo.build("mlp-16", (1, 8, 8), 10)
    for size, examples in ((100, 1000), (60, 1000), (60, 90), (5_500, 55_000)):
        check_batch_size(RECIPE.override({"batch_size": size}), graph, examples)
    for size, examples, most in ((101, 1000, 100), (1000, 1000, 100), (61, 90, 60), (65_536, 55_000, 5_500)):
        with pytest.raises(InvalidRecipe, match=f"batch_size is {size}, expected at most {most}:") as caught:
            check_batch_size(RECIPE.override({"batch_size": size}), graph, examples)
        assert [problem.pointer for problem in caught.value.errors] == ["/batch_size"]


def test_a_networks_name_does_not_choose_its_reference_recipe() -> None:
    task = tasks.get("digits")
    honest = zoo.build("lenet-300-100", task.input_shape, task.classes)
    posing = replace(honest, name="resnet-20")
    unnamed = replace(honest, name="mine")
    assert task.reference_recipe(honest) == task.default_recipe("lenet-300-100")
    assert task.reference_recipe(posing) == task.reference_recipe(unnamed) == task.default_recipe("")
    assert task.default_recipe("resnet-20") != task.default_recipe("")
