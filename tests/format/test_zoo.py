"""The zoo: sizes of the literature, inputs that fit, and refusals that name both shapes."""

from __future__ import annotations

import re

import pytest

from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.networks import zoo

SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 128), (13,)]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # He et al. 2015 (arXiv 1512.03385), table 6: 0.27 M, 0.46 M and 0.85 M with shortcuts without weights
        # (option A). With projections, 272,474 and 855,770 as osmr/imgclsmob lists for resnet20_cifar10 and
        # resnet56_cifar10; both kinds differ by 2,560 weights and 192 norms whatever the depth.
        ("resnet-20", 269_722 + 2_752),
        ("resnet-32", 464_154 + 2_752),
        ("resnet-56", 853_018 + 2_752),
        # ResNet-18 and VGG on CIFAR-10: NeuralFuse (arXiv 2306.16869), table 7, and kuangliu/pytorch-cifar.
        # Frankle & Carbin 2019, figure 2: VGG-19 20.0 M.
        ("resnet-18", 11_173_962),
        ("vgg-11", 9_231_114),
        ("vgg-16", 14_728_266),
        ("vgg-19", 20_040_522),
    ],
)
def test_the_image_networks_have_the_parameters_that_the_literature_counts(
    name: str, parameters: int
) -> None:
    architecture = zoo.build(name, (3, 32, 32), 10)
    assert architecture.parameter_count == parameters
    assert architecture.output_shape == (10,)


def test_vgg_16_without_its_last_layer_has_torchvisions_convolutions() -> None:
    # torchvision's vgg16_bn holds 138,365,992 parameters, of which 25,088 x 4,096 + 4,096,
    # 4,096 x 4,096 + 4,096 and 4,096 x 1,000 + 1,000 are in its three linear layers.
    classifier = (25_088 + 1) * 4_096 + (4_096 + 1) * 4_096 + (4_096 + 1) * 1_000
    architecture = zoo.build("vgg-16", (3, 32, 32), 10)
    assert architecture.parameter_count - 5_130 == 138_365_992 - classifier


def test_the_signal_network_has_the_papers_layers() -> None:
    # Wang et al. 2017 (arXiv 1611.06455): 128, 256, 128 channels; kernels 7 (theirs 8), 5 and 3, two
    # parameters of batch norm a channel, then one linear layer.
    architecture = zoo.build("conv1d-3", (2, 100), 5)
    weights = 2 * 7 * 128 + 128 * 5 * 256 + 256 * 3 * 128
    assert architecture.prunable_total == weights + 128 * 5
    assert architecture.parameter_count == weights + 2 * (128 + 256 + 128) + 128 * 5 + 5


def test_a_transformers_block_has_the_parameters_of_torchs_encoder_layer() -> None:
    # 4 f^2 + 4 f of attention, 2 f h + f + h of the perceptron, 4 f of two norms (Vaswani et al. 2017).
    features, hidden = 64, 256
    block = 4 * features**2 + 4 * features + 2 * features * hidden + features + hidden + 4 * features
    sizes = [zoo.build(f"transformer-{n}", (8, 8), 10).parameter_count for n in (1, 2, 3)]
    assert (sizes[1] - sizes[0], sizes[2] - sizes[1]) == (block, block) == (49_984, 49_984)


@pytest.mark.parametrize("name", zoo.names())
@pytest.mark.parametrize("input_shape", SHAPES)
def test_every_architecture_fits_an_input_or_names_the_shape_found_and_the_one_expected(
    name: str, input_shape: tuple[int, ...]
) -> None:
    name = name.replace("<width>-<width>...", "20-30").replace("<blocks>-<tokens>", "2-50")
    try:
        architecture = zoo.build(name, input_shape, 7)
    except InvalidArchitecture as error:
        assert str(error).startswith(f"{name} needs ")  # noqa: PT017
        assert str(error).endswith(f"but the input has shape {list(input_shape)}")  # noqa: PT017
    else:
        assert architecture.output_shape == (7,)
        assert architecture.input == input_shape
        assert architecture.name == name


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("lenet-300-100", SHAPES),
        ("mlp-16", SHAPES),
        ("lenet-5", SHAPES[1:3]),
        ("conv-6", SHAPES[:3]),
        ("resnet-18", SHAPES[:3]),
        ("resnet-56", SHAPES[:3]),
        ("vgg-19", SHAPES[:3]),
        ("conv1d-3", [(2, 128)]),
        ("transformer-2", [(2, 128)]),
        ("transformer-2-256", [(13,)]),
    ],
)
def test_each_family_fits_the_inputs_it_is_for(name: str, fitting: list[tuple[int, ...]]) -> None:
    found = []
    for shape in SHAPES:
        try:
            zoo.build(name, shape, 10)
        except InvalidArchitecture:
            continue
        found.append(shape)
    assert found == fitting


@pytest.mark.parametrize(
    ("name", "least"),
    [("vgg-11", 2), ("resnet-20", 4), ("resnet-18", 8), ("conv-2", 2), ("conv-6", 8), ("lenet-5", 12)],
)
def test_the_smallest_image_fits_and_a_smaller_one_is_refused(name: str, least: int) -> None:
    assert zoo.build(name, (1, least, least + 1), 10).output_shape == (10,)
    expected = (
        f"{name} needs images (channels, height, width) of at least {least}x{least}, "
        f"but the input has shape [1, {least}, {least - 1}]"
    )
    with pytest.raises(InvalidArchitecture, match=re.escape(expected)):
        zoo.build(name, (1, least, least - 1), 10)


@pytest.mark.parametrize(("side", "pools", "last"), [(32, 4, 2), (28, 3, 3), (8, 2, 2), (4, 1, 2), (3, 0, 3)])
def test_vgg_pools_while_two_pixels_are_left(side: int, pools: int, last: int) -> None:
    architecture = zoo.build("vgg-11", (1, side, side), 10)
    assert sum(node["op"] == "max_pool" for node in architecture.nodes) == pools
    assert architecture.shapes["group5.relu2"] == (512, last, last)


def test_positions_of_a_transformer_are_a_norms_bias_over_all_tokens() -> None:
    architecture = zoo.build("transformer-2-256", (12,), 10)
    assert architecture.parameters["embed.weight"] == (256, 64)
    assert architecture.parameters["position.bias"] == (12, 64)


@pytest.mark.parametrize("classes", [0, -3])
def test_no_classes_are_refused(classes: int) -> None:
    with pytest.raises(InvalidArchitecture, match=f"found {classes} classes, expected at least 1"):
        zoo.build("mlp-16", (4,), classes)


@pytest.mark.parametrize(
    "name",
    ["vgg-13", "resnet-110", "mlp", "mlp-0", "transformer-0", "transformer-2-0", "VGG-11", ""],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(NotFound, match=r"the zoo has lenet-300-100, .*vgg-19.*transformer-2"):
        zoo.build(name, (3, 32, 32), 10)
