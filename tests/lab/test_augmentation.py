"""Random crops and flips on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nirvana.torch.dense import PADDING, augment

SEED, STEP = 11, 5


def pictures(batch: int = 64, channels: int = 2, height: int = 6, width: int = 7) -> Tensor:
    """No two values equal and none 0, so that every shift and flip is seen."""
    return torch.arange(1.0, 1 + batch * channels * height * width).reshape(batch, channels, height, width)


def crops_of(image: Tensor) -> dict[tuple[int, int], Tensor]:
    """Every crop of a padded image, cut with plain slices, by (down, right)."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * PADDING, width + 2 * PADDING)
    padded[:, PADDING:-PADDING, PADDING:-PADDING] = image
    shifts = range(2 * PADDING + 1)
    return {(d, r): padded[:, d : d + height, r : r + width] for d in shifts for r in shifts}


def place_of(cropped: Tensor, image: Tensor) -> tuple[int, int]:
    """The one crop of `image` that `cropped` is."""
    (place,) = [place for place, crop in crops_of(image).items() if torch.equal(crop, cropped)]
    return place


def test_each_image_is_cropped_out_of_its_own_padded_self() -> None:
    x = pictures()
    y = augment(x, ["crop"], SEED, STEP)
    assert y.shape == x.shape
    places = [place_of(cropped, image) for cropped, image in zip(y, x, strict=True)]
    assert len(set(places)) > 30


def test_each_image_is_mirrored_left_to_right_or_left_alone() -> None:
    x = pictures()
    y = augment(x, ["flip"], SEED, STEP)
    is_flipped = [torch.equal(mirrored, image.flip(-1)) for mirrored, image in zip(y, x, strict=True)]
    is_same = [torch.equal(mirrored, image) for mirrored, image in zip(y, x, strict=True)]
    assert all(a != b for a, b in zip(is_flipped, is_same, strict=True))
    assert 16 < sum(is_flipped) < 48


def test_crop_and_flip_together_are_the_crop_flipped() -> None:
    x = pictures()
    cropped, both = augment(x, ["crop"], SEED, STEP), augment(x, ["crop", "flip"], SEED, STEP)
    flipped = augment(cropped, ["flip"], SEED, STEP)
    assert torch.equal(both, flipped)
    assert torch.equal(augment(x, ["flip", "crop"], SEED, STEP), both)


def test_no_augmentation_is_the_batch_itself() -> None:
    x = pictures()
    assert torch.equal(augment(x, [], SEED, STEP), x)


@pytest.mark.parametrize("names", [["crop"], ["flip"], ["crop", "flip"]])
def test_the_batch_given_is_left_as_it_was(names: list[str]) -> None:
    x = pictures()
    augment(x, names, SEED, STEP)
    assert torch.equal(x, pictures())


def test_the_same_seed_and_step_give_the_same_images_and_others_others() -> None:
    x, names = pictures(), ["crop", "flip"]
    y = augment(x, names, SEED, STEP)
    torch.manual_seed(0)
    assert torch.equal(augment(x, names, SEED, STEP), y)
    assert not torch.equal(augment(x, names, SEED, STEP + 1), y)
    assert not torch.equal(augment(x, names, SEED + 1, STEP), y)


def test_the_draws_never_move() -> None:
    x = pictures(batch=6)
    places = [place_of(y, image) for y, image in zip(augment(x, ["crop"], 0, 1), x, strict=True)]
    flips = [not torch.equal(y, image) for y, image in zip(augment(x, ["flip"], 0, 1), x, strict=True)]
    assert places == [(4, 2), (7, 7), (8, 8), (0, 1), (1, 8), (7, 4)]
    assert flips == [True, True, False, True, False, False]


def test_shifts_are_uniform_over_nine_rows_and_nine_columns_and_flips_fair() -> None:
    x = pictures(batch=500, channels=1, height=2, width=2)
    counts = np.zeros((9, 9))
    flips = 0
    for step in range(6):
        # Rows and columns are told by where the known values lie; a crop past the image has none left.
        y = augment(torch.ones(500, 1, 10, 10), ["crop"], SEED, step)
        rows, columns = (y[:, 0].any(dim=axis) for axis in (2, 1))
        for row, column in zip(rows, columns, strict=True):
            counts[shift(row), shift(column)] += 1
        flips += int((augment(x, ["flip"], SEED, step) != x).flatten(1).any(dim=1).sum())
    n = 3000
    assert abs(flips / n - 0.5) < 4 * np.sqrt(0.25 / n)
    for margin in (counts.sum(axis=0), counts.sum(axis=1)):
        assert np.abs(margin / n - 1 / 9).max() < 4 * np.sqrt(1 / 9 * 8 / 9 / n)
    chi_squared = ((counts - n / 81) ** 2 / (n / 81)).sum()
    assert chi_squared < 140  # 80 degrees of freedom: above with probability 4e-5


def shift(is_inside: Tensor) -> int:
    """By how much 10 ones were shifted: 0 to 8, of which 4 is none."""
    places = is_inside.nonzero().flatten()
    outside = 10 - len(places)
    return PADDING - outside if int(places[-1]) == 9 and outside else PADDING + outside


def test_the_edges_that_a_crop_brings_in_are_zero() -> None:
    y = augment(torch.ones(64, 3, 8, 8), ["crop"], SEED, STEP)
    assert set(y.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[:, 0], y[:, 2])


def test_a_batch_of_one_is_augmented_too() -> None:
    assert augment(pictures(batch=1), ["crop", "flip"], SEED, STEP).shape == (1, 2, 6, 7)
