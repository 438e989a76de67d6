"""Masks: both encodings, the counts, and what a hostile frame costs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis.extra import numpy as hnp

from nirvana.errors import InvalidTicket
from nirvana.format.initial import random_mask
from nirvana.format.masks import (
    decode,
    density,
    encode,
    kept_count,
    mask_sha256,
    pack_bits,
    unpack_bits,
)
from tests.factories import entropy_bound_bytes

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=12)
any_mask = hnp.arrays(np.bool_, shapes)


def frame(body: bytes, *, says_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=19, write_content_size=says_size).compress(body)


@given(any_mask)
def test_a_mask_survives_its_encoding(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
    encoding, body = encode(mask)
    assert np.array_equal(decode(encoding, body, mask.shape, int(mask.sum())), mask)
    assert np.array_equal(unpack_bits(pack_bits(mask), mask.shape), mask)


@pytest.mark.parametrize("kept", [1, 2, 100, 9999, 10_000])
def test_both_encodings_give_the_same_mask(kept: int) -> None:
    mask = random_mask((100, 100), kept, 3, 0)
    gaps = []
    last = -1
    for place in np.flatnonzero(mask):
        quotient, rest = divmod(int(place) - last - 1, 255)
        gaps += [255] * quotient + [rest]
        last = int(place)
    for encoding, body in (("bits", pack_bits(mask)), ("gaps", bytes(gaps))):
        assert np.array_equal(decode(encoding, frame(body), (100, 100), kept), mask)


def test_the_first_element_is_the_highest_bit_and_padding_is_zero() -> None:
    assert pack_bits(np.array([[True, False, True], [False, False, False], [False, False, True]])) == (
        bytes([0b10100000, 0b10000000])
    )


def test_sparse_masks_take_gaps_and_dense_ones_bits() -> None:
    assert encode(random_mask((300, 784), 8000, 0, 0))[0] == "gaps"
    assert encode(random_mask((300, 784), 120_000, 0, 0))[0] == "bits"


@pytest.mark.parametrize("share", [0.01, 0.036, 0.07, 0.17, 0.33, 0.5])
def test_an_independent_random_mask_takes_at_most_six_percent_over_its_entropy(share: float) -> None:
    """Trained masks take less (docs/format.md, section 3); this is the worst case of our encoder."""
    mask = random_mask((300, 784), round(share * 235_200), 7, 0)
    assert len(encode(mask)[1]) <= 1.06 * entropy_bound_bytes([mask])


@pytest.mark.parametrize(
    ("encoding", "body", "kept", "message"),
    [
        ("bits", frame(bytes(12)), 0, "12 bytes of mask, expected 13"),
        ("bits", frame(bytes(12) + b"\x01"), 0, "padding"),
        ("bits", frame(bytes(14)), 0, "14 bytes, expected at most 13"),
        ("bits", frame(bytes(14), says_size=False), 0, "more than 13 bytes"),
        ("bits", frame(b"\x80" + bytes(12)), 2, "keeps 1 elements, but kept is 2"),
        ("gaps", frame(bytes([99])), 2, "keeps 1 elements, but kept is 2"),
        ("gaps", frame(bytes([100])), 1, "past the end of 100"),
        ("gaps", frame(bytes([255])), 1, "middle of a number"),
        ("gaps", frame(bytes(7)), 5, "7 bytes, expected at most 6"),
        ("gaps", frame(bytes(1)) + b"x", 1, "after the mask's zstd frame"),
        ("gaps", frame(bytes(1)) + frame(b""), 1, "after the mask's zstd frame"),
        ("gaps", frame(bytes([9]))[:-1], 1, "cut off"),
        ("gaps", b"", 1, "starts with nothing, expected a zstd frame"),
        ("gaps", b"\x50\x2a\x4d\x18" + bytes(4), 1, "expected a zstd frame"),
        ("gaps", b"\x28\xb5\x2f\xfd" + bytes(3), 1, "one whole zstd frame|cut off"),
        ("rle", frame(b""), 1, "unknown encoding 'rle'"),
        ("bits", frame(bytes(13)), 101, "kept is 101, expected 0 to 100"),
    ],
)
def test_a_broken_mask_is_refused_with_what_was_found(
    encoding: str, body: bytes, kept: int, message: str
) -> None:
    with pytest.raises(InvalidTicket, match=message):
        decode(encoding, body, (10, 10), kept)


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("encoding", ["bits", "gaps"])
def test_a_zstd_bomb_costs_little_memory(encoding: str, says_size: bool) -> None:
    bomb = zstandard.ZstdCompressor(level=3, write_content_size=says_size).compress(bytes(2**28))
    tracemalloc.start()
    with pytest.raises(InvalidTicket):
        decode(encoding, bomb, (10, 10), 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=30)
    huge = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = huge.compress(bytes(100)) + huge.flush()
    with pytest.raises(InvalidTicket, match="whole zstd frame"):
        decode("bits", body, (10, 10), 0)


def test_density_counts_layers_without_a_mask_as_kept_whole() -> None:
    masks = {"a": np.array([True, False, False, False])}
    sizes: dict[str, tuple[int, ...]] = {"a": (4,), "b": (2, 3)}
    assert kept_count(masks, sizes) == 7
    assert density(masks, sizes) == 0.7


def test_the_digest_is_of_the_canonical_bits() -> None:
    one, other = np.array([True, False]), np.array([[True], [False]])
    assert mask_sha256(one) == mask_sha256(other)
    assert mask_sha256(one) != mask_sha256(~one)
