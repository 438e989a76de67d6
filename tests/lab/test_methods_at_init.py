"""Methods without training: scores by hand, exact counts, collapse, and which data they read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from nirvana.errors import Cancelled, Invalid, InvalidTicket
from nirvana.format.initial import default_laws, epoch_order
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import GraspOptions
from nirvana.pruning.one_shot import erk_shares
from nirvana.pruning.ranking import counts_near, uniform_shares
from nirvana.pruning.search import MaskSearch
from nirvana.tasks import TaskData
from nirvana.torch.methods import examples_of_each_class, start_network, training_examples
from nirvana.torch.methods.grasp import flow_scores
from nirvana.torch.methods.snip import sensitivities
from nirvana.torch.methods.synflow import absolute_network, path_scores
from nirvana.torch.modules import Network
from tests.lab.small import SMALL, digits, few, finder, network, search_from

METHODS = ("random", "erk", "magnitude-at-init", "snip", "grasp", "synflow")
WITH_DATA = ("snip", "grasp")
Arrays = Mapping[str, NDArray[Any]]
TEMPERATURE = GraspOptions().temperature


def search_of(architecture: Architecture, density: float, seed: int = 0, **fields: Any) -> MaskSearch:
    """A search of digits from a seed's dense start; `prunable` covers other parameters than by default."""
    prunable, data = fields.pop("prunable", None), fields.pop("data", None) or digits()
    ticket = Ticket.create(
        architecture,
        {},
        task="digits",
        recipe=SMALL.to_dict(),
        laws=default_laws(architecture),
        seed=seed,
        prunable=prunable,
    )
    return search_from(ticket, data, SMALL, seed, density, **fields)


def linear(name: str, fan_in: int, out: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "linear", "in": fan_in, "out": out, **fields}


def two_layers(fan_in: int, hidden: int, out: int, activation: str = "relu") -> Architecture:
    nodes = [linear("fc1", fan_in, hidden), {"name": "act", "op": activation}, linear("fc2", hidden, out)]
    return Architecture.make("two-layers", (fan_in,), nodes)


def loaded(architecture: Architecture, **weights: Any) -> Network:
    return start_network(
        architecture, {f"{name}.weight": np.array(w, np.float32) for name, w in weights.items()}
    )


def vgg_like() -> Architecture:
    """Narrow, wide, wide, narrow; 3x3 convolutions with batch norm."""
    nodes: list[dict[str, Any]] = []
    for number, (fan_in, out) in enumerate(itertools.pairwise((1, 8, 48, 48, 8)), 1):
        conv = {"name": f"conv{number}", "op": "conv2d", "in": fan_in, "out": out, "kernel": 3, "padding": 1}
        nodes += [conv, {"name": f"norm{number}", "op": "batch_norm", "channels": out}]
        nodes += [{"name": f"relu{number}", "op": "relu"}]
        if number % 2 == 0:
            nodes.append({"name": f"pool{number}", "op": "max_pool", "kernel": 2})
    return Architecture.make(
        "vgg-like", (1, 8, 8), [*nodes, {"name": "flat", "op": "flatten"}, linear("fc", 32, 10)]
    )


def attention() -> Architecture:
    nodes = [
        linear("embed", 8, 8),
        {"name": "attention", "op": "self_attention", "features": 8, "heads": 2},
        {"name": "flat", "op": "flatten"},
        linear("fc", 64, 10),
    ]
    return Architecture.make("attention", (8, 8), nodes)


def rows_of_digits() -> TaskData:
    data = few(digits(), 200)
    return data._replace(
        train_x=data.train_x[:, 0], validation_x=data.validation_x[:, 0], test_x=data.test_x[:, 0]
    )


def count(masks: Arrays) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def are_equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# SNIP and GraSP by hand

HEIGHT = math.log(3) / 2  # the hidden unit; weights 3 and 1 then make logits whose softmax is 3/4 and 1/4
X, Y = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])


def test_snip_scores_of_a_two_layer_network_by_hand() -> None:
    scores = sensitivities(
        loaded(two_layers(1, 1, 2), fc1=[[HEIGHT]], fc2=[[3], [1]]), X, Y, ["fc1.weight", "fc2.weight"]
    )
    # dL/dlogits = (-1/4, 1/4); dL/dfc2 = h (-1/4, 1/4); dL/dfc1 = -3/4 + 1/4
    assert_allclose(scores["fc2.weight"], [[0.75 * HEIGHT], [0.25 * HEIGHT]], rtol=1e-6)
    assert_allclose(scores["fc1.weight"], [[0.5 * HEIGHT]], rtol=1e-6)


def test_grasp_scores_of_a_two_layer_network_by_hand() -> None:
    net = loaded(two_layers(1, 1, 2), fc1=[[HEIGHT]], fc2=[[3], [1]])
    scores = flow_scores(net, [(X, Y)], ["fc1.weight", "fc2.weight"])
    # L = log(1 + exp(-u)), u = w1 (a - b) / T at w1 = h, a = 3, b = 1; the gradient of u is (2, h, -h) / T
    # and its second derivatives are 1 / T for (w1, a), -1 / T for (w1, b), 0 elsewhere.
    sigmoid = 1 / (1 + math.exp(-2 * HEIGHT / TEMPERATURE))
    slope, curvature = sigmoid - 1, sigmoid * (1 - sigmoid)
    of_u = np.array([2, HEIGHT, -HEIGHT]) / TEMPERATURE
    second = np.array([[0, 1, -1], [1, 0, 0], [-1, 0, 0]]) / TEMPERATURE
    product = (curvature * np.outer(of_u, of_u) + slope * second) @ (slope * of_u)
    expected = np.array([HEIGHT, 3, 1]) * product
    assert_allclose(scores["fc1.weight"].ravel(), expected[:1], rtol=1e-6)
    assert_allclose(scores["fc2.weight"].ravel(), expected[1:], rtol=1e-6)


def backward(x: Any, y: Any, w1: Any, w2: Any, t: float) -> tuple[Any, ...]:
    """Gradients of the mean cross-entropy of a two-layer ReLU network, and what lies on the way."""
    h = np.maximum(x @ w1.T, 0)
    z = h @ w2.T / t
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    dz = (p - np.eye(len(w2))[y]) / (len(x) * t)
    return (dz @ w2 * (h > 0)).T @ x, dz.T @ h, h, p, dz


def curved(x: Any, y: Any, w1: Any, w2: Any, v1: Any, v2: Any, t: float) -> tuple[Any, Any]:
    """The Hessian times (v1, v2): the derivative of `backward` in that direction (Pearlmutter 1994)."""
    _, _, h, p, dz = backward(x, y, w1, w2, t)
    on = h > 0
    rh = x @ v1.T * on
    rz = (rh @ w2.T + h @ v2.T) / t
    rdz = p * (rz - (p * rz).sum(1, keepdims=True)) / (len(x) * t)
    return ((rdz @ w2 + dz @ v2) * on).T @ x, rdz.T @ h + dz.T @ rh


def drawn(seed: int = 3) -> tuple[Any, ...]:
    generator = np.random.default_rng(seed)
    w1, w2 = (generator.normal(size=shape).astype(np.float32).astype(float) for shape in ((5, 4), (3, 5)))
    return generator.normal(size=(8, 4)), np.arange(8) % 3, w1, w2


def test_snip_matches_the_gradients_in_closed_form_on_a_batch() -> None:
    x, y, w1, w2 = drawn()
    scores = sensitivities(
        loaded(two_layers(4, 5, 3), fc1=w1, fc2=w2),
        torch.from_numpy(x),
        torch.from_numpy(y),
        ["fc1.weight", "fc2.weight"],
    )
    g1, g2, *_ = backward(x, y, w1, w2, 1.0)
    assert_allclose(scores["fc1.weight"], np.abs(w1 * g1), rtol=1e-9)
    assert_allclose(scores["fc2.weight"], np.abs(w2 * g2), rtol=1e-9)


def test_grasp_matches_the_hessian_in_closed_form_on_two_halves() -> None:
    x, y, w1, w2 = drawn()
    halves = [(x[:5], y[:5]), (x[5:], y[5:])]
    batches = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in halves]
    scores = flow_scores(loaded(two_layers(4, 5, 3), fc1=w1, fc2=w2), batches, ["fc1.weight", "fc2.weight"])
    g1, g2 = (sum(backward(*half, w1, w2, TEMPERATURE)[part] for half in halves) for part in (0, 1))
    h1, h2 = (sum(curved(*half, w1, w2, g1, g2, TEMPERATURE)[part] for half in halves) for part in (0, 1))
    assert_allclose(scores["fc1.weight"], w1 * h1, rtol=1e-9)
    assert_allclose(scores["fc2.weight"], w2 * h2, rtol=1e-9)


def test_grasp_removes_the_weights_whose_removal_raises_the_gradient_most() -> None:
    search = search_of(network(), 0.5)
    net = start_network(search.ticket.architecture, search.values)
    of_each = examples_of_each_class(search.data.train_y, 10, 0)
    halves = [np.concatenate([part[start::2] for part in of_each]) for start in (0, 1)]
    batches = [training_examples(search.data, half) for half in halves]
    scores = flow_scores(net, batches, search.ticket.prunable)
    masks = finder("grasp")(search).masks
    kept = np.concatenate([scores[name][mask] for name, mask in masks.items()])
    gone = np.concatenate([scores[name][~mask] for name, mask in masks.items()])
    assert kept.min() >= gone.max()


def test_examples_of_each_class_are_the_first_ones_of_the_seeds_order() -> None:
    classes = np.array([0, 1, 0, 2, 0, 1], np.int64)
    order = epoch_order(5, 0, 6)
    found = examples_of_each_class(classes, 2, 5)
    assert [len(part) for part in found] == [2, 2, 1]
    for number, part in enumerate(found):
        assert part.tolist() == [i for i in order if classes[i] == number][:2]


# SynFlow


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_synflow_scores_are_the_strengths_of_paths_by_hand(activation: str) -> None:
    architecture = two_layers(1, 2, 1, activation)
    weights = {"fc1.weight": np.array([[3], [-1]]), "fc2.weight": np.array([[-2, 5]])}
    net = absolute_network(architecture, weights)
    scores = path_scores(net, ["fc1.weight", "fc2.weight"])  # two paths: 3 x 2 and 1 x 5
    assert scores["fc1.weight"].tolist() == [[6], [5]]
    assert scores["fc2.weight"].tolist() == [[6, 5]]


def test_synflow_conserves_the_strength_from_layer_to_layer() -> None:
    search = search_of(vgg_like(), 0.5)
    net = absolute_network(search.ticket.architecture, search.values)
    strength = net(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum().item()
    for scores in path_scores(net, search.ticket.prunable).values():
        assert scores.sum() == pytest.approx(strength, rel=1e-9)


def test_synflow_keeps_every_layer_at_a_density_where_magnitude_collapses_one() -> None:
    search = search_of(vgg_like(), 1e-3)
    masks = finder("synflow")(search).masks
    assert count(masks) == search.keep == round(1e-3 * search.ticket.prunable_total)
    assert all(mask.any() for mask in masks.values())
    net = absolute_network(search.ticket.architecture, {n: search.values[n] * m for n, m in masks.items()})
    assert net(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum() > 0
    with pytest.raises(InvalidTicket, match=r"conv[23].weight would keep no weight") as caught:
        finder("magnitude-at-init")(search)
    assert caught.value.errors[0].code == "layer-collapse"


def test_synflow_does_not_look_at_batch_norms_running_statistics() -> None:
    search = search_of(vgg_like(), 0.1)
    names, graph = search.ticket.prunable, search.ticket.architecture
    moved = {name: np.full(shape, 3, np.float32) for name, shape in graph.buffers.items()}
    plain = path_scores(absolute_network(graph, search.values), names)
    assert are_equal(plain, path_scores(absolute_network(graph, search.values | moved), names))


def test_synflow_names_an_operation_that_paths_cannot_cross() -> None:
    with pytest.raises(Invalid, match="attention is self_attention"):
        finder("synflow")(search_of(attention(), 0.5, data=rows_of_digits()))


def test_synflow_refuses_a_network_without_a_path() -> None:
    search = search_of(two_layers(3, 2, 2), 0.5)
    net = absolute_network(search.ticket.architecture, {n: 0 * v for n, v in search.values.items()})
    with pytest.raises(Invalid, match=r"strength is 0\.0, expected a finite number above 0"):
        path_scores(net, search.ticket.prunable)


def test_synflow_can_be_cancelled_and_tells_its_rounds() -> None:
    events: list[dict[str, Any]] = []
    search = search_of(network(), 0.5, progress=events.append, should_stop=lambda: len(events) == 3)
    with pytest.raises(Cancelled, match="round 4 of 100"):
        finder("synflow")(search)
    assert [event["done"] for event in events] == [1, 2, 3]


# random masks


def test_erk_shares_by_hand() -> None:
    shapes = {"fc": (10, 90), "conv": (8, 4, 3, 3)}  # sums 100 and 18, sizes 900 and 288
    assert erk_shares(shapes, 59) == pytest.approx({"fc": 50, "conv": 9})


def test_erk_keeps_small_layers_whole_and_gives_the_rest_to_the_others() -> None:
    shapes = {"a": (100, 100), "b": (10, 10), "c": (5, 4)}  # sums 200, 20, 9
    assert erk_shares(shapes, 1145) == pytest.approx({"a": 1025, "b": 100, "c": 20})  # 5 a unit: b and c full


def test_erk_fills_layers_one_after_the_other() -> None:
    shapes = {"a": (100, 100), "b": (20, 20), "c": (2, 3)}  # c overflows first, b only by what c gives back
    shares = erk_shares(shapes, 2426)
    assert shares == pytest.approx({"a": 2020, "b": 400, "c": 6})


def test_erk_of_a_whole_network_is_the_whole_network() -> None:
    shapes = {"a": (7, 9), "b": (3, 7)}
    assert counts_near(erk_shares(shapes, 84), 84) == {"a": 63, "b": 21}


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5),
    st.floats(0, 1, exclude_min=True),
)
def test_counts_are_exact_and_every_layer_keeps_one(sizes: list[tuple[int, int]], density: float) -> None:
    shapes = {str(place): shape for place, shape in enumerate(sizes)}
    totals = {name: math.prod(shape) for name, shape in shapes.items()}
    keep = max(len(shapes), round(density * sum(totals.values())))
    for shares in (uniform_shares(shapes, keep), erk_shares(shapes, keep)):
        counts = counts_near(shares, keep)
        assert sum(counts.values()) == keep
        assert all(1 <= counts[name] <= totals[name] for name in shapes)


def test_a_layer_that_would_round_to_nothing_takes_a_weight_of_the_largest() -> None:
    assert counts_near({"a": 9.7, "b": 0.2, "c": 0.1}, 10) == {"a": 8, "b": 1, "c": 1}


def test_the_random_masks_have_their_layer_densities() -> None:
    search = search_of(network(), 0.3)
    sizes = {name: math.prod(shape) for name, shape in search.shapes.items()}
    even, erk = (finder(method)(search).masks for method in ("random", "erk"))
    for name, size in sizes.items():
        assert abs(even[name].sum() - 0.3 * size) < 1
    assert erk["fc2.weight"].mean() > erk["fc1.weight"].mean() > 0


def test_random_positions_are_even() -> None:
    searches = [search_of(two_layers(4, 5, 2), 0.5, seed) for seed in range(64)]
    kept = np.mean([finder("random")(search).masks["fc1.weight"] for search in searches], axis=0)
    assert np.abs(kept - 0.5).max() < 0.25  # four standard deviations


# laws of all of them


@pytest.mark.parametrize("method", METHODS)
def test_exactly_as_many_weights_are_kept_as_asked_for(method: str) -> None:
    for architecture, density in ((network(), 0.1), (network(), 0.777), (vgg_like(), 0.05)):
        search = search_of(architecture, density)
        masks = finder(method)(search).masks
        assert count(masks) == search.keep == round(density * search.ticket.prunable_total)
        assert {name: mask.shape for name, mask in masks.items()} == search.shapes


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_decides_the_mask_whatever_torchs_generator_holds(method: str) -> None:
    nodes = [dict(node) for node in network().nodes]
    nodes.insert(3, {"name": "drop", "op": "dropout", "rate": 0.5})
    noisy, masks = Architecture.make("noisy", (1, 8, 8), nodes), []
    for state, seed in ((1, 4), (2, 4), (1, 5)):
        torch.manual_seed(state)
        masks.append(finder(method)(search_of(noisy, 0.2, seed)).masks)
    assert are_equal(masks[0], masks[1])
    assert not are_equal(masks[0], masks[2])


@pytest.mark.parametrize("method", METHODS)
def test_validation_and_test_data_are_not_read(method: str) -> None:
    data = digits()
    hidden = {
        part: np.full_like(getattr(data, part), np.nan if part.endswith("x") else -1)
        for part in ("validation_x", "validation_y", "test_x", "test_y")
    }
    search = search_of(network(), 0.2)
    blind = search_of(network(), 0.2, data=data._replace(**hidden))
    assert are_equal(finder(method)(search).masks, finder(method)(blind).masks)


@pytest.mark.parametrize("method", METHODS)
def test_training_data_matter_to_the_methods_that_score_with_them_only(method: str) -> None:
    data = digits()
    other = data._replace(train_y=(data.train_y + data.train_x[:, 0, 2, 2].astype(np.int64)) % 10)
    one, two = (finder(method)(search_of(network(), 0.2, data=d)).masks for d in (data, other))
    assert are_equal(one, two) == (method not in WITH_DATA)


def test_snip_reads_one_batch_of_a_hundred_where_batches_are_smaller() -> None:
    data = digits()
    rest = epoch_order(0, 0, len(data.train_y))[100:]
    x = data.train_x.copy()
    x[rest] = np.nan
    assert are_equal(
        finder("snip")(search_of(network(), 0.2)).masks,
        finder("snip")(search_of(network(), 0.2, data=data._replace(train_x=x))).masks,
    )


@pytest.mark.parametrize("method", METHODS)
def test_fewer_weights_than_layers_is_an_error_that_names_a_layer(method: str) -> None:
    with pytest.raises(InvalidTicket, match=r"fc[12]\.weight would keep no weight") as caught:
        finder(method)(search_of(network(), 1.2 / network().prunable_total))
    assert caught.value.errors[0].pointer in ("/masks/fc1.weight/kept", "/masks/fc2.weight/kept")


@pytest.mark.parametrize("method", [m for m in METHODS if m != "synflow"])
def test_projections_of_attention_can_be_scored_and_pruned(method: str) -> None:
    prunable = ("embed.weight", "attention.in_proj.weight", "attention.out_proj.weight", "fc.weight")
    search = search_of(attention(), 0.4, data=rows_of_digits(), prunable=prunable)
    masks = finder(method)(search).masks
    assert tuple(masks) == prunable
    assert count(masks) == search.keep


def test_magnitude_at_init_keeps_the_largest_values_of_all_layers() -> None:
    search = search_of(network(), 0.1)
    masks = finder("magnitude-at-init")(search).masks
    sizes = np.sort(np.concatenate([np.abs(v).ravel() for n, v in search.values.items() if n in masks]))
    threshold = sizes[-search.keep]
    for name, mask in masks.items():
        assert np.array_equal(mask, np.abs(search.values[name]) >= threshold)


def test_a_weight_that_no_output_depends_on_scores_nothing() -> None:
    nodes = [
        linear("unread", 4, 3),
        linear("fc", 4, 2) | {"inputs": ["flat"]},
    ]
    graph = Architecture.make("unread", (4,), [{"name": "flat", "op": "flatten"}, *nodes])
    net = loaded(graph, unread=np.ones((3, 4)), fc=np.ones((2, 4)))
    x, y = torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1])
    names = ["unread.weight", "fc.weight"]
    assert not sensitivities(net, x, y, names)["unread.weight"].any()
    assert not flow_scores(net, [(x, y)], names)["unread.weight"].any()
    assert not path_scores(net, names)["unread.weight"].any()
