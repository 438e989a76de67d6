"""Early-Bird: units by hand on small graphs, the choice and the draw on planted scores and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nirvana import lab
from nirvana.errors import Invalid
from nirvana.format.masks import Mask
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import EarlyBirdOptions
from nirvana.torch.evaluate import predict
from nirvana.torch.methods.early_bird import (
    choose,
    distances,
    find,
    is_settled,
    penalise,
    refuse_unreachable,
    score,
)
from nirvana.torch.methods.units import Layer, cut, cuttable_layers, weights_left
from nirvana.torch.modules import build_module, load_values, tensors_of
from tests.lab.small import SMALL, values_of
from tests.lab.test_methods_in_training import make_search


def graph(input: tuple[int, ...], *nodes: dict[str, Any]) -> Architecture:
    return Architecture.make("small", input, list(nodes))


def conv(name: str, fan_in: int, out: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "conv2d", "in": fan_in, "out": out, "kernel": 1} | fields


def linear(name: str, fan_in: int, out: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "linear", "in": fan_in, "out": out} | fields


def norm(name: str, channels: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "batch_norm", "channels": channels} | fields


def plain(name: str, op: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": op} | fields


CONV_NET = graph(
    (1, 4, 4),
    conv("c1", 1, 3, kernel=3, padding=1),
    norm("n1", 3),
    plain("r1", "relu"),
    plain("p1", "max_pool", kernel=2),
    conv("c2", 3, 2, kernel=1),
    plain("r2", "relu"),
    plain("flat", "flatten"),
    linear("fc", 8, 5),
)
RESIDUAL = graph(
    (1, 2, 2),
    conv("stem", 1, 2),
    conv("a", 2, 3),
    norm("na", 3),
    plain("ra", "relu"),
    conv("b", 3, 2),
    plain("sum", "add", inputs=["b", "stem"]),
    plain("pool", "global_avg_pool"),
    linear("fc", 2, 4),
)


def bits(*units: int) -> Mask:
    return np.array(units, bool)


def prunable_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {name: architecture.parameters[name] for name in architecture.prunable}


def named(architecture: Architecture) -> dict[str, Layer]:
    return {layer.weight: layer for layer in cuttable_layers(architecture)}


def test_a_convolutions_channels_run_through_norm_and_pool_and_flatten_spreads_them() -> None:
    layers = named(CONV_NET)
    assert list(layers) == ["c1.weight", "c2.weight"]
    assert (layers["c1.weight"].norm, layers["c2.weight"].norm) == ("n1.weight", None)
    assert {k: v.tolist() for k, v in layers["c1.weight"].readers.items()} == {"c2.weight": [0, 1, 2]}
    assert {k: v.tolist() for k, v in layers["c2.weight"].readers.items()} == {
        "fc.weight": [0, 0, 0, 0, 1, 1, 1, 1]
    }


def test_cutting_takes_rows_and_the_columns_that_read_them() -> None:
    shapes = prunable_shapes(CONV_NET)
    masks = cut(cuttable_layers(CONV_NET), [bits(1, 0, 1), bits(0, 1)], shapes)
    assert masks["c1.weight"].reshape(3, 9).all(axis=1).tolist() == [True, False, True]
    assert masks["c2.weight"].reshape(2, 3).astype(int).tolist() == [[0, 0, 0], [1, 0, 1]]
    assert masks["fc.weight"][0].astype(int).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    kept = [bits(1, 0, 1), bits(0, 1)]
    assert weights_left(cuttable_layers(CONV_NET), kept, shapes) == 18 + 2 + 20
    assert sum(int(mask.sum()) for mask in masks.values()) == 40


def test_an_mlp_is_cut_at_its_hidden_neurons_only() -> None:
    layers = named(zoo.build("mlp-5-4", (1, 2, 2), 3))
    assert {name: (layer.units, list(layer.readers)) for name, layer in layers.items()} == {
        "fc1.weight": (5, ["fc2.weight"]),
        "fc2.weight": (4, ["fc3.weight"]),
    }


def test_channels_that_feed_a_residual_sum_stay_whole() -> None:
    layers = named(RESIDUAL)
    assert list(layers) == ["a.weight"]
    assert list(layers["a.weight"].readers) == ["b.weight"]


def test_a_resnet_is_cut_inside_its_blocks() -> None:
    layers = named(zoo.build("resnet-20", (1, 8, 8), 10))
    assert list(layers) == [f"group{g}.block{b}.conv1.weight" for g in (1, 2, 3) for b in (0, 1, 2)]
    assert layers["group1.block0.conv1.weight"].norm == "group1.block0.norm1.weight"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([conv("c", 2, 4), conv("g", 4, 4, groups=2), plain("f", "flatten"), linear("o", 16, 2)], ["g"]),
        ([conv("c", 2, 4), plain("n", "layer_norm", shape=[4, 2, 2]), plain("f", "flatten"),
          linear("o", 16, 2)], []),
        ([conv("c", 2, 4), plain("r", "relu")], []),
        ([plain("f", "flatten"), linear("a", 8, 3), norm("n", 3), linear("o", 3, 2)], ["a"]),
    ],
)  # fmt: skip
def test_units_that_other_ops_mix_stay_whole(nodes: list[dict[str, Any]], expected: list[str]) -> None:
    """A grouped convolution's input, a layer norm's, and the network's output."""
    assert [name.split(".")[0] for name in named(graph((2, 2, 2), *nodes))] == expected


def test_two_readers_of_one_layer_both_lose_its_columns() -> None:
    network = graph((3,), linear("a", 3, 2), linear("b", 2, 2), linear("c", 2, 2, inputs=["a"]),
                    plain("sum", "add", inputs=["b", "c"]))  # fmt: skip
    layers = cuttable_layers(network)
    masks = cut(layers, [bits(0, 1)], prunable_shapes(network))
    assert [layer.weight for layer in layers] == ["a.weight"]
    assert masks["b.weight"].tolist() == masks["c.weight"].tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("architecture", [CONV_NET, RESIDUAL, zoo.build("mlp-6-5", (1, 4, 4), 5)])
def test_a_cut_unit_reaches_no_output(architecture: Architecture) -> None:
    """Change a cut unit's own bias: the outputs do not move; kept ones move them. No value is below 0, so
    every ReLU is open."""
    layers = cuttable_layers(architecture)
    values = {name: np.abs(value) for name, value in values_of(architecture).items()}
    for layer in layers:
        kept = [np.arange(other.units) != 0 if other is layer else np.ones(other.units, bool)
                for other in layers]  # fmt: skip
        masks = cut(layers, kept, prunable_shapes(architecture))
        network = build_module(architecture)
        load_values(network, values | {name: values[name] * mask for name, mask in masks.items()})
        x = np.random.default_rng(0).random(size=(8, *architecture.input)).astype(np.float32)
        before = predict(network, x)
        bias = tensors_of(network)[layer.weight.replace("weight", "bias")]
        bias.data[0] += 100
        assert predict(network, x).equal(before)
        bias.data[1:] += 100
        assert not predict(network, x).equal(before)


def test_scores_are_gammas_or_places_in_the_layer_by_norm() -> None:
    values = values_of(CONV_NET)
    values["n1.weight"] = np.array([0.5, -2, 1], np.float32)
    values["c2.weight"] = np.array([[3, 4, 0], [0, 0, 15]], np.float32).reshape(2, 3, 1, 1)
    gammas, places = score(cuttable_layers(CONV_NET), values)
    assert gammas.tolist() == [0.5, 2, 1]
    assert places.tolist() == [0.5, 1.0]


MLP = zoo.build("mlp-4-4", (2,), 2)  # 8 + 16 + 8 weights
MLP_LAYERS, MLP_SHAPES = cuttable_layers(MLP), prunable_shapes(MLP)


@pytest.mark.parametrize(
    ("keep", "first", "second"),
    [
        (32, [1, 1, 1, 1], [1, 1, 1, 1]),
        (31, [0, 1, 1, 1], [1, 1, 1, 1]),
        (25, [0, 1, 1, 1], [0, 1, 1, 1]),
        (21, [0, 1, 1, 1], [0, 1, 1, 1]),
        (20, [0, 1, 1, 1], [0, 0, 1, 1]),
        (5, [0, 0, 0, 1], [0, 0, 0, 1]),
    ],
)
def test_the_lowest_units_of_all_layers_go_until_the_weights_fit(
    keep: int, first: list[int], second: list[int]
) -> None:
    """With r and s units 2r + rs + 2s weights are left; each layer keeps its best."""
    scores = [np.array([0.1, 0.5, 0.7, 0.9]), np.array([0.2, 0.3, 0.35, 0.4])]
    kept = choose(MLP_LAYERS, scores, MLP_SHAPES, keep)
    assert [mask.astype(int).tolist() for mask in kept] == [first, second]


def test_of_equal_scores_the_earlier_unit_stays() -> None:
    kept = choose(MLP_LAYERS, [np.ones(4), np.ones(4)], MLP_SHAPES, 8)
    assert [mask.astype(int).tolist() for mask in kept] == [[1, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(("density", "is_refused"), [(4 / 32, True), (5 / 32, False)])
def test_a_density_that_no_cut_reaches_is_refused_with_the_least_one(
    density: float, is_refused: bool
) -> None:
    if not is_refused:
        refuse_unreachable(MLP_LAYERS, MLP_SHAPES, round(density * 32))
        return
    with pytest.raises(Invalid, match=r"cannot keep 4 of 32 weights.* 5 are left; .* at least 0\.1562"):
        refuse_unreachable(MLP_LAYERS, MLP_SHAPES, round(density * 32))


def test_a_search_refuses_before_it_trains() -> None:
    with pytest.raises(Invalid, match="early-bird cannot keep 12 of 1184 weights"):
        find(make_search("early-bird", density=0.01, should_stop=lambda: True))


def choice(*off: int) -> list[Mask]:
    """A choice among 10 + 10 units without these."""
    return [~np.isin(np.arange(10), off), ~np.isin(np.arange(10, 20), off)]


def test_distances_are_shares_of_all_units() -> None:
    assert distances([choice(), choice(1, 15), choice(1)]) == [0.05, 0.05]


def test_five_near_choices_are_drawn_and_four_are_not() -> None:
    near = [choice(1), choice(2), choice(), choice(1), choice(2)]
    assert is_settled(near)
    assert not is_settled(near[1:])


def test_all_older_choices_count_not_only_the_one_before() -> None:
    """A slow drift: each differs from the next in one unit, the oldest from the newest in four of twenty."""
    drift = [choice(*range(n)) for n in range(5)]
    assert not is_settled(drift)
    assert is_settled([choice(1, 2), *[choice()] * 4])
    assert not is_settled([choice(1, 2, 3), *[choice()] * 4])


def test_the_penalty_pulls_gammas_towards_0_and_nothing_else() -> None:
    network = build_module(CONV_NET)
    values = values_of(CONV_NET) | {"n1.weight": np.array([2, -3, 0], np.float32)}
    load_values(network, values)
    penalty = EarlyBirdOptions().penalty
    penalise(network, cuttable_layers(CONV_NET), penalty)
    tensors = tensors_of(network)
    loss = tensors["n1.weight"].sum() * 0 + tensors["n1.bias"].sum() * 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert tensors["n1.weight"].grad is not None
    assert tensors["n1.bias"].grad is not None
    assert tensors["n1.weight"].grad.tolist() == pytest.approx([penalty, -penalty, 0])
    assert not tensors["n1.bias"].grad.any()


@pytest.mark.parametrize("architecture", ["mlp-32-16", "resnet-20"])
def test_a_search_keeps_at_most_the_density_and_whole_units(architecture: str) -> None:
    recipe = SMALL.override({"steps": 40, "batch_size": 16})
    search = make_search("early-bird", architecture=architecture, density=0.3, recipe=recipe)
    found = find(search)
    kept = sum(int(mask.sum()) for mask in found.masks.values())
    assert 0.9 * search.keep < kept <= search.keep
    assert found.measured["density"] == kept / search.ticket.prunable_total
    assert found.measured["density_asked"] == 0.3
    for layer in cuttable_layers(search.ticket.architecture):
        units = np.asarray(found.masks[layer.weight].reshape(layer.units, -1).any(axis=1))
        assert found.measured["units"][layer.weight] == {"kept": int(units.sum()), "of": layer.units}
        for reader, unit in layer.readers.items():
            assert not found.masks[reader][:, ~units[unit]].any()


def test_a_choice_that_never_settles_is_the_last_one_and_says_so() -> None:
    """Four steps give four choices: too few to compare."""
    found = find(make_search("early-bird", recipe=SMALL.override({"steps": 4})))
    assert found.measured["settled"] is False
    assert found.measured["drawn_step"] == 4


def test_a_draw_ends_the_training() -> None:
    found = find(make_search("early-bird", recipe=SMALL.override({"steps": 300, "learning_rate": 1e-6})))
    assert found.measured["settled"] is True
    assert found.measured["distance"] == 0
    assert found.measured["drawn_step"] == 5 * 15


def test_layers_without_batch_norm_lose_the_same_share_of_units() -> None:
    """LeNet at 10 %: by norms alone one layer could be left with a single unit."""
    found = lab.find("digits", "lenet-300-100", "early-bird", density=0.1, recipe={"steps": 60})
    assert found.search is not None
    units = found.search["units"].values()
    shares = [layer["kept"] / layer["of"] for layer in units]
    assert max(shares) - min(shares) <= 0.02
