"""The generator and the laws: known answers, the same bits everywhere, moments that the laws promise."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.errors import Invalid
from nirvana.format.ieee import cosine, natural_log
from nirvana.format.initial import (
    FAN_LAWS,
    INITIAL,
    REINIT,
    SHUFFLE,
    default_laws,
    draw,
    draw_all,
    epoch_order,
    philox,
    random_mask,
    shuffle_mask,
    words,
)
from nirvana.networks import zoo

# Random123's known-answer vectors of philox4x32-10: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]

# sha256 of draw(law, (300, 784), seed=17, tensor=0): these may never change, on any machine.
FROZEN = {
    "kaiming_uniform": "13944661125564a14a3e630a17d8c46069a609a4f70ad8792dfc36085cd4a7b9",
    "glorot_uniform": "68cc6b5fa8b2a772ed3d6f8f09f673b8e58e9cae90b19a7f5b6c49e911fd7455",
    "torch_default": "23bd85523a4440825fe7eb8b47e956ec2b51e709b642e85c184a2f576b984f61",
    "kaiming_normal": "698506900d171eedea8ec9494c12e5db92c621a2700b8b005db8aada54dea670",
    "glorot_normal": "bbea1be7dc620bcb0061f6267199abbf5497007c3e16dfd5aa88821e49833087",
    "kaiming_signed_constant": "79b037f517a642be0b1779ec6d4538cf436dd6ffea8737c28b4a632aa4edf265",
}


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: str
) -> None:
    found = philox(np.array(counter, np.uint64)[:, None], key)[:, 0]
    assert " ".join(f"{int(word):08x}" for word in found) == expected


@pytest.mark.parametrize("law", FAN_LAWS)
@given(
    seed=st.integers(0, 2**64 - 1),
    tensor=st.integers(0, 1000),
    index=st.lists(st.integers(0, 10**12), min_size=1, max_size=20),
)
def test_any_element_can_be_drawn_alone(law: str, seed: int, tensor: int, index: list[int]) -> None:
    shape = (10**6, 10**6)
    together = draw(law, shape, seed, tensor, index=np.array(index))
    alone = [draw(law, shape, seed, tensor, index=np.array([i]))[0] for i in index]
    assert together.tolist() == alone


@pytest.mark.parametrize("law", FAN_LAWS)
def test_the_kept_elements_equal_those_of_the_whole_tensor(law: str) -> None:
    whole = draw(law, (30, 70), 2**63 + 5, 3)
    index = np.array([0, 5, 6, 7, 1000, 2099])
    assert whole.ravel()[index].tolist() == draw(law, (30, 70), 2**63 + 5, 3, index=index).tolist()


@pytest.mark.parametrize("law", FAN_LAWS)
@pytest.mark.parametrize("index", [[0, 2, 1, 3], [4, 6, 6, 7], [7, 6, 5, 4], [1, 2, 3, 4], [4, 5, 6, 7, 8]])
def test_elements_in_any_order_equal_those_of_the_whole_tensor(law: str, index: list[int]) -> None:
    expected = draw(law, (30, 70), 5, 3).ravel()[index]
    assert draw(law, (30, 70), 5, 3, index=np.array(index)).tolist() == expected.tolist()


@pytest.mark.parametrize("law", FAN_LAWS)
def test_elements_around_the_ends_of_chunks_equal_those_drawn_alone(law: str) -> None:
    shape = (300, 784)
    index = np.array([2**14 - 1, 2**14, 2**15 - 1, 2**15, 300 * 784 - 1])
    assert draw(law, shape, 5, 3).ravel()[index].tolist() == draw(law, shape, 5, 3, index=index).tolist()


@given(seed=st.integers(0, 2**64 - 1), n=st.integers(0, 2000))
def test_an_epochs_order_is_that_of_its_words_then_of_the_examples(seed: int, n: int) -> None:
    word = words(seed, 3, SHUFFLE, np.arange(n))
    assert epoch_order(seed, 3, n).tolist() == sorted(range(n), key=lambda i: (word[i], i))


@pytest.mark.parametrize(
    ("law", "sd"),
    [
        ("kaiming_uniform", math.sqrt(2 / 400)),
        ("glorot_uniform", math.sqrt(2 / 700)),
        ("torch_default", math.sqrt(1 / 3 / 400)),
        ("kaiming_normal", math.sqrt(2 / 400)),
        ("glorot_normal", math.sqrt(2 / 700)),
        ("kaiming_signed_constant", math.sqrt(2 / 400)),
    ],
)
def test_a_law_has_mean_zero_and_the_standard_deviation_that_it_promises(law: str, sd: float) -> None:
    values = draw(law, (300, 400), 3, 0).astype(np.float64)
    n = values.size
    assert abs(values.mean()) < 5 * sd / math.sqrt(n)
    assert abs(values.std() / sd - 1) < 5 / math.sqrt(n)


def test_convolutions_count_their_receptive_field_in_both_fans() -> None:
    weight = draw("glorot_uniform", (8, 4, 3, 3), 0, 0)
    assert float(np.abs(weight).max()) <= np.float32(math.sqrt(6 / (4 * 9 + 8 * 9)))
    assert float(np.abs(weight).max()) > 0.95 * math.sqrt(6 / (4 * 9 + 8 * 9))


def test_streams_seeds_and_tensors_are_independent() -> None:
    base = words(5, 0, INITIAL, np.arange(1000))
    for other in (
        words(6, 0, INITIAL, np.arange(1000)),
        words(5, 1, INITIAL, np.arange(1000)),
        words(5, 0, REINIT, np.arange(1000)),
    ):
        assert int((base == other).sum()) <= 1


def test_logarithm_and_cosine_stay_within_one_unit_in_the_last_place_of_the_library() -> None:
    u = (words(1, 0, INITIAL, np.arange(400_000)).astype(np.float64) + 0.5) / 2**32
    for ours, theirs in ((natural_log(u), np.log(u)), (cosine(2 * math.pi * u), np.cos(2 * math.pi * u))):
        assert (np.abs(ours - theirs) <= 1.01 * np.spacing(np.abs(theirs))).all()


def test_the_ends_of_the_unit_interval_give_finite_values() -> None:
    u = (np.array([0, 2**32 - 1]) + 0.5) / 2**32
    assert np.isfinite(np.sqrt(-2 * natural_log(u)) * cosine(2 * math.pi * u)).all()


def test_seeds_give_the_same_bits_for_ever() -> None:
    found = {law: hashlib.sha256(draw(law, (300, 784), 17, 0).tobytes()).hexdigest() for law in FAN_LAWS}
    assert found == FROZEN


def test_default_laws_are_the_weight_law_zeros_and_ones() -> None:
    laws = default_laws(zoo.build("resnet-20", (3, 32, 32), 10), "kaiming_normal")
    assert laws["conv.weight"] == "kaiming_normal"
    assert (laws["norm.weight"], laws["norm.bias"], laws["fc.bias"]) == ("ones", "zeros", "zeros")


def test_draw_all_numbers_tensors_by_their_place_in_the_parameter_list() -> None:
    architecture = zoo.build("mlp-16", (1, 8, 8), 10)
    values = draw_all(architecture, default_laws(architecture), 9)
    expected = draw("glorot_normal", (10, 16), 9, 2)  # fc1.weight, fc1.bias, fc2.weight
    assert np.array_equal(values["fc2.weight"], expected)


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6), n=st.integers(1, 300))
def test_an_epoch_visits_every_example_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(epoch_order(seed, epoch, n).tolist()) == list(range(n))


@given(seed=st.integers(0, 1000), kept=st.integers(0, 60))
def test_a_shuffle_and_a_random_mask_keep_the_count(seed: int, kept: int) -> None:
    mask = random_mask((6, 10), kept, seed, 0)
    assert mask.shape == (6, 10)
    assert int(mask.sum()) == kept
    assert int(shuffle_mask(mask, seed + 1, 0).sum()) == kept
    if 2 < kept < 58:
        assert not np.array_equal(mask, shuffle_mask(mask, seed + 1, 0))


def test_a_seed_outside_its_range_is_refused() -> None:
    for seed in (-1, 2**64):
        with pytest.raises(Invalid, match=f"seed is {seed}, expected 0 to"):
            words(seed, 0, INITIAL, np.arange(4))
