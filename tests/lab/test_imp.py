"""The pruning rule of SCIENCE section 6, by hand and as laws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidTicket
from nirvana.format.masks import Mask
from nirvana.pruning.imp import masks_at_density, next_masks
from nirvana.pruning.ranking import Masks, counts_at
from nirvana.training.recipe import Pruning


def weights(**layers: list[float]) -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32) for name, values in layers.items()}


def prune(values: Mapping[str, NDArray[np.float32]], pruning: Pruning, masks: Masks | None = None) -> Masks:
    return next_masks(values, masks or {}, list(values), pruning)


def kept(masks: Masks) -> dict[str, list[int]]:
    return {name: mask.ravel().astype(int).tolist() for name, mask in masks.items()}


def count(masks: Mapping[str, Mask]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def test_layerwise_keeps_the_largest_of_each_layer_at_its_rate() -> None:
    found = prune(weights(a=[0.1, -0.9, 0.5, -0.3], b=[3, 1, -2, 4]), Pruning(rate=0.5, output_rate=0.25))
    assert kept(found) == {"a": [0, 1, 1, 0], "b": [1, 0, 1, 1]}


def test_global_ranks_all_layers_together() -> None:
    assert kept(prune(weights(a=[0.1, 9], b=[3, -2, 1]), Pruning(scope="global", rate=0.4))) == {
        "a": [0, 1],
        "b": [1, 1, 0],
    }


def test_of_equal_weights_the_earlier_index_stays() -> None:
    assert kept(prune(weights(a=[1, -1, 1, -1, 1]), Pruning(rate=0.4))) == {"a": [1, 1, 1, 0, 0]}


def test_of_equal_weights_the_earlier_layer_stays() -> None:
    found = prune(weights(b=[2, 1, 1], a=[1, 2, 1]), Pruning(scope="global", rate=0.5))
    assert kept(found) == {"b": [1, 1, 0], "a": [0, 1, 0]}


def test_a_pruned_weight_never_comes_back_however_large() -> None:
    mask = {"a": np.array([False, True, True, True])}
    assert kept(prune(weights(a=[9, 1, 2, 3]), Pruning(rate=0.34), mask)) == {"a": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("n", "rate", "expected"), [(5, 0.5, 3), (7, 0.5, 3), (10, 0.25, 8), (3, 0.1, 3), (10, 0.35, 6)]
)
def test_counts_round_half_to_even(n: int, rate: float, expected: int) -> None:
    """round_half_even(2.5) = 2, (3.5) = 4, (2.5) = 2, (0.3) = 0, (3.5) = 4."""
    assert count(prune(weights(a=list(range(1, n + 1))), Pruning(rate=rate))) == expected


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_rate_0_changes_nothing(scope: str) -> None:
    masks = {"a": np.array([True, False, True]), "b": np.array([False, True])}
    found = prune(weights(a=[0, 5, 1], b=[1, 0]), Pruning(scope=scope, rate=0.0), masks)
    assert kept(found) == kept(masks)


def test_a_trained_weight_of_exactly_0_counts_as_a_weight() -> None:
    assert kept(prune(weights(a=[0, 0, 1, 0]), Pruning(rate=0.5))) == {"a": [1, 0, 1, 0]}


def test_layer_rates_come_before_the_output_rate_and_the_rate() -> None:
    pruning = Pruning(rate=0.5, output_rate=0.25, layer_rates={"b": 0.75})
    found = prune(weights(a=[1, 2, 3, 4], b=[1, 2, 3, 4], c=[1, 2, 3, 4]), pruning)
    assert {name: int(mask.sum()) for name, mask in found.items()} == {"a": 2, "b": 1, "c": 3}


@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_nan_is_refused_by_name(scope: str) -> None:
    with pytest.raises(Invalid, match="b holds NaN"):
        prune(weights(a=[1, 2], b=[1, float("nan")]), Pruning(scope=scope))


def test_a_layer_that_would_lose_its_last_weight_is_refused_by_name() -> None:
    with pytest.raises(InvalidTicket, match=r"fc2\.weight would keep no weight") as caught:
        prune({"fc1.weight": np.ones(4, np.float32), "fc2.weight": np.full(2, 0.1, np.float32)},
              Pruning(scope="global", rate=0.5))  # fmt: skip
    assert caught.value.errors[0].pointer == "/masks/fc2.weight/kept"
    assert caught.value.errors[0].code == "layer-collapse"
    with pytest.raises(InvalidTicket, match="a would keep no weight"):
        prune(weights(a=[1]), Pruning(rate=0.9))


def test_a_density_keeps_exactly_that_many_and_honours_the_rates() -> None:
    values = {
        n: np.random.default_rng(0).normal(size=s).astype(np.float32) for n, s in (("a", 900), ("b", 100))
    }
    pruning = Pruning(rate=0.2, output_rate=0.1)
    found = masks_at_density(values, {}, ["a", "b"], pruning, 0.1)
    assert count(found) == 100
    even = masks_at_density(values, {}, ["a", "b"], Pruning(rate=0.2), 0.1)
    assert {name: int(mask.sum()) for name, mask in even.items()} == {"a": 90, "b": 10}
    assert found["b"].sum() > 10


def test_a_density_that_cannot_be_reached_is_refused() -> None:
    values = {"a": np.ones(10, np.float32), "b": np.ones(10, np.float32)}
    with pytest.raises(Invalid, match="layers with rate 0 hold 10"):
        masks_at_density(values, {}, ["a", "b"], Pruning(rate=0.5, output_rate=0.0), 0.5)
    with pytest.raises(Invalid, match="cannot keep 15 weights: 10 are left"):
        masks_at_density(values, {"a": np.zeros(10, bool)}, ["a", "b"], Pruning(rate=0.5), 0.75)


shapes = st.lists(st.integers(1, 30), min_size=1, max_size=4)
finite = st.floats(-4, 4, width=32)


@st.composite
def layers(draw: st.DrawFn) -> tuple[dict[str, NDArray[np.float32]], Masks]:
    """Layers of coarse values, so that ties are frequent, under masks that keep something."""
    values, masks = {}, {}
    for position, size in enumerate(draw(shapes)):
        name = f"layer{position}"
        whole = draw(arrays.arrays(np.int8, size, elements=st.integers(-5, 5)))
        mask = draw(arrays.arrays(np.bool_, size))
        mask[draw(st.integers(0, size - 1))] = True
        values[name], masks[name] = whole.astype(np.float32), mask
    return values, masks


@given(layers(), st.floats(0, 0.99), st.sampled_from(["layerwise", "global"]))
def test_masks_only_shrink_by_the_exact_count_and_never_keep_a_smaller_weight(
    case: tuple[dict[str, NDArray[np.float32]], Masks], rate: float, scope: str
) -> None:
    values, masks = case
    try:
        found = prune(values, Pruning(scope=scope, rate=rate), masks)
    except InvalidTicket:
        return
    groups = [list(values)] if scope == "global" else [[name] for name in values]
    for group in groups:
        n = sum(int(masks[name].sum()) for name in group)
        assert sum(int(found[name].sum()) for name in group) == n - round(rate * n)
        kept_values = np.concatenate([np.abs(values[name][found[name]]) for name in group])
        lost = np.concatenate([np.abs(values[name][masks[name] & ~found[name]]) for name in group])
        assert not lost.size or kept_values.min() >= lost.max()
    assert all(not (found[name] & ~masks[name]).any() for name in values)


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    st.lists(st.floats(0.01, 0.9), min_size=6, max_size=6),
    st.floats(0.001, 1),
)
def test_counts_for_a_density_are_exact_and_never_grow(
    sizes: list[int], rates: list[float], density: float
) -> None:
    remaining = {str(i): n for i, n in enumerate(sizes)}
    keep = max(1, round(density * sum(sizes)))
    found = counts_at(remaining, dict(zip(remaining, rates, strict=False)), keep)
    assert sum(found.values()) == keep
    assert all(0 <= found[name] <= remaining[name] for name in remaining)
