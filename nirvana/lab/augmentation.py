"""Augmentation on tensors: random crops and flips, drawn from a counter, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nirvana.initial import words

PADDING = 4
_STREAM = 0x4155474D  # "AUGM"


def augment(x_BCHW: Tensor, names: Sequence[str], order_seed: int, step: int) -> Tensor:
    """The batch of update `step`, each image shifted by up to 4 pixels (`crop`: padded with 4 zeros on each
    side, then cut to its size) and mirrored or not (`flip`), both at random.

    The draws follow from (order_seed, step), so a training taken up at a step goes on as one that never
    stopped, and every arm of a verification sees the same images.

    Args:
        x_BCHW: normalised images: a padded 0 is the data set's mean.

    Reference: He et al. 2015 (arXiv 1512.03385), section 4.2.
    """
    batch = len(x_BCHW)
    drawn = words(order_seed, step, _STREAM, np.arange(3 * batch)).reshape(3, batch)
    if "crop" in names:
        span = 2 * PADDING + 1
        down, right = (torch.from_numpy((row % span).astype(np.int64)) for row in drawn[:2])
        x_BCHW = _crop(x_BCHW, down, right)
    if "flip" in names:
        is_flipped = torch.from_numpy(drawn[2] >> np.uint32(31) == 1)
        x_BCHW = torch.where(is_flipped[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
    return x_BCHW


def _crop(x_BCHW: Tensor, down: Tensor, right: Tensor) -> Tensor:
    height, width = x_BCHW.shape[2:]
    windows = F.pad(x_BCHW, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x_BCHW)), :, down, right]
