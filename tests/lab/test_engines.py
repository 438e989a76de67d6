"""Which engine trains what."""

from __future__ import annotations

import numpy as np
import pytest

from nirvana.engines import choose_engine
from nirvana.errors import Invalid
from nirvana.lab import find, train
from nirvana.networks import zoo
from tests.lab.small import SMALL, digits, network, values_of


def test_a_small_sparse_perceptron_goes_to_the_sparse_engine() -> None:
    masks = {"fc1.weight": np.arange(16 * 64).reshape(16, 64) % 10 == 0}
    assert choose_engine("auto", network(), masks, SMALL).engine == "sparse"
    assert choose_engine("dense", network(), masks, SMALL).engine == "dense"


def test_what_the_sparse_engine_cannot_do_goes_to_the_dense_one_or_is_refused_by_name() -> None:
    tokens = zoo.build("transformer-2", (9, 64), 10)
    assert choose_engine("auto", tokens, {}, SMALL).engine == "dense"
    with pytest.raises(Invalid, match=r"linear \(embed\) reads several tokens"):
        choose_engine("sparse", tokens, {}, SMALL)
    with pytest.raises(Invalid, match="l1"):
        choose_engine("sparse", network(), {}, SMALL.override({"l1": 0.1}))


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="engine is 'quick', expected one of auto, dense, sparse"):
        choose_engine("quick", network(), {}, SMALL)


def test_both_engines_measure_the_same_training() -> None:
    architecture, values = network(), values_of(network())
    masks = {"fc1.weight": np.arange(16 * 64).reshape(16, 64) % 4 == 0}
    results = [
        train(architecture, values, masks, digits(), SMALL, 3, engine=engine)
        for engine in ("dense", "sparse")
    ]
    assert [result.engine for result in results] == ["dense", "sparse"]
    losses = [[point[2] for point in result.curve] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert results[0].untrained_test_accuracy == results[1].untrained_test_accuracy


def test_held_weights_and_teachers_are_the_dense_engines() -> None:
    architecture, values = network(), values_of(network())
    masks = {"fc1.weight": np.arange(16 * 64).reshape(16, 64) % 4 == 0}
    assert train(architecture, values, masks, digits(), SMALL, 3, held=values).engine == "dense"


def test_a_search_says_which_engine_trained_each_level() -> None:
    found = {
        engine: find("digits", "mlp-16", levels=1, recipe=SMALL, engine=engine).levels
        for engine in ("dense", "sparse")
    }
    for engine, levels in found.items():
        assert {level["engine"] for level in levels} == {engine}
